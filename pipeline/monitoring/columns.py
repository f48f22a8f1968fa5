"""What is kept of one column of a partition: mergeable, bounded, and without any row.

Null, NaN and infinite values count as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.monitoring.buckets import Buckets, Codes, Floats, counted

MOST_VALUES = 4096
"""Values of a category that are counted exactly; beyond, only frequent ones are kept."""


@dataclass(frozen=True)
class Unread:
    """A column of which only missing values are counted: personal data, or the only key column."""

    rows: int
    missing: int


@dataclass(frozen=True)
class Numbers:
    """Moments and buckets of a column's numbers; min and max are NaN where all values are missing.

    `m2` is the sum of squared deviations from the mean.
    """

    rows: int
    missing: int
    mean: float
    m2: float
    min: float
    max: float
    buckets: Buckets

    @property
    def present(self) -> int:
        """Rows that have a number."""
        return self.rows - self.missing

    @property
    def std(self) -> float:
        """Standard deviation of the numbers as a population (ddof 0)."""
        return float(np.sqrt(self.m2 / self.present)) if self.present else float("nan")

    def middles(self) -> Floats:
        """A number for each bucket, sorted; exact up to `buckets.BOUND` distinct numbers."""
        return self.buckets.middles(self.min, self.max) if self.present else np.empty(0)


@dataclass(frozen=True)
class Categories:
    """How often each value stands in a column.

    Exact up to MOST_VALUES distinct values. Beyond, the most frequent ones, each undercounted by at most
    `undercount` (Misra-Gries summaries, merged as in Agarwal et al., Mergeable Summaries, 2012).
    """

    rows: int
    missing: int
    counts: Mapping[str, int]
    undercount: int

    @property
    def is_exact(self) -> bool:
        """Whether every value is there, with its true count."""
        return self.undercount == 0


Column: TypeAlias = Unread | Numbers | Categories


def numbers(values: Floats, missing: int = 0) -> Numbers:
    """Of float64 (n,), and of further rows that are missing."""
    rows = len(values) + missing
    finite = np.isfinite(values)
    if not finite.all():
        values = values[finite]
    count = len(values)
    if count == 0:
        return Numbers(rows, rows, 0.0, 0.0, np.nan, np.nan, Buckets.of(values))
    # Absurd numbers may overflow here; the metrics leave out what is not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        m2 = float(np.sum((values - mean) ** 2))
    return Numbers(
        rows=rows,
        missing=rows - count,
        mean=mean,
        m2=m2,
        min=float(values.min()),
        max=float(values.max()),
        buckets=Buckets.of(values),
    )


def whole_numbers(values: Codes, missing: int = 0) -> Numbers:
    """Of int64 (n,), and of further rows that are missing; numbers above 2**53 are rounded."""
    if len(values) == 0:
        return numbers(np.empty(0), missing)
    distinct, counts = counted(values)
    present = distinct.astype(np.float64)
    mean = float(np.average(present, weights=counts))
    return Numbers(
        rows=len(values) + missing,
        missing=missing,
        mean=mean,
        m2=float(counts @ (present - mean) ** 2),
        min=float(present.min()),
        max=float(present.max()),
        buckets=Buckets.of_counted(present, counts),
    )


def categories(values: pa.Array) -> Categories:
    """Of texts or truth values; null is missing."""
    found = pc.value_counts(values.drop_null())
    names, counts = found.field(0), found.field(1).to_numpy()
    undercount = 0
    if len(counts) > MOST_VALUES:
        undercount = _least(counts)
        kept = np.flatnonzero(counts > undercount)
        names, counts = names.take(pa.array(kept)), counts[kept] - undercount
    texts = names.cast(pa.string()).to_pylist()
    return Categories(
        len(values), values.null_count, dict(zip(texts, counts.tolist(), strict=True)), undercount
    )


def merged(columns: Sequence[Column]) -> Column:
    """One column of several partitions, or of several parts of one; all of the same kind."""
    rows, missing = sum(column.rows for column in columns), sum(column.missing for column in columns)
    if len(columns) == 1:
        return columns[0]
    if found := [column for column in columns if isinstance(column, Numbers)]:
        return _merged_numbers(found, rows, missing)
    if held := [column for column in columns if isinstance(column, Categories)]:
        return reduce(_merged_categories, held)
    return Unread(rows, missing)


def _merged_numbers(columns: Sequence[Numbers], rows: int, missing: int) -> Numbers:
    filled = [column for column in columns if column.present] or columns[:1]
    counts = np.array([column.present for column in filled], dtype=np.float64)
    means = np.array([column.mean for column in filled])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(counts @ means / max(counts.sum(), 1))
        # Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm, 1979.
        m2 = float(sum(column.m2 for column in filled) + counts @ (means - mean) ** 2)
    return Numbers(
        rows=rows,
        missing=missing,
        mean=mean,
        m2=m2,
        min=min(column.min for column in filled),
        max=max(column.max for column in filled),
        buckets=Buckets.merged([column.buckets for column in filled]),
    )


def _merged_categories(one: Categories, other: Categories) -> Categories:
    few, many = sorted((one.counts, other.counts), key=len)
    counts = dict(many)
    for value, count in few.items():
        counts[value] = counts.get(value, 0) + count
    undercount = one.undercount + other.undercount
    if len(counts) > MOST_VALUES:
        least = _least(np.array(list(counts.values())))
        counts = {value: count - least for value, count in counts.items() if count > least}
        undercount += least
    return Categories(one.rows + other.rows, one.missing + other.missing, counts, undercount)


def _least(counts: Codes) -> int:
    """The largest count that is not among the MOST_VALUES largest."""
    place = len(counts) - MOST_VALUES - 1
    return int(np.partition(counts, place)[place])
