"""The usual rules, on the same profiles and metrics: which columns they flag on a night."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.monitoring.columns import Categories, Column, Numbers
from pipeline.monitoring.divergence import category_bins
from pipeline.monitoring.profile import PARTS, Profile
from pipeline.monitoring.surprise import LEAST, WINDOW

Scores = dict[str, float]
"""By column, how strongly a rule objects; a rule's threshold decides."""


def psi(metrics: pd.DataFrame) -> Scores:
    """Of one night's metrics: the index against the rolling baseline."""
    found = metrics[(metrics["metric"] == "psi") & (metrics["baseline"] == "rolling")]
    return dict(zip(found["part"] + " " + found["column_name"], found["value"], strict=True))


def corrected_tests(night: Profile, rolling: Profile) -> Scores:
    """-log10 p of Kolmogorov-Smirnov and chi-square tests against the rolling nights, by Bonferroni."""
    columns = {f"{part} {name}": (column, rolling.part(part).get(name)) for part in PARTS
               for name, column in night.part(part).items()}  # fmt: skip
    p = {name: _p(column, baseline) for name, (column, baseline) in columns.items()}
    return {name: -np.log10(min(max(value * len(p), 1e-300), 1)) for name, value in p.items()}


def _p(column: Column, baseline: Column | None) -> float:
    if isinstance(column, Numbers) and isinstance(baseline, Numbers) and column.present and baseline.present:
        level = max(column.buckets.level, baseline.buckets.level)
        mine, theirs = column.buckets.at(level), baseline.buckets.at(level)
        codes = np.union1d(mine, theirs)
        shares = [
            np.cumsum(np.bincount(np.searchsorted(codes, at), each.buckets.counts, len(codes))) / each.present
            for at, each in ((mine, column), (theirs, baseline))
        ]
        size = column.present * baseline.present / (column.present + baseline.present)
        return float(stats.kstwobign.sf(np.sqrt(size) * np.abs(shares[0] - shares[1]).max()))
    if isinstance(column, Categories) and isinstance(baseline, Categories):
        table = np.array(category_bins(column, baseline))
        table = table[:, table.sum(axis=0) > 0]
        return float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    return 1.0


def deviations(values: np.ndarray, names: Sequence[str]) -> Scores:
    """Of the last of `values` (nights, figures): distance from the mean of the WINDOW before, in sds."""
    before = values[-WINDOW - 1 : -1]
    known = np.flatnonzero(np.isfinite(values[-1]) & (np.isfinite(before).sum(axis=0) >= LEAST))
    mean = np.nanmean(before[:, known], axis=0)
    spread = np.nanstd(before[:, known], axis=0, ddof=1) + 1e-9 * np.abs(mean) + 1e-12
    far = np.abs(values[-1, known] - mean) / spread
    return {names[at]: float(value) for at, value in zip(known.tolist(), far, strict=True)}
