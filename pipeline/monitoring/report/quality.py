"""The realised quality of one run: all its rows, then slice by slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.monitoring.quality import ALL, CHAMPION
from pipeline.monitoring.report.facts import Realised

SLICE_METRICS: Mapping[str | None, tuple[str, ...]] = {
    "value": ("mae", "bias", "cost_per_1000"),
    "probability": ("auc", "base_rate", "mean_score", "precision", "recall", "cost_per_1000"),
    None: ("auc", "mae", "cost_per_1000"),
}
"""What slices are compared by."""
_MOST = 12


@dataclass(frozen=True)
class Judged:
    """Rows that were judged together, and their metrics by name."""

    name: str
    rows: int
    labelled: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Slices:
    """The values of one column, the largest first; `left_out` says how many more there are."""

    column: str
    metrics: tuple[str, ...]
    values: tuple[Judged, ...]
    left_out: int


def whole(realised: Iterable[Realised]) -> Judged | None:
    """All rows together; None while nothing was judged."""
    held = [one for one in realised if (one.arm, one.slice_column) == (ALL, ALL)]
    return _judged("all rows", held) if held else None


def estimated_rows(realised: Iterable[Realised]) -> Judged | None:
    """What was estimated before labels came: the champion's arm where there are arms, else all rows."""
    there = list(realised)
    held = [one for one in there if (one.arm, one.slice_column) == (CHAMPION, ALL)]
    return _judged(CHAMPION, held) if held else whole(there)


def slices(realised: Iterable[Realised], output: str | None) -> list[Slices]:
    """Arms, then each declared column."""
    by_column: dict[str, dict[str, list[Realised]]] = {}
    for one in realised:
        if one.arm != ALL and one.slice_column == ALL:
            by_column.setdefault("arm", {}).setdefault(one.arm, []).append(one)
        elif one.arm == ALL and one.slice_column != ALL:
            by_column.setdefault(one.slice_column, {}).setdefault(one.slice_value, []).append(one)
    return [_slices(column, by_value, output) for column, by_value in by_column.items()]


def _slices(column: str, by_value: Mapping[str, list[Realised]], output: str | None) -> Slices:
    values = sorted((_judged(value, held) for value, held in by_value.items()), key=lambda one: -one.rows)
    there = {metric for value in values for metric in value.metrics}
    metrics = tuple(metric for metric in SLICE_METRICS[output] if metric in there)
    return Slices(column, metrics, tuple(values[:_MOST]), max(len(values) - _MOST, 0))


def _judged(name: str, held: list[Realised]) -> Judged:
    return Judged(name, held[0].rows, held[0].labelled, {one.metric: one.value for one in held})
