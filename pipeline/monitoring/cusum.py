"""A one-sided CUSUM over nights, and the limit that keeps its promised rate of false alarms.

Page 1954; Montgomery, Introduction to Statistical Quality Control, chapter 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.monitoring.quality import Floats

_ALLOWANCE = 0.25  # standard deviations: half of the smallest change that is looked for
_OUTLIER = 4.0  # standard deviations that one night may count at most
_CAP = 1.5  # limits: a long episode ends soon after its cause has
_YEARS, _NIGHTS_A_YEAR = 2000, 365


@dataclass(frozen=True)
class Rise:
    """A night on which the CUSUM is above its limit, or has not come down to half of it since."""

    place: int
    since: int
    """Where the rise began that led here."""
    cusum: float


def rises(values: Floats, usual: Floats, centre: float, most: float, at_least: int) -> Iterator[Rise]:
    """The raised nights of n values, of which larger ones are worse and NaN says nothing.

    They are standardised by `centre` and the deviation of the `usual` values; a rise is told from its
    `at_least`th night on.
    """
    z = np.clip((values - centre) / usual.std(ddof=1), -_OUTLIER, _OUTLIER)
    cusum, since, is_raised = 0.0, 0, False
    for place, excess in enumerate(z):
        cusum = min(max(0.0, cusum + (0.0 if np.isnan(excess) else excess - _ALLOWANCE)), _CAP * most)
        if cusum == 0.0:
            since = place + 1
        is_old_enough = place + 1 - since >= at_least
        is_raised = (cusum > most and is_old_enough) or (is_raised and cusum > most / 2)
        if is_raised:
            yield Rise(place, since, cusum)


def autocorrelation(values: Floats) -> float:
    """The lag-one autocorrelation of n values, to a tenth, from 0 to .5: negative ones only calm a chart."""
    around = values - values.mean()
    rho = float((around[1:] * around[:-1]).sum() / np.square(around).sum())
    return round(min(max(rho, 0.0), 0.5), 1)


@lru_cache(maxsize=64)
def limit(reference: int, rho: float, false_alarms_a_year: float) -> float:
    """The limit, in standard deviations: in a year without change, P(it is crossed) = 1 - exp(-rate).

    Found on 2,000 simulated years of normal autoregressive nights, each year with so many `reference`
    nights of its own, by whose mean and deviation it is standardised, as real nights are.
    """
    values = autoregressive(np.random.default_rng(reference), (_YEARS, reference + _NIGHTS_A_YEAR), rho)
    usual = values[:, :reference]
    spread = usual.std(axis=1, ddof=1, keepdims=True)
    z = np.clip((values[:, reference:] - usual.mean(axis=1, keepdims=True)) / spread, -_OUTLIER, _OUTLIER)
    cusum, highest = np.zeros(_YEARS), np.zeros(_YEARS)
    for night in z.T:
        cusum = np.maximum(0.0, cusum + night - _ALLOWANCE)
        highest = np.maximum(highest, cusum)
    return float(np.quantile(highest, np.exp(-false_alarms_a_year)))


def autoregressive(random: np.random.Generator, shape: tuple[int, int], rho: float) -> Floats:
    """Stationary normal series of variance 1 and lag-one autocorrelation `rho`, (series, nights)."""
    values = random.standard_normal(shape)
    for place in range(1, shape[1]):
        values[:, place] = rho * values[:, place - 1] + np.sqrt(1 - rho**2) * values[:, place]
    return values
