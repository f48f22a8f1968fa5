"""A fingerprint of content: the same rows give the same digest, whatever buffers and batches held them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Parameter
from pipeline.streams import rebatch


class Fingerprint:
    """sha256 over rows in their order; feed it batches as `rebatch` cuts them.

    It takes the types that the boundary gives; raises TypeError on any other.
    """

    def __init__(self, schema: pa.Schema) -> None:
        columns = [(field.name, str(field.type)) for field in schema]
        self._digest = hashlib.sha256(json.dumps(columns).encode())

    def update(self, batch: pa.RecordBatch) -> None:
        """Take one batch in."""
        self._digest.update(batch.num_rows.to_bytes(8, "little"))
        for column in batch.columns:
            for part in _canonical(column):
                self._digest.update(part)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()


def of_table(table: pa.Table) -> str:
    """The fingerprint of a table's rows in their order."""
    fingerprint = Fingerprint(table.schema)
    for batch in rebatch(table.to_batches()):
        fingerprint.update(batch)
    return fingerprint.hexdigest()


def combined(rows: str, history: Mapping[str, str], parameters: Mapping[str, Parameter]) -> str:
    """One digest over the rows' digest, each history's digest by name, and the parameters."""
    parts = {"rows": rows, "history": dict(history), "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_text).encode()).hexdigest()


def of_many(digests: Iterable[str]) -> str:
    """One digest over several, in their order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _text(value: object) -> str:
    if isinstance(value, date | datetime):
        return f"{type(value).__name__} {value.isoformat()}"
    raise TypeError(f"a parameter must be a number, a text, a date or an instant; got {type(value)}")


def _canonical(column: pa.Array) -> Iterator[bytes]:
    """The column's validity and values as bytes; what lies under a null counts as zero."""
    if column.null_count:
        yield b"\x01" + np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    else:
        yield b"\x00"
    if pa.types.is_string(column.type):
        yield from _canonical_text(column)
    elif not pa.types.is_null(column.type):
        yield _numbers(column).to_numpy(zero_copy_only=False).tobytes()


def _numbers(column: pa.Array) -> pa.Array:
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise TypeError(f"a fingerprint must be of conformed columns; got {column.type}")
    return column.fill_null(0) if column.null_count else column


def _canonical_text(column: pa.Array) -> Iterator[bytes]:
    column = column.fill_null("") if column.null_count else column
    yield pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes()
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)
    start, end = offsets[column.offset], offsets[column.offset + len(column)]
    data = column.buffers()[2]
    yield data.slice(start, end - start).to_pybytes() if data is not None else b""
