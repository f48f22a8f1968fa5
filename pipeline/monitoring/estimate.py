"""Quality before labels arrive: what the scores let expect, once they are calibrated on labelled nights.

Confidence-based performance estimation (CBPE: Guo et al. 2017; NannyML): with p the calibrated probability
of a row, it counts as p of a positive and 1 - p of a negative. It sees a change of scores, never of what
scores mean: that is concept drift, and only labels show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import numpy.typing as npt

from pipeline.job import Costs
from pipeline.monitoring.quality import Decided, Floats, quality

LEAST_NIGHTS = 14
"""Labelled nights of the same model version without which nothing is estimated."""
ERROR_WEEKS = 8
"""Weeks of earlier estimates, at most, over which the error of the estimate is measured; two at least."""

_SCORES = 1000  # cells of the scores' histogram: a thousandth is finer than any calibration can tell
_CORRECTED_BY = 7  # latest labelled nights whose mean error corrects the estimate
_TRUST_AFTER = 7  # nights of error that count as much as the belief that there is none
_WEEK = 7
_NO_RATES = ("cost", "cost_per_1000")


@dataclass(frozen=True)
class Night:
    """n published rows of a day, of one arm, and their labels, known from `labels_known_at` on.

    score in [0, 1], decision bool, label 0 or 1, NaN where it is never known: all (n,). `cutoff` is when the
    day was scored.
    """

    day: date
    cutoff: datetime
    labels_known_at: datetime
    score: Floats
    decision: npt.NDArray[np.bool_]
    label: Floats


def estimates(nights: Sequence[Night], costs: Costs | None) -> list[dict[str, float]]:
    """What was to be expected of each night at its own cut-off; nights of one model version, by day.

    Each has calibration_nights, how many earlier nights had their labels then. From LEAST_NIGHTS on, where
    there are rows and labels, also auc, brier, precision, recall, base_rate, cost, cost_per_1000 and, from
    two weeks of earlier estimates on, the back-tested error of each: `auc_error` is the mean absolute
    difference of the weekly means of estimated and realised values over the last ERROR_WEEKS weeks that had
    labels at that cut-off.
    """
    realised = [_realised(night, costs) for night in nights]
    counts = np.cumsum([_histogram(night) for night in nights], axis=0)
    plain: list[dict[str, float]] = []
    made: list[dict[str, float]] = []
    for night in nights:
        known = _known(nights, night, len(plain))
        can_tell = known >= LEAST_NIGHTS and len(night.score) > 0 and counts[known - 1].any()
        plain.append(expected(night, counts[known - 1], costs) if can_tell else {})
        corrected = _corrected(plain[-1], plain[:known], realised[:known], len(night.score))
        errors = _errors(made[:known], realised[:known])
        made.append({"calibration_nights": float(known)} | corrected | (errors if corrected else {}))
    return made


def _known(nights: Sequence[Night], at: Night, before: int) -> int:
    """How many of the nights before had their labels at this one's cut-off; they are the first ones."""
    return sum(night.labels_known_at <= at.cutoff for night in nights[:before])


def _realised(night: Night, costs: Costs | None) -> dict[str, float]:
    known = ~np.isnan(night.label)
    return quality(night.score[known], night.decision[known], night.label[known], "probability", costs)


def _histogram(night: Night) -> Floats:
    """Labelled rows and positive ones by score, (2, cells)."""
    known = ~np.isnan(night.label)
    cell = _cells(night.score[known])
    rows = np.bincount(cell, minlength=_SCORES + 1)
    return np.stack([rows, np.bincount(cell, weights=night.label[known], minlength=_SCORES + 1)])


def _cells(score: Floats) -> npt.NDArray[np.int64]:
    return np.rint(score * _SCORES).astype(np.int64)


def expected(night: Night, counts: Floats, costs: Costs | None) -> dict[str, float]:
    """The plain CBPE of a night: probabilities calibrated by isotonic regression on labelled `counts`."""
    p = calibrated(night.score, counts)
    alarm = night.decision
    decided = Decided(
        hits=float(p[alarm].sum()),
        false_alarms=float((1 - p[alarm]).sum()),
        misses=float(p[~alarm].sum()),
        passes=float((1 - p[~alarm]).sum()),
    )
    made = {
        "base_rate": float(p.mean()),
        "brier": float((p * (1 - night.score) ** 2 + (1 - p) * night.score**2).mean()),
        **{name: value for name, value in decided.rates().items() if name != "decision_rate"},
        **(decided.money(costs) if costs else {}),
    }
    made.pop("cost_no_model", None)
    if 0 < p.sum() < len(p):
        made["auc"] = expected_auc(night.score, p)
    return made


def calibrated(score: Floats, counts: Floats) -> Floats:
    """The probability of each score by isotonic regression; counts (2, cells): rows, positive ones."""
    from sklearn.isotonic import IsotonicRegression

    seen = np.flatnonzero(counts[0])
    rate = counts[1, seen] / counts[0, seen]
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    isotonic.fit(seen / _SCORES, rate, sample_weight=counts[0, seen])
    p: Floats = isotonic.predict(score)
    return p


def expected_auc(score: Floats, p: Floats) -> float:
    """The AUC where each row counts as p of a positive and 1 - p of a negative; ties count half."""
    _, place = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(place, weights=p), np.bincount(place, weights=1 - p)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _corrected(
    plain: Mapping[str, float],
    before: Sequence[Mapping[str, float]],
    realised: Sequence[Mapping[str, float]],
    rows: int,
) -> dict[str, float]:
    """The plain estimate plus its own mean error on the latest labelled nights, shrunken to none."""
    made = {}
    for name, value in plain.items():
        errors = _differences(name, before, realised)[-_CORRECTED_BY:]
        corrected = value - sum(errors) / (len(errors) + _TRUST_AFTER)
        made[name] = corrected if name in _NO_RATES else min(max(corrected, 0.0), 1.0)
    if "cost" in made:
        made["cost"] = made["cost_per_1000"] * rows / 1000
    return made


def _errors(made: Sequence[Mapping[str, float]], realised: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean absolute error of weekly means, by `<metric>_error`; the last week ends at the end."""
    found = {}
    for name in dict.fromkeys(name for night in made for name in night):
        differences = _differences(name, made, realised)
        whole = min(len(differences) // _WEEK, ERROR_WEEKS)
        if whole >= 2:
            weeks = np.reshape(differences[-whole * _WEEK :], (whole, _WEEK)).mean(axis=1)
            found[f"{name}_error"] = float(np.abs(weeks).mean())
    return found


def _differences(
    name: str, estimated: Sequence[Mapping[str, float]], realised: Sequence[Mapping[str, float]]
) -> list[float]:
    """Estimated minus realised of each night that has both."""
    pairs = zip(estimated, realised, strict=True)
    return [before[name] - after[name] for before, after in pairs if name in before and name in after]
