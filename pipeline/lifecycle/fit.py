"""The training core: replayed nights become a candidate; equal nights and seed give equal predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline import frames
from pipeline.errors import FatalError
from pipeline.job_life import Train
from pipeline.partition import COLUMN
from pipeline.scoring.feature_code import FeatureCode
from pipeline.scoring.score import one_thread, predict

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Output: TypeAlias = Literal["probability", "value"]
Metrics: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class TrainingRows:
    """n labelled rows of replayed nights.

    features (n, n_features); label (n,), true or false for probabilities, numbers for values; day
    datetime64[D] (n,); key uint64 (n,), see `key_hashes`: it fixes the order of rows.
    """

    features: pd.DataFrame
    label: npt.NDArray[Any]
    day: npt.NDArray[np.datetime64]
    key: npt.NDArray[np.uint64]

    def ordered(self) -> TrainingRows:
        """The same rows by day and key: in which order they were read must not matter."""
        return self.take(np.lexsort((self.key, self.day)))

    def take(self, chosen: npt.NDArray[Any]) -> TrainingRows:
        """The rows at these positions, or of this mask."""
        chosen_features = self.features.iloc[chosen].reset_index(drop=True)
        return TrainingRows(chosen_features, self.label[chosen], self.day[chosen], self.key[chosen])

    def nights(self) -> list[date]:
        """The days that have rows, sorted."""
        days: list[date] = np.unique(self.day.astype("datetime64[D]")).tolist()
        return days


@dataclass(frozen=True)
class Holdout:
    """How model and baseline did on the last nights, fitted on the nights before.

    Of probabilities: auc, log_loss, brier. Of values: mae, rmse, bias (mean of prediction - label).
    `mean_label` is the base rate of probabilities.
    """

    first: date
    last: date
    nights: int
    rows: int
    mean_label: float
    model: Metrics
    baseline: Metrics
    by_night: Mapping[str, Metrics]
    """The model's metrics of each night, by day: those above where they are defined, mean_score, rows, and
    base_rate (of values: mean_label). What the version promises of a night, and how nights differ."""

    def metrics(self) -> Metrics:
        """All of it by one name each: holdout_auc, holdout_baseline_auc and so on."""
        return (
            {f"holdout_{name}": value for name, value in self.model.items()}
            | {f"holdout_baseline_{name}": value for name, value in self.baseline.items()}
            | {"holdout_rows": self.rows, "holdout_mean_label": self.mean_label}
        )


@dataclass(frozen=True)
class Candidate:
    """Model and baseline, made of all nights, the hold-out's included, and not registered yet.

    A calibrated model is fitted on the nights before the hold-out and calibrated on the hold-out's.
    """

    code: FeatureCode
    output: Output
    model: BaseEstimator
    baseline: BaseEstimator
    rows: int
    nights: int
    first: date
    last: date
    seed: int
    holdout: Holdout
    holdout_scores: npt.NDArray[np.float64]
    """What the model fitted before the hold-out says of its rows: as new to it as a night's rows are."""
    calibrated: str | None = None
    """How the scores are calibrated; None where they are the estimator's own."""

    @property
    def refit_on_all(self) -> bool:
        """Whether the model that is registered was fitted on the hold-out's nights too."""
        return self.calibrated is None

    def parameters(self) -> dict[str, str]:
        """The model's parameters by name, as text: what of its construction scikit-learn tells."""
        told = self.model.get_params()
        return {name: _text(value) for name, value in sorted(told.items()) if not _is_nested(value)}


def fit(code: FeatureCode, rows: TrainingRows, train: Train, output: Output) -> Candidate:
    """Measure on the last `train.holdout_nights` nights, then make the model of all of them.

    With `train.calibrate`, the model that is measured is calibrated on as many nights before these.
    Raises FatalError when there are too few nights, a class is missing, a label is none, or a fit fails;
    ModelError when a fitted model gives no usable score.
    """
    rows = _labelled(rows, output).ordered()
    nights = rows.nights()
    with one_thread():
        holdout, holdout_scores = _measured(code, rows, train, output)
        return Candidate(
            code=code,
            output=output,
            model=_made(code, rows, train),
            baseline=_fitted(code, "make_baseline", rows, train.seed),
            rows=len(rows.label),
            nights=len(nights),
            first=nights[0],
            last=nights[-1],
            seed=train.seed,
            holdout=holdout,
            holdout_scores=holdout_scores,
            calibrated=train.calibrate,
        )


def key_hashes(table: pa.RecordBatch | pa.Table, key: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A hash of each row's key and day, uint64 (n,): the same in any chunk, order, process and year."""
    return frames.key_hashes(table, list(dict.fromkeys([COLUMN, *key])))


def sample_by_key(table: pa.Table, key: Sequence[str], rows_per_day: int) -> pa.Table:
    """At most that many rows of each day, those with the lowest key hashes, in their former order.

    So a row is chosen whatever the order, and a sample of samples of a day's parts is a sample of the day.
    """
    hashes = pd.Series(key_hashes(table, key))
    rank = hashes.groupby(table.column(COLUMN).to_numpy()).rank(method="first")
    return table.filter(pa.array(rank.to_numpy() <= rows_per_day))


def _labelled(rows: TrainingRows, output: Output) -> TrainingRows:
    if output == "value":
        label = pd.to_numeric(pd.Series(rows.label), errors="coerce").to_numpy(np.float64)
        usable = np.isfinite(label)
    else:
        usable = np.isin(rows.label, [0, 1])
        label = rows.label
    if not usable.all():
        wanted = "a finite number" if output == "value" else "true or false"
        raise FatalError(f"labels must be {wanted}; got {(~usable).sum()} others of {len(label)} rows")
    label = label if output == "value" else label.astype(bool)
    return TrainingRows(rows.features, label, rows.day, rows.key)


def _measured(
    code: FeatureCode, rows: TrainingRows, train: Train, output: Output
) -> tuple[Holdout, npt.NDArray[np.float64]]:
    _refuse_few_nights(rows, train)
    earlier, later = _split(rows, train.holdout_nights)
    if output == "probability":
        _refuse_one_class(earlier, "the nights before the hold-out")
        _refuse_one_class(later, "the hold-out's nights")
    scores = predict(_made(code, earlier, train), later.features, output)
    baseline = predict(_fitted(code, "make_baseline", earlier, train.seed), later.features, output)
    holdout = Holdout(
        first=later.nights()[0],
        last=later.nights()[-1],
        nights=train.holdout_nights,
        rows=len(later.label),
        mean_label=float(later.label.mean()),
        model=_metrics(scores, later.label, output),
        baseline=_metrics(baseline, later.label, output),
        by_night=_by_night(scores, later, output),
    )
    return holdout, scores


def _split(rows: TrainingRows, nights: int) -> tuple[TrainingRows, TrainingRows]:
    """The rows before the last `nights` nights, and those of them."""
    held = rows.day >= np.datetime64(rows.nights()[-nights])
    return rows.take(~held), rows.take(held)


def _made(code: FeatureCode, rows: TrainingRows, train: Train) -> BaseEstimator:
    """The job's model of these rows; with `train.calibrate`, calibrated on the last of their nights."""
    if train.calibrate is None:
        return _fitted(code, "make_model", rows, train.seed)
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    earlier, later = _split(rows, train.holdout_nights)
    _refuse_one_class(earlier, "the nights before those of the calibration")
    _refuse_one_class(later, "the nights of the calibration")
    frozen = FrozenEstimator(_fitted(code, "make_model", earlier, train.seed))
    # Folds are of no use: the model within is not fitted again, all rows calibrate it.
    calibrated = CalibratedClassifierCV(frozen, method=train.calibrate, ensemble=False)
    return _fit(calibrated, later, f"make_model() of {code.job} must be calibrated by its features")


def _refuse_few_nights(rows: TrainingRows, train: Train) -> None:
    nights, wanted = rows.nights(), train.holdout_nights
    needed = f"its hold-out of {wanted}"
    if train.calibrate is not None:
        wanted, needed = 2 * wanted, f"{needed} and as many before to calibrate on"
    if len(nights) <= wanted:
        raise FatalError(
            f"training needs more nights with labels than {needed}; got "
            f"{len(nights)} nights with {len(rows.label)} rows. Train on more nights, or lower "
            "train.holdout_nights"
        )


def _refuse_one_class(rows: TrainingRows, which: str) -> None:
    late = int(rows.label.sum())
    if late in (0, len(rows.label)):
        raise FatalError(
            f"labels of {which} must be of both classes; got {late} true of {len(rows.label)} rows from "
            f"{rows.nights()[0]} to {rows.nights()[-1]}. Train on other or more nights"
        )


def _fitted(code: FeatureCode, maker: str, rows: TrainingRows, seed: int) -> BaseEstimator:
    estimator = getattr(code.module, maker)()
    seeds = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
    seeded = estimator.set_params(**dict.fromkeys(seeds, seed))
    return _fit(seeded, rows, f"{maker}() of {code.job} must fit its features")


def _fit(estimator: BaseEstimator, rows: TrainingRows, rule: str) -> BaseEstimator:
    try:
        return estimator.fit(rows.features, rows.label)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job's model cannot be fitted
        # Quoted parts are values of rows.
        told = re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(error)).partition("\n")[0]
        message = f"{rule}; got {type(error).__name__}: {told}"
    raise FatalError(message)


def _is_nested(value: object) -> bool:
    """Whether a parameter is an estimator or a list of steps, whose own parameters are told beside it."""
    return hasattr(value, "get_params") or (isinstance(value, list) and any(map(_is_step, value)))


def _is_step(value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 1 and hasattr(value[1], "get_params")


def _text(value: object) -> str:
    """Without addresses of this process: equal parameters are equal texts."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _metrics(scores: npt.NDArray[np.float64], label: npt.NDArray[Any], output: Output) -> Metrics:
    from sklearn import metrics

    if output == "probability":
        return {
            "auc": float(metrics.roc_auc_score(label, scores)),
            "log_loss": float(metrics.log_loss(label, scores)),
            "brier": float(metrics.brier_score_loss(label, scores)),
        }
    return {
        "mae": float(metrics.mean_absolute_error(label, scores)),
        "rmse": float(metrics.root_mean_squared_error(label, scores)),
        "bias": float((scores - label).mean()),
    }


def _by_night(
    scores: npt.NDArray[np.float64], rows: TrainingRows, output: Output
) -> dict[str, dict[str, float]]:
    mean = "base_rate" if output == "probability" else "mean_label"
    found = {}
    for night in rows.nights():
        of_night = rows.day == np.datetime64(night)
        score, label = scores[of_night], rows.label[of_night]
        # A night of one class has no AUC.
        measured = _metrics(score, label, output) if output == "value" or 0 < label.sum() < len(label) else {}
        means = {mean: float(label.mean()), "mean_score": float(score.mean()), "rows": float(len(label))}
        found[night.isoformat()] = {**measured, **means}
    return found
