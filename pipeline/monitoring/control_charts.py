"""The ways in which a version can be worse than promised, each as one value a night that grows with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from pipeline.monitoring.cusum import ALLOWANCE
from pipeline.monitoring.quality import Output


@dataclass(frozen=True)
class Judged:
    """The realised quality of a night: its metrics, as `quality` names them, of so many labelled rows."""

    day: date
    labelled: int
    metrics: Mapping[str, float]

    def metric(self, name: str) -> float:
        """The metric, NaN where this night has none of that name."""
        return self.metrics.get(name, np.nan)


Value: TypeAlias = Callable[[Judged], float]


@dataclass(frozen=True)
class Chart:
    """One way of being worse."""

    cause: str
    value: Value
    """Of a night; NaN where it is not defined."""
    told: tuple[str, ...]
    """The metrics by which people see it."""
    moved: Callable[[Sequence[Judged]], float] = lambda _: 0.0
    """How far the promise is from the mean value of its reference nights."""
    allowance: float = ALLOWANCE
    weight: float = 1.0
    """Its part of the budget of false alarms, beside those of the others."""
    nights: int | None = None
    """How long it must last before it is told, where that is not for the job to say."""


def log_odds_gap(night: Judged) -> float:
    """How much too high the scores were, in log-odds; rates of 0 and 1 count as half a row."""
    half = 0.5 / night.labelled
    score, rate = np.clip([night.metric("mean_score"), night.metric("base_rate")], half, 1 - half)
    return float(logit(score) - logit(rate))


def log_odds_error(nights: Sequence[Judged]) -> float:
    """By how much, in log-odds, the scores of these nights were too low in total; 0 where they were right.

    The promise of a probability is that the totals agree. Mean log-odds gaps do not tell that, as nights
    differ much and rates are skewed; but as much as the total is moved, the gaps move.
    """
    held = [night for night in nights if not np.isnan(log_odds_gap(night))]
    score = np.array([night.metric("mean_score") for night in held])
    total = sum(night.metric("base_rate") for night in held)
    if not 0 < total < len(held):
        return 0.0
    return float(brentq(lambda moved: expit(logit(score) + moved).sum() - total, -20, 20))


def _auc_shortfall(night: Judged) -> float:
    # In log-odds the nights of good and of poor models spread alike.
    return float(-logit(np.clip(night.metric("auc"), 0.001, 0.999)))


def _lost_meaning(night: Judged) -> float:
    return -night.metric("calibration_slope")


def _log_error(night: Judged) -> float:
    return float(np.log(max(night.metric("mae"), np.finfo(np.float64).tiny)))


# The slope falls from 1 to 0, by two standard deviations of the nights and more: an allowance of half of that
# finds it soonest (Montgomery), and a small part of the budget is enough. Held-out nights keep no slope: its
# reference is the version's first nights.
MEANING = Chart(
    "quality: scores have lost their meaning",
    _lost_meaning,
    ("calibration_slope",),
    allowance=1.0,
    weight=1 / 2,
    nights=3,
)

CHARTS: Mapping[Output, tuple[Chart, ...]] = {
    "probability": (
        Chart("calibration: scores too high", log_odds_gap, ("mean_score", "base_rate"), log_odds_error),
        Chart(
            "calibration: scores too low",
            lambda night: -log_odds_gap(night),
            ("mean_score", "base_rate"),
            lambda nights: -log_odds_error(nights),
        ),
        Chart("quality: AUC below its promise", _auc_shortfall, ("auc",)),
        MEANING,
    ),
    "value": (
        Chart("bias: values too high", lambda night: night.metric("bias"), ("bias",)),
        Chart("bias: values too low", lambda night: -night.metric("bias"), ("bias",)),
        Chart("quality: error above its promise", _log_error, ("mae",)),
        MEANING,
    ),
}
"""What is watched, by the model's output."""
