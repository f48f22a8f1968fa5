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
    """One line over days; a day without a value is a gap.

    `look` is solid, dashed, dotted, or points without a line. `errors` say by how much each value may be off.
    """

    name: str
    values: Sequence[tuple[date, float | None]]
    look: str = "solid"
    errors: Sequence[float | None] = ()

    @property
    def edges(self) -> list[tuple[date, float, float]]:
        """Each day that has a value and its error, with the lower and the upper edge."""
        pairs = zip(self.values, self.errors, strict=bool(self.errors))
        return [
            (day, value - error, value + error)
            for (day, value), error in pairs
            if value is not None and error is not None
        ]


@dataclass(frozen=True)
class Mark:
    """Something that happened on a day."""

    day: date
    text: str


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as a limit."""

    value: float
    text: str
    look: str = "grid"
    """grid or threshold."""


@dataclass(frozen=True)
class DrawnLevel:
    """A level as geometry."""

    at: float
    text: str
    look: str


@dataclass(frozen=True)
class Drawn:
    """A series as an SVG path, with its last point, its value and its day as text."""

    name: str
    look: str
    path: str
    dots: tuple[tuple[float, float], ...]
    """Points without neighbours, which a path would not show."""
    last: tuple[float, float]
    last_text: str
    last_day: str
    band: str | None
    """Outline of the area in which the values lie if they are off by their errors."""


@dataclass(frozen=True)
class LineChart:
    """Lines over days; `marks` are vertical, `levels` horizontal lines."""

    title: str
    note: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    summary: str
    levels: tuple[DrawnLevel, ...] = ()
    frame: Frame = FRAME


def line_chart(
    title: str,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    note: str = "",
    unit: str = "",
    from_zero: bool = False,
    levels: Sequence[Level] = (),
) -> LineChart | None:
    """A chart of what is there; None where no series has a value. `unit` is `%` for shares, else a suffix."""
    known = [(day, value) for one in series for day, value in one.values if value is not None]
    if not known:
        return None
    days = [day for day, _ in known]
    first, last = min(days), max(days)
    values = [value for _, value in known]
    values += [edge for one in series for _, *edges in one.edges for edge in edges]
    values += [level.value for level in levels]
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), high or (0.01 if unit == "%" else 1.0)
    ticks = nice_ticks(low, high)
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
        levels=tuple(DrawnLevel(up(level.value), level.text, level.look) for level in levels),
    )


def _drawn(series: Series, across: Scale, up: Scale, unit: str) -> Drawn | None:
    runs: list[list[tuple[float, float]]] = [[]]
    newest: tuple[date, float] | None = None
    for day, value in series.values:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((across(day.toordinal()), up(value)))
            newest = (day, value)
    if newest is None:
        return None
    kept = [run for run in runs if run]
    joined = [] if series.look == "points" else [run for run in kept if len(run) > 1]
    path = " ".join("M" + " L".join(f"{x:g},{y:g}" for x, y in run) for run in joined)
    dots = tuple(point for run in kept if run not in joined for point in run)
    return Drawn(
        name=series.name,
        look=series.look,
        path=path,
        dots=dots,
        last=kept[-1][-1],
        last_text=figure(newest[1], unit),
        last_day=f"{newest[0].day} {newest[0]:%b}",
        band=_band(series, across, up),
    )


def _band(series: Series, across: Scale, up: Scale) -> str | None:
    edges = series.edges
    if len(edges) < 2:
        return None
    there = [(across(day.toordinal()), up(low)) for day, low, _ in edges]
    back = [(across(day.toordinal()), up(high)) for day, _, high in reversed(edges)]
    return "M" + " L".join(f"{x:g},{y:g}" for x, y in [*there, *back]) + " Z"
