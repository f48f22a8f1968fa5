"""The typed boundary: what the source sends becomes the declared columns, or it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime

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

REPLACEMENT = "\ufffd"
"""Stands where bytes were not UTF-8 text; the engine's rule `engine:valid_text` looks for it."""


def _is_text(dtype: pa.DataType) -> bool:
    plain = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(plain) for is_kind in kinds)


_ACCEPTED: Mapping[str, Callable[[pa.DataType], bool]] = {
    "text": _is_text,
    "integer": pa.types.is_integer,
    "float": lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date32,
    "timestamp": pa.types.is_timestamp,
}
_UNTYPED_ACCEPTED: Mapping[str, Callable[[pa.DataType], bool]] = {
    "boolean": pa.types.is_integer,
    "date": _is_text,
    "timestamp": _is_text,
}
_LIMITS: Mapping[pa.DataType, tuple[pa.Scalar, pa.Scalar]] = {
    dtype: (pa.scalar(first, dtype), pa.scalar(last, dtype))
    for dtype, first, last in (
        (ARROW_TYPES["date"], date.min, date.max),
        (ARROW_TYPES["timestamp"], datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    )
}
"""What a snapshot's readers can hold; an infinite date is beyond it."""


def arrow_schema(columns: Mapping[str, ColumnType]) -> pa.Schema:
    """The snapshot's schema: the declared columns in their order."""
    return pa.schema([(name, ARROW_TYPES[kind.rstrip("?")]) for name, kind in columns.items()])


def check_schema(got: pa.Schema, columns: Mapping[str, ColumnType], *, typed: bool) -> tuple[str, ...]:
    """The names of extra columns of an extract; raises ChangedColumn naming every missing or retyped column.

    `typed` is false for a database such as SQLite, which sends dates and instants as text.
    """
    if problems := column_faults(got, columns, typed=typed):
        raise ChangedColumn(
            "the extract must give the declared columns: "
            + "; ".join(problems)
            + ". Cast in extract.sql, or change extract.columns and train a new version."
        )
    return tuple(name for name in got.names if name not in columns)


def column_faults(got: pa.Schema, columns: Mapping[str, ColumnType], *, typed: bool) -> list[str]:
    """What is missing, repeated or of another type, a sentence each."""
    problems = []
    for name, kind in columns.items():
        found = got.get_all_field_indices(name)
        if not found:
            problems.append(f"column {name!r} must be there; it is gone")
        elif len(found) > 1:
            problems.append(f"column {name!r} must be there once; got {len(found)} of that name")
        elif not _accepts(got.field(found[0]), kind.rstrip("?"), typed=typed):
            problems.append(f"column {name!r} must be {kind}; got {_shown(got.field(found[0]))}")
    return problems


def undeclared_schema(got: pa.Schema, place: str) -> pa.Schema:
    """The schema of a query whose columns are not declared; raises ChangedColumn on types of no kind.

    A column that a database without types sends all null stays of type null.
    """
    repeated = sorted({name for name in got.names if got.names.count(name) > 1})
    problems = [f"column {name!r} must be there once" for name in repeated]
    problems += [
        f"column {field.name!r} must be {', '.join(ARROW_TYPES)}; got {_shown(field)}"
        for field in got
        if _kind(field) is None
    ]
    if problems:
        raise ChangedColumn(f"{place} must give plain columns: {'; '.join(problems)}. Cast in its SQL.")
    return pa.schema([(field.name, ARROW_TYPES.get(_kind(field) or "", pa.null())) for field in got])


def _kind(field: pa.Field) -> str | None:
    if pa.types.is_null(field.type):
        return "null"
    return next((kind for kind in ARROW_TYPES if _accepts(field, kind, typed=True)), None)


def _accepts(field: pa.Field, kind: str, *, typed: bool) -> bool:
    # Some drivers send numeric as text, and ADBC sends money as a whole number of cents.
    if _native(field) in ("money", "numeric"):
        return False
    if pa.types.is_null(field.type) or _ACCEPTED[kind](field.type):
        return True
    return not typed and kind in _UNTYPED_ACCEPTED and _UNTYPED_ACCEPTED[kind](field.type)


def _native(field: pa.Field) -> str:
    metadata: Mapping[bytes, bytes] = field.metadata or {}
    return metadata.get(b"POSTGRESQL:type", b"").decode()


def _shown(field: pa.Field) -> str:
    native = _native(field)
    if native == "numeric" or pa.types.is_decimal(field.type):
        return "numeric: cast it, ::double precision or ::bigint"
    return native or str(field.type)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the schema's columns; text that is no UTF-8 gets the replacement sign."""
    columns = [_conform_column(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _conform_column(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_string(field.type):
        return _valid_text(column.cast(field.type))
    try:
        if pa.types.is_timestamp(field.type):
            column = _instants(column)
        column = column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise ChangedColumn(
            f"column {field.name!r} must fit {field.type}; got values of {column.type} that do not"
        ) from error
    return _within_limits(column, field)


def _instants(column: pa.Array) -> pa.Array:
    """Instants of text or without a zone, taken as UTC; text may give its offset."""
    if pa.types.is_string(column.type):
        try:
            column = column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            column = column.cast(pa.timestamp("us", tz="UTC"))
    return pc.assume_timezone(column, "UTC") if _is_naive(column.type) else column


def _is_naive(dtype: pa.DataType) -> bool:
    return pa.types.is_timestamp(dtype) and dtype.tz is None


def _within_limits(column: pa.Array, field: pa.Field) -> pa.Array:
    if field.type in _LIMITS:
        first, last = _LIMITS[field.type]
        within = pc.and_(pc.greater_equal(column, first), pc.less_equal(column, last))
        if pc.all(within).as_py() is False:
            raise ChangedColumn(f"column {field.name!r} must lie in the years 1 to 9999; got values beyond")
    return column


def _valid_text(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary()).to_pylist()
        decoded = [None if v is None else v.decode("utf-8", errors="replace") for v in raw]
        return pa.array(decoded, pa.string())
    return column
