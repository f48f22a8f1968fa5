"""The figures of a verdict as pages draw them: night by night, slice by slice, metric by metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.monitoring.report.axes import Scale
from pipeline.monitoring.report.facts import VerdictFacts
from pipeline.monitoring.report.lines import Level, LineChart, Series, line_chart

_WIDEST = 3.0
"""Bounds are drawn where they are no wider than so many times the largest difference of a night."""
_SHOWN_SLICES = 20
_METRICS = ("auc", "brier", "log_loss", "precision", "recall", "decision_rate", "mae", "rmse", "bias")


@dataclass(frozen=True)
class Both:
    """A figure of both versions; `change` is relative to the champion's, None where that is 0."""

    name: str
    champion: float
    challenger: float

    @property
    def change(self) -> float | None:
        """How much more the challenger has, as a share of the champion's."""
        return (self.challenger - self.champion) / abs(self.champion) if self.champion else None


@dataclass(frozen=True)
class Interval:
    """A difference and its bounds on a common axis; None where the bounds say nothing."""

    at: float
    low: float | None
    high: float | None
    zero: float
    limit: float
    worse: bool


@dataclass(frozen=True)
class SliceRow:
    """One slice, judged or too small to be; `low` and `high` bound its relative change.

    It is not drawn where it has none, as the champion lost nothing on it.
    """

    name: str
    rows: int
    loss: Both
    low: float | None
    high: float | None
    judged: bool
    worse: bool
    drawn: Interval | None


@dataclass(frozen=True)
class SliceTable:
    """The slices of one column, those that are judged first; `left_out` says how many more there are."""

    column: str
    rows: tuple[SliceRow, ...]
    left_out: int


@dataclass(frozen=True)
class Whole:
    """The loss over all nights, and the bounds of its relative change; None where they say nothing."""

    loss: Both
    low: float | None
    high: float | None


def whole(verdict: VerdictFacts) -> Whole | None:
    """What both lost over all nights; None where no night was judged."""
    nights = verdict.figures["nights"]
    if not nights:
        return None
    rows = sum(one["rows"] for one in nights)
    means = [
        sum(one["rows"] * one["loss"][who] for one in nights) / rows for who in ("champion", "challenger")
    ]
    loss = Both(verdict.figures["loss"], *means)
    return Whole(loss, *_relative(nights[-1]["bounds"], loss.champion))


def charts(verdict: VerdictFacts) -> list[LineChart]:
    """Differences by night with the bounds of their mean, and both versions' losses."""
    nights, name = verdict.figures["nights"], verdict.figures["loss"]
    days = [date.fromisoformat(one["day"]) for one in nights]
    differences = [one["loss"]["challenger"] - one["loss"]["champion"] for one in nights]
    reach = _WIDEST * max(map(abs, differences), default=0.0)
    halves = [_half(one["bounds"], reach) for one in nights]
    means = [one["bounds"]["mean"] for one in nights]
    overall = whole(verdict)
    margin = verdict.settings["margin"] * abs(overall.loss.champion) if overall else 0.0
    made = [
        line_chart(
            f"Challenger − champion, {name}",
            [
                Series("each night", list(zip(days, differences, strict=True)), "points"),
                Series("mean so far", list(zip(days, means, strict=True)), "dashed", halves),
            ],
            levels=[Level(0.0, "", "mark"), Level(margin, "margin", "threshold")],
        ),
        line_chart(
            f"Both, {name}",
            [
                Series(who, [(day, one["loss"][who]) for day, one in zip(days, nights, strict=True)], look)
                for who, look in (("champion", "solid"), ("challenger", "dashed"))
            ],
        ),
    ]
    return [chart for chart in made if chart]


def slices(verdict: VerdictFacts) -> list[SliceTable]:
    """Each declared column with its values, those worse first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in verdict.figures["slices"]:
        found.setdefault(one["column"], []).append(one)
    margin = verdict.settings["slice_margin"]
    values = verdict.figures.get("slice_values", {})  # older verdicts do not tell how many there were
    tables = []
    for column, lines in found.items():
        axis = _axis(lines, margin)
        rows = sorted((_slice_row(one, axis, margin) for one in lines), key=_rank)
        shown = tuple(rows[:_SHOWN_SLICES])
        tables.append(SliceTable(column, shown, values.get(column, len(rows)) - len(shown)))
    return tables


def metrics(verdict: VerdictFacts) -> list[Both]:
    """Means over the nights of what people compare too."""
    nights = verdict.figures["nights"]
    made = []
    for name in _METRICS:
        held = [one["metrics"][name] for one in nights if name in one["metrics"]]
        if held:
            means = (sum(one[who] for one in held) / len(held) for who in ("champion", "challenger"))
            made.append(Both(name, *means))
    return made


def _rank(row: SliceRow) -> tuple[bool, bool, float]:
    return not row.judged, not row.worse, -row.rows


def _slice_row(one: Mapping[str, Any], axis: Scale, margin: float) -> SliceRow:
    loss = Both(one["value"], one["loss"]["champion"], one["loss"]["challenger"])
    low, high = _relative(one["bounds"], loss.champion) if one["bounds"] else (None, None)
    lower = one["bounds"]["lower"] if one["bounds"] else None
    beyond = loss.challenger - loss.champion > margin * abs(loss.champion)
    worse = lower is not None and lower > 0 and beyond
    drawn = None
    if one["bounds"] and loss.change is not None:
        drawn = Interval(
            at=axis(_within(loss.change, axis)),
            low=None if low is None else axis(_within(low, axis)),
            high=None if high is None else axis(_within(high, axis)),
            zero=axis(0.0),
            limit=axis(margin),
            worse=worse,
        )
    return SliceRow(one["value"], one["rows"], loss, low, high, one["bounds"] is not None, worse, drawn)


def _axis(lines: Sequence[Mapping[str, Any]], margin: float) -> Scale:
    """From as far below 0 as above it: as far as the largest change of a judged slice, or three margins."""
    losses = [one["loss"] for one in lines if one["bounds"] and one["loss"]["champion"]]
    changes = [abs((one["challenger"] - one["champion"]) / one["champion"]) for one in losses]
    reach = 1.2 * max([*changes, 3 * margin, 0.01])
    return Scale(-reach, reach, 4, 156)


def _within(value: float, axis: Scale) -> float:
    return min(max(value, axis.low), axis.high)


def _relative(bounds: Mapping[str, float | None], size: float) -> tuple[float | None, float | None]:
    lower, upper = bounds["lower"], bounds["upper"]
    if lower is None or upper is None or not size:
        return None, None
    return lower / abs(size), upper / abs(size)


def _half(bounds: Mapping[str, float | None], reach: float) -> float | None:
    lower, upper = bounds["lower"], bounds["upper"]
    if lower is None or upper is None:
        return None
    half = (upper - lower) / 2
    return half if half <= reach else None
