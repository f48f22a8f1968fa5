"""Why a row may not reach a model, and the engine's own rules: what the typed boundary promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pipeline.job import ColumnType, Extract
from pipeline.partition import COLUMN, Partition
from pipeline.run import QUARANTINED, WITHHELD, Verdict
from pipeline.scoring.boundary import REPLACEMENT

Condition = sa.ColumnElement[bool]

TABLE = "snapshot"
"""The view that the suite judges: the declared columns, less what no rule could bear."""

ROWS = "snapshot_rows"
"""The same with each row's number and, as `raw:<column>`, each column as it stands in the file."""

ROW = sa.column("file_row_number", sa.BigInteger)

_JUDGED: Mapping[str, str] = {
    # NaN is above every bound and turns every mean to NaN; the engine's own rule catches it
    "float": "CASE WHEN isfinite({0}) THEN {0} END",
    # Naive, in UTC: Great Expectations compares bounds in Python, and DuckDB converts zones at a price
    "timestamp": "make_timestamp(epoch_us({0}))",
}

ENGINE_RULES = (
    "engine:key_not_null",
    "engine:key_unique",
    "engine:in_partition",
    "engine:not_null",
    "engine:finite",
    "engine:valid_text",
)
"""Rows are withheld by the first three, quarantined by the others."""


@dataclass(frozen=True)
class Reason:
    """Why rows may not reach a model; `failing` is true on each of them, false or null on all others."""

    rule: str
    columns: tuple[str, ...]
    verdict: Verdict
    failing: Condition

    @property
    def column(self) -> str | None:
        """The columns in one text."""
        return ", ".join(self.columns) or None


def judged_columns(columns: Mapping[str, ColumnType]) -> str:
    """The select list of `TABLE`."""
    plain = "{0}"
    return ", ".join(
        f"{_JUDGED.get(kind.rstrip('?'), plain).format(quoted(name))} AS {quoted(name)}"
        for name, kind in columns.items()
    )


def raw_columns(columns: Mapping[str, ColumnType]) -> str:
    """The part of `ROWS`' select list that gives the columns as they stand in the file."""
    return ", ".join(f"{quoted(name)} AS {quoted(f'raw:{name}')}" for name in columns)


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def raw(column: str) -> sa.ColumnClause[Any]:
    """A column of `ROWS` as it stands in the snapshot's file."""
    return sa.column(f"raw:{column}")


def engine_reasons(extract: Extract, partition: Partition) -> Iterator[Reason]:
    """Every engine rule on every column that it concerns."""
    for name in extract.key:
        yield Reason("engine:key_not_null", (name,), WITHHELD, raw(name).is_(None))
    repeated = duplicated(ROWS, [raw(name) for name in extract.key])
    yield Reason("engine:key_unique", extract.key, WITHHELD, repeated)
    elsewhere = raw(COLUMN).is_distinct_from(sa.literal(partition.day))
    yield Reason("engine:in_partition", (COLUMN,), WITHHELD, elsewhere)
    for name, kind in extract.columns.items():
        if not kind.endswith("?") and name not in (*extract.key, COLUMN):
            yield Reason("engine:not_null", (name,), QUARANTINED, raw(name).is_(None))
        if kind.rstrip("?") in ("float", "date", "timestamp"):
            yield Reason("engine:finite", (name,), QUARANTINED, sa.not_(sa.func.isfinite(raw(name))))
        if kind.rstrip("?") == "text":
            replaced = sa.func.contains(raw(name), REPLACEMENT, type_=sa.Boolean)
            yield Reason("engine:valid_text", (name,), QUARANTINED, replaced)


def duplicated(
    view: str, columns: list[sa.ColumnClause[Any]], filters: tuple[Condition, ...] = ()
) -> Condition:
    """True on every row that shares all these columns, none of them null, with another row."""
    among = [*filters, *(column.is_not(None) for column in columns)]
    together = columns[0] if len(columns) == 1 else sa.func.row(*columns)
    repeated = (
        sa.select(together)
        .select_from(sa.table(view))
        .where(*among)
        .group_by(*columns)
        .having(sa.func.count() > 1)
    )
    return sa.and_(together.in_(repeated), *among)
