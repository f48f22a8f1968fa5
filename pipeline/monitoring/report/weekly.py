"""The nights by the week: the charts as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from pipeline.monitoring.report.trends import Point, points
from pipeline.monitoring.report.values import Night
from pipeline.monitoring.weeks import together

_BY_ROWS = ("score/", "drift/", "estimate/", "rows/fallback", "rows/withheld")


@dataclass(frozen=True)
class WeekLine:
    """The nights of one week: sums, and means of what was measured, weighted by the rows it is of."""

    monday: date
    nights: int
    degraded: int
    rows_in: int
    means: Mapping[str, float]
    """Metrics of `Point` by their names."""
    cpu_seconds: float
    peak_memory_mb: float

    @property
    def point(self) -> Point:
        """The week in a chart."""
        return Point(self.monday, self.means)

    @property
    def is_judged(self) -> bool:
        """Whether the labels of any night are there."""
        return any(name.startswith("realised/") for name in self.means)


def weeks(nights: Sequence[Night]) -> list[WeekLine]:
    """The weeks that have nights, the newest first."""
    grouped = groupby(nights, key=lambda night: night.day - timedelta(days=night.day.weekday()))
    return [_week(monday, list(group)) for monday, group in grouped][::-1]


def _week(monday: date, nights: Sequence[Night]) -> WeekLine:
    rows = [night.run.rows_in or 0 for night in nights]
    each = [point.metrics for point in points(nights)]
    means = (
        together([_named(one, "run/", "rows/in") for one in each], [1] * len(each)),
        together([_named(one, *_BY_ROWS) for one in each], rows),
        together([_named(one, "realised/") for one in each], [night.labelled for night in nights]),
    )
    return WeekLine(
        monday=monday,
        nights=len(nights),
        degraded=sum(night.run.degraded for night in nights),
        rows_in=sum(rows),
        means={name: value for part in means for name, value in part.items()},
        cpu_seconds=sum(night.run.cpu_seconds for night in nights),
        peak_memory_mb=max(night.run.peak_memory_mb for night in nights),
    )


def _named(metrics: Mapping[str, float], *starts: str) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(starts)}
