"""How far a night lies from the nights before it, in standard deviations from night to night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

WINDOW = 56
"""Nights before: eight of each weekday."""
LEAST = 21
"""Fewer nights before say nothing: three of each weekday."""

_CLIPPED = 4.0  # standard deviations; one broken week must not blind the eight after it
_TO_SD = 2.563  # of a normal distribution, from its 10 % to its 90 % quantile
_STILL = 1e-9  # relative spread below which a column does not vary at all


@dataclass(frozen=True)
class Surprise:
    """float64 (nights, statistics), NaN where there is no history: the night's `z`, and what it is measured by.

    `centre` is what was expected of that weekday, `spread` the standard deviation of a night around it.
    """

    z: Floats
    centre: Floats
    spread: Floats


def surprise(
    values: Floats, weekdays: npt.NDArray[np.int64], floors: Floats, first: int = LEAST
) -> Surprise:
    """Of each night from `first` on against the WINDOW nights before it, at least LEAST.

    `values` (nights, statistics), `weekdays` (nights,) from 0 to 6, `floors` (statistics,).

    Values beyond 4 standard deviations (from the 10 % and 90 % quantiles) are clipped before mean and
    standard deviation are taken. A weekday's own level counts as far as the window shows one: its deviation is
    shrunken by 1 - 1/F, the positive-part estimator of James and Stein, 1961, with F of the one-way analysis
    of variance.
    """
    z, centre, spread = (np.full(values.shape, np.nan) for _ in range(3))
    for night in range(max(first, LEAST), len(values)):
        before = slice(max(0, night - WINDOW), night)
        centre[night], spread[night] = _expected(values[before], weekdays[before], int(weekdays[night]), floors)
    known = spread > _STILL * np.maximum(np.abs(centre), 1e-12)
    np.divide(values - centre, spread, out=z, where=known)
    return Surprise(z, np.where(known, centre, np.nan), np.where(known, spread, np.nan))


def _expected(
    window: Floats, weekdays: npt.NDArray[np.int64], weekday: int, floors: Floats
) -> tuple[Floats, Floats]:
    """Centre and standard deviation of the next night, float64 (statistics,)."""
    known = ~np.isnan(window)
    count = known.sum(axis=0)
    enough = count >= LEAST
    filled = np.where(known, window, _median(window, enough))
    low, middle, high = np.quantile(filled, [0.1, 0.5, 0.9], axis=0)
    reach = _CLIPPED * np.maximum((high - low) / _TO_SD, floors)
    clipped = np.clip(filled, middle - reach, middle + reach)
    mean = clipped.mean(axis=0)
    deviations = clipped - mean
    members = np.equal.outer(np.arange(7), weekdays).astype(np.float64)
    nights = np.maximum(members.sum(axis=1), 1)[:, np.newaxis]
    levels = members @ deviations / nights
    between = (nights * levels**2).sum(axis=0) / 6
    within = ((deviations - levels[weekdays]) ** 2).sum(axis=0) / (len(window) - 7)
    shrunken = np.clip(1 - np.divide(within, between, out=np.ones_like(mean), where=between > 0), 0, 1)
    left = deviations - shrunken * levels[weekdays]
    variance = (left**2).sum(axis=0) / (len(window) - 1 - 6 * shrunken)
    spread = np.sqrt((variance + floors**2) * (1 + 1 / np.maximum(count, 1)))
    return (
        np.where(enough, mean + shrunken * levels[weekday], np.nan),
        np.where(enough, spread, np.nan),
    )


def _median(window: Floats, enough: npt.NDArray[np.bool_]) -> Floats:
    medians = np.zeros(window.shape[1])
    if enough.any():
        medians[enough] = np.nanmedian(window[:, enough], axis=0)
    return medians
