"""Axes and figures: round ticks, days, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 360, 168
"""About a phone's width in CSS pixels, so that letters keep their size on every screen."""
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 14, 24


@dataclass(frozen=True)
class Frame:
    """The room of a chart: its size, and the edges between which data are drawn."""

    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


FRAME = Frame()


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` as places from `start` to `end`; a single number lies in the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a number lies, to a tenth."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """About `most` round numbers that enclose both: in steps of 1, 2, 2.5 or 5 of a power of ten."""
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        pad = abs(high) * 0.1 or 0.5
        low, high = (0.0 if 0 <= low - pad < pad else low - pad), high + pad
    raw = (high - low) / most
    power = 10.0 ** floor(log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * (1 - 1e-9))
    begin, end = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(begin, max(end, begin + 1) + 1)]


def tick_text(value: float, ticks: Sequence[float], unit: str) -> str:
    """A tick with as many digits as tell it from its neighbours."""
    step = (ticks[1] - ticks[0]) * (100 if unit == "%" else 1)
    shown = value * 100 if unit == "%" else value
    digits = max(0, -floor(log10(step) + 1e-9))
    if digits and round(step * 10**digits) != round(step * 10**digits, 6):
        digits += 1
    if abs(shown) >= 10_000 and not digits:
        return f"{shown / 1000:,.{0 if step >= 1000 else 1}f}k"
    return f"{shown:,.{digits}f}{' %' if unit == '%' else ''}"


def day_ticks(first: date, last: date, most: int = 5) -> list[tuple[date, str]]:
    """At most about `most` days of a span with their texts: first days of months where it is long."""
    span = (last - first).days
    if span > 45:
        months = _months(first, last)
        every = max(1, ceil(len(months) / most))
        return [(day, f"{day:%b}" if span < 400 else f"{day:%b %y}") for day in months[::every]]
    every = max(1, ceil((span + 1) / most))
    return [
        (day, f"{day.day} {day:%b}")
        for day in (first + timedelta(days=offset) for offset in range(0, span + 1, every))
    ]


def _months(first: date, last: date) -> list[date]:
    month = first if first.day == 1 else (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    found = []
    while month <= last:
        found.append(month)
        month = (month + timedelta(days=32)).replace(day=1)
    return found


def figure(value: float, unit: str = "") -> str:
    """A number as people read it: about three digits, thousands apart; `%` takes a share."""
    if unit == "%":
        return f"{value * 100:.{1 if abs(value) < 0.9995 else 0}f} %"
    shown = _three_digits(value)
    return f"{shown} {unit}" if unit else shown


def _three_digits(value: float) -> str:
    if not isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = floor(log10(abs(value)))
    if size >= 2:
        return f"{value:,.0f}"
    if size < -4:
        return f"{value:.2g}"
    return f"{value:.{2 - size}f}"
