"""Lines over days as geometry: numbers in, coordinates out. The templates draw them and escape every text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.monitoring.report.axes import (
    FRAME,
    Frame,
    Scale,
    Tick,
    day_ticks,
    figure,
    nice_ticks,
    tick_text,
)


@dataclass(frozen=True)
class Series:
    """One line over days; a day without a value is a gap. `look` is solid, dashed or dotted."""

    name: str
    values: Sequence[tuple[date, float | None]]
    look: str = "solid"


@dataclass(frozen=True)
class Mark:
    """Something that happened on a day."""

    day: date
    text: str


@dataclass(frozen=True)
class Drawn:
    """A series as an SVG path, with its last point and its value as text."""

    name: str
    look: str
    path: str
    dots: tuple[tuple[float, float], ...]
    """Points without neighbours, which a path would not show."""
    last: tuple[float, float]
    last_text: str


@dataclass(frozen=True)
class LineChart:
    """Lines over days; `marks` are vertical, `bound` is a horizontal line."""

    title: str
    note: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    summary: str
    frame: Frame = FRAME


def line_chart(
    title: str,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    note: str = "",
    unit: str = "",
    from_zero: bool = False,
) -> LineChart | None:
    """A chart of what is there; None where no series has a value. `unit` is `%` for shares, else a suffix."""
    known = [(day, value) for one in series for day, value in one.values if value is not None]
    if not known:
        return None
    days = [day for day, _ in known]
    first, last = min(days), max(days)
    low, high = min(value for _, value in known), max(value for _, value in known)
    ticks = nice_ticks(min(low, 0.0) if from_zero else low, high)
    across = Scale(first.toordinal(), last.toordinal(), FRAME.left, FRAME.right)
    up = Scale(ticks[0], ticks[-1], FRAME.bottom, FRAME.top)
    lines = tuple(line for one in series if (line := _drawn(one, across, up, unit)))
    shown = [mark for mark in marks if first <= mark.day <= last]
    return LineChart(
        title=title,
        note=note,
        lines=lines,
        x_ticks=tuple(Tick(across(day.toordinal()), text) for day, text in day_ticks(first, last)),
        y_ticks=tuple(Tick(up(value), tick_text(value, ticks, unit)) for value in ticks),
        marks=tuple(Tick(across(mark.day.toordinal()), mark.text) for mark in shown),
        summary="; ".join(f"{line.name}: {line.last_text} on {last}" for line in lines),
    )


def _drawn(series: Series, across: Scale, up: Scale, unit: str) -> Drawn | None:
    runs: list[list[tuple[float, float]]] = [[]]
    value_before = None
    for day, value in series.values:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((across(day.toordinal()), up(value)))
            value_before = value
    kept = [run for run in runs if run]
    if not kept or value_before is None:
        return None
    path = " ".join("M" + " L".join(f"{x:g},{y:g}" for x, y in run) for run in kept if len(run) > 1)
    dots = tuple(run[0] for run in kept if len(run) == 1)
    return Drawn(series.name, series.look, path, dots, kept[-1][-1], figure(value_before, unit))
