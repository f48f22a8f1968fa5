"""Reads the source in one consistent transaction, as a stream of Arrow batches, values bound.

PostgreSQL goes through ADBC (COPY, streamed); any other SQLAlchemy database through a server-side cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.errors import ExtractError, MissingTable, RunError, TransientError
from pipeline.query import Dialect
from pipeline.run import BATCH_ROWS

_CONNECTION_SQLSTATES = ("08", "53", "57P", "40", "55P03")
_MISSING_SQLSTATES = ("42P01", "42703", "3F000")
_BIND_TYPES = {"day": "date"}
_SESSION = (
    "set transaction isolation level repeatable read, read only",
    "set local time zone 'UTC'",
    # The same rows come in the same order on every read.
    "set local max_parallel_workers_per_gather = 0",
    "set local synchronize_seqscans = off",
)


class Reader(Protocol):
    """One consistent view of the source; every statement sees the same state."""

    dialect: Dialect
    consistent: bool
    """Whether all statements of this reader see one state of the source."""
    typed: bool
    """Whether columns have types of their own (SQLite sends dates and instants as text)."""

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement, streamed; at least one batch, so that the schema is known."""
        ...


@contextmanager
def open_reader(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    """A reader whose statements may bind `binds`; raises TransientError when the source is away."""
    if sa.make_url(url).get_backend_name() == "postgresql":
        with driver_errors(), _postgres(url, binds) as reader:
            yield reader
    else:
        with driver_errors(), _sqlalchemy(url, binds) as reader:
            yield reader


def plain_url(url: str) -> str:
    """The URL as PostgreSQL's own library takes it, without SQLAlchemy's driver name."""
    return re.sub(r"^postgresql\+\w+:", "postgresql:", url)


@contextmanager
def _postgres(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    with dbapi.connect(plain_url(url)) as connection:
        with connection.cursor() as cursor:
            for setting in _SESSION:
                cursor.execute(setting)
            for name, value in binds.items():
                cursor.execute("select set_config($1, $2, true)", (f"nightshift.{name}", value.isoformat()))
                cursor.fetchall()
        yield _PostgresReader(connection)
        connection.rollback()


class _PostgresReader:
    consistent = True
    typed = True
    # A COPY takes no parameters, so the values are bound as settings of this transaction.
    dialect = Dialect(
        quote=postgresql.dialect().identifier_preparer.quote_identifier,
        bind=lambda name: f"current_setting('nightshift.{name}')::{_BIND_TYPES.get(name, 'timestamptz')}",
        inline="not materialized ",
    )

    def __init__(self, connection: dbapi.Connection) -> None:
        self._connection = connection

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute(sql)
            reader = cursor.fetch_record_batch()
            empty = True
            for batch in reader:
                empty = False
                yield batch
            if empty:
                yield pa.RecordBatch.from_pylist([], schema=reader.schema)


@contextmanager
def _sqlalchemy(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _sqlite_text_never_fails)
    try:
        with engine.connect() as connection, connection.begin():
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("begin")
            yield _SqlAlchemyReader(connection, binds)
    finally:
        engine.dispose()


def _sqlite_text_never_fails(connection: Any, _record: object) -> None:
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    connection.isolation_level = None


class _SqlAlchemyReader:
    def __init__(self, connection: sa.Connection, binds: Mapping[str, date | datetime]) -> None:
        self._connection = connection
        self._binds = {name: _as_utc(value) for name, value in binds.items()}
        sqlite = connection.dialect.name == "sqlite"
        self.consistent, self.typed = sqlite, not sqlite
        self.dialect = Dialect(
            quote=connection.dialect.identifier_preparer.quote_identifier,
            bind=lambda name: f":{name}",
            literal=lambda sql: sql.replace(":", r"\:"),
        )

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        statement = sa.text(sql)
        values = {name: self._binds[name] for name in statement.compile().params}
        with driver_errors():
            result = self._connection.execution_options(
                stream_results=True, max_row_buffer=BATCH_ROWS
            ).execute(statement, values)
            names = list(result.keys())
            empty = True
            for rows in result.partitions(BATCH_ROWS):
                empty = False
                yield _to_batch(names, rows)
            if empty:
                yield pa.RecordBatch.from_pydict({name: pa.nulls(0) for name in names})


def _as_utc(value: date | datetime) -> date | datetime:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _to_batch(names: list[str], rows: Any) -> pa.RecordBatch:
    try:
        columns = [pa.array(list(column)) for column in zip(*rows, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ExtractError(
            "a column must hold values of one type; got a mixture, which this database allows: "
            "cast the column in the declared query"
        ) from error
    return pa.RecordBatch.from_arrays(columns, names=names)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn a driver's error into ours: no statement text, no values."""
    try:
        yield
    except (AdbcError, DBAPIError) as error:
        raise _translated(error) from error


def _translated(error: Exception) -> RunError:
    original = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None) or ""
    first = (str(original).splitlines() or [type(original).__name__])[0][:300]
    lost = isinstance(error, OperationalError) and error.connection_invalidated
    if state.startswith(_MISSING_SQLSTATES) or "no such table" in first or "no such column" in first:
        return MissingTable(
            f"every table and column that a query names must exist and be readable; got: {first}"
        )
    if lost or not state or state.startswith(_CONNECTION_SQLSTATES):
        return TransientError(f"the source must answer; got: {first}")
    return ExtractError(f"the source must accept the declared query; got: {first}")
