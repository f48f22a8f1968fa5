"""Arrow to pandas: dtypes follow the declaration, never the values, so chunks of one table agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.errors import FeatureError
from pipeline.job import ColumnType


def rows_frame(
    rows: pa.RecordBatch | pa.Table, columns: Mapping[str, ColumnType], index_start: int = 0
) -> pd.DataFrame:
    """The declared columns; row i has the index `index_start + i`.

    text: str; integer: int64; float: float64; boolean: bool; date: datetime64[s]; timestamp:
    datetime64[us, UTC]. Declared nullable, or holding nulls all the same, integer and boolean are float64.
    """
    data = {name: _series(rows.column(name), nullable=kind.endswith("?")) for name, kind in columns.items()}
    return pd.DataFrame(data).set_axis(pd.RangeIndex(index_start, index_start + rows.num_rows))


def history_frame(name: str, table: pa.Table, key: Sequence[str]) -> pd.DataFrame:
    """A history query's answer, indexed by its key; raises FeatureError when that is null or not unique."""
    missing = [column for column in key if column not in table.column_names]
    if missing:
        raise FeatureError(f"history {name!r} must give its key columns; got none named {missing}")
    nulls = {column: table.column(column).null_count for column in key}
    if any(nulls.values()):
        counts = ", ".join(f"{count} in {column}" for column, count in nulls.items() if count)
        raise FeatureError(f"history {name!r} must have no null in its key; got {counts}")
    frame = pd.DataFrame({column: _series(table.column(column)) for column in table.column_names})
    frame = frame.set_index(list(key))
    repeated = int(frame.index.duplicated().sum())
    if repeated:
        raise FeatureError(
            f"history {name!r} must have one row per {', '.join(key)}; got {repeated} repeated keys in "
            f"{len(frame)} rows. Group by the key in history.{name}.sql"
        )
    return frame


def key_index(table: pa.RecordBatch | pa.Table, key: Sequence[str]) -> pd.MultiIndex:
    """The key of each row, one level a key column; `get_indexer` of another one's looks keys up."""
    return pd.MultiIndex.from_frame(pd.DataFrame({column: _series(table.column(column)) for column in key}))


def key_hashes(table: pa.RecordBatch | pa.Table, key: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A hash of each row's key, uint64 (n,): the same in any chunk, order, process and year."""
    hashed = pd.util.hash_pandas_object(key_index(table, key), index=False)
    return np.asarray(hashed, dtype=np.uint64)


def _series(column: pa.Array | pa.ChunkedArray, *, nullable: bool = False) -> pd.Series[Any]:
    # Not the safe cast: it refuses whole numbers above 2**53, and a rule must bear absurd ones.
    dtype = _cast_to(column.type, nullable=nullable or column.null_count > 0)
    series: pd.Series[Any] = column.cast(dtype, safe=False).to_pandas(date_as_object=False)
    return series.astype("datetime64[s]") if pa.types.is_date(column.type) else series


def _cast_to(dtype: pa.DataType, *, nullable: bool) -> pa.DataType:
    if pa.types.is_integer(dtype):
        return pa.float64() if nullable else pa.int64()
    if pa.types.is_boolean(dtype):
        return pa.float64() if nullable else dtype
    return pa.float64() if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype) else dtype
