from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters import models
from pipeline.errors import FatalError
from pipeline.job_life import Train
from pipeline.lifecycle.fit import Candidate, TrainingRows, fit, key_hashes, sample_by_key
from pipeline.scoring.feature_code import load_feature_code

SOURCE = """
FEATURES = {"size": "float", "noise": "float"}

def make_features(rows, history): ...

def make_model():
    from sklearn.ensemble import RandomForest%(kind)s
    from sklearn.pipeline import make_pipeline
    return make_pipeline(RandomForest%(kind)s(10, max_depth=3))

def make_baseline():
    from sklearn.dummy import Dummy%(kind)s
    return Dummy%(kind)s()
"""
NIGHTS, PER_NIGHT = 10, 40
TRAIN = Train(holdout_nights=3, seed=1)


def nights(count: int = NIGHTS) -> TrainingRows:
    """Rows whose label depends on their size."""
    random = np.random.default_rng(0)
    n = count * PER_NIGHT
    size = random.normal(size=n)
    return TrainingRows(
        features=pd.DataFrame({"size": size, "noise": random.normal(size=n)}),
        label=size + random.normal(size=n) > 0,
        day=np.datetime64("2013-05-01") + np.arange(n) // PER_NIGHT,
        key=random.integers(0, 2**63, n).astype(np.uint64),
    )


def with_label(rows: TrainingRows, label: Any) -> TrainingRows:
    return TrainingRows(rows.features, label, rows.day, rows.key)


def fitted(
    rows: TrainingRows, train: Train = TRAIN, output: Literal["probability", "value"] = "probability"
) -> Candidate:
    source = SOURCE % {"kind": "Classifier" if output == "probability" else "Regressor"}
    return fit(load_feature_code("toy", source, {}), rows, train, output)


def predictions(candidate: Candidate) -> Any:
    return candidate.model.predict_proba(nights().features)


def test_the_last_nights_are_held_out_and_measured() -> None:
    holdout = fitted(nights()).holdout
    assert (holdout.first, holdout.last) == (date(2013, 5, 8), date(2013, 5, 10))
    assert (holdout.nights, holdout.rows) == (3, 3 * PER_NIGHT)
    assert holdout.mean_label == nights().label[-3 * PER_NIGHT :].mean()
    assert holdout.model["auc"] > 0.7 > holdout.baseline["auc"] == 0.5
    assert holdout.model["brier"] < holdout.baseline["brier"]
    assert holdout.model["log_loss"] < holdout.baseline["log_loss"]


def test_the_scores_of_the_held_out_rows_are_kept_as_they_were_measured() -> None:
    candidate = fitted(nights())
    label = nights().ordered().label[-3 * PER_NIGHT :]
    assert candidate.holdout.model["brier"] == pytest.approx(np.mean((candidate.holdout_scores - label) ** 2))


def test_each_held_out_night_is_measured_for_itself() -> None:
    holdout = fitted(nights()).holdout
    assert list(holdout.by_night) == ["2013-05-08", "2013-05-09", "2013-05-10"]
    last = nights().label[-PER_NIGHT:]
    assert holdout.by_night["2013-05-10"]["base_rate"] == last.mean()
    assert {night["rows"] for night in holdout.by_night.values()} == {PER_NIGHT}
    brier = [night["brier"] for night in holdout.by_night.values()]
    assert sum(brier) / 3 == pytest.approx(holdout.model["brier"])


def test_a_held_out_night_of_one_class_has_means_and_no_auc() -> None:
    rows = nights()
    one_class = np.where(rows.day == np.datetime64("2013-05-10"), True, rows.label)
    last = fitted(with_label(rows, one_class)).holdout.by_night["2013-05-10"]
    assert last.keys() == {"base_rate", "mean_score", "rows"}


def test_the_measured_model_has_not_seen_the_hold_out() -> None:
    rows = nights()
    turned = np.where(rows.day >= np.datetime64("2013-05-08"), ~rows.label, rows.label)
    assert fitted(with_label(rows, turned)).holdout.model["auc"] < 0.3


def test_the_candidate_is_fitted_on_all_nights() -> None:
    candidate = fitted(nights())
    assert (candidate.first, candidate.last) == (date(2013, 5, 1), date(2013, 5, 10))
    assert (candidate.nights, candidate.rows) == (10, 400)
    assert candidate.baseline.class_prior_[1] == pytest.approx(nights().label.mean())


def test_equal_rows_and_seed_give_equal_predictions_in_whatever_order_rows_come() -> None:
    rows = nights()
    shuffled = rows.take(np.random.default_rng(5).permutation(len(rows.label)))
    first, second = fitted(rows), fitted(shuffled)
    np.testing.assert_array_equal(predictions(first), predictions(second))
    assert first.holdout == second.holdout


def test_the_seed_reaches_the_model_inside_its_pipeline() -> None:
    first, second = fitted(nights()), fitted(nights(), Train(holdout_nights=3, seed=2))
    assert first.model[-1].random_state == 1
    assert (predictions(first) != predictions(second)).any()


def test_a_model_of_values_has_its_own_metrics() -> None:
    rows = nights()
    rows = with_label(rows, rows.features["size"].to_numpy() * 10 + 100)
    holdout = fitted(rows, output="value").holdout
    assert holdout.model.keys() == {"mae", "rmse", "bias"}
    assert holdout.model["mae"] < holdout.baseline["mae"] < holdout.baseline["rmse"]


def test_bias_is_prediction_minus_label() -> None:
    rows = nights()
    label = np.where(rows.day >= np.datetime64("2013-05-08"), 1.0, 4.0)
    assert fitted(with_label(rows, label), output="value").holdout.baseline["bias"] == 3.0


def test_labels_that_are_no_numbers_are_told_without_their_values() -> None:
    rows = nights()
    label = np.where(np.arange(len(rows.label)) == 7, "secret", "12.5").astype(object)
    with pytest.raises(FatalError, match="labels must be a finite number; got 1 others") as caught:
        fitted(with_label(rows, label), output="value")
    assert "secret" not in str(caught.value)


OVERCONFIDENT = """
FEATURES = {"size": "float", "noise": "float"}

def make_features(rows, history): ...

def make_model():
    from sklearn.tree import DecisionTreeClassifier
    return DecisionTreeClassifier()

def make_baseline():
    from sklearn.dummy import DummyClassifier
    return DummyClassifier()
"""


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
def test_a_model_that_is_too_sure_becomes_calibrated_and_can_be_loaded(
    method: Literal["sigmoid", "temperature"], tmp_path: Path
) -> None:
    """A full-grown tree says 0 or 1 of every row, and is wrong with a third of them."""
    code = load_feature_code("toy", OVERCONFIDENT, {})
    sure, calm = (
        fit(code, nights(30), TRAIN.model_copy(update={"calibrate": how}), "probability")
        for how in (None, method)
    )
    assert (sure.refit_on_all, calm.refit_on_all) == (True, False)
    assert sure.holdout.model["brier"] > 0.3
    assert calm.holdout.model["brier"] < 0.26
    assert sure.holdout.baseline == calm.holdout.baseline
    path, sha256 = models.save(calm.model, tmp_path, "model")
    loaded = models.load(path, sha256, models.sklearn_version())
    features = nights().features
    np.testing.assert_array_equal(loaded.predict_proba(features), calm.model.predict_proba(features))


def test_what_calibrates_the_measured_model_has_not_been_measured_with() -> None:
    rows = nights()
    turned = np.where(rows.day >= np.datetime64("2013-05-08"), ~rows.label, rows.label)
    train = TRAIN.model_copy(update={"calibrate": "sigmoid"})
    assert fitted(with_label(rows, turned), train).holdout.model["auc"] < 0.3


def test_a_calibrated_model_is_fitted_before_the_hold_out_and_calibrated_on_it() -> None:
    rows = nights()
    first = rows.take(rows.day < np.datetime64("2013-05-08"))
    train = TRAIN.model_copy(update={"calibrate": "sigmoid"})
    within = fitted(rows, train).model.calibrated_classifiers_[0].estimator
    np.testing.assert_array_equal(
        within.predict_proba(rows.features), fitted(first).model.predict_proba(rows.features)
    )


def test_a_calibration_needs_as_many_nights_again() -> None:
    train = TRAIN.model_copy(update={"calibrate": "sigmoid"})
    with pytest.raises(FatalError, match="3 and as many before to calibrate on; got 6 nights with 240 rows"):
        fitted(nights(6), train)


def test_the_parameters_are_told_as_text_without_addresses() -> None:
    parameters = fitted(nights()).parameters()
    assert parameters["randomforestclassifier__max_depth"] == "3"
    assert parameters["randomforestclassifier__random_state"] == "1"
    assert "steps" not in parameters
    assert fitted(nights()).parameters() == parameters


def test_too_few_nights_are_told_with_numbers() -> None:
    with pytest.raises(FatalError, match="hold-out of 3; got 3 nights with 120 rows"):
        fitted(nights(3))


def test_no_rows_at_all_are_too_few_nights() -> None:
    with pytest.raises(FatalError, match="got 0 nights with 0 rows"):
        fitted(nights().take(np.array([], dtype=int)))


@pytest.mark.parametrize(
    ("held", "label", "expected"),
    [
        (True, False, "of the hold-out's nights must be of both classes; got 0 true of 120 rows"),
        (False, True, "of the nights before the hold-out must be of both classes; got 280 true of 280 rows"),
    ],
)
def test_a_missing_class_is_told_with_numbers(held: bool, label: bool, expected: str) -> None:
    rows = nights()
    part = (rows.day >= np.datetime64("2013-05-08")) == held
    with pytest.raises(FatalError, match=expected):
        fitted(with_label(rows, np.where(part, label, rows.label)))


@pytest.mark.parametrize(
    ("output", "label", "expected"),
    [
        ("probability", 2.0, "must be true or false; got 400 others of 400 rows"),
        ("probability", np.nan, "must be true or false; got 400 others"),
        ("value", np.inf, "must be a finite number; got 400 others"),
    ],
)
def test_a_label_that_is_none_is_refused(
    output: Literal["probability", "value"], label: float, expected: str
) -> None:
    with pytest.raises(FatalError, match=expected):
        fitted(with_label(nights(), np.full(400, label)), output=output)


def test_a_model_that_cannot_be_fitted_is_told_without_values_of_rows() -> None:
    rows = nights()
    rows = TrainingRows(rows.features.assign(noise="secret"), rows.label, rows.day, rows.key)
    with pytest.raises(FatalError, match=r"make_model\(\) of toy must fit .* float: …") as caught:
        fitted(rows)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


CATEGORY = """
FEATURES = {"kind": "category"}

def make_features(rows, history): ...

def make_model():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    return make_pipeline(OneHotEncoder(), LogisticRegression())

def make_baseline():
    from sklearn.dummy import DummyClassifier
    return DummyClassifier()
"""


def test_a_model_that_cannot_be_calibrated_is_told_without_values_of_rows() -> None:
    """The nights of the calibration have a category that the nights before had not."""
    rows = nights()
    kind = pd.DataFrame({"kind": np.where(rows.day < np.datetime64("2013-05-05"), "usual", "secret")})
    rows = TrainingRows(kind, rows.label, rows.day, rows.key)
    train = Train(holdout_nights=3, calibrate="sigmoid")
    with pytest.raises(FatalError, match=r"make_model\(\) of toy must be calibrated .* ValueError") as caught:
        fit(load_feature_code("toy", CATEGORY, {}), rows, train, "probability")
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def flights(rows: int, days: int = 2) -> pa.Table:
    day = pa.array([date(2013, 5, 1 + row % days) for row in range(rows)])
    return pa.table({"day": day, "carrier": [f"C{row % 3}" for row in range(rows)], "flight": range(rows)})


KEY = ["carrier", "flight"]


def test_key_hashes_are_the_same_in_any_process_and_year() -> None:
    """Pinned: another hash would choose other training rows."""
    assert key_hashes(flights(2), KEY).tolist() == [3559616679495853859, 10728392820841093176]


def test_the_same_key_has_another_hash_on_another_day() -> None:
    table = pa.table({"day": [date(2013, 5, 1), date(2013, 5, 2)], "flight": [1, 1]})
    assert len(set(key_hashes(table, ["flight"]).tolist())) == 2


@given(st.integers(0, 40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_sample_has_so_many_rows_of_each_day_whatever_their_order(
    rows: int, per_day: int, random: Any
) -> None:
    table = flights(rows)
    order = list(range(rows))
    random.shuffle(order)
    sample = sample_by_key(table, KEY, per_day)
    shuffled = sample_by_key(table.take(pa.array(order, pa.int64())), KEY, per_day)
    assert sample.sort_by("flight") == shuffled.sort_by("flight")
    assert sample == sample.sort_by("flight")
    counts = dict(sample.group_by("day").aggregate([([], "count_all")]).to_pandas().to_numpy().tolist())
    assert all(count == min(per_day, (rows + 1 - day.day + 1) // 2) for day, count in counts.items())


@given(st.integers(0, 40), st.integers(1, 12))
def test_a_sample_of_samples_of_parts_is_the_sample_of_the_whole(cut: int, per_day: int) -> None:
    table = flights(40)
    parts = [sample_by_key(part, KEY, per_day) for part in (table.slice(0, cut), table.slice(cut))]
    again = sample_by_key(pa.concat_tables(parts), KEY, per_day)
    assert again.combine_chunks() == sample_by_key(table, KEY, per_day).combine_chunks()
