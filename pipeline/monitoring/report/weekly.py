"""The nights by the week: the charts as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from pipeline.monitoring.report.trends import share
from pipeline.monitoring.report.values import Night
from pipeline.monitoring.weeks import together


@dataclass(frozen=True)
class WeekLine:
    """The nights of one week: sums, and means of what was measured, weighted by rows."""

    monday: date
    nights: int
    degraded: int
    rows_in: int
    fallback_share: float | None
    means: Mapping[str, float]
    """Metrics of `Night` by their names."""
    cpu_seconds: float
    peak_memory_mb: float

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
    answered = sum(night.run.rows_fallback or 0 for night in nights)
    measured = together([_of(night, realised=False) for night in nights], rows)
    judged = together([_of(night, realised=True) for night in nights], [night.labelled for night in nights])
    return WeekLine(
        monday=monday,
        nights=len(nights),
        degraded=sum(night.run.degraded for night in nights),
        rows_in=sum(rows),
        fallback_share=share(answered, sum(rows)),
        means=measured | judged,
        cpu_seconds=sum(night.run.cpu_seconds for night in nights),
        peak_memory_mb=max(night.run.peak_memory_mb for night in nights),
    )


def _of(night: Night, *, realised: bool) -> dict[str, float]:
    return {name: value for name, value in night.metrics.items() if name.startswith("realised/") is realised}
