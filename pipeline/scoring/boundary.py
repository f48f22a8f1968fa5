"""The typed boundary: what the source sends becomes the declared columns, or it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ChangedColumn
from pipeline.job import ColumnType

ARROW_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}

_ACCEPTED: Mapping[str, Callable[[pa.DataType], bool]] = {
    "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    "integer": pa.types.is_integer,
    "float": lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date32,
    "timestamp": pa.types.is_timestamp,
}

_UNTYPED_ACCEPTED: Mapping[str, Callable[[pa.DataType], bool]] = {
    "boolean": pa.types.is_integer,
    "date": pa.types.is_string,
    "timestamp": pa.types.is_string,
}

REPLACEMENT = "\ufffd"
"""Stands where bytes were not UTF-8 text; the engine's rule `engine:valid_text` looks for it."""


def arrow_schema(columns: Mapping[str, ColumnType]) -> pa.Schema:
    """The snapshot's schema: the declared columns in their order."""
    return pa.schema([(name, ARROW_TYPES[kind.rstrip("?")]) for name, kind in columns.items()])


def check_schema(got: pa.Schema, columns: Mapping[str, ColumnType], *, typed: bool) -> tuple[str, ...]:
    """The names of extra columns; raises ChangedColumn naming every missing or retyped column.

    `typed` is false for a database such as SQLite, which sends dates and instants as text.
    """
    problems = []
    for name, kind in columns.items():
        if name not in got.names:
            problems.append(f"column {name!r} must be there; it is gone")
        elif not _accepts(got.field(name).type, kind.rstrip("?"), typed=typed):
            problems.append(f"column {name!r} must be {kind}; got {_shown(got.field(name))}")
    if problems:
        raise ChangedColumn(
            "the extract must give the declared columns: "
            + "; ".join(problems)
            + ". Cast in extract.sql, or change extract.columns and train a new version."
        )
    return tuple(name for name in got.names if name not in columns)


def _accepts(got: pa.DataType, kind: str, *, typed: bool) -> bool:
    if pa.types.is_null(got) or _ACCEPTED[kind](got):
        return True
    return not typed and kind in _UNTYPED_ACCEPTED and _UNTYPED_ACCEPTED[kind](got)


def _shown(field: pa.Field) -> str:
    metadata = field.metadata or {}
    native = metadata.get(b"ADBC:postgresql:typname")
    return f"{field.type} ({native.decode()})" if native else str(field.type)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the schema's columns; text that is no UTF-8 gets the replacement sign."""
    columns = [_conform_column(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _conform_column(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_string(field.type):
        return _valid_text(column.cast(field.type))
    try:
        if pa.types.is_timestamp(field.type) and pa.types.is_string(column.type):
            column = column.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            column = pc.assume_timezone(column, "UTC")
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise ChangedColumn(
            f"column {field.name!r} must fit {field.type}; got values of {column.type} that do not"
        ) from error


def _valid_text(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary()).to_pylist()
        decoded = [None if v is None else v.decode("utf-8", errors="replace") for v in raw]
        return pa.array(decoded, pa.string())
    return column
