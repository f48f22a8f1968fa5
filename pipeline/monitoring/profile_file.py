"""A profile as one small file: JSON in zstd, with arrays as base64; nothing is pickled."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import FatalError
from pipeline.monitoring.buckets import Buckets, Codes
from pipeline.monitoring.columns import Categories, Column, Numbers, Unread
from pipeline.monitoring.profile import PARTS, Profile

_FORMAT = "nightshift-profile"
_VERSION = 1
_CODEC = pa.Codec("zstd", compression_level=6)


def dumps(profile: Profile) -> bytes:
    """The file's content; equal profiles give equal bytes."""
    parts = {part: {name: _written(column) for name, column in profile.part(part).items()} for part in PARTS}
    told = {"format": _FORMAT, "version": _VERSION, "parts": parts}
    return bytes(_CODEC.compress(json.dumps(told, separators=(",", ":")).encode(), asbytes=True))


def loads(content: bytes) -> Profile:
    """The profile of a file's content; raises FatalError for another format or version."""
    try:
        told = json.loads(pa.CompressedInputStream(pa.BufferReader(content), "zstd").read())
        given = told["format"], told["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FatalError(f"a profile must be JSON in zstd; got {type(error).__name__}") from error
    if given != (_FORMAT, _VERSION):
        raise FatalError(f"a profile must be of format {_FORMAT} {_VERSION}; got {given[0]} {given[1]}")
    parts = told["parts"]
    return Profile(**{part: {name: _read(held) for name, held in parts[part].items()} for part in PARTS})


def _written(column: Column) -> dict[str, Any]:
    counts: dict[str, Any] = {"rows": column.rows, "missing": column.missing}
    match column:
        case Numbers():
            buckets = column.buckets
            # Differences of sorted codes are small, so they compress well.
            arrays = {"codes": _packed(np.diff(buckets.codes, prepend=0)), "counts": _packed(buckets.counts)}
            moments = {name: getattr(column, name) for name in ("mean", "m2", "min", "max")}
            return counts | {"kind": "numbers", "level": buckets.level} | moments | arrays
        case Categories():
            values = dict(sorted(column.counts.items()))
            return counts | {"kind": "categories", "undercount": column.undercount, "values": values}
        case Unread():
            return counts | {"kind": "unread"}


def _read(held: Mapping[str, Any]) -> Column:
    rows, missing = held["rows"], held["missing"]
    if held["kind"] == "numbers":
        buckets = Buckets(held["level"], np.cumsum(_unpacked(held["codes"])), _unpacked(held["counts"]))
        return Numbers(rows, missing, held["mean"], held["m2"], held["min"], held["max"], buckets)
    if held["kind"] == "categories":
        return Categories(rows, missing, held["values"], held["undercount"])
    return Unread(rows, missing)


def _packed(numbers: Codes) -> str:
    return b64encode(numbers.astype("<i8").tobytes()).decode("ascii")


def _unpacked(text: str) -> Codes:
    return np.frombuffer(b64decode(text), dtype="<i8").astype(np.int64)
