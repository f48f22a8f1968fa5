"""The kinds of values that a declaration holds, and how parts of it disagree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import time
from difflib import get_close_matches
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Place = tuple[str | int, ...]
"""The keys on the way to a value."""


class Part(BaseModel):
    """One part of a declaration: strict, frozen, and without keys that it does not know."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Disagreement(ValueError):
    """Keys of one model that do not agree: for each the place, from that model down, and the sentence."""

    def __init__(self, faults: Iterable[tuple[Place, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(sentence for _, sentence in self.faults))


def refuse(faults: Iterable[tuple[Place, str]]) -> None:
    """Raise Disagreement if there is any fault."""
    if found := tuple(faults):
        raise Disagreement(found)


def identifier(name: str) -> str:
    """The name of a job, a column, a source or a query; raises ValueError where it cannot be one."""
    if not name.isidentifier() or not name.islower() or not name.isascii() or len(name) > 40:
        raise ValueError("must be a lower-case name of letters, digits and _, at most 40 long")
    return name


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _table(name: str) -> str:
    if not all(part.strip() for part in name.split(".")):
        raise ValueError("must be a table, or a schema and a table with a dot between them")
    return name


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"must name each entry once; got {', '.join(map(repr, repeated))} twice")
    return names


def _zone(name: str) -> str:
    zones = available_timezones()
    if name not in zones:
        close = get_close_matches(name, zones, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"must be an IANA time zone such as America/New_York; got {name[:40]!r}{hint}")
    return name


def _clock(value: object) -> object:
    try:
        clock = time.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        clock = None
    if not isinstance(clock, time) or clock.tzinfo is not None or clock.microsecond:
        raise ValueError('must be a clock time such as "03:00", local to schedule.timezone')
    return clock


_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)  # fmt: skip
_CRON_PART = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([1-9]\d?))?")


def _cron(text: str) -> str:
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(f"must be a cron text of 5 fields such as '0 5 1 * *'; got {text[:40]!r}")
    for got, (name, lowest, highest, words) in zip(fields, _CRON_FIELDS, strict=True):
        for part in got.lower().split(","):
            found = _CRON_PART.fullmatch(part)
            ends = [word for word in (found.groups()[:2] if found else ("?",)) if word]
            if not all(_within_field(word, lowest, highest, words) for word in ends):
                raise ValueError(f"its {name} must be from {lowest} to {highest}, * or a list; got {part!r}")
    return text


def _within_field(word: str, lowest: int, highest: int, words: tuple[str, ...]) -> bool:
    return word in words or (word.isdecimal() and lowest <= int(word) <= highest)


Name = Annotated[str, AfterValidator(identifier)]
Text = Annotated[str, AfterValidator(_filled)]
Table = Annotated[str, AfterValidator(_table)]
Zone = Annotated[str, AfterValidator(_zone)]
Clock = Annotated[time, BeforeValidator(_clock)]
Cron = Annotated[str, AfterValidator(_cron)]
Score = Annotated[float, Field(allow_inf_nan=False)]
Distinct = AfterValidator(_distinct)
Key = Annotated[tuple[Name, ...], Field(min_length=1), Distinct]
