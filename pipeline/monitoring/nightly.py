"""Metrics that the nights before give: the share of each usual category, and whether a night is a copy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.monitoring.columns import Categories, Column, Numbers
from pipeline.monitoring.metrics import Metric
from pipeline.monitoring.profile import PARTS, Part, Profile

MOST_SHARES = 20
"""Categories of a column whose shares are watched, the most frequent ones."""
LEAST_SHARE = 0.01
_TELLING = 20  # distinct values: two nights with so many have equal counts only if one is a copy


def nightly_metrics(profile: Profile, rolling: Profile, previous: Profile | None) -> list[Metric]:
    """`share:VALUE` of the frequent values of `rolling`; `copied_share` of input columns against `previous`.

    Values of columns of personal data are never in a profile. Where no input has many values, or no night
    came before, nothing is said of copies.
    """
    shares = [metric for part in PARTS if part != "score" for metric in _shares(part, profile, rolling)]
    copied = None if previous is None else copied_share(profile, previous)
    return shares if copied is None else [*shares, Metric("rows", "rows", "copied_share", "none", copied)]


def _shares(part: Part, profile: Profile, rolling: Profile) -> Iterator[Metric]:
    for name, column in profile.part(part).items():
        usual = rolling.part(part).get(name)
        present = column.rows - column.missing
        if isinstance(column, Categories) and isinstance(usual, Categories) and present:
            for value in _frequent(usual):
                yield Metric(part, name, f"share:{value}", "none", column.counts.get(value, 0) / present)


def _frequent(usual: Categories) -> list[str]:
    least = LEAST_SHARE * (usual.rows - usual.missing)
    frequent = [(count, value) for value, count in usual.counts.items() if count >= least]
    return [value for _, value in sorted(frequent, reverse=True)[:MOST_SHARES]]


def copied_share(profile: Profile, previous: Profile) -> float | None:
    """Share of the input columns of many values whose counts are those of the night before; None of none."""
    telling = [name for name, column in profile.input.items() if _values(column) >= _TELLING]
    if not telling:
        return None
    copied = [name for name in telling if _is_equal(profile.input[name], previous.input.get(name))]
    return len(copied) / len(telling)


def _values(column: Column) -> int:
    if isinstance(column, Numbers):
        return len(column.buckets.codes)
    return len(column.counts) if isinstance(column, Categories) else 0


def _is_equal(one: Column, other: Column | None) -> bool:
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        mine, theirs = one.buckets, other.buckets
        return np.array_equal(mine.codes, theirs.codes) and np.array_equal(mine.counts, theirs.counts)
    return isinstance(one, Categories) and isinstance(other, Categories) and one.counts == other.counts
