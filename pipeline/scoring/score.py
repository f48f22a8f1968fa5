"""Features become scores: a model's answer is taken only when it is a usable one for every row."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from threadpoolctl import ThreadpoolController

Output = Literal["probability", "value"]
Scores = npt.NDArray[np.float64]


def predict(model: BaseEstimator, frame: pd.DataFrame, output: Output) -> Scores:
    """Scores float64 (n,), one per row: the probability of the second class, or the predicted value.

    Raises ModelError when the model raises, or gives anything but n finite numbers, in [0, 1] for
    probabilities.
    """
    if len(frame) == 0:
        return np.empty(0)
    scores = _raw_scores(model, frame, output)
    if faults := _faults(scores, len(frame), output):
        raise ModelError(
            f"the model must give one {output} per row; got {' and '.join(faults)} for {len(frame)} rows"
        )
    return scores


def one_thread() -> AbstractContextManager[object]:
    """Keep boosting in the calling thread on one core.

    Workers share the cores already; on busy ones, two threads were measured ten times slower at fitting.
    """
    limited: AbstractContextManager[object] = _threads().limit(limits=1, user_api="openmp")
    return limited


def _raw_scores(model: BaseEstimator, frame: pd.DataFrame, output: Output) -> Scores:
    try:
        with one_thread():
            given = model.predict(frame) if output == "value" else _probability(model, frame)
        return np.asarray(given, dtype=np.float64)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the model failed
        message = f"the model must score every row; got {type(error).__name__} for {len(frame)} rows"
    # Raised outside the handler, without its cause: messages of scikit-learn quote values of rows.
    raise ModelError(message)


def _probability(model: BaseEstimator, frame: pd.DataFrame) -> Any:
    classes = len(model.classes_)
    if classes != 2:
        raise ModelError(f"a model of probabilities must know two classes; got {classes}")
    return model.predict_proba(frame)[:, 1]


def _faults(scores: Scores, rows: int, output: Output) -> list[str]:
    if scores.shape != (rows,):
        return [f"an answer of shape {scores.shape}"]
    wrong = {"NaN": np.isnan(scores), "infinite": np.isinf(scores)}
    if output == "probability":
        wrong["outside [0, 1]"] = np.isfinite(scores) & ((scores < 0) | (scores > 1))
    return [f"{mask.sum()} {name}" for name, mask in wrong.items() if mask.any()]


@cache
def _threads() -> ThreadpoolController:
    """Finding the loaded libraries takes 10 ms; limiting them then takes microseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
