"""Reads the source in one consistent transaction, as a stream of Arrow batches, values bound.

PostgreSQL goes through ADBC (COPY, streamed); any other SQLAlchemy database through a server-side cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from pipeline.adapters.arrow_connection import arrow_connection
from pipeline.adapters.driver_errors import driver_errors
from pipeline.errors import ExtractError, UsageError
from pipeline.query import Dialect, Reader
from pipeline.run import BATCH_ROWS

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

__all__ = ["driver_errors", "open_reader"]

_BIND_TYPES = {"day": "date"}
_POSTGRES_SESSION = (
    "set transaction isolation level repeatable read, read only",
    # A database that takes any bytes for text would refuse to send what is no UTF-8.
    """select set_config('client_encoding', case current_setting('server_encoding')
        when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end, true)""",
    "set local time zone 'UTC'",
    # The same rows come in the same order on every read.
    "set local max_parallel_workers_per_gather = 0",
    "set local synchronize_seqscans = off",
)
_SESSIONS = {"sqlite": ("begin",), "duckdb": ("set TimeZone = 'UTC'",)}
"""What makes a transaction of other databases one consistent view in UTC."""
_CONNECT_ARGUMENTS = {"duckdb": {"read_only": True}}


@contextmanager
def open_reader(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    """A reader whose statements may bind `binds`.

    Raises UsageError when the URL names no database that can be read, TransientError when the source is away.
    """
    try:
        backend = sa.make_url(url).get_backend_name()
    except sa.exc.ArgumentError as error:
        raise _no_driver(error) from error
    opened = _postgres(url, binds) if backend == "postgresql" else _sqlalchemy(url, binds)
    with driver_errors(), opened as reader:
        yield reader


@contextmanager
def _postgres(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    with arrow_connection(url) as connection:
        with connection.cursor() as cursor:
            for setting in _POSTGRES_SESSION:
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
        quote=lambda name: '"' + name.replace('"', '""') + '"',
        bind=lambda name: f"current_setting('nightshift.{name}')::{_BIND_TYPES.get(name, 'timestamptz')}",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        from adbc_driver_manager._reader import AdbcRecordBatchReader

        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute(sql)
            stream = cursor.fetch_arrow()
            # The cursor's own reader forgets the SQLSTATE of what fails in mid-stream; this one keeps it.
            reader = AdbcRecordBatchReader._import_from_c(stream.address)
            empty = True
            for batch in reader:
                empty = False
                yield batch
            if empty:
                yield pa.RecordBatch.from_pylist([], schema=reader.schema)


@contextmanager
def _sqlalchemy(url: str, binds: Mapping[str, date | datetime]) -> Iterator[Reader]:
    engine = _engine(url)
    try:
        with engine.connect() as connection, connection.begin():
            for statement in _SESSIONS.get(engine.dialect.name, ()):
                connection.exec_driver_sql(statement)
            yield _SqlAlchemyReader(connection, binds)
    finally:
        engine.dispose()


def _engine(url: str) -> sa.Engine:
    backend = sa.make_url(url).get_backend_name()
    try:
        engine = sa.create_engine(url, connect_args=_CONNECT_ARGUMENTS.get(backend, {}))
    except (sa.exc.ArgumentError, ImportError) as error:
        raise _no_driver(error) from error
    if backend == "sqlite":
        sa.event.listen(engine, "connect", _sqlite_text_never_fails)
    return engine


def _no_driver(error: Exception) -> UsageError:
    return UsageError(
        f"the source's URL must name a database whose SQLAlchemy driver is installed; got: {error}"
    )


def _sqlite_text_never_fails(connection: Any, _record: object) -> None:
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")


class _SqlAlchemyReader:
    def __init__(self, connection: sa.Connection, binds: Mapping[str, date | datetime]) -> None:
        self._connection = connection.execution_options(stream_results=True, max_row_buffer=BATCH_ROWS)
        name = connection.dialect.name
        self._binds = {bind: _in_utc(value, as_text=name == "sqlite") for bind, value in binds.items()}
        self.consistent, self.typed = name in _SESSIONS, name != "sqlite"
        self.dialect = Dialect(
            quote=connection.dialect.identifier_preparer.quote_identifier,
            bind=lambda bind: f" :{bind} ",
            literal=lambda sql: sql.replace(":", r"\:"),
        )

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        statement = sa.text(sql)
        values = {name: self._binds[name] for name in statement.compile().params}
        with driver_errors():
            result = self._connection.execute(statement, values)
            names = list(result.keys())
            empty = True
            for rows in result.partitions(BATCH_ROWS):
                empty = False
                yield _to_batch(names, rows)
            if empty:
                yield pa.RecordBatch.from_arrays([pa.nulls(0)] * len(names), names=names)


def _in_utc(value: date | datetime, *, as_text: bool) -> date | datetime | str:
    """What a bind gives to a database whose instants are naive and in UTC, as text to one without dates."""
    if isinstance(value, datetime):
        value = value.astimezone(UTC).replace(tzinfo=None)
        return value.isoformat(" ") if as_text else value
    return value.isoformat() if as_text else value


def _to_batch(names: Sequence[str], rows: Sequence[sa.Row[Any]]) -> pa.RecordBatch:
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return pa.RecordBatch.from_arrays([_to_array(name, values) for name, values in columns], names=names)


def _to_array(name: str, values: Sequence[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise ExtractError(
            f"column {name!r} must hold values of one type that a snapshot can take; "
            f"got {', '.join(kinds)}. Cast it in the declared query"
        ) from None
