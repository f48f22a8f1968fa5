"""The limits of a job's nights: how far its statistics went on its own nights before, by family.

The night is the unit of chance. The largest surprise of a family on each earlier night follows, whatever
depends on what within a night, an extreme-value distribution (Gumbel, Statistics of Extremes, 1958). Its
place and scale come from the median and the 90 % quantile of those nights, which a storm does not move; its
tail is heavier than Gumbel's own, whose limits nature breaks too often (Koutsoyiannis, Statistics of extremes
and estimation of extreme rainfall, 2004). The limit is its quantile at the family's share of the promised
false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log

import numpy as np
import pandas as pd

from pipeline.job import Monitor
from pipeline.monitoring.surprise import LEAST, LEFT_OUT, Surprise, surprise
from pipeline.monitoring.watched import ONLY_UPWARDS, Flags, Floats, Watched, is_share_metric, watched

MOST_NIGHTS = 182
"""Nights before, at most, from which a limit is taken."""
LEAST_NIGHTS = 28
"""With fewer, a limit is Student's for the shortest window, without credit for persistence."""
DAYS_A_YEAR = 365
LEAST_LIMIT = 3.0
"""Standard deviations; where a family hardly moves, its tail cannot be told from its quantiles."""
LEAST_LATE = 2.0
LEAST_SHARE_CHANGE = 0.01
"""Of the rows: a smaller change of a share is nobody's business, however sure."""
LEAST_JS = 0.018
"""Bits: about a population stability index of 0.1 (over 8 ln 2), by convention no change below it."""
SHAPE = 0.15
"""Of the tail, where 0 is Gumbel's: Koutsoyiannis' of daily rain. Of the flights' nights up to June the mean
over families is .20 for two nights running and .13 for four, by L-moments; one family's own is uncertain."""
_SCALE_ERROR = 1.55  # relative standard error of that scale times sqrt(nights), by simulation


@dataclass(frozen=True)
class Look:
    """One persistence asked for: arrays are (nights, statistics).

    `limits` are standard deviations from night to night, `beyond` says on which nights a limit was passed on
    that night alone, `confirmed` where it was for so many nights running.
    """

    limits: Floats
    beyond: Flags
    confirmed: Flags


@dataclass(frozen=True)
class Judged:
    """Nights and what was found: `soon`, for the nights running as declared, `late`, for twice as many."""

    watched: Watched
    surprise: Surprise
    soon: Look
    late: Look


def judge(metrics: pd.DataFrame, monitor: Monitor) -> Judged:
    """Each night by the nights before it alone; `metrics` as `watched` takes them."""
    nights = watched(metrics)
    return judged(nights, surprises(nights), monitor)


def surprises(nights: Watched, known: Surprise | None = None) -> Surprise:
    """How far each night lies from those before it; `known` are surprises of the first nights."""
    floors = np.array([statistic.floor for statistic in nights.statistics])
    return surprise(nights.values, np.asarray(nights.days.day_of_week, dtype=np.int64), floors, known)


def judged(nights: Watched, measured: Surprise, monitor: Monitor, first: int = 0) -> Judged:
    """Limits and what is beyond them, of each night from `first` on.

    The budget of false alarms is shared out evenly over the two looks and the families.
    """
    upwards = np.array([statistic.metric in ONLY_UPWARDS for statistic in nights.statistics], dtype=bool)
    up = np.nan_to_num(measured.z, nan=-np.inf)
    down = np.where(upwards, -np.inf, np.nan_to_num(-measured.z, nan=-np.inf))
    matters = _matters(nights, measured)
    looks = []
    for running, least in ((monitor.nights_running, LEAST_LIMIT), (2 * monitor.nights_running, LEAST_LATE)):
        lasting = np.maximum(_lasting(up, running), _lasting(down, running))
        limits = np.maximum(_limits(nights, lasting, monitor, first), least)
        looks.append(Look(limits, matters & (np.maximum(up, down) > limits), matters & (lasting > limits)))
    return Judged(nights, measured, *looks)


def _matters(nights: Watched, measured: Surprise) -> Flags:
    """Whether a change is large enough that somebody would act on it: bool (nights, statistics)."""
    is_share = np.array([is_share_metric(statistic.metric) for statistic in nights.statistics], dtype=bool)
    usual = np.sin(np.clip(np.nan_to_num(measured.centre), 0, np.pi / 2)) ** 2
    changed = np.abs(nights.raw - usual) >= LEAST_SHARE_CHANGE
    matters: Flags = np.where(is_share, changed, ~nights.of("js") | (nights.raw >= LEAST_JS))
    return matters


def _lasting(surprises: Floats, nights_running: int) -> Floats:
    """The least of so many nights running, float64 (nights, statistics)."""
    lasting = surprises.copy()
    for back in range(1, nights_running):
        lasting[back:] = np.minimum(lasting[back:], surprises[:-back])
        lasting[:back] = -np.inf
    return lasting


def _limits(nights: Watched, lasting: Floats, monitor: Monitor, first: int) -> Floats:
    families = np.array([statistic.family for statistic in nights.statistics])
    names = np.unique(families)
    chance = monitor.false_alarms_a_year / DAYS_A_YEAR / (2 * len(names))
    limits = np.full(lasting.shape, np.inf)
    for name in names:
        members = families == name
        largest = lasting[:, members].max(axis=1)
        for night in range(first, len(largest)):
            before = largest[max(0, night - MOST_NIGHTS) : max(0, night - LEFT_OUT)]
            limits[night, members] = family_limit(before, chance, int(members.sum()))
    return limits


def family_limit(largest: Floats, chance: float, statistics: int) -> float:
    """What the largest of a family passes with `chance` a night; `largest` (nights,) are those before."""
    known = largest[np.isfinite(largest)]
    if len(known) < LEAST_NIGHTS:
        return _students(chance / statistics)
    middle, high = np.quantile(known, [0.5, 0.9])
    scale = (high - middle) / (_extreme(0.9) - _extreme(0.5))
    place = middle - scale * _extreme(0.5)
    scale *= 1 + _SCALE_ERROR / np.sqrt(len(known))
    return float(place + scale * _extreme(1 - chance))


def _extreme(probability: float) -> float:
    """A quantile of the standard distribution; scipy gives the same, at the cost of its checks of arrays."""
    return float(((-log(probability)) ** -SHAPE - 1) / SHAPE)


@cache
def _students(chance: float) -> float:
    from scipy.stats import t

    return float(t.isf(chance, LEAST - 1))
