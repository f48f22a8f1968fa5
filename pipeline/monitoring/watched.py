"""What is watched from night to night: metrics brought to a scale on which nights spread evenly.

A share p becomes arcsin(sqrt(p)), whose sampling error 1 / (2 sqrt(rows)) does not depend on p (Anscombe,
1948); a divergence and a number of rows become logarithms; a mean is told in standard deviations of its
column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.monitoring.divergence import BINS

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

ROW_SHARES = ("quarantined_share", "withheld_share", "fallback_share")
SHARES = (*ROW_SHARES, "missing_share", "unseen_share", "share_over_threshold")
ONLY_UPWARDS = (*ROW_SHARES, "missing_share", "unseen_share", "js")
"""Metrics that are worse only when they are higher."""

_ALONE = ({*SHARES} - {"unseen_share"}) | {"rows_in", "mean", "copied_share"}
_LEAST_LOG_JS = 0.25  # where a column never moved: about half of what sampling alone does to log js
_LEAST_LOG_ROWS = 0.01
_ROUNDING = 1e-9  # of its mean: the standard deviation that a constant has in floating point
_LEAST_SHARE = 0.25  # of the sampling error: a timetable varies less than a sample would


@dataclass(frozen=True)
class Statistic:
    """One watched figure; those of a family share one limit."""

    part: str
    column: str
    metric: str
    family: str
    floor: float
    """The least standard deviation from night to night that is believed."""

    @property
    def name(self) -> str:
        """Where it is measured."""
        return self.column if self.part == self.column else f"{self.part} {self.column}"


@dataclass(frozen=True)
class Watched:
    """Statistics of consecutive nights: `values` float64 (nights, statistics), NaN where not measured.

    `raw`, of that shape, holds the metrics themselves.
    """

    days: pd.DatetimeIndex
    statistics: tuple[Statistic, ...]
    values: Floats
    raw: Floats

    def of(self, metric: str) -> Flags:
        """Which ones are of that metric, bool (statistics,)."""
        return np.array([statistic.metric == metric for statistic in self.statistics], dtype=bool)


def watched(metrics: pd.DataFrame) -> Watched:
    """From the metrics of consecutive nights, one row per (day, part, column_name, metric, baseline)."""
    where = ["part", "column_name", "metric"]
    wide = metrics[_is_watched(metrics)].pivot(index="day", columns=where, values="value")
    spreads = metrics[metrics["metric"] == "std"].groupby(["part", "column_name"])["value"].median()
    rows = wide[("rows", "rows", "rows_in")].to_numpy(dtype=np.float64)
    usual_rows = float(np.nanmedian(rows))
    made = list(_statistics(wide, spreads, max(usual_rows, 1.0)))
    return Watched(
        days=pd.DatetimeIndex(wide.index),
        statistics=tuple(statistic for statistic, _, _ in made),
        values=np.column_stack([values for _, values, _ in made]),
        raw=np.column_stack([raw for _, _, raw in made]),
    )


def is_share_metric(metric: str) -> bool:
    """Whether the metric is a share of the rows."""
    return metric in SHARES or metric.startswith("share:")


def _is_watched(metrics: pd.DataFrame) -> pd.Series[bool]:
    metric, baseline = metrics["metric"], metrics["baseline"]
    alone = metric.isin([*_ALONE]) | metric.str.startswith("share:")
    against_nights = metric.isin(["js", "unseen_share"])
    return (alone & (baseline == "none")) | (against_nights & (baseline == "rolling"))


def _statistics(
    wide: pd.DataFrame, spreads: pd.Series[float], rows: float
) -> Iterator[tuple[Statistic, Floats, Floats]]:
    noise = 1 / (2 * np.sqrt(rows))
    for place, (part, column, metric) in enumerate(wide.columns.to_frame().itertuples(index=False)):
        raw = wide.iloc[:, place].to_numpy(dtype=np.float64)
        if is_share_metric(metric):
            values = np.arcsin(np.sqrt(np.clip(raw, 0, 1)))
            floor = noise * (_LEAST_SHARE if metric.startswith("share:") else 1)
        elif metric == "js":
            # What sampling alone gives: a chi-square of BINS degrees of freedom over 8 ln 2 rows.
            values, floor = np.log(raw + BINS / (8 * np.log(2) * rows)), _LEAST_LOG_JS
        elif metric == "rows_in":
            values, floor = np.log(np.maximum(raw, 1)), _LEAST_LOG_ROWS
        elif metric == "mean":
            spread = float(spreads.get((part, column), 0.0))
            varies = spread > _ROUNDING * np.nanmax(np.abs(raw), initial=0)
            values, floor = (raw / spread, 1 / np.sqrt(rows)) if varies else (raw, 0.0)
        else:
            values, floor = raw, 1.0
        yield Statistic(part, column, metric, _family(part, column, metric), float(floor)), values, raw


def _family(part: str, column: str, metric: str) -> str:
    if part == "score":
        return f"{column} {metric}"
    if metric.startswith("share:"):
        return f"{part} {column} shares"
    return "rows share" if metric in ROW_SHARES else f"{part} {metric}"
