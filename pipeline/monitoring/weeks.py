"""Nights together as weeks: what people compare, as single nights differ too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

SUMMED = ("cost", "cost_no_model", "hits", "false_alarms", "misses", "passes")
"""Metrics that add up over nights; all others are means of the nights, weighted by labelled rows."""


@dataclass(frozen=True)
class NightQuality:
    """What is known of one run: realised metrics of its labelled rows, estimated ones of all its rows."""

    day: date
    hindsight: bool
    rows: int
    labelled: int
    realised: Mapping[str, float]
    estimated: Mapping[str, float]


@dataclass(frozen=True)
class Week:
    """Nights of one week, Monday to Sunday: those acted upon, or apart from them those in hindsight."""

    monday: date
    hindsight: bool
    nights: int
    rows: int
    labelled: int
    realised: Mapping[str, float]
    estimated: Mapping[str, float]


def by_week(nights: Iterable[NightQuality]) -> list[Week]:
    """The weeks that have nights, in order; a metric that no night has is left out."""
    ordered = sorted(nights, key=_place)
    return [_week(place, list(group)) for place, group in groupby(ordered, key=_place)]


def _place(night: NightQuality) -> tuple[date, bool]:
    return night.day - timedelta(days=night.day.weekday()), night.hindsight


def _week(place: tuple[date, bool], nights: Sequence[NightQuality]) -> Week:
    labelled = [night.labelled for night in nights]
    rows = [night.rows for night in nights]
    return Week(
        *place,
        nights=len(nights),
        rows=sum(rows),
        labelled=sum(labelled),
        realised=together([night.realised for night in nights], labelled),
        estimated=together([night.estimated for night in nights], rows),
    )


def together(metrics: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Metrics of several nights as one of each name, over the nights that have it."""
    made = {}
    for name in dict.fromkeys(name for night in metrics for name in night):
        held = [
            (night[name], weight) for night, weight in zip(metrics, weights, strict=True) if name in night
        ]
        total = sum(weight for _, weight in held)
        if name in SUMMED:
            made[name] = sum(value for value, _ in held)
        elif total:
            made[name] = sum(value * weight for value, weight in held) / total
    return made
