from __future__ import annotations

import sqlite3
import sys
import time as clock
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import duckdb
import psycopg
import pyarrow as pa
import pytest

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.source import open_reader
from pipeline.errors import ChangedColumn, ExtractError, MissingTable, RunError, TransientError, UsageError
from pipeline.partition import Partition
from pipeline.query import Reader

BINDS = Partition.parse("2013-05-01").instants(ZoneInfo("America/New_York"), time(3)).binds()
CUTOFF = datetime(2013, 5, 1, 7, tzinfo=UTC)
MANY = "select g, repeat('x', 100) as filler from generate_series(1, 1000000) g"

integration = pytest.mark.integration


def rows(reader: Reader, sql: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = pa.Table.from_batches(reader.batches(sql)).to_pylist()
    return result


def read(url: str, sql: str) -> list[dict[str, Any]]:
    with open_reader(url, BINDS) as reader:
        return rows(reader, sql)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def failure(url: str, sql: str) -> RunError:
    with pytest.raises(RunError) as caught:
        read(url, sql)
    return caught.value


def printed(error: BaseException) -> str:
    """All that a log would show of an error, its causes too, without the lines of code."""
    told = traceback.TracebackException.from_exception(error)
    messages = []
    while told is not None:
        messages += list(told.format_exception_only())
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)  # type: ignore[assignment]
    return "".join(messages)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database with one table."""
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.execute("create table t (id integer, name text)")
        connection.execute("insert into t values (1, 'a'), (2, null)")
    connection.close()
    return f"sqlite:///{tmp_path}/source.db"


@pytest.fixture
def duckdb_url(tmp_path: Path) -> str:
    """A DuckDB file with one table."""
    with duckdb.connect(tmp_path / "source.duckdb") as connection:
        connection.execute("set TimeZone = 'America/New_York'")
        connection.execute(
            "create table t as select 1 as id, date '2013-05-01' as day, "
            "timestamp '2013-05-01 07:00:00' as seen, "
            "timestamptz '2013-05-01 07:00:00+00' as zoned, 'secret' as name"
        )
    return f"duckdb:///{tmp_path}/source.duckdb"


def database(server: EmbeddedServer, warehouse_url: str, encoding: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    execute(
        warehouse_url,
        f"create database {name} encoding '{encoding}' locale_provider libc locale 'C' template template0",
    )
    yield server.url(database=name)
    server.drop_database(name)


@pytest.fixture
def ascii_url(server: EmbeddedServer, warehouse_url: str) -> Iterator[str]:
    """A PostgreSQL database that takes any bytes for text."""
    yield from database(server, warehouse_url, "SQL_ASCII")


@pytest.fixture
def latin_url(server: EmbeddedServer, warehouse_url: str) -> Iterator[str]:
    """A PostgreSQL database that keeps its text in LATIN1."""
    yield from database(server, warehouse_url, "LATIN1")


# PostgreSQL


@integration
def test_a_statement_gives_its_rows_with_their_types(warehouse_url: str) -> None:
    with open_reader(warehouse_url, BINDS) as reader:
        batch = next(
            reader.batches("select 1::bigint as i, 'a' as t, date '2013-05-01' as d, null::float8 as f")
        )
        assert (reader.consistent, reader.typed) == (True, True)
    assert [str(dtype) for dtype in batch.schema.types] == ["int64", "string", "date32[day]", "double"]
    assert batch.to_pylist() == [{"i": 1, "t": "a", "d": date(2013, 5, 1), "f": None}]


@integration
def test_an_empty_answer_still_tells_its_columns(warehouse_url: str) -> None:
    with open_reader(warehouse_url, BINDS) as reader:
        (batch,) = reader.batches("select 1::bigint as i where false")
    assert batch.num_rows == 0
    assert batch.schema.names == ["i"]


@integration
def test_binds_are_a_day_and_instants(warehouse_url: str) -> None:
    with open_reader(warehouse_url, BINDS) as reader:
        day, cutoff = reader.dialect.bind("day"), reader.dialect.bind("cutoff")
        assert rows(reader, f"select {day} as day, {cutoff} as cutoff") == [
            {"day": date(2013, 5, 1), "cutoff": CUTOFF}
        ]


@integration
def test_instants_without_a_zone_are_in_utc_whatever_the_databases_zone(warehouse_url: str) -> None:
    name = warehouse_url.rsplit("/", 1)[1]
    execute(warehouse_url, f"alter database {name} set timezone = 'Asia/Tokyo'")
    sql = "select '2013-05-01 07:00'::timestamp::timestamptz as seen"
    assert read(warehouse_url, sql) == [{"seen": CUTOFF}]


@integration
def test_every_statement_of_a_reader_sees_one_state(warehouse_url: str) -> None:
    execute(warehouse_url, "create table t (id int)", "insert into t values (1)")
    with open_reader(warehouse_url, BINDS) as reader:
        execute(warehouse_url, "insert into t values (2)")
        before = rows(reader, "select id from t")
        execute(warehouse_url, "delete from t")
        assert rows(reader, "select id from t") == before == [{"id": 1}]


@integration
def test_a_reader_cannot_write(warehouse_url: str) -> None:
    execute(warehouse_url, "create sequence s")
    error = failure(warehouse_url, "select nextval('s')")
    assert isinstance(error, ExtractError)
    assert "SQLSTATE 25006, read only sql transaction" in str(error)


@integration
def test_bytes_that_are_no_utf8_arrive_as_they_are(ascii_url: str) -> None:
    execute(ascii_url, "create table t (name text)", "insert into t values (E'caf\\\\xe9')")
    execute(ascii_url, "insert into t values (convert_from('\\xff41'::bytea, 'SQL_ASCII'))")
    with open_reader(ascii_url, BINDS) as reader:
        (batch,) = reader.batches("select name from t order by length(name)")
    assert batch.column(0).cast(pa.binary())[0].as_py() == b"\xff41"[:1] + b"A"


@integration
def test_text_of_another_encoding_arrives_as_utf8(latin_url: str) -> None:
    execute(latin_url, "create table t (name text)", "insert into t values ('caf' || chr(233))")
    assert read(latin_url, "select name from t") == [{"name": "café"}]


@integration
@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select * from nowhere", 'relation "nowhere" does not exist'),
        ("select nothing from t", 'column "nothing" does not exist'),
        ("select * from nowhere.t", 'relation "nowhere.t" does not exist'),
        ("select * from pg_authid", "permission denied for table pg_authid"),
    ],
)
def test_a_missing_or_closed_table_is_told_by_its_name(warehouse_url: str, sql: str, told: str) -> None:
    execute(warehouse_url, "create table t (id int)")
    error = failure(warehouse_url, sql)
    assert isinstance(error, MissingTable)
    assert str(error).endswith(f"must exist and be readable; got: {told}")


@integration
@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select name::int from t", "SQLSTATE 22P02, invalid text representation"),
        (f"select case when g > 900000 then ('secret' || g)::int end from ({MANY}) m", "SQLSTATE 22P02"),
        ("select 1 / (id - 1) as secret from t", "SQLSTATE 22012, division by zero"),
        ("select id as secret 'secret' from t", "SQLSTATE 42601, syntax error"),
        ("select lower(id) from t where name = 'secret'", "function lower(integer) does not exist"),
    ],
)
def test_a_refused_statement_is_told_without_its_text_and_without_values(
    warehouse_url: str, sql: str, told: str
) -> None:
    execute(warehouse_url, "create table t (id int, name text)", "insert into t values (1, 'secret')")
    error = failure(warehouse_url, sql)
    assert type(error) is ExtractError
    assert told in str(error)
    assert "secret" not in printed(error)


@integration
def test_a_connection_that_is_lost_in_mid_stream_is_transient(warehouse_url: str) -> None:
    with pytest.raises(TransientError) as caught, open_reader(warehouse_url, BINDS) as reader:  # noqa: PT012
        stream = reader.batches(MANY)
        next(stream)
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where query like 'COPY%'"
        execute(warehouse_url, kill)
        list(stream)
    assert "the database must answer; got " in str(caught.value)
    assert "generate_series" not in printed(caught.value)


@integration
def test_a_connection_that_the_server_ends_is_transient(warehouse_url: str) -> None:
    error = failure(warehouse_url, "select pg_terminate_backend(pg_backend_pid())")
    assert isinstance(error, TransientError)
    assert "SQLSTATE 57P01, admin shutdown" in str(error)


@integration
def test_a_statement_that_takes_too_long_is_transient(warehouse_url: str) -> None:
    slow = f"{warehouse_url}?options=-c%20statement_timeout%3D200ms"
    error = failure(slow, "select pg_sleep(5)")
    assert isinstance(error, TransientError)
    assert "SQLSTATE 57014, query canceled" in str(error)


@integration
def test_a_lock_that_is_not_given_is_transient(warehouse_url: str) -> None:
    execute(warehouse_url, "create table t (id int)")
    impatient = f"{warehouse_url}?options=-c%20lock_timeout%3D100ms"
    with psycopg.connect(warehouse_url) as other:
        other.execute("lock table t in access exclusive mode")
        assert isinstance(failure(impatient, "select * from t"), TransientError)


def test_a_server_that_is_away_is_transient_and_the_password_untold() -> None:
    error = failure("postgresql://someone:secret@127.0.0.1:1/nowhere", "select 1")
    assert isinstance(error, TransientError)
    assert "Connection refused" in str(error)
    assert "secret" not in printed(error)


@integration
def test_a_run_that_fails_does_not_wait_for_the_rest_of_its_stream(warehouse_url: str) -> None:
    with pytest.raises(ChangedColumn), open_reader(warehouse_url, BINDS) as reader:  # noqa: PT012
        next(reader.batches("select g, repeat('x', 100) from generate_series(1, 20000000) g"))
        began = clock.monotonic()
        raise ChangedColumn("the first batch tells")
    assert clock.monotonic() - began < 1


# SQLite


def test_sqlite_gives_rows_in_one_state_while_others_write(sqlite_url: str, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    other.execute("pragma journal_mode = wal")
    with open_reader(sqlite_url, BINDS) as reader:
        before = rows(reader, "select id, name from t")
        other.execute("insert into t values (3, 'c')")
        assert (
            rows(reader, "select id, name from t")
            == before
            == [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
        )
        assert (reader.consistent, reader.typed) == (True, False)
    other.close()
    assert len(read(sqlite_url, "select id from t")) == 3


def test_sqlite_compares_binds_as_text_in_utc(sqlite_url: str) -> None:
    sql = "select :day as day, :cutoff as cutoff, typeof(:day_end) as kind"
    assert read(sqlite_url, sql) == [{"day": "2013-05-01", "cutoff": "2013-05-01 07:00:00", "kind": "text"}]


def test_an_instant_of_any_zone_is_bound_in_utc(sqlite_url: str) -> None:
    local = CUTOFF.astimezone(ZoneInfo("America/New_York"))
    with open_reader(sqlite_url, {"cutoff": local}) as reader:
        assert rows(reader, "select :cutoff as cutoff") == [{"cutoff": "2013-05-01 07:00:00"}]


def test_sqlite_text_of_any_bytes_is_read(sqlite_url: str) -> None:
    assert read(sqlite_url, "select cast(x'ff41' as text) as name") == [{"name": "\ufffdA"}]


def test_an_empty_answer_of_sqlite_tells_its_columns(sqlite_url: str) -> None:
    with open_reader(sqlite_url, BINDS) as reader:
        (batch,) = reader.batches("select id, name, id from t where false")
    assert (batch.num_rows, batch.schema.names) == (0, ["id", "name", "id"])


@pytest.mark.parametrize(
    ("one", "other", "kinds"), [("7", "'secret'", "int, str"), ("1.5", "x'ff'", "bytes, float")]
)
def test_a_column_of_mixed_types_is_told_by_name_and_types(
    sqlite_url: str, one: str, other: str, kinds: str
) -> None:
    error = failure(sqlite_url, f"select id, case id when 1 then {one} else {other} end as mixed from t")
    assert type(error) is ExtractError
    assert str(error).startswith("column 'mixed' must hold values of one type that a snapshot can take; ")
    assert f"got {kinds}." in str(error)
    assert "secret" not in printed(error)


@pytest.mark.parametrize(
    ("sql", "kind", "told"),
    [
        ("select * from nowhere", MissingTable, "no such table: nowhere"),
        ("select missing from t", MissingTable, "no such column: missing"),
        ("select 'secret' from t whre id = 1", ExtractError, "got SQLITE_ERROR"),
        ("select nothing('secret') from t", ExtractError, "got SQLITE_ERROR"),
        ("select json('secret')", ExtractError, "got SQLITE_ERROR"),
    ],
)
def test_what_sqlite_refuses_is_told_without_its_text(
    sqlite_url: str, sql: str, kind: type[RunError], told: str
) -> None:
    error = failure(sqlite_url, sql)
    assert type(error) is kind
    assert told in str(error)
    assert "secret" not in printed(error)


def test_a_locked_sqlite_file_is_transient(sqlite_url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "source.db", isolation_level=None) as other:
        other.execute("begin exclusive")
        error = failure(f"{sqlite_url}?timeout=0.1", "select id from t")
    other.close()
    assert isinstance(error, TransientError)
    assert "SQLITE_BUSY" in str(error)


# DuckDB and others


def test_duckdb_is_read_with_its_types_and_instants_in_utc(duckdb_url: str) -> None:
    sql = "select id, day, seen, name from t where seen <= :cutoff and zoned <= :cutoff and day = :day"
    with open_reader(duckdb_url, BINDS) as reader:
        assert (reader.consistent, reader.typed) == (True, True)
        (row,) = rows(reader, sql)
    assert row == {"id": 1, "day": date(2013, 5, 1), "seen": datetime(2013, 5, 1, 7), "name": "secret"}
    assert read(duckdb_url, sql.replace("<=", "<")) == []


def test_duckdb_takes_instants_without_a_zone_as_utc(duckdb_url: str) -> None:
    assert read(duckdb_url, "select current_setting('TimeZone') as zone") == [{"zone": "UTC"}]


def test_a_number_that_no_snapshot_can_take_is_told_by_its_column(duckdb_url: str) -> None:
    error = failure(duckdb_url, "select id, 1267650600228229401496703205376::hugeint as huge from t")
    assert str(error).startswith(
        "column 'huge' must hold values of one type that a snapshot can take; got int."
    )


def test_a_python_module_that_a_driver_misses_is_told(
    duckdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytz", None)
    error = failure(duckdb_url, "select zoned from t")
    assert type(error) is ExtractError
    assert "'pytz' is missing" in str(error)
    assert read(duckdb_url, "select zoned::timestamp as seen from t") == [{"seen": datetime(2013, 5, 1, 7)}]


@pytest.mark.parametrize(
    ("sql", "kind", "told"),
    [
        ("select * from nowhere", MissingTable, "Table with name nowhere does not exist"),
        ("select nothing from t", MissingTable, 'Referenced column "nothing" not found'),
        ("select name::int from t", ExtractError, "got ConversionException"),
        ("create table secret (id int)", ExtractError, "got InvalidInputException"),
    ],
)
def test_what_duckdb_refuses_is_told_without_values(
    duckdb_url: str, sql: str, kind: type[RunError], told: str
) -> None:
    error = failure(duckdb_url, sql)
    assert type(error) is kind
    assert told in str(error)
    assert "secret" not in printed(error)


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://u:secret@h/d",
        "mysql+mysqldb://u:secret@h/d",
        "not a url with secret",
        "postgres://u:secret@h/d",
    ],
)
def test_a_url_that_nothing_can_read_is_a_usage_error_without_its_password(url: str) -> None:
    with pytest.raises(
        UsageError, match="must name a database whose SQLAlchemy driver is installed"
    ) as caught:
        read(url, "select 1")
    assert "secret" not in str(caught.value)
