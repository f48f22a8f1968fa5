from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import ChangedColumn
from pipeline.job import ColumnType
from pipeline.scoring.boundary import (
    REPLACEMENT,
    arrow_schema,
    check_schema,
    conform,
    undeclared_schema,
)

COLUMNS: Mapping[str, ColumnType] = {
    "name": "text",
    "count": "integer",
    "size": "float?",
    "open": "boolean",
    "day": "date",
    "seen": "timestamp?",
}
SCHEMA = arrow_schema(COLUMNS)


def check(got: Mapping[str, pa.DataType], *, typed: bool = True) -> tuple[str, ...]:
    return check_schema(pa.schema(dict(SCHEMA_TYPES) | dict(got)), COLUMNS, typed=typed)


SCHEMA_TYPES = {field.name: field.type for field in SCHEMA}


def conformed(name: str, column: pa.Array) -> list[Any]:
    """The column after the boundary, as values."""
    batch = pa.record_batch([column], names=[name])
    result: list[Any] = conform(batch, pa.schema([SCHEMA.field(name)])).column(0).to_pylist()
    return result


def test_the_schema_is_the_declared_columns_in_their_order() -> None:
    assert SCHEMA.names == list(COLUMNS)
    assert [str(field.type) for field in SCHEMA] == [
        "string", "int64", "double", "bool", "date32[day]", "timestamp[us, tz=UTC]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("name", pa.large_string()),
        ("name", pa.string_view()),
        ("name", pa.dictionary(pa.int8(), pa.string())),
        ("count", pa.int16()),
        ("count", pa.uint32()),
        ("size", pa.float32()),
        ("size", pa.int64()),
        ("seen", pa.timestamp("us")),
        ("seen", pa.timestamp("ms", tz="America/New_York")),
        ("open", pa.null()),
    ],
)
def test_a_column_of_the_same_kind_is_accepted(name: str, dtype: pa.DataType) -> None:
    assert check({name: dtype}) == ()


@pytest.mark.parametrize(
    ("name", "dtype", "shown"),
    [
        ("name", pa.int64(), "must be text; got int64"),
        ("name", pa.binary(), "must be text; got binary"),
        ("name", pa.dictionary(pa.int8(), pa.int64()), "must be text; got dictionary"),
        ("count", pa.string(), "must be integer; got string"),
        ("count", pa.float64(), "must be integer; got double"),
        ("count", pa.bool_(), "must be integer; got bool"),
        ("size", pa.string(), "must be float?; got string"),
        ("size", pa.decimal128(5, 2), "must be float?; got numeric: cast it, ::double precision or ::bigint"),
        ("open", pa.int64(), "must be boolean; got int64"),
        ("day", pa.timestamp("us"), "must be date; got timestamp[us]"),
        ("day", pa.string(), "must be date; got string"),
        ("day", pa.date64(), "must be date; got date64[ms]"),
        ("seen", pa.date32(), "must be timestamp?; got date32[day]"),
        ("seen", pa.list_(pa.int32()), "must be timestamp?; got list"),
    ],
)
def test_a_column_of_another_kind_is_refused(name: str, dtype: pa.DataType, shown: str) -> None:
    with pytest.raises(ChangedColumn) as caught:
        check({name: dtype})
    assert f"column {name!r} {shown}" in str(caught.value)


def test_all_changed_columns_are_named_at_once() -> None:
    got = pa.schema({"name": pa.int64(), "count": pa.int64(), "size": pa.string(), "extra": pa.string()})
    with pytest.raises(ChangedColumn) as caught:
        check_schema(got, COLUMNS, typed=True)
    message = str(caught.value)
    assert "'name' must be text; got int64" in message
    assert "'size' must be float?; got string" in message
    assert all(f"{name!r} must be there; it is gone" in message for name in ("open", "day", "seen"))
    assert "'count'" not in message
    assert "'extra'" not in message
    assert message.endswith("Cast in extract.sql, or change extract.columns and train a new version.")


def test_the_databases_own_name_of_a_type_is_told() -> None:
    fields = [SCHEMA.field(name) for name in COLUMNS if name != "count"]
    numeric = pa.field("count", pa.string(), metadata={"POSTGRESQL:type": "numeric"})
    with pytest.raises(ChangedColumn, match="got numeric: cast it, ::double precision or ::bigint"):
        check_schema(pa.schema([*fields, numeric]), COLUMNS, typed=True)


def test_money_is_no_integer_although_the_driver_sends_it_as_cents() -> None:
    money = pa.schema([pa.field("count", pa.int64(), metadata={"POSTGRESQL:type": "money"})])
    with pytest.raises(ChangedColumn, match="'count' must be integer; got money"):
        check_schema(money, {"count": "integer"}, typed=True)


def test_extra_columns_are_told_and_left_out() -> None:
    assert check({"extra": pa.list_(pa.int64()), "more": pa.null()}) == ("extra", "more")
    batch = pa.record_batch({"extra": [[1]], "count": [7]})
    assert conform(batch, pa.schema([SCHEMA.field("count")])).to_pylist() == [{"count": 7}]


def test_a_column_that_comes_twice_is_refused() -> None:
    got = pa.schema([("count", pa.int64()), ("count", pa.int64())])
    with pytest.raises(ChangedColumn, match="'count' must be there once; got 2 of that name"):
        check_schema(got, {"count": "integer"}, typed=True)


def test_a_database_without_types_may_send_dates_as_text_and_booleans_as_numbers() -> None:
    sent = {"day": pa.string(), "seen": pa.string(), "open": pa.int64()}
    assert check(sent, typed=False) == ()
    with pytest.raises(ChangedColumn):
        check(sent, typed=True)
    with pytest.raises(ChangedColumn, match="'count' must be integer; got string"):
        check({"count": pa.string()}, typed=False)


def test_values_become_the_declared_type() -> None:
    instant = datetime(2013, 5, 1, 7, tzinfo=UTC)
    naive = pa.array([instant.replace(tzinfo=None)], pa.timestamp("us"))
    local = pa.array([instant], pa.timestamp("ms", tz="America/New_York"))
    assert conformed("size", pa.array([1, None], pa.int32())) == [1.0, None]
    assert conformed("count", pa.array([3], pa.uint8())) == [3]
    assert conformed("seen", naive) == conformed("seen", local) == [instant]
    assert conformed("open", pa.array([None], pa.null())) == [None]


def test_dates_and_instants_of_text_are_read_as_utc() -> None:
    instant = datetime(2013, 5, 1, 7, tzinfo=UTC)
    texts = ["2013-05-01 07:00:00", "2013-05-01T07:00:00", "2013-05-01 07:00:00.000000"]
    assert conformed("day", pa.array(["2013-05-01", None])) == [date(2013, 5, 1), None]
    assert conformed("seen", pa.array([*texts, None])) == [instant] * 3 + [None]
    assert conformed("seen", pa.array(["2013-05-01 03:00:00-04:00", "2013-05-01T07:00:00Z"])) == [instant] * 2
    assert conformed("open", pa.array([0, 1, None])) == [False, True, None]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("count", pa.array([2**63], pa.uint64())),
        ("size", pa.array([2**53 + 1])),
        ("day", pa.array(["1 May"])),
        ("seen", pa.array(["secret"])),
        ("seen", pa.array(["2013-05-01 07:00:00", "2013-05-01T07:00:00Z"])),
    ],
)
def test_values_that_do_not_fit_are_refused_by_their_column_and_not_shown(
    name: str, column: pa.Array
) -> None:
    with pytest.raises(ChangedColumn, match=f"column {name!r} must fit") as caught:
        conformed(name, column)
    assert "secret" not in str(caught.value)
    assert "May" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("seen", pa.array([0, 2**63 - 1]).cast(pa.timestamp("us"))),
        ("seen", pa.array([-(2**63), None]).cast(pa.timestamp("us", tz="UTC"))),
        ("day", pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32())),
        ("day", pa.array([-2_147_472_692], pa.int32()).cast(pa.date32())),
    ],
)
def test_infinite_dates_are_refused_before_something_breaks_on_them(name: str, column: pa.Array) -> None:
    with pytest.raises(ChangedColumn, match=f"column {name!r} must lie in the years 1 to 9999"):
        conformed(name, column)


def test_the_first_and_the_last_day_pass() -> None:
    assert conformed("day", pa.array([date.min, date.max])) == [date.min, date.max]


@pytest.mark.parametrize("encoding", [pa.string(), pa.large_string()])
def test_bytes_that_are_no_utf8_become_the_replacement_sign(encoding: pa.DataType) -> None:
    raw = pa.array([b"caf\xe9", b"caf\xc3\xa9", None, b"\xff\xfe"])
    if encoding == pa.large_string():
        raw = raw.cast(pa.large_binary())
    column = pa.Array.from_buffers(encoding, len(raw), raw.buffers())
    assert conformed("name", column) == [f"caf{REPLACEMENT}", "café", None, REPLACEMENT * 2]


def test_bytes_that_are_no_utf8_are_found_behind_an_offset_and_leave_their_neighbours_alone() -> None:
    raw = pa.array([b"\xff", b"a", b"b\xff", b"\xc3\xa9"])
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    assert conformed("name", column.slice(1)) == ["a", f"b{REPLACEMENT}", "é"]
    assert conformed("name", column.slice(1, 1)) == ["a"]


# Queries whose columns are not declared


def test_undeclared_columns_get_the_type_of_their_kind() -> None:
    got = {"t": pa.large_string(), "i": pa.int16(), "f": pa.float32(), "b": pa.bool_(), "d": pa.date32()}
    got |= {"s": pa.timestamp("ms"), "n": pa.null()}
    assert undeclared_schema(pa.schema(got), "history.h.sql") == pa.schema(
        {"t": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "d": pa.date32()}
        | {"s": pa.timestamp("us", tz="UTC"), "n": pa.null()}
    )


def test_all_undeclared_columns_of_no_kind_are_refused_at_once_with_a_hint() -> None:
    fields = [
        pa.field("mean", pa.array([Decimal("0.5")]).type),
        pa.field("total", pa.string(), metadata={"POSTGRESQL:type": "numeric"}),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("again", pa.int64()),
        pa.field("again", pa.int64()),
    ]
    with pytest.raises(ChangedColumn) as caught:
        undeclared_schema(pa.schema(fields), "history.h.sql")
    message = str(caught.value)
    assert message.startswith("history.h.sql must give plain columns: column 'again' must be there once; ")
    for name in ("mean", "tags"):
        assert f"column {name!r} must be text, integer, float, boolean, date, timestamp; got " in message
    assert "numeric: cast it, ::double precision or ::bigint" in message
