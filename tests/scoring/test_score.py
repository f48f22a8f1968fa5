from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

from pipeline.errors import ModelError
from pipeline.scoring.score import predict

FRAME = pd.DataFrame({"size": [0.25, 0.75]})


class Classifier:
    """Gives what it is told to give, as scikit-learn's classifiers do."""

    classes_ = np.array([False, True])

    def __init__(self, second: Callable[[pd.DataFrame], Any]) -> None:
        self.second = second

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        second = np.asarray(self.second(frame))
        return np.column_stack([1 - second, second])


class Regressor:
    def predict(self, frame: pd.DataFrame) -> Any:
        return frame["size"].to_numpy(np.float32) * -10


def test_a_probability_is_that_of_the_second_class() -> None:
    scores = predict(Classifier(lambda frame: frame["size"]), FRAME, "probability")
    np.testing.assert_array_equal(scores, [0.25, 0.75])
    assert scores.dtype == np.float64


def test_a_value_is_what_the_model_predicts() -> None:
    np.testing.assert_array_equal(predict(Regressor(), FRAME, "value"), [-2.5, -7.5])


def test_no_rows_need_no_model() -> None:
    assert predict(Classifier(lambda _: 1 / 0), FRAME.iloc[:0], "probability").shape == (0,)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([0.5, np.nan], "got 1 NaN for 2 rows"),
        ([0.5, np.inf], "got 1 infinite for 2 rows"),
        ([-0.1, 1.1], r"got 2 outside \[0, 1\] for 2 rows"),
        ([np.nan, 1.5], r"got 1 NaN and 1 outside \[0, 1\]"),
        ([0.5], r"got an answer of shape \(1,\) for 2 rows"),
    ],
)
def test_an_unusable_score_is_a_model_failure(second: list[float], expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        predict(Classifier(lambda _: second), FRAME, "probability")


def test_values_may_be_any_finite_number_but_no_other() -> None:
    class Broken(Regressor):
        def predict(self, frame: pd.DataFrame) -> Any:
            return [np.inf, np.nan]

    with pytest.raises(ModelError, match="one value per row; got 1 NaN and 1 infinite"):
        predict(Broken(), FRAME, "value")


def test_a_model_that_raises_fails_without_telling_the_rows() -> None:
    def secret(frame: pd.DataFrame) -> Any:
        raise ValueError(f"could not read {frame['size'].iloc[0]}")

    with pytest.raises(ModelError, match="got ValueError for 2 rows") as caught:
        predict(Classifier(secret), FRAME, "probability")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_model_of_three_classes_has_no_probability_to_give() -> None:
    model = Classifier(lambda frame: frame["size"])
    model.classes_ = np.array([0, 1, 2])
    with pytest.raises(ModelError, match="two classes; got 3"):
        predict(model, FRAME, "probability")


def test_a_worker_thread_predicts_on_one_core() -> None:
    used: list[int] = []

    def counted(frame: pd.DataFrame) -> Any:
        used.append(_openmp_effective_n_threads(None))
        return frame["size"]

    thread = threading.Thread(target=predict, args=(Classifier(counted), FRAME, "probability"))
    thread.start()
    thread.join()
    assert used == [1]
