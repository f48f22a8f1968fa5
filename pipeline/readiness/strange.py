"""Strange inputs: what a source may send one night, as changes of the partition's batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import Extract
from pipeline.scoring.boundary import ARROW_TYPES

Mask = npt.NDArray[np.bool_]
Batches = Iterator[pa.RecordBatch]

CHANGED_COLUMNS = ("a column of another type", "a missing column")
"""Of the kinds, those in which the source's columns are others."""
_SHARE = 0.05
"""Of the rows that a partial change touches."""
_APART = 2**59
"""Between the integer keys of a row's copies: no keys lie so far apart; past 64 bits they wrap around."""
_UNICODE = "Zoë 漢字 \U0001f6eb \u202edrop table\u202c '\"; --"


@dataclass(frozen=True)
class Strange:
    """One kind of strange input; `must_refuse` where no night may publish it."""

    name: str
    change: Callable[[Batches], Batches]
    must_refuse: bool = False


def strange_inputs(extract: Extract, seed: int = 0) -> tuple[Strange, ...]:
    """Every kind that the columns of the extract allow; the same seed touches the same rows."""
    values = [name for name in extract.columns if name not in (*extract.key, "day")]
    text = _of_kind(extract, values, "text")
    numbers = _of_kind(extract, values, "integer", "float")
    typed = next((name for name in values if extract.columns[name].rstrip("?") != "text"), None)
    kinds = [
        Strange("nulls", _some(extract, values, _null, seed)),
        Strange("null keys", _some(extract, list(extract.key), _null, seed)),
        Strange("duplicated rows", _duplicated),
        Strange("one row", _one_row),
        Strange("no row", _no_row, must_refuse=not extract.empty_is_normal),
        Strange("ten times the rows", tenfold(extract)),
    ]
    if numbers:
        kinds += [
            Strange("extremely large numbers", _some(extract, numbers, _extreme(1), seed)),
            Strange("extremely small numbers", _some(extract, numbers, _extreme(-1), seed)),
        ]
    if floats := _of_kind(extract, values, "float"):
        kinds += [
            Strange("infinite numbers", _some(extract, floats, _constant(np.inf), seed)),
            Strange("NaN", _some(extract, floats, _constant(np.nan), seed)),
        ]
    if text:
        kinds += [
            Strange("unseen categories", _some(extract, text, _constant("never seen"), seed)),
            Strange("unicode", _some(extract, text, _constant(_UNICODE), seed)),
            Strange("empty text", _some(extract, text, _constant(""), seed)),
        ]
    if typed:
        kinds += [
            Strange(CHANGED_COLUMNS[0], _retyped(typed), must_refuse=True),
            Strange(CHANGED_COLUMNS[1], _without(typed), must_refuse=True),
        ]
    return tuple(kinds)


def tenfold(extract: Extract) -> Callable[[Batches], Batches]:
    """Each row ten times under keys of their own; unchanged where the key has neither number nor text."""
    numbers = _of_kind(extract, list(extract.key), "integer")
    name = next(iter(numbers or _of_kind(extract, list(extract.key), "text")), None)

    def change(batches: Batches) -> Batches:
        for batch in batches:
            if name is None:
                yield batch
                continue
            column = _declared(batch, name, extract)
            yield _replaced(batch, {name: column})
            for copy in range(1, 10):
                other = (
                    pc.add(column, copy * _APART)
                    if numbers
                    else pc.binary_join_element_wise(column, str(copy), "~")
                )
                yield _replaced(batch, {name: other})

    return change


def _of_kind(extract: Extract, names: list[str], *kinds: str) -> list[str]:
    return [name for name in names if extract.columns[name].rstrip("?") in kinds]


def _declared(batch: pa.RecordBatch, name: str, extract: Extract) -> pa.Array:
    """A number or text in its declared type: a source may send short integers, or integers for floats."""
    column, kind = batch.column(name), extract.columns[name].rstrip("?")
    return column.cast(ARROW_TYPES[kind]) if kind in ("integer", "float", "text") else column


def _some(
    extract: Extract, names: list[str], made: Callable[[pa.Array, Mask], pa.Array], seed: int
) -> Callable[[Batches], Batches]:
    """A share of the rows, others in each column, the first row always among them."""

    def change(batches: Batches) -> Batches:
        random = np.random.default_rng(seed)
        for batch in batches:
            changed = {}
            for name in names:
                mask = random.random(batch.num_rows) < _SHARE
                mask[:1] = True
                changed[name] = made(_declared(batch, name, extract), mask)
            yield _replaced(batch, changed)

    return change


def _null(column: pa.Array, mask: Mask) -> pa.Array:
    return pc.if_else(pa.array(mask), pa.scalar(None, column.type), column)


def _constant(value: float | str) -> Callable[[pa.Array, Mask], pa.Array]:
    return lambda column, mask: pc.if_else(pa.array(mask), pa.scalar(value, column.type), column)


def _extreme(sign: int) -> Callable[[pa.Array, Mask], pa.Array]:
    def made(column: pa.Array, mask: Mask) -> pa.Array:
        if pa.types.is_integer(column.type):
            value: float = 2**63 - 1 if sign > 0 else -(2**63)
        else:
            value = sign * float(np.finfo(np.float64).max)
        return pc.if_else(pa.array(mask), pa.scalar(value, column.type), column)

    return made


def _duplicated(batches: Batches) -> Batches:
    for batch in batches:
        yield batch
        yield batch.slice(0, max(1, round(batch.num_rows * _SHARE)) if batch.num_rows else 0)


def _one_row(batches: Batches) -> Batches:
    yield next(batches).slice(0, 1)
    for _ in batches:
        continue


def _no_row(batches: Batches) -> Batches:
    for batch in batches:
        yield batch.slice(0, 0)


def _retyped(name: str) -> Callable[[Batches], Batches]:
    def change(batches: Batches) -> Batches:
        for batch in batches:
            yield _replaced(batch, {name: pa.array(["not what was declared"] * batch.num_rows, pa.string())})

    return change


def _without(name: str) -> Callable[[Batches], Batches]:
    return lambda batches: (batch.drop_columns([name]) for batch in batches)


def _replaced(batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    held = {name: columns.get(name, batch.column(name)) for name in batch.schema.names}
    return pa.RecordBatch.from_pydict(held)
