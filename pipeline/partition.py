"""What a partition is: the slice of time that one run scores.

Everything that depends on the grain stands here: the key's text form, its order, its column type, its
neighbours and its instants. Only the grain `day` exists today.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa

from pipeline.errors import UsageError

COLUMN = "day"
SQL_TYPE = "date"
ARROW_TYPE = pa.date32()


@dataclass(frozen=True, order=True)
class Partition:
    """One business day in its job's time zone; ordered by time."""

    day: date

    @property
    def key(self) -> str:
        """The text form, `YYYY-MM-DD`: sorts as time does."""
        return self.day.isoformat()

    def __str__(self) -> str:
        return self.key

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Read `YYYY-MM-DD`, years 1900 to 2999; raises UsageError on anything else."""
        try:
            parsed = date.fromisoformat(text)
        except ValueError:
            parsed = None
        if parsed is None or parsed.isoformat() != text or not 1900 <= parsed.year <= 2999:
            raise UsageError(f"a day must be written YYYY-MM-DD, 1900 to 2999; got {text[:40]!r}") from None
        return cls(parsed)

    def next(self) -> Partition:
        """The partition that follows."""
        return Partition(self.day + timedelta(days=1))

    def previous(self) -> Partition:
        """The partition before."""
        return Partition(self.day - timedelta(days=1))

    def minus(self, other: Partition) -> int:
        """How many partitions lie between, in whole days; negative when `other` is later."""
        return (self.day - other.day).days

    def at(self, clock: time, timezone: ZoneInfo) -> datetime:
        """The UTC instant of a clock time on this day; see `instants` for clocks that change."""
        return _instant(self.day, clock, timezone)

    def instants(self, timezone: ZoneInfo, cutoff: time) -> Instants:
        """The UTC instants that queries bind; a day may have 23 or 25 hours.

        A clock time that comes twice means its first instant; one that the clocks skip counts by the
        offset before the change.
        """
        return Instants(
            day=self.day,
            day_start=_instant(self.day, time(0), timezone),
            day_end=_instant(self.day + timedelta(days=1), time(0), timezone),
            cutoff=self.at(cutoff, timezone),
            timezone=timezone,
        )


@dataclass(frozen=True)
class Instants:
    """What a query may bind: the day itself, and instants in UTC; and the zone whose day it is."""

    day: date
    day_start: datetime
    day_end: datetime
    cutoff: datetime
    timezone: ZoneInfo

    def binds(self) -> dict[str, date | datetime]:
        """The bind parameters by name: day, day_start, day_end, cutoff."""
        return {
            "day": self.day,
            "day_start": self.day_start,
            "day_end": self.day_end,
            "cutoff": self.cutoff,
        }


EVER = (Partition(date.min), Partition(date.max))
"""A first and a last day between which all others lie."""

BIND_NAMES = ("day", "day_start", "day_end", "cutoff")


def instant(text: str, option: str) -> datetime:
    """An instant with its zone (UTC when none is written); raises UsageError on anything else."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} must be an instant such as 2013-05-01T03:00-04:00; got {text!r}"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _instant(day: date, clock: time, timezone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, tzinfo=timezone).astimezone(UTC)


def refuse_swapped(first: Partition, last: Partition) -> None:
    """Raise UsageError unless `first` comes before `last`, or is the same."""
    if last < first:
        raise UsageError(f"the range must not end before it starts; got {first} to {last}")


def between(first: Partition, last: Partition) -> Iterator[Partition]:
    """All partitions from `first` to `last`, both included; raises UsageError when they are swapped."""
    refuse_swapped(first, last)
    return (Partition(first.day + timedelta(days=n)) for n in range(last.minus(first) + 1))
