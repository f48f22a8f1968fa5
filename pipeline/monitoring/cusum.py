"""A one-sided CUSUM over nights, and the limit that keeps its promised rate of false alarms.

Page 1954; Montgomery, Introduction to Statistical Quality Control, chapter 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.monitoring.quality import Floats

ALLOWANCE = 0.25
"""Standard deviations: half of the smallest change that is looked for."""
_OUTLIER = 4.0  # standard deviations that one night may count at most
_CAP, _OVER = 1.5, 0.5  # limits: how high an episode may rise, lest it outlast its cause; where it ends
_YEARS, _NIGHTS_A_YEAR = 2000, 365


@dataclass(frozen=True)
class Rise:
    """A night on which the CUSUM is above its limit, or has not come down to half of it since."""

    place: int
    since: int
    """Where the rise began that led here."""
    cusum: float


def rises(
    values: Floats, usual: Floats, centre: float, most: float, at_least: int, allowance: float = ALLOWANCE
) -> Iterator[Rise]:
    """The raised nights of n values, of which larger ones are worse and NaN says nothing.

    They are standardised by `centre` and the deviation of the `usual` values; a rise is told from its
    `at_least`th night on. The `allowance` is half of the change that is found soonest.
    """
    z = np.clip((values - centre) / usual.std(ddof=1), -_OUTLIER, _OUTLIER)
    cusum, since, is_raised = 0.0, 0, False
    for place, excess in enumerate(z):
        cusum = min(max(0.0, cusum + (0.0 if np.isnan(excess) else excess - allowance)), _CAP * most)
        if cusum == 0.0:
            since = place + 1
        is_old_enough = place + 1 - since >= at_least
        is_raised = (cusum > most and is_old_enough) or (is_raised and cusum > _OVER * most)
        if is_raised:
            yield Rise(place, since, cusum)


def autocorrelation(values: Floats) -> float:
    """The lag-one autocorrelation of n values, to a tenth, from 0 to .5: negative ones only calm a chart.

    Corrected for the bias of short series, (1 + 3 rho) / n (Kendall 1954; Marriott and Pope 1954).
    """
    around = values - values.mean()
    rho = float((around[1:] * around[:-1]).sum() / np.square(around).sum())
    return round(min(max(rho + (1 + 3 * rho) / len(values), 0.0), 0.5), 1)


@lru_cache(maxsize=64)
def limit(reference: int, rho: float, false_alarms_a_year: float, allowance: float = ALLOWANCE) -> float:
    """The limit, in standard deviations, that so many episodes a year cross where nothing changes.

    Found on 2,000 simulated years of normal autoregressive nights, each year with so many `reference`
    nights of its own, by whose mean and deviation it is standardised, as real nights are. What it leaves
    out is that `rho` itself is estimated: where nights are strongly autocorrelated there are more.
    """
    values = autoregressive(np.random.default_rng(reference), (_YEARS, reference + _NIGHTS_A_YEAR), rho)
    usual = values[:, :reference]
    spread = usual.std(axis=1, ddof=1, keepdims=True)
    z = np.clip((values[:, reference:] - usual.mean(axis=1, keepdims=True)) / spread, -_OUTLIER, _OUTLIER)
    low, high = 0.5, 100.0
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if _episodes(z, middle, allowance) > false_alarms_a_year else (low, middle)
    return high


def _episodes(z: Floats, most: float, allowance: float) -> float:
    """How many episodes a year of nights has on average, z (years, nights)."""
    cusum, is_raised, begun = np.zeros(len(z)), np.zeros(len(z), dtype=bool), 0
    for night in z.T:
        cusum = np.minimum(np.maximum(0.0, cusum + night - allowance), _CAP * most)
        now = (cusum > most) | (is_raised & (cusum > _OVER * most))
        begun += int((now & ~is_raised).sum())
        is_raised = now
    return begun / len(z)


def autoregressive(random: np.random.Generator, shape: tuple[int, int], rho: float) -> Floats:
    """Stationary normal series of variance 1 and lag-one autocorrelation `rho`, (series, nights)."""
    values = random.standard_normal(shape)
    for place in range(1, shape[1]):
        values[:, place] = rho * values[:, place - 1] + np.sqrt(1 - rho**2) * values[:, place]
    return values
