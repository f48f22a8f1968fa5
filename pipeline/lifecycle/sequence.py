"""A confidence sequence of the mean of daily differences: looking at it every night makes no peeking error.

The unit is the night: rows of one night share weather, news and faults, so a bound over rows is too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Bounds:
    """The mean of n nights' differences and where the true one lies, on every night at once."""

    nights: int
    mean: float
    lower: float
    upper: float


def mean_bounds(differences: npt.NDArray[np.float64], error: float, planned_nights: int) -> Bounds:
    """Bounds of the mean of daily differences, float64 (nights,), unknown variance.

    The chance that the true mean is ever outside, on any night, is at most `error` for Gaussian differences:
    the Bayes factor of Gaussian effect sizes N(0, g) under the right Haar prior of the scale is a test
    martingale (Lai 1976, Annals of Statistics 4; Wang and Ramdas 2024, "Anytime-valid t-tests and confidence
    sequences for Gaussian means with unknown variance"). g makes the bounds tightest after `planned_nights`.
    With fewer than two nights, or too few to say anything at this error, the bounds are infinite.
    """
    nights = len(differences)
    mean = float(differences.mean()) if nights else math.nan
    if nights < 2:
        return Bounds(nights, mean, -math.inf, math.inf)
    spread = float(differences.std(ddof=1))
    half = spread * _half_width(nights, error, _effect_variance(error, planned_nights))
    if math.isnan(half):  # all nights equal, and too few to say anything
        half = math.inf
    return Bounds(nights, mean, mean - half, mean + half)


def _half_width(nights: int, error: float, g: float) -> float:
    """In standard deviations of a night; infinite where so few nights exclude nothing."""
    shrunken = 1 / (1 + nights * g)
    level = (math.sqrt(1 + nights * g) / error) ** (2 / nights)
    if level * shrunken >= 1:
        return math.inf
    return math.sqrt((nights - 1) * (level - 1) / (1 - level * shrunken) / nights)


@lru_cache(maxsize=64)
def _effect_variance(error: float, planned_nights: int) -> float:
    """The variance of effect sizes whose bounds are tightest at the planned number of nights."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_g: min(_half_width(planned_nights, error, math.exp(log_g)), 1e6),
        bounds=(math.log(1e-3), math.log(1e3)),
        method="bounded",
    )
    return math.exp(float(found.x))
