"""How far a column's distribution lies from its baseline; the same values always give the same figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.monitoring.buckets import Floats, codes_of
from pipeline.monitoring.columns import Categories, Numbers

BINS = 10
"""Bins of equal baseline share, where ties allow; beside them one below, one above, one of the missing."""

SMALLEST_SHARE = 1e-4
"""Stands for an empty bin's share in psi, which knows no zero."""


def js(one: Floats, other: Floats) -> float:
    """Jensen-Shannon divergence of counts over the same bins, in bits: 0 for equal shares, 1 for disjoint.

    The square of scipy's distance of base 2.
    """
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(one, other, base=2)) ** 2)


def psi(one: Floats, other: Floats) -> float:
    """Population stability index of counts over the same bins: sum of (p - q) ln(p / q)."""
    p, q = (np.maximum(counts / counts.sum(), SMALLEST_SHARE) for counts in (one, other))
    return float(np.sum((p - q) * np.log(p / q)))


def wasserstein(column: Numbers, baseline: Numbers) -> float | None:
    """Wasserstein-1 distance in standard deviations of the baseline; None where that has none."""
    from scipy.stats import wasserstein_distance

    if not (column.present and baseline.present and baseline.std > 0):
        return None
    distance = wasserstein_distance(
        column.middles(), baseline.middles(), column.buckets.counts, baseline.buckets.counts
    )
    return float(distance / baseline.std)


def number_bins(column: Numbers, baseline: Numbers) -> tuple[Floats, Floats]:
    """Counts float64 (bins,) of both columns: below the baseline, its BINS quantile bins, above, missing.

    Bins end with buckets of the coarser of the two columns, so counts are exact and neither is split.
    """
    level = max(column.buckets.level, baseline.buckets.level)
    ends = _bin_ends(baseline, level)
    counts = (
        np.append(
            np.bincount(
                np.searchsorted(ends, each.buckets.at(level)), each.buckets.counts, minlength=len(ends) + 1
            ),
            each.missing,
        )
        for each in (column, baseline)
    )
    return next(counts), next(counts)


def _bin_ends(baseline: Numbers, level: int) -> npt.NDArray[np.int64]:
    """The last code of each bin but the one above, int64, sorted; the first bin ends below the baseline."""
    if not baseline.present:
        return np.zeros(1, dtype=np.int64)
    codes = baseline.buckets.at(level)
    ranks = np.arange(1, BINS + 1) / BINS * baseline.present
    ends = codes[_places(baseline, ranks)]
    return np.unique(np.append(ends, codes[0] - 1))


def quantiles(column: Numbers, shares: Floats) -> Floats:
    """The smallest number that at least so large a share does not exceed (numpy's `inverted_cdf`)."""
    return column.middles()[_places(column, shares * column.present)]


def _places(column: Numbers, ranks: Floats) -> npt.NDArray[np.intp]:
    cumulated = np.cumsum(column.buckets.counts)
    # A rank that is whole but for rounding is meant to be whole.
    places: npt.NDArray[np.intp] = np.searchsorted(
        cumulated, np.minimum(ranks - 1e-9 * column.present, cumulated[-1])
    )
    return places


def out_of_range_share(column: Numbers, baseline: Numbers) -> float | None:
    """Share of the numbers outside of the baseline's min to max; None where either has no number.

    A bucket that holds the minimum or maximum counts as inside.
    """
    if not (column.present and baseline.present):
        return None
    buckets = column.buckets
    lowest, highest = codes_of(np.array([baseline.min, baseline.max])) >> buckets.level
    outside = (buckets.codes < lowest) | (buckets.codes > highest)
    return float(buckets.counts[outside].sum() / column.present)


def category_bins(column: Categories, baseline: Categories) -> tuple[Floats, Floats]:
    """Counts float64 (bins,) of both columns: each value, all that are not certain together, missing.

    Where a column holds frequent values only, just those have a bin whose count is above what it may lack.
    """
    partial = [each for each in (column, baseline) if not each.is_exact]
    values = set().union(*(_certain(each) for each in partial or (column, baseline)))
    counts = (np.array(list(_counts(each, sorted(values))), dtype=np.float64) for each in (column, baseline))
    return next(counts), next(counts)


def _certain(column: Categories) -> set[str]:
    return {value for value, count in column.counts.items() if count > column.undercount}


def _counts(column: Categories, values: list[str]) -> Iterator[int]:
    own = [column.counts.get(value, 0) for value in values]
    yield from own
    yield column.rows - column.missing - sum(own)
    yield column.missing


def unseen_share(column: Categories, baseline: Categories) -> float | None:
    """Share of the present values that the baseline never had; None where not all values are known."""
    present = column.rows - column.missing
    if present == 0 or not (column.is_exact and baseline.is_exact):
        return None
    unseen = sum(count for value, count in column.counts.items() if value not in baseline.counts)
    return unseen / present
