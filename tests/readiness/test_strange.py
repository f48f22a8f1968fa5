"""Strange inputs touch what they say and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.job import Extract
from pipeline.readiness.strange import Strange, strange_inputs

EXTRACT = Extract.model_validate(
    {
        "key": ("id",),
        "columns": {"day": "date", "id": "integer", "kind": "text", "amount": "float", "at": "timestamp?"},
        "sql": "select 1",
    }
)
ROWS = pa.RecordBatch.from_pydict(
    {
        "day": pa.nulls(100, pa.date32()),
        "id": pa.array(range(100), pa.int64()),
        "kind": pa.array(["ball"] * 100),
        "amount": pa.array([float(row) for row in range(100)]),
        "at": pa.nulls(100, pa.timestamp("us", tz="UTC")),
    }
)


def named(name: str) -> Strange:
    return next(each for each in strange_inputs(EXTRACT) if each.name == name)


def changed(name: str, rows: pa.RecordBatch = ROWS) -> pa.Table:
    return pa.Table.from_batches(list(named(name).change(iter([rows]))))


def batches() -> Iterator[pa.RecordBatch]:
    yield ROWS.slice(0, 60)
    yield ROWS.slice(60)


@pytest.mark.parametrize("strange", strange_inputs(EXTRACT), ids=lambda strange: strange.name)
def test_each_kind_differs_from_the_rows_and_is_the_same_again(strange: Strange) -> None:
    once, again = (pa.Table.from_batches(list(strange.change(batches()))) for _ in range(2))
    untouched = pa.Table.from_batches(list(batches()))
    # As text: NaN equals NaN there.
    assert str(once.to_pydict()) == str(again.to_pydict()) != str(untouched.to_pydict())


@pytest.mark.parametrize("name", ["nulls", "unseen categories", "extremely large numbers", "NaN"])
def test_a_partial_change_leaves_the_key_and_most_rows_alone(name: str) -> None:
    table = changed(name)
    assert table.column("id").equals(pa.chunked_array([ROWS.column("id")]))
    same = pc.and_(
        pc.equal(table.column("kind"), "ball"),
        pc.equal(table.column("amount"), pa.chunked_array([ROWS.column("amount")])),
    )
    assert 80 <= pc.sum(pc.fill_null(same, False)).as_py() < 100


def test_ten_times_the_rows_have_keys_of_their_own() -> None:
    ids = changed("ten times the rows").column("id")
    assert len(ids) == len(ids.unique()) == 1000


def test_ids_that_already_lie_far_apart_still_get_keys_of_their_own() -> None:
    ids = pa.array([1, 10_000_001, 20_000_001, 2**62], pa.int64())
    rows = ROWS.slice(0, 4).set_column(1, "id", ids)
    assert len(changed("ten times the rows", rows).column("id").unique()) == 40


@pytest.mark.parametrize("strange", strange_inputs(EXTRACT), ids=lambda strange: strange.name)
def test_a_source_may_send_other_numbers_than_are_declared(strange: Strange) -> None:
    narrow = ROWS.set_column(1, "id", ROWS.column("id").cast(pa.int16()))
    narrow = narrow.set_column(3, "amount", ROWS.column("amount").cast(pa.int32()))
    narrow = narrow.set_column(2, "kind", pa.nulls(100))
    assert pa.Table.from_batches(list(strange.change(iter([narrow])))).num_rows >= 0


def test_an_empty_partition_may_be_normal() -> None:
    assert named("no row").must_refuse
    normal = EXTRACT.model_copy(update={"empty_is_normal": True})
    assert not next(each for each in strange_inputs(normal) if each.name == "no row").must_refuse


def test_extremes_are_the_last_values_of_their_type() -> None:
    amounts = changed("extremely small numbers").column("amount")
    assert pc.min(amounts).as_py() == -1.7976931348623157e308
