from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.errors import FeatureError
from pipeline.frames import history_frame, rows_frame
from pipeline.job import ColumnType
from pipeline.scoring.boundary import arrow_schema

KINDS: Mapping[str, ColumnType] = {
    "name": "text",
    "count": "integer",
    "size": "float",
    "open": "boolean",
    "day": "date",
    "seen": "timestamp",
}
ROW = {
    "name": "a",
    "count": 3,
    "size": 1.5,
    "open": True,
    "day": date(2013, 5, 1),
    "seen": datetime(2013, 5, 1, 7, tzinfo=UTC),
}


def rows(columns: Mapping[str, ColumnType], *values: Mapping[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(values), schema=arrow_schema(columns))


def dtypes(columns: Mapping[str, ColumnType], *values: Mapping[str, object]) -> dict[str, str]:
    return {str(k): str(v) for k, v in rows_frame(rows(columns, *values), columns).dtypes.items()}


def test_each_declared_type_has_its_dtype() -> None:
    assert dtypes(KINDS, ROW) == {
        "name": "str",
        "count": "int64",
        "size": "float64",
        "open": "bool",
        "day": "datetime64[s]",
        "seen": "datetime64[us, UTC]",
    }


def test_a_nullable_column_has_one_dtype_whether_nulls_are_there_or_not() -> None:
    nullable: Mapping[str, ColumnType] = {name: f"{kind}?" for name, kind in KINDS.items()}  # type: ignore[misc]
    full, empty = dtypes(nullable, ROW), dtypes(nullable, dict.fromkeys(KINDS))
    assert full == empty == dtypes(nullable)
    assert full["count"] == full["open"] == "float64"


def test_a_null_is_missing_and_the_values_stay() -> None:
    columns: Mapping[str, ColumnType] = {"name": "text?", "count": "integer?", "open": "boolean?"}
    frame = rows_frame(rows(columns, {"name": "a", "count": 3, "open": True}, {}), columns)
    assert frame.iloc[0].to_list() == ["a", 3.0, 1.0]
    assert frame.iloc[1].isna().all()


def test_rows_that_broke_their_declaration_still_make_a_frame() -> None:
    broken = rows(KINDS, ROW | {"count": 2**60 + 1}, dict.fromkeys(KINDS))
    frame = rows_frame(broken, KINDS)
    assert frame["count"].to_list()[0] == 2.0**60
    assert frame.iloc[1].isna().all()


def test_the_index_counts_on_from_where_the_chunk_starts() -> None:
    assert list(rows_frame(rows(KINDS, ROW, ROW), KINDS, index_start=7).index) == [7, 8]


def test_only_declared_columns_come_in_declared_order() -> None:
    columns: Mapping[str, ColumnType] = {"size": "float", "name": "text"}
    assert list(rows_frame(rows(KINDS, ROW), columns).columns) == ["size", "name"]


def test_writing_into_the_frame_leaves_the_snapshot_alone() -> None:
    table = rows(KINDS, ROW)
    frame = rows_frame(table, KINDS)
    frame.loc[0, "size"] = 99.0
    assert table["size"].to_pylist() == [1.5]


def test_history_is_looked_up_by_its_key() -> None:
    table = pa.table({"carrier": ["AA", "UA"], "late": pa.array([1, 2], pa.int32())})
    frame = history_frame("carriers", table, ["carrier"])
    assert frame["late"].reindex(pd.Series(["UA", "ZZ"])).to_list()[0] == 2
    assert frame["late"].dtype == np.int64


def test_history_of_two_keys_has_both_in_its_index() -> None:
    table = pa.table({"carrier": ["AA", "AA"], "hour": [6, 7], "mean": [Decimal("0.5"), None]})
    frame = history_frame("hours", table, ["carrier", "hour"])
    assert frame.index.names == ["carrier", "hour"]
    assert frame.loc[("AA", 6), "mean"] == 0.5


def test_history_without_rows_keeps_its_columns() -> None:
    table = pa.table({"carrier": pa.array([], pa.string()), "late": pa.array([], pa.int64())})
    assert list(history_frame("carriers", table, ["carrier"]).columns) == ["late"]


def test_a_repeated_history_key_is_refused_with_its_count_and_without_its_value() -> None:
    table = pa.table({"carrier": ["secret", "secret", "UA"], "late": [1, 2, 3]})
    with pytest.raises(FeatureError, match="one row per carrier; got 1 repeated keys in 3 rows") as caught:
        history_frame("carriers", table, ["carrier"])
    assert "secret" not in str(caught.value)


def test_a_null_in_a_history_key_is_refused() -> None:
    with pytest.raises(FeatureError, match="no null in its key; got 1 in carrier"):
        history_frame("carriers", pa.table({"carrier": ["AA", None], "late": [1, 2]}), ["carrier"])


def test_a_history_without_its_key_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"none named \['hour'\]"):
        history_frame("carriers", pa.table({"carrier": ["AA"]}), ["carrier", "hour"])
