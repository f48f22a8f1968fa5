"""A rule in SQL: one expression over the columns of a row, run by an engine that can reach nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlglot import exp

from pipeline.errors import FeatureError, nearest
from pipeline.job import ColumnType
from pipeline.query import parse
from pipeline.query_rules import clock_faults
from pipeline.scoring.boundary import arrow_schema
from pipeline.scoring.featurize import Rows, refuse_scores

if TYPE_CHECKING:
    import duckdb

ROWS = "rows"
_SHUT: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "threads": 1,
    "memory_limit": "256MB",
    "lock_configuration": True,
}
"""No files, no network, no variables of this process, and no way to change that."""
_NOT_ROW_WISE = (exp.AggFunc, exp.Window, exp.UDTF)


def sql_rule_faults(expression: str, columns: Mapping[str, ColumnType]) -> list[str]:
    """What is wrong with a rule, one sentence each; none when it gives one number or null for each row."""
    try:
        parsed = parse(_query(expression))
    except ValueError as error:
        return [f"must be one SQL expression; got {error}"]
    faults = [*_shape_faults(parsed.tree, columns), *clock_faults(parsed)]
    return faults or _trial_faults(expression, columns)


def sql_rule_scores(
    job: str,
    expression: str,
    rows: Rows,
    columns: Mapping[str, ColumnType],
    output: Literal["probability", "value"],
) -> npt.NDArray[np.float64]:
    """What the declared rule says of rows: float64 (n,), NaN where it gives null.

    Raises FeatureError when it fails on a row or gives anything else.
    """
    import duckdb

    name = f"fallback.rule_sql of {job}"
    table = pa.table({column: rows.column(column) for column in columns})
    try:
        with _engine() as connection:
            scores = _scores(connection, expression, table)
    except duckdb.Error as error:
        message = f"{name} must not fail; got {type(error).__name__} for {table.num_rows} rows"
    else:
        refuse_scores(name, scores, output, table.num_rows)
        return scores
    # Raised outside the handler, without its cause: DuckDB's messages quote values of rows.
    raise FeatureError(message)


def _query(expression: str) -> str:
    return f"select (\n{expression}\n) as score from {ROWS}"


def _shape_faults(tree: exp.Query, columns: Mapping[str, ColumnType]) -> Iterator[str]:
    selects = list(tree.find_all(exp.Query))
    if len(tree.selects) != 1 or tree.selects[0].alias != "score" or len(selects) != 1:
        yield "must be one expression over the columns of a row, without a query inside"
    for kind in sorted({node.key.upper() for node in tree.find_all(*_NOT_ROW_WISE)}):
        yield f"must look at one row alone; got {kind}"
    for column in sorted({column.name for column in tree.find_all(exp.Column)} - set(columns)):
        yield f"column {column[:60]!r} must be among extract.columns; {nearest(column, tuple(columns))}"


def _trial_faults(expression: str, columns: Mapping[str, ColumnType]) -> list[str]:
    """What the engine says of two rows without values."""
    import duckdb

    table = pa.table({field.name: pa.nulls(2, field.type) for field in arrow_schema(columns)})
    try:
        with _engine() as connection:
            found = _scores(connection, expression, table)
    except duckdb.Error as error:
        return [f"must run over the columns of a row; got {str(error).splitlines()[0][:200]}"]
    return [] if len(found) == 2 else [f"must give one value for each row; got {len(found)} for 2 rows"]


def _engine() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(config=_SHUT)


def _scores(
    connection: duckdb.DuckDBPyConnection, expression: str, table: pa.Table
) -> npt.NDArray[np.float64]:
    connection.register(ROWS, table)
    found = connection.sql(_statement(expression)).to_arrow_table().column("score")
    return np.asarray(found.to_numpy(), dtype=np.float64)


@lru_cache(maxsize=8)
def _statement(expression: str) -> str:
    """The rule as DuckDB writes it; a number of another type becomes a float."""
    scored = parse(_query(expression)).tree.sql(dialect="duckdb")
    return f"select cast(score as double) as score from ({scored}) q"
