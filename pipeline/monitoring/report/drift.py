"""How far each column of a run is from both baselines: one line a column, the farthest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.monitoring.report.axes import Scale
from pipeline.monitoring.report.values import Measure

_PARTS = ("input", "feature", "score")
SHOWN = 12
"""Columns that are shown at once; the others are a click away."""
BAR = 100
"""Width of the scale on which both distances lie."""


@dataclass(frozen=True)
class Distance:
    """A column against one baseline; None where it is not measured."""

    js: float | None
    psi: float | None
    wasserstein: float | None
    outside: float | None
    """Share of values outside of the baseline's range, or unseen in it."""
    at: float | None
    """Place of `js` on the common scale."""


@dataclass(frozen=True)
class ColumnDrift:
    """One column: what is missing, and its distances from both baselines."""

    part: str
    column: str
    missing_share: float | None
    training: Distance
    rolling: Distance

    @property
    def farthest(self) -> float:
        """The larger of both distances; what is not measured counts as the nearest."""
        return max(self.training.js or 0.0, self.rolling.js or 0.0)


@dataclass(frozen=True)
class Drift:
    """All columns, the farthest first, and the end of their common scale."""

    columns: tuple[ColumnDrift, ...]
    scale: float

    @property
    def has_distances(self) -> bool:
        """Whether any column is compared with any baseline."""
        return any(column.training.js is not None or column.rolling.js is not None for column in self.columns)


def drift(measures: Iterable[Measure]) -> Drift:
    """The columns that were measured."""
    by_column: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for one in measures:
        if one.part in _PARTS:
            by_column.setdefault((one.part, one.column), {})[one.metric, one.baseline] = one.value
    largest = max(
        (value for held in by_column.values() for (metric, _), value in held.items() if metric == "js"),
        default=0.0,
    )
    end = next((step for step in (0.05, 0.1, 0.25, 0.5) if largest <= step), 1.0)
    scale = Scale(0, end, 0, BAR)
    columns = [
        ColumnDrift(
            part, column, held.get(("missing_share", "none")),
            _distance(held, "training", scale), _distance(held, "rolling", scale),
        )
        for (part, column), held in by_column.items()
    ]  # fmt: skip
    return Drift(tuple(sorted(columns, key=lambda one: (-one.farthest, one.part, one.column))), end)


def _distance(held: dict[tuple[str, str], float], baseline: str, scale: Scale) -> Distance:
    js = held.get(("js", baseline))
    outside = held.get(("out_of_range_share", baseline), held.get(("unseen_share", baseline)))
    return Distance(
        js=js,
        psi=held.get(("psi", baseline)),
        wasserstein=held.get(("wasserstein", baseline)),
        outside=outside,
        at=None if js is None else scale(js),
    )
