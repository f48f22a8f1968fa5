"""The profile of a partition: its inputs, features and scores column by column, in one pass over batches.

Profiles of batches merge into that of a shard, of a day, of many days: the order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import ColumnType, Extract
from pipeline.monitoring.buckets import Floats
from pipeline.monitoring.columns import Column, Unread, categories, merged, numbers, whole_numbers
from pipeline.partition import Instants
from pipeline.scoring.feature_code import FeatureType

Part: TypeAlias = Literal["input", "feature", "score"]
PARTS: tuple[Part, ...] = ("input", "feature", "score")

SCORE = "score"
DECISION = "decision"

_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class Profile:
    """Columns by part and name; a part is empty where nothing was measured."""

    input: Mapping[str, Column] = field(default_factory=dict)
    feature: Mapping[str, Column] = field(default_factory=dict)
    score: Mapping[str, Column] = field(default_factory=dict)

    def part(self, name: Part) -> Mapping[str, Column]:
        """The columns of one part."""
        columns: Mapping[str, Column] = getattr(self, name)
        return columns


def profile_inputs(rows: pa.RecordBatch | pa.Table, extract: Extract, instants: Instants) -> Profile:
    """Of the declared columns of snapshot rows, good and bad ones.

    Integers and floats are numbers, texts and truth values categories. A timestamp is a number: hours on the
    job's wall clock since the day's midnight, so that a change of clocks is none; a date: days since the day.
    So days can be compared. Of personal data, and of a key of one column, which differs in every row, only
    missing values are counted.
    """
    unread = {*extract.pii, *(extract.key if len(extract.key) == 1 else ())}
    return Profile(
        input={
            name: Unread(rows.num_rows, rows.column(name).null_count)
            if name in unread
            else _input(rows.column(name), kind, instants)
            for name, kind in extract.columns.items()
        }
    )


def profile_features(
    frame: pd.DataFrame, schema: Mapping[str, FeatureType], pii: Sequence[str] = ()
) -> Profile:
    """Of a feature frame (n, n_features) that keeps its contract.

    Of a feature that is called as a column of personal data, only missing values are counted.
    """
    return Profile(feature={name: _feature(frame[name], kind, name in pii) for name, kind in schema.items()})


def profile_scored(
    rows: pa.RecordBatch,
    extract: Extract,
    instants: Instants,
    frame: pd.DataFrame,
    schema: Mapping[str, FeatureType],
) -> Profile:
    """Of snapshot rows and of the features that were made of them.

    A feature that is an input as it was read is measured once.
    """
    inputs = profile_inputs(rows, extract, instants).input
    read = {name: column for name, column in inputs.items() if not isinstance(column, Unread)}
    same = {name: read[name] for name in schema if name in read and _is_same(rows.column(name), frame[name])}
    others = {name: kind for name, kind in schema.items() if name not in same}
    return Profile(input=inputs, feature=same | dict(profile_features(frame, others, extract.pii).feature))


def profile_scores(scores: Floats, threshold: float | None) -> Profile:
    """Of scores float64 (n,), and of the decisions that follow from them where there is a threshold."""
    columns: dict[str, Column] = {SCORE: numbers(scores)}
    if threshold is not None:
        columns[DECISION] = categories(pa.array(scores >= threshold))
    return Profile(score=columns)


def merge(profiles: Sequence[Profile]) -> Profile:
    """The profile of all their rows together; a column that some lack is that of the others."""
    return Profile(**{part: _merged_part([profile.part(part) for profile in profiles]) for part in PARTS})


def _merged_part(parts: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: merged([part[name] for part in parts if name in part]) for name in names}


def _input(column: pa.Array | pa.ChunkedArray, kind: ColumnType, instants: Instants) -> Column:
    name = kind.removesuffix("?")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if name in ("text", "boolean"):
        return categories(column)
    values = column.drop_null() if column.null_count else column
    if name == "timestamp":
        instant = pd.DatetimeIndex(values.cast(pa.timestamp("us")).to_numpy(), tz="UTC")
        clock = instant.tz_convert(instants.timezone).tz_localize(None).to_numpy()
        return numbers((clock - np.datetime64(instants.day, "us")) / _HOUR, column.null_count)
    if name == "date":
        days = values.view(pa.int32()).to_numpy().astype(np.float64)
        return numbers(days - np.datetime64(instants.day).astype(np.int64), column.null_count)
    if pa.types.is_integer(values.type):
        return whole_numbers(values.cast(pa.int64()).to_numpy(), column.null_count)
    return numbers(values.cast(pa.float64()).to_numpy(), column.null_count)


def _is_same(column: pa.Array, feature: pd.Series[str] | pd.Series[float]) -> bool:
    """Whether a feature has the very values of an input, both as numbers or both as texts."""
    if feature.dtype == np.float64:
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            return False
        values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.array_equal(values, feature.to_numpy(), equal_nan=True)
    return bool(pa.types.is_string(column.type) and _texts(feature).equals(column))


def _feature(column: pd.Series[str] | pd.Series[float], kind: FeatureType, is_unread: bool) -> Column:
    if is_unread:
        return Unread(len(column), int(column.isna().sum()))
    if kind.startswith("category"):
        return categories(_texts(column))
    return numbers(np.asarray(column, dtype=np.float64))


def _texts(column: pd.Series[str] | pd.Series[float]) -> pa.Array:
    values = pa.array(column, pa.string(), from_pandas=True)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
