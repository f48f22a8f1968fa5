"""Counts of numbers in buckets as fine as 1,024 of them allow: exact, mergeable in any order, deterministic.

A float64 is taken as its bits in the order of numbers; a bucket drops the lowest `level` bits, so it is a
fixed share of its octave wide. The level grows by whole steps while more than `BOUND` buckets are in use
(uniform collapse: Epicoco et al., UDDSketch, 2020). Up to `BOUND` distinct values it stays 0 and each value
has its own bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BOUND = 1024
"""Most buckets in use; 512 to 1,024 cover what many distinct values span."""

Floats: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]

_LOW_BITS = np.int64(2**63 - 1)
_SAMPLE = 2 * BOUND
_DENSE = 1 << 16


def codes_of(values: Floats) -> Codes:
    """int64 codes in the order of the finite numbers, one per value; both zeros have the same one."""
    return _flipped((values + 0.0).view(np.int64))


def values_of(codes: Codes) -> Floats:
    """The numbers of codes (level 0)."""
    return _flipped(codes).view(np.float64)


@dataclass(frozen=True)
class Buckets:
    """Buckets in use: codes int64 (m,), sorted, at `level`, and how many values are in each, int64 (m,)."""

    level: int
    codes: Codes
    counts: Codes

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Count finite numbers, float64 (n,)."""
        codes = codes_of(values)
        # No more than BOUND buckets of a sample: all of them need that level at least, and are counted fast.
        level = _level(np.sort(codes[:_SAMPLE]))
        return cls._of_few(level, *counted(codes >> level))

    @classmethod
    def of_counted(cls, values: Floats, counts: Codes) -> Self:
        """Of distinct finite numbers, float64 (m,), and how often each is there, int64 (m,)."""
        return cls._of_few(0, codes_of(values), counts)

    @classmethod
    def merged(cls, many: Sequence[Buckets]) -> Self:
        """The buckets that all values together would have been given."""
        level = max(buckets.level for buckets in many)
        codes = np.concatenate([buckets.at(level) for buckets in many])
        return cls._of_few(level, codes, np.concatenate([buckets.counts for buckets in many]))

    @classmethod
    def _of_few(cls, level: int, codes: Codes, counts: Codes) -> Self:
        codes, counts = _summed(codes, counts)
        if further := _level(codes):
            codes, counts = _summed(codes >> further, counts)
        return cls(level + further, codes, counts)

    def at(self, level: int) -> Codes:
        """The codes at a level that is not finer, one per bucket; several may be equal there."""
        return self.codes >> (level - self.level)

    def middles(self, lowest: float, highest: float) -> Floats:
        """A number in the middle of each bucket, within the values' range; at level 0 the value itself."""
        half = (1 << self.level) >> 1
        bounds = codes_of(np.array([lowest, highest]))
        return values_of(np.clip((self.codes << self.level) | half, *bounds))


def _flipped(bits: Codes) -> Codes:
    """Bits of negative numbers sort backwards; its own inverse."""
    return bits ^ ((bits >> 63) & _LOW_BITS)


def _level(codes: Codes) -> int:
    """How many low bits must be dropped of sorted codes for at most BOUND distinct ones to remain."""
    if len(codes) <= BOUND:
        return 0
    # Two neighbours fall together once all bits in which they differ are dropped.
    bits = _bit_length((codes[1:] ^ codes[:-1]).view(np.uint64))
    return int(np.partition(bits, len(bits) - BOUND)[len(bits) - BOUND])


def _bit_length(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    # No two ones stay side by side, so that the float cannot round up to the next power of two.
    apart = numbers & ~(numbers >> np.uint64(1))
    return np.frexp(apart.astype(np.float64))[1]


def counted(numbers: Codes) -> tuple[Codes, Codes]:
    """Distinct whole numbers and their counts, in no order."""
    if len(numbers) and (span := int(numbers.max()) - (lowest := int(numbers.min()))) < _DENSE:
        counts = np.bincount(numbers - lowest, minlength=span + 1)
        used = np.flatnonzero(counts)
        return used + lowest, counts[used]
    found = pc.value_counts(pa.array(numbers))
    return found.field(0).to_numpy(), found.field(1).to_numpy()


def _summed(codes: Codes, counts: Codes) -> tuple[Codes, Codes]:
    """Distinct codes, sorted, and the sums of their counts."""
    if len(codes) == 0:
        return codes, counts
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return codes[starts], np.add.reduceat(counts[order], starts)
