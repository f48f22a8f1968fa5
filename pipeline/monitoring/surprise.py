"""How far a night lies from the nights before it, in standard deviations from night to night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

WINDOW = 56
"""Nights before: eight of each weekday."""
LEAST = 21
"""Fewer nights before say nothing: three of each weekday."""
LEFT_OUT = 3
"""The nights just before, which a change that is being found must not explain."""

_CLIPPED = 4.0
_TO_SD = 2.563  # of a normal distribution, from its 10 % to its 90 % quantile
_STILL = 1e-9  # relative spread below which a column does not vary at all


@dataclass(frozen=True)
class Surprise:
    """The nights' `z` and what it is measured by: float64 (nights, statistics), NaN without history.

    `centre` is what was expected of that weekday, `spread` the standard deviation of a night around it.
    """

    z: Floats
    centre: Floats
    spread: Floats


def surprise(
    values: Floats, weekdays: npt.NDArray[np.int64], floors: Floats, known: Surprise | None = None
) -> Surprise:
    """Of each night against WINDOW nights before it, at least LEAST, all before the last LEFT_OUT.

    `values` (nights, statistics), `weekdays` (nights,) from 0 to 6, `floors` (statistics,); `known` are
    surprises of the first nights, computed before. A night counts for later ones as if it lay within 4 of its
    standard deviations, and within 4 of the window's from its 10 % and 90 % quantiles: one broken week must
    not blind the next seven, and a change that lasts becomes what is usual. A weekday's own level counts as
    far as the window shows one: its deviation is shrunken by 1 - 1/F, the positive-part estimator of James
    and Stein, 1961, with F of the one-way analysis of variance.
    """
    z, centre, spread = (np.full(values.shape, np.nan) for _ in range(3))
    begun = 0 if known is None else len(known.z)
    if known is not None:
        z[:begun], centre[:begun], spread[:begun] = known.z, known.centre, known.spread
    counted = values.copy()
    for night in range(len(values)):
        if night >= max(begun, LEAST + LEFT_OUT):
            before = slice(max(0, night - LEFT_OUT - WINDOW), night - LEFT_OUT)
            centre[night], spread[night] = _expected(
                counted[before], weekdays[before], int(weekdays[night]), floors
            )
            z[night] = (values[night] - centre[night]) / spread[night]
        reach = _CLIPPED * spread[night]
        clipped = np.clip(values[night], centre[night] - reach, centre[night] + reach)
        counted[night] = np.where(np.isnan(z[night]), values[night], clipped)
    return Surprise(z, centre, spread)


def _expected(
    window: Floats, weekdays: npt.NDArray[np.int64], weekday: int, floors: Floats
) -> tuple[Floats, Floats]:
    """Centre and standard deviation of the next night, float64 (statistics,); NaN of what does not vary."""
    known = ~np.isnan(window)
    count = known.sum(axis=0)
    low, middle, high = _quantiles(window, count >= LEAST)
    reach = _CLIPPED * np.maximum((high - low) / _TO_SD, floors)
    clipped = np.where(known, np.clip(window, middle - reach, middle + reach), 0)
    count = np.maximum(count, 1)
    mean = clipped.sum(axis=0) / count
    deviations = np.where(known, clipped - mean, 0)
    members = np.equal.outer(np.arange(7), weekdays).astype(np.float64)
    nights = members @ known
    levels = members @ deviations / np.maximum(nights, 1)
    between = (nights * levels**2).sum(axis=0) / 6
    within = (np.where(known, deviations - levels[weekdays], 0) ** 2).sum(axis=0) / np.maximum(count - 7, 1)
    shrunken = np.clip(1 - np.divide(within, between, out=np.ones_like(mean), where=between > 0), 0, 1)
    left = np.where(known, deviations - shrunken * levels[weekdays], 0)
    variance = (left**2).sum(axis=0) / np.maximum(count - 1 - 6 * shrunken, 1) + floors**2
    spread = np.sqrt(variance * (1 + 1 / count))
    centre = mean + shrunken * levels[weekday]
    varies = (count >= LEAST) & (spread > _STILL * np.abs(centre)) & (spread > 0)
    return np.where(varies, centre, np.nan), np.where(varies, spread, np.nan)


def _quantiles(window: Floats, enough: Flags) -> Floats:
    """The 10, 50 and 90 % quantiles, float64 (3, statistics); 0 where there are not enough nights."""
    found = np.zeros((3, window.shape[1]))
    whole = enough & ~np.isnan(window).any(axis=0)
    # Of many columns at once, which numpy does only where no value is missing.
    found[:, whole] = np.quantile(window[:, whole], [0.1, 0.5, 0.9], axis=0)
    if (gappy := enough & ~whole).any():
        found[:, gappy] = np.nanquantile(window[:, gappy], [0.1, 0.5, 0.9], axis=0)
    return found
