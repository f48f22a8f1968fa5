"""Realised quality, against scikit-learn and against sums by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import linregress
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from pipeline.job import Costs
from pipeline.monitoring.quality import (
    ALL,
    OTHER,
    UNKNOWN,
    Answers,
    Measured,
    calibration_error,
    log_loss,
    losses,
    measure,
    quality,
)

COSTS = Costs.model_validate({"currency": "USD", "hit": 100, "false_alarm": 90, "miss": 400, "pass": 1})


def sample(seed: int = 0, rows: int = 500) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Scores with ties, decisions at .25, labels that follow the scores."""
    random = np.random.default_rng(seed)
    score = np.round(random.beta(2, 5, rows), 2)
    return score, score >= 0.25, (random.random(rows) < score).astype(float)


def answers(**changed: Any) -> Answers:
    score, decision, label = sample()
    given: dict[str, Any] = {"score": score, "decision": decision, "label": label}
    given |= {"arm": np.full(len(score), None, dtype=object), "slices": {}}
    return Answers(**(given | changed))


def by_place(measured: list[Measured]) -> dict[tuple[str, str, str, str], Measured]:
    return {(each.arm, each.slice_column, each.slice_value, each.metric): each for each in measured}


@given(st.integers(0, 10_000))
def test_probabilities_are_measured_as_scikit_learn_does(seed: int) -> None:
    score, decision, label = sample(seed)
    got = quality(score, decision, label, "probability", None)
    expected = {
        "auc": metrics.roc_auc_score(label, score),
        "log_loss": metrics.log_loss(label, score),
        "brier": metrics.brier_score_loss(label, score),
        "precision": metrics.precision_score(label, decision),
        "recall": metrics.recall_score(label, decision),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    passes, false_alarms, misses, hits = metrics.confusion_matrix(label, decision).ravel()
    counts = (got["hits"], got["false_alarms"], got["misses"], got["passes"])
    assert counts == (hits, false_alarms, misses, passes)


def test_a_certain_error_has_the_log_loss_of_scikit_learn() -> None:
    score, label = np.array([0.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.0])
    got = quality(score, score >= 0.5, label, "probability", None)["log_loss"]
    assert got == pytest.approx(metrics.log_loss(label, score))


@pytest.mark.parametrize("meant", [-0.5, 0.0, 0.5])
def test_the_calibration_slope_of_little_meaning_is_the_logistic_one_of_scikit_learn(meant: float) -> None:
    random = np.random.default_rng(3)
    score = random.beta(4, 12, 20_000)
    label = (random.random(20_000) < expit(logit(0.25) + meant * (logit(score) - logit(0.25)))).astype(float)
    fitted = LogisticRegression(C=1e9).fit(logit(score)[:, None], label).coef_[0, 0]
    got = quality(score, None, label, "probability", None)["calibration_slope"]
    assert got == pytest.approx(fitted, abs=0.05)
    assert got == pytest.approx(meant, abs=0.1)


def test_the_calibration_slope_of_values_is_that_of_least_squares() -> None:
    random = np.random.default_rng(4)
    score = random.normal(size=300)
    label = 2 + 0.7 * score + random.normal(size=300)
    got = quality(score, None, label, "value", None)["calibration_slope"]
    assert got == pytest.approx(linregress(score, label).slope)


def test_equal_scores_have_no_calibration_slope() -> None:
    got = quality(np.full(4, 0.3), None, np.array([0.0, 1, 0, 1]), "probability", None)
    assert "calibration_slope" not in got


@given(st.integers(0, 10_000))
def test_calibration_error_is_that_of_scikit_learns_curve(seed: int) -> None:
    random = np.random.default_rng(seed)
    score = random.beta(2, 5, 500)
    label = (random.random(500) < score).astype(float)
    rate, mean = calibration_curve(label, score, n_bins=10)
    rows = np.histogram(score, bins=np.linspace(0, 1, 11))[0]
    expected = np.abs(rate - mean) @ rows[rows > 0] / len(score)
    assert calibration_error(score, label) == pytest.approx(float(expected))


def test_calibration_error_of_two_bins_by_hand() -> None:
    score, label = np.array([0.12, 0.14, 0.9, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(score, label) == pytest.approx((2 * 0.37 + 2 * 0.05) / 4)


def test_the_calibration_gap_is_positive_where_scores_are_too_high() -> None:
    score, label = np.array([0.5, 0.5]), np.array([0.0, 0.0])
    got = quality(score, score >= 0.25, label, "probability", None)
    assert (got["mean_score"], got["base_rate"], got["calibration_gap"]) == (0.5, 0.0, 0.5)


def test_values_are_measured_as_scikit_learn_does() -> None:
    random = np.random.default_rng(1)
    label = random.normal(100, 10, 300)
    score = label + random.normal(2, 5, 300)
    got = quality(score, None, label, "value", None)
    assert got["mae"] == pytest.approx(metrics.mean_absolute_error(label, score))
    assert got["rmse"] == pytest.approx(metrics.root_mean_squared_error(label, score))
    assert got["bias"] == pytest.approx(score.mean() - label.mean())
    assert (got["mean_score"], got["mean_label"]) == (score.mean(), label.mean())


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_day_of_one_class_has_no_auc_rather_than_a_wrong_one(label: float) -> None:
    got = quality(np.array([0.2, 0.6]), np.array([False, True]), np.full(2, label), "probability", None)
    assert "auc" not in got
    assert got["brier"] == pytest.approx(((0.2 - label) ** 2 + (0.6 - label) ** 2) / 2)


def test_without_alerts_there_is_no_precision_and_without_positives_no_recall() -> None:
    got = quality(np.array([0.1, 0.2]), np.array([False, False]), np.zeros(2), "probability", None)
    assert not {"precision", "recall"} & got.keys()
    assert got["decision_rate"] == 0.0


def test_the_cost_of_decisions_by_hand() -> None:
    decision = np.array([True, True, True, False, False, False, False])
    label = np.array([1, 0, 0, 1, 0, 0, 0], dtype=float)
    got = quality(np.linspace(0.9, 0.1, 7), decision, label, "probability", COSTS)
    assert got["cost"] == 100 + 2 * 90 + 400 + 3 * 1
    assert got["cost_per_1000"] == pytest.approx(683 / 7 * 1000)
    assert got["cost_no_model"] == 2 * 400 + 5 * 1


def test_the_cost_of_values_by_hand() -> None:
    costs = Costs.model_validate({"currency": "EUR", "over": 2, "under": 5})
    got = quality(np.array([12.0, 7.0, 5.0]), None, np.array([10.0, 10.0, 5.0]), "value", costs)
    assert got["cost"] == 2 * 2 + 3 * 5
    assert "cost_no_model" not in got


def test_rows_without_a_label_count_in_coverage_and_nowhere_else() -> None:
    score, _, label = sample()
    label = np.where(np.arange(len(label)) < 100, np.nan, label)
    measured = by_place(measure(answers(label=label), "probability", COSTS))
    auc = measured[ALL, ALL, ALL, "auc"]
    assert (auc.rows, auc.labelled) == (500, 400)
    assert auc.value == pytest.approx(metrics.roc_auc_score(label[100:], score[100:]))
    assert measured[ALL, ALL, ALL, "coverage"].value == 0.8


def test_a_day_without_labels_has_its_coverage_only() -> None:
    (only,) = measure(answers(label=np.full(500, np.nan)), "probability", COSTS)
    assert (only.metric, only.value, only.rows, only.labelled) == ("coverage", 0.0, 500, 0)


def test_each_value_of_a_slice_is_measured_apart() -> None:
    score, _, label = sample()
    carrier = np.array(["AA", "UA", None], dtype=object)[np.arange(500) % 3]
    measured = by_place(measure(answers(slices={"carrier": carrier}), "probability", None))
    values = {value for _, column, value, _ in measured if column == "carrier"}
    assert values == {"AA", "UA", UNKNOWN}
    chosen = np.arange(500) % 3 == 1
    united = measured[ALL, "carrier", "UA", "auc"]
    assert united.value == pytest.approx(metrics.roc_auc_score(label[chosen], score[chosen]))
    assert united.rows == chosen.sum()


def test_a_slice_of_many_values_keeps_the_most_frequent_ones() -> None:
    place = np.array([f"p{min(n, 480 - n)}" for n in range(500)], dtype=object)
    measured = by_place(measure(answers(slices={"place": place}), "probability", None))
    rows = {value: m.rows for (_, column, value, _), m in measured.items() if column == "place"}
    assert len(rows) == 51
    assert OTHER in rows
    assert sum(rows.values()) == 500


def test_arms_are_measured_apart() -> None:
    arm = np.where(np.arange(500) < 200, "challenger", "champion").astype(object)
    measured = by_place(measure(answers(arm=arm), "probability", None))
    assert measured["challenger", ALL, ALL, "brier"].rows == 200
    assert measured["champion", ALL, ALL, "brier"].rows == 300
    assert measured[ALL, ALL, ALL, "brier"].rows == 500


def test_the_losses_of_rows_add_up_to_what_is_measured_of_them_together() -> None:
    score, decision, label = sample()
    money = losses(score, decision, label, "probability", COSTS)
    assert money.sum() == pytest.approx(quality(score, decision, label, "probability", COSTS)["cost"])
    assert losses(score, decision, label, "probability", None).mean() == pytest.approx(log_loss(score, label))
    value = Costs(currency="USD", over=2.0, under=5.0)
    over_under = losses(10 * score, None, label, "value", value)
    assert over_under.sum() == pytest.approx(quality(10 * score, None, label, "value", value)["cost"])
    squared = losses(10 * score, None, label, "value", None)
    assert squared.mean() == pytest.approx(quality(10 * score, None, label, "value", None)["rmse"] ** 2)
