"""A version answers made-up rows as it did when it was trained, or not at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pipeline.errors import ModelError
from pipeline.lifecycle.known_answers import ROWS, KnownAnswers, made_up
from pipeline.scoring.feature_code import FeatureType

RANDOM = np.random.default_rng(5)
SCHEMA: dict[str, FeatureType] = {"kind": "category?", "size": "float", "age": "float?"}
FEATURES = pd.DataFrame(
    {
        "kind": pd.Series(RANDOM.choice(["ball", "doll", "kite"], 400, p=[0.7, 0.2, 0.1]), dtype="str"),
        "size": RANDOM.normal(5, 2, 400),
        "age": np.where(RANDOM.random(400) < 0.1, np.nan, RANDOM.gamma(2, 3, 400)),
    }
)


class Sizes:
    """A model of the size alone, whose scores a test may move in log-odds."""

    classes_ = (0, 1)

    def __init__(self, moved: float = 0.0) -> None:
        self.moved = moved

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        yes = expit(frame["size"].to_numpy() - 5 + self.moved)
        return np.column_stack([1 - yes, yes])


def rows() -> pd.DataFrame:
    made = made_up(FEATURES, SCHEMA, ())
    assert made is not None
    return made


def test_made_up_rows_cover_each_column_and_are_the_same_each_time() -> None:
    made = rows()
    pd.testing.assert_frame_equal(made, rows())
    assert len(made) == ROWS
    assert made["size"].is_unique
    assert made["size"].min() < FEATURES["size"].quantile(0.05) < FEATURES["size"].quantile(0.95)
    assert made["kind"].value_counts().to_dict() == pytest.approx({"ball": 11, "doll": 3, "kite": 2}, abs=1)
    assert not made.isna().any().any()


def test_no_made_up_row_is_one_that_was_there() -> None:
    assert rows().merge(FEATURES.dropna(), on=list(SCHEMA)).empty


def test_of_personal_data_and_of_an_empty_feature_nothing_is_made_up() -> None:
    assert made_up(FEATURES, SCHEMA, ("kind",)) is None
    assert made_up(FEATURES.assign(age=np.nan), SCHEMA, ()) is None


def test_the_same_model_is_taken_after_its_answers_were_written_as_json() -> None:
    columns = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model = columns.fit(rows()[["kind", "size", "age"]], [True, False] * (ROWS // 2))
    written = json.dumps(KnownAnswers.of(model, rows(), "probability").written())
    KnownAnswers.read(json.loads(written)).check(model, SCHEMA, "probability")


@pytest.mark.parametrize("moved", [-0.4, 0.001, 1.0])
def test_a_model_whose_scores_have_moved_is_refused(moved: float) -> None:
    known = KnownAnswers.of(Sizes(), rows(), "probability")
    with pytest.raises(ModelError, match="must answer 16 known rows as when it was trained"):
        known.check(Sizes(moved), SCHEMA, "probability")


def test_what_another_processor_rounds_is_no_other_answer() -> None:
    known = KnownAnswers.of(Sizes(), rows(), "probability")
    known.check(Sizes(1e-9), SCHEMA, "probability")
    assert logit(known.scores[0]) == pytest.approx(rows()["size"][0] - 5)
