"""One DuckDB database over one snapshot: counts what fails, writes the verdicts, counts what was written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from pipeline.errors import ValidationError
from pipeline.job import Extract
from pipeline.run import MASK, QUARANTINED, WITHHELD
from pipeline.scoring.rules import ROW, ROWS, TABLE, Reason, judged_columns, raw, raw_columns

COMPRESSION = "zstd"
VALUE_LENGTH = 200

_BLIND_TO_NAN = "filter_pushdown,statistics_propagation,cte_filter_pusher"
"""What drops rows by a Parquet file's minima and maxima, which leave NaN out (DuckDB issue 25521)."""

_NO_REASON = Reason("none", (), QUARANTINED, sa.false())
"""Concerns no row: gives the file of a clean snapshot the columns and types of any other."""


@dataclass(frozen=True)
class Staged:
    """A snapshot as the views `TABLE` and `ROWS` of a private database with a folder of its own."""

    connection: duckdb.DuckDBPyConnection
    folder: Path


@dataclass(frozen=True)
class Written:
    """What a file of verdicts holds, read back from it: rows by verdict, lines by (rule, column)."""

    quarantined: int
    withheld: int
    lines: Mapping[tuple[str, str | None], int]


@contextmanager
def staged(
    snapshot: Path, extract: Extract, beside: Path, *, memory_mb: int, threads: int
) -> Iterator[Staged]:
    """Stage a snapshot; the database spills into a folder beside the verdicts, gone afterwards.

    Raises ValidationError when the work needs more memory than it may use.
    """
    with tempfile.TemporaryDirectory(prefix=".validate-", dir=beside) as folder:
        settings: dict[str, Any] = {
            "memory_limit": f"{memory_mb}MB",
            "threads": threads,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "disabled_optimizers": _BLIND_TO_NAN,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            # DuckDB takes the validator's process for somebody at a prompt
            connection.execute("SET enable_progress_bar = false")
            rows = connection.read_parquet(str(snapshot), file_row_number=True)
            judged, unjudged = judged_columns(extract.columns), raw_columns(extract.columns)
            rows.project(judged).create_view(TABLE)
            rows.project(f"{ROW.name}, {judged}, {unjudged}").create_view(ROWS)
            try:
                yield Staged(connection, Path(folder))
            except duckdb.OutOfMemoryException as error:
                raise ValidationError(
                    f"the snapshot must be judged in {memory_mb} MB; got out of memory. "
                    "Raise resources.memory_mb"
                ) from error


def count_failing(staged: Staged, reasons: Sequence[Reason]) -> tuple[int, list[int]]:
    """The snapshot's rows, and for each reason the rows that it concerns."""
    failing = [sa.func.count().filter(reason.failing) for reason in reasons]
    counts = _query(staged, sa.select(sa.func.count(), *failing).select_from(sa.table(ROWS)))[0]
    return counts[0], list(counts[1:])


def count_good(staged: Staged, reasons: Sequence[Reason]) -> int:
    """The rows that no reason concerns."""
    bad = sa.func.coalesce(sa.or_(sa.false(), *(reason.failing for reason in reasons)), sa.false())
    good = sa.func.count().filter(sa.not_(bad))
    return int(_query(staged, sa.select(good).select_from(sa.table(ROWS)))[0][0])


def write_verdicts(staged: Staged, extract: Extract, reasons: Sequence[Reason], target: Path) -> Written:
    """Write one line per (row, reason), sorted by row; the figures are read back from the file."""
    sql, values = _compiled(_lines(extract, reasons or [_NO_REASON]))
    into = str(target).replace("'", "''")
    staged.connection.execute(f"COPY ({sql}) TO '{into}' (FORMAT parquet, COMPRESSION {COMPRESSION})", values)
    return _read_back(staged, target)


def _lines(extract: Extract, reasons: Sequence[Reason]) -> sa.Select[Any]:
    """The file's rows: what `_unnested` gives, with the rules' names for their numbers."""
    number = sa.column("reason", sa.Integer)
    rules = {at: sa.literal(reason.rule) for at, reason in enumerate(reasons)}
    columns = {at: sa.literal(reason.column, sa.String) for at, reason in enumerate(reasons)}
    return (
        sa.select(
            ROW.label("row"),
            sa.column("verdict"),
            sa.case(rules, value=number).label("rule"),
            sa.cast(sa.case(columns, value=number), sa.String).label("column"),
            sa.column("value"),
            sa.column("key"),
        )
        .select_from(_unnested(extract, reasons))
        .where(number.is_not(None))
        .order_by(ROW, number)
    )


def _unnested(extract: Extract, reasons: Sequence[Reason]) -> sa.Subquery:
    """A line for each bad row and each reason, its number null where it does not concern the row."""
    flags = [sa.column(f"fails:{at}", sa.Boolean) for at in range(len(reasons))]
    failing: list[sa.ColumnElement[Any]] = [
        reason.failing.label(flag.name) for flag, reason in zip(flags, reasons, strict=True)
    ]
    flagged = sa.select(sa.literal_column("*"), *failing).select_from(sa.table(ROWS))
    withheld = [flag for flag, reason in zip(flags, reasons, strict=True) if reason.verdict == WITHHELD]
    values = [sa.case((flag, _value(extract, reason))) for flag, reason in zip(flags, reasons, strict=True)]
    numbers = [sa.case((flag, at)) for at, flag in enumerate(flags)]
    return (
        sa.select(
            ROW,
            sa.case((sa.or_(sa.false(), *withheld), WITHHELD), else_=QUARANTINED).label("verdict"),
            # Two lists of one length unnest side by side
            sa.func.unnest(sa.func.list_value(*numbers)).label("reason"),
            sa.func.unnest(sa.func.list_value(*values)).label("value"),
            _key(extract).label("key"),
        )
        .select_from(flagged.subquery("flagged"))
        .where(sa.or_(*flags))
        .subquery("unnested")
    )


def _value(extract: Extract, reason: Reason) -> sa.ColumnElement[Any]:
    if not reason.columns:
        return sa.cast(sa.null(), sa.String)
    if set(reason.columns) & set(extract.pii):
        return sa.literal(MASK, sa.String)
    text, *others = (sa.cast(raw(name), sa.String) for name in reason.columns)
    if not others:
        return sa.func.left(text, VALUE_LENGTH)
    shown = (sa.func.coalesce(part, "null") for part in (text, *others))
    return sa.func.left(sa.func.concat_ws(", ", *shown), VALUE_LENGTH)


def _key(extract: Extract) -> sa.ColumnElement[str]:
    pairs = ((name, MASK if name in extract.pii else raw(name)) for name in extract.key)
    return sa.cast(sa.func.json_object(*chain.from_iterable(pairs)), sa.String)


def _read_back(staged: Staged, target: Path) -> Written:
    lines = staged.connection.read_parquet(str(target))
    counted = lines.aggregate('"rule", "column", count(*)').fetchall()
    rows = dict(lines.aggregate('"verdict", count(DISTINCT "row")').fetchall())
    return Written(
        quarantined=rows.get(QUARANTINED, 0),
        withheld=rows.get(WITHHELD, 0),
        lines={(rule, column): count for rule, column, count in counted},
    )


def _query(staged: Staged, statement: Any) -> list[tuple[Any, ...]]:
    sql, values = _compiled(statement)
    return staged.connection.execute(sql, values).fetchall()


def _compiled(statement: Any) -> tuple[str, list[Any]]:
    compiled = statement.compile(dialect=_dialect(), compile_kwargs={"render_postcompile": True})
    return str(compiled), [compiled.params[name] for name in compiled.positiontup or ()]


@cache
def _dialect() -> sa.Dialect:
    from duckdb_engine import DBAPI, Dialect

    dialect: sa.Dialect = Dialect(paramstyle=DBAPI.paramstyle)
    return dialect
