"""Days as months of weeks: where each square of a calendar lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from pipeline.monitoring.report.facts import Status
from pipeline.monitoring.report.values import Day
from pipeline.monitoring.report.wording import STATUS

SIZE = 24
"""Width and height of a day's square with its gap."""
HEAD = 18

SIGNS: Mapping[Status, str] = {
    "ok": "", "warned": "!", "degraded": "~", "failed": "×", "running": "…", "superseded": "»",
    "withdrawn": "↩", "missing": "",
}  # fmt: skip
"""What tells days apart beside their colour; a published day whose newest attempt failed has that sign."""


@dataclass(frozen=True)
class Square:
    """One day: its place, and what is said of it."""

    x: int
    y: int
    day: Day
    sign: str
    text: str
    mark: str | None
    """Promotions of that day."""


@dataclass(frozen=True)
class Month:
    """One month, Monday on the left."""

    name: str
    squares: tuple[Square, ...]
    weeks: int

    @property
    def height(self) -> int:
        """Of its drawing; the width is that of seven squares."""
        return HEAD + self.weeks * SIZE


def months(days: Iterable[Day], marks: Mapping[date, str]) -> tuple[Month, ...]:
    """The months of these days, in order; days that nobody expects have no square."""
    return tuple(
        _month(first, list(group), marks)
        for first, group in groupby(days, key=lambda day: day.day.replace(day=1))
    )


def _month(first: date, days: list[Day], marks: Mapping[date, str]) -> Month:
    lead = first.weekday()
    squares = tuple(_square(day, lead + day.day.day - 1, marks.get(day.day)) for day in days)
    return Month(f"{first:%B %Y}", squares, max((square.y - HEAD) // SIZE for square in squares) + 1)


def _square(day: Day, place: int, mark: str | None) -> Square:
    said = [f"{day.day} {day.day:%a}: {STATUS[day.status]}", *day.reasons]
    if day.restatements:
        said.append(f"published {day.restatements + 1} times")
    if day.last_status not in (None, "published", day.status):
        said.append(f"newest attempt {day.last_status}")
    if mark:
        said.append(mark)
    sign = SIGNS["failed"] if day.last_status == "failed" else SIGNS[day.status]
    row, column = divmod(place, 7)
    return Square(column * SIZE, HEAD + row * SIZE, day, sign, "; ".join(said), mark)
