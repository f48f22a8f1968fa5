"""The promise beside what came of it: alerts that a job's own history would have raised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.job import Monitor
from pipeline.monitoring.breaks import broken
from pipeline.monitoring.causes import QUIET_NIGHTS, findings_of
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import DAYS_A_YEAR, LEAST_JS, LEAST_SHARE_CHANGE, Judged, judge
from pipeline.monitoring.watched import is_share_metric

CONFIDENCE = 0.95
_CLEARLY = 1.0  # standard deviations above the limit: five nights of six show it, four running half the time


@dataclass(frozen=True)
class Rate:
    """Alerts on nights, a year: as promised, as measured, and its exact 95 % interval."""

    promised: float
    nights: int
    alerts: int
    measured: float
    low: float
    high: float


@dataclass(frozen=True)
class Smallest:
    """The smallest change upwards that the later look shows more often than not, in the metric's own unit.

    None where the metric has no room for it: its nights differ too much for anything to be told.
    """

    part: str
    column: str
    metric: str
    usual: float
    change: float | None


def alerts_of(job: str, judged: Judged) -> Iterator[Finding]:
    """The alerts that the nights would have raised in turn, each judged by those before it alone."""
    breaks = broken(judged)
    lasting: dict[str, tuple[Finding, int]] = {}
    for night in range(len(judged.watched.days)):
        lasting = {key: each for key, each in lasting.items() if night - each[1] <= QUIET_NIGHTS}
        for finding in findings_of(job, judged, breaks, night):
            known = [key for key, (first, _) in lasting.items() if is_same(first, finding)]
            if not known:
                yield finding
            for key in known or [f"{finding.since} {finding.cause}"]:
                lasting[key] = (lasting[key][0] if known else finding, night)


def is_same(first: Finding, later: Finding) -> bool:
    """Whether a finding goes on with an episode: the same cause, or begun on its first night or the next."""
    if first.cause == later.cause:
        return True
    return first.since is not None and later.since is not None and 0 <= (later.since - first.since).days <= 1


def rate(alerts: int, nights: int, monitor: Monitor) -> Rate:
    """The yearly rate with its interval (Clopper and Pearson, 1934); one alert a night at most is counted."""
    from scipy.stats import binomtest

    interval = binomtest(alerts, nights).proportion_ci(CONFIDENCE, method="exact")
    return Rate(
        promised=monitor.false_alarms_a_year,
        nights=nights,
        alerts=alerts,
        measured=alerts / nights * DAYS_A_YEAR,
        low=float(interval.low) * DAYS_A_YEAR,
        high=float(interval.high) * DAYS_A_YEAR,
    )


def measured(job: str, metrics: pd.DataFrame, monitor: Monitor) -> tuple[Rate | None, list[Smallest]]:
    """Promise and measure on all nights that have enough before them, and what the last limits can see.

    Whether something was wrong on a night is not known here: the measure counts true alarms too, so it is an
    upper bound of the false ones. None where no night has enough before it.
    """
    judged = judge(metrics, monitor)
    nights = int(np.isfinite(judged.surprise.z).any(axis=1).sum())
    alarmed = {finding.day for finding in alerts_of(job, judged)}
    return (rate(len(alarmed), nights, monitor) if nights else None), list(_smallest(judged))


def _smallest(judged: Judged) -> Iterator[Smallest]:
    watched, centre = judged.watched, judged.surprise.centre[-1]
    needed = (judged.late.limits[-1] + _CLEARLY) * judged.surprise.spread[-1]
    for place, statistic in enumerate(watched.statistics):
        if np.isfinite(needed[place]):
            usual, up = (
                _own_unit(watched.raw[:, place], watched.values[:, place], statistic.metric, at)
                for at in (centre[place], centre[place] + needed[place])
            )
            change = None if statistic.metric == "js" and up > 1 else _told(statistic.metric, usual, up)
            yield Smallest(statistic.part, statistic.column, statistic.metric, usual, change)


def _told(metric: str, usual: float, up: float) -> float:
    """The change that is both beyond the limit and large enough to matter."""
    if metric == "js":
        return max(up, LEAST_JS) - usual
    return max(up - usual, LEAST_SHARE_CHANGE) if is_share_metric(metric) else up - usual


def _own_unit(
    raw: npt.NDArray[np.float64], values: npt.NDArray[np.float64], metric: str, value: float
) -> float:
    if metric == "rows_in":
        return float(np.exp(value))
    if metric == "js":
        offset = float(np.nanmedian(np.exp(values) - raw))
        return float(np.exp(value)) - offset
    if metric in ("mean", "copied_share"):
        known = np.isfinite(values) & (values != 0)
        ratios = raw[known] / values[known]
        return value * float(np.nanmedian(ratios)) if len(ratios) else value
    return float(np.sin(np.clip(value, 0, np.pi / 2)) ** 2)
