"""The distribution of scores as geometry: bars of this run, the outline of the one before, the threshold."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.monitoring.report.axes import FRAME, Frame, Scale, Tick, figure, nice_ticks, tick_text
from pipeline.monitoring.report.values import Scores


@dataclass(frozen=True)
class Bar:
    """The scores of one bin; `text` says its range and share."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """Bars, and over them the outline of the day before and the threshold where they are known."""

    bars: tuple[Bar, ...]
    outline: str | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    threshold: Tick | None
    summary: str
    frame: Frame = FRAME


def histogram(scores: Scores, threshold: float | None) -> Histogram:
    """Shares of the scores by bin; both runs on the same scale, whatever their numbers of rows."""
    shares = _shares(scores.counts)
    before = _shares(scores.before) if scores.before and sum(scores.before) else None
    tops = nice_ticks(0.0, max([*shares, *(before or ())], default=1.0) or 1.0)
    across = Scale(scores.low, scores.high, FRAME.left, FRAME.right)
    up = Scale(tops[0], tops[-1], FRAME.bottom, FRAME.top)
    step = (scores.high - scores.low) / len(shares)
    bars = tuple(
        _bar(scores.low + number * step, step, share, across, up) for number, share in enumerate(shares)
    )
    ticks = [tick for tick in nice_ticks(scores.low, scores.high, 5) if scores.low <= tick <= scores.high]
    inside = threshold is not None and scores.low <= threshold <= scores.high
    return Histogram(
        bars=tuple(bar for bar in bars if bar.height > 0),
        outline=_outline(scores.low, step, before, across, up) if before else None,
        x_ticks=tuple(Tick(across(tick), tick_text(tick, ticks, "")) for tick in ticks),
        y_ticks=tuple(Tick(up(tick), tick_text(tick, tops, "%")) for tick in tops),
        threshold=Tick(across(threshold), f"threshold {figure(threshold)}") if inside and threshold else None,
        summary=f"{sum(scores.counts):,} scores from {figure(scores.low)} to {figure(scores.high)}",
    )


def _shares(counts: tuple[int, ...]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _bar(begin: float, step: float, share: float, across: Scale, up: Scale) -> Bar:
    left, right, top = across(begin), across(begin + step), up(share)
    text = f"{begin:.3g} to {begin + step:.3g}: {figure(share, '%')}"
    return Bar(left, top, round(max(right - left - 1, 0.5), 1), round(up(0) - top, 1), text)


def _outline(low: float, step: float, shares: list[float], across: Scale, up: Scale) -> str:
    places = [
        f"{across(low + edge * step):g},{up(share):g}"
        for number, share in enumerate(shares)
        for edge in (number, number + 1)
    ]
    return "M" + " L".join(places)
