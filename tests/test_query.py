from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pytest

from pipeline.adapters.source import open_reader
from pipeline.errors import ExtractError
from pipeline.job import Source
from pipeline.partition import Partition
from pipeline.query import Dialect, Query, compose
from pipeline.query_rules import query_faults

BINDS = Partition.parse("2013-05-01").instants(ZoneInfo("America/New_York"), time(3)).binds()
EVENTS = Source(table="source.events", known_at="known_at")
PLANES = Source(table="planes", overwritten=True)
SOURCES: Mapping[str, Source] = {"events": EVENTS, "planes": PLANES}
PLAIN = Dialect(quote=lambda name: f"<{name}>", bind=lambda name: f"${name}")
BOUNDED = "(select * from <source>.<events> where <known_at> <= $cutoff)"

Run = Callable[[str], list[dict[str, object]]]


def faults(sql: str) -> list[str]:
    return query_faults(Query("extract.sql", sql), SOURCES)


def composed(sql: str) -> str:
    return compose(Query("extract.sql", sql), SOURCES, PLAIN)


def run(url: str, sql: str, sources: Mapping[str, Source] = SOURCES) -> list[dict[str, object]]:
    with open_reader(url, BINDS) as reader:
        statement = compose(Query("extract.sql", sql), sources, reader.dialect)
        rows: list[dict[str, object]] = pa.Table.from_batches(reader.batches(statement)).to_pylist()
    return rows


# Event 1 was known before the cut-off (07:00 UTC), 2 at it, 3 after it, 4 nobody knows when.
ROWS = [
    (1, "2013-05-01 06:59:59", "a"),
    (2, "2013-05-01 07:00:00", "b"),
    (3, "2013-05-01 07:00:01", "c"),
    (4, None, "d"),
]


@pytest.fixture
def sqlite(tmp_path: Path) -> Run:
    """A SQLite source."""
    connection = sqlite3.connect(tmp_path / "source.db")
    with connection:
        connection.execute("create table events (id int, known_at text, name text, day text)")
        connection.executemany("insert into events values (?, ?, ?, '2013-05-01')", ROWS)
        connection.execute("create table planes as select 'a' as name, 7 as seats")
    connection.close()
    sources = {"events": Source(table="main.events", known_at="known_at"), "planes": PLANES}
    return lambda sql: run(f"sqlite:///{tmp_path}/source.db", sql, sources)


@pytest.fixture
def postgres(warehouse_url: str) -> Run:
    """A PostgreSQL source."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        connection.execute("create schema source")
        connection.execute("create table source.events (id int, known_at timestamptz, name text, day date)")
        for number, known_at, name in ROWS:
            values = (number, known_at and f"{known_at}+00", name)
            connection.execute("insert into source.events values (%s, %s, %s, '2013-05-01')", values)
        connection.execute("create table planes as select 'a' as name, 7 as seats")
    return lambda sql: run(warehouse_url, sql)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def source(request: pytest.FixtureRequest) -> Run:
    """Each database in turn."""
    run_there: Run = request.getfixturevalue(request.param)
    return run_there


# What a query may be


@pytest.mark.parametrize(
    "sql",
    [
        "select id from events where day = :day",
        "select id from events where day = :day; -- done",
        "(select id from events where day = :day) union all (select 1)",
        "with e as (select * from events) select id from e where known_at >= :day_start",
        "with recursive n as (select 1 as i union all select i + 1 from n where i < 3) select i, :day from n",
        "with recursive n(i) as (select 1 union all select m.i + 1 from n as m) select i, :day from n",
        "select id from Events where day = :day",
        "select e.id from events as e join planes using (name) where e.day = :day",
        "select id from events, generate_series(1, 2) g, unnest(array[1]) u where day = :day",
        "select id from events, lateral (select 1) one where known_at < :day_end::timestamptz",
        "select date(known_at), age(known_at, :cutoff), nowadays(id), 'now or never' from events",
        "select id, ':day' as \":name\" from events where day = :day",
    ],
)
def test_a_bounded_select_over_declared_sources_is_fine(sql: str) -> None:
    assert faults(sql) == []


@pytest.mark.parametrize(
    ("sql", "got"),
    [
        ("", "nothing"),
        (" ;; -- nothing\n", "nothing"),
        ("delete from events where day = :day returning *", "DELETE"),
        ("update events set id = 1 where day = :day returning *", "UPDATE"),
        ("insert into events select :day", "INSERT"),
        ("merge into events e using planes p on true when matched then delete", "MERGE"),
        ("create table t as select :day", "CREATE"),
        ("explain select :day", "EXPLAIN"),
        ("copy events to stdout", "COPY"),
        ("values (:day)", "VALUES"),
        ("select :day; select :day", "SELECT and SELECT"),
        ("select :day; drop table events", "SELECT and DROP"),
        ("select 'abc", "a quote or a comment that does not end"),
        ("select id\nfrom events where (", "no SQL at line 2, column 19 of it"),
    ],
)
def test_anything_but_one_select_is_refused_and_named(
    sql: str, got: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert faults(sql) == [f"must be one SELECT statement; got {got}"]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select id into copied from events where day = :day", "INTO"),
        ("select id from events where day = :day for update", "LOCK"),
        ("with gone as (delete from events where day = :day returning *) select * from gone", "DELETE"),
        ("with new as (insert into events select :day returning *) select * from new", "INSERT"),
    ],
)
def test_a_select_that_writes_or_locks_is_refused(sql: str, kind: str) -> None:
    assert f"must only read; got {kind}" in faults(sql)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plane", "plane"),
        ("public.planes", "public.planes"),
        ('"Planes"', "Planes"),
        ("'data.parquet'", "data.parquet"),
        ("pg_catalog.pg_authid", "pg_catalog.pg_authid"),
    ],
)
def test_a_table_that_is_not_declared_is_refused_with_the_nearest_source(name: str, shown: str) -> None:
    (fault,) = faults(f"select 1 from {name} as t where :day = :day")
    assert fault.startswith(f"table {shown!r} must be a declared source; ")
    assert "planes" in fault


@pytest.mark.parametrize(
    "sql",
    [
        "select * from (with own as (select :day) select * from own) a, own",
        "with own as (select * from own where day = :day) select * from own",
        "with a as (select * from own), own as (select :day) select * from a",
        'with "Own" as (select :day) select * from own',
        "with own as (select :day) select * from source.own",
        "select :day where exists (select 1 from own)",
        "select (select max(id) from own) from events where day = :day",
        "select 1 from events where day = :day order by (select 1 from own)",
    ],
)
def test_a_table_hidden_behind_an_expression_of_its_name_is_found(sql: str) -> None:
    (fault,) = faults(sql)
    assert "own' must be a declared source" in fault


@pytest.mark.parametrize("name", ["secret", "main.own"])
def test_a_table_under_the_alias_of_an_expression_is_found(name: str) -> None:
    found = faults(f"with own as (select :day) select 1 from {name} as own, own")
    assert any(fault.startswith(f"table {name!r} must be a declared source") for fault in found)


@pytest.mark.parametrize(
    "function",
    ["read_parquet('x')", "dblink('a', 'b')", "rows from (my_function(1))", "lateral my_function(1)"],
)
def test_a_table_function_that_may_read_anything_is_refused(function: str) -> None:
    (fault,) = faults(f"select 1 from events, {function} where day = :day")
    assert "may read what is not declared" in fault


def test_an_expression_may_not_hide_the_table_of_a_source() -> None:
    sources = {"fleet": Source(table="raw", overwritten=True)}
    query = Query("extract.sql", "with raw as (select :day as day) select * from fleet, raw")
    assert query_faults(query, sources) == [
        "expression 'raw' hides the table of source 'fleet'; give it another name"
    ]


@pytest.mark.parametrize(
    "clock",
    [
        "now()", "pg_catalog.now()", "current_date", "current_timestamp(0)", "localtime", "localtimestamp",
        "clock_timestamp()", "statement_timestamp()", "transaction_timestamp()", "timeofday()",
        "'now'::timestamptz", "date 'today'", "' Yesterday '::date", "'tomorrow 03:00'::timestamp",
        "E'now'::date", "age(known_at)",
        "datetime('now')", "date()", "strftime('%s')", "julianday()", "today()", "get_current_timestamp()",
        "unix_timestamp()", "random()", "gen_random_uuid()", "extract(epoch from now())",
    ],
)  # fmt: skip
def test_a_clock_or_a_dice_is_refused(clock: str) -> None:
    (fault,) = faults(f"select {clock} from events where day = :day")
    assert "must not be used, or a replay reads other rows" in fault


def test_a_sample_is_refused() -> None:
    (fault,) = faults("select 1 from events tablesample system (1) where day = :day")
    assert fault.startswith("tablesample must not be used")


def test_a_query_without_a_bound_is_refused() -> None:
    expected = "must be bounded by one of :day, :day_start, :day_end, :cutoff; got no bind"
    assert faults("select id from events") == [expected]
    assert faults("select ':day' as \":day\" from events -- :day\n /* :day */") == [expected]


@pytest.mark.parametrize(("bind", "name"), [(":dya", "dya"), ("$1", "1"), ("?", "?"), (":days", "days")])
def test_an_unknown_bind_is_refused_with_the_nearest(bind: str, name: str) -> None:
    (fault,) = faults(f"select id from events where day = {bind}")
    assert fault.startswith(f"bind :{name} must be one of :day, :day_start, :day_end, :cutoff; ")


@pytest.mark.parametrize(
    "sql", ["select id from events where day = : day", "select (array[1])[1:day], :cutoff"]
)
def test_a_bind_that_would_not_be_replaced_as_it_is_read_is_refused(sql: str) -> None:
    (fault,) = faults(sql)
    assert fault.startswith("bind :day must stand alone")


def test_all_faults_of_a_query_come_at_once() -> None:
    found = faults("select now(), (select 1 from planets) into x from event where day = :dy")
    assert len(found) == 5


# What the engine makes of it


def test_a_source_is_bounded_wherever_it_stands() -> None:
    sql = "select (select max(id) from events), e.id from events e where exists (select 1 from events)"
    assert composed(sql) == (
        f"select * from (select (select max(id) from {BOUNDED} as <events>), e.id from {BOUNDED} e "
        f"where exists (select 1 from {BOUNDED} as <events>)\n) q"
    )


def test_an_overwritten_source_is_read_as_it_is() -> None:
    assert (
        composed("select * from planes")
        == "select * from (select * from (select * from <planes>) as <planes>\n) q"
    )


def test_binds_are_replaced_outside_of_literals_comments_casts_and_names() -> None:
    sql = "select ':day', $$:day$$, E'\\':day', \":day\", x::date, :day::date /* :day */, 'é😀', :cutoff"
    expected = sql.replace(", :day::", ", $day::").replace(", :cutoff", ", $cutoff")
    assert composed(sql + " -- :day") == f"select * from ({expected}\n) q"


def test_what_follows_the_statement_is_left_out() -> None:
    assert composed("select :day;; -- done; :day") == "select * from (select $day\n) q"


def test_the_text_around_binds_and_tables_is_escaped_for_the_driver() -> None:
    dialect = Dialect(quote=str, bind=lambda name: f":{name}", literal=lambda sql: sql.replace(":", r"\:"))
    sources = {"t": Source(table="a:b", overwritten=True)}
    text = compose(Query("extract.sql", "select '1:2', :day::text from t"), sources, dialect)
    assert text == r"select * from (select '1\:2', :day\:\:text from (select * from a\:b) as t" + "\n) q"


def test_a_query_of_an_older_version_over_a_source_that_is_gone_is_refused() -> None:
    with pytest.raises(ExtractError, match="source 'flights' must be declared"):
        composed("select * from flights where day = :day")


def test_a_row_is_read_only_if_it_was_known_at_the_cutoff(source: Run) -> None:
    assert source("select id from events where day = :day order by id") == [{"id": 1}, {"id": 2}]


def test_an_expression_with_the_name_of_its_source_stays_bounded(source: Run) -> None:
    sql = "with events as (select id from events where day = :day) select count(*) as n from events"
    assert source(sql) == [{"n": 2}]


def test_every_mention_of_a_source_in_one_query_is_bounded(source: Run) -> None:
    sql = """
        with known as (select id from events where day = :day)
        select (select count(*) from events) as scalar,
          (select count(*) from known join events using (id)) as joined,
          count(*) as outer_rows
        from (select * from Events) as nested where id in (select id from events);
    """
    assert source(sql) == [{"scalar": 2, "joined": 2, "outer_rows": 2}]


def test_a_recursive_expression_over_a_source_is_bounded(source: Run) -> None:
    sql = """
        with recursive walk(id) as (
            select min(id) from events where day = :day
            union all select walk.id + 1 from walk join events on events.id = walk.id + 1
        )
        select max(id) as last from walk
    """
    assert source(sql) == [{"last": 2}]


def test_a_source_without_an_alias_keeps_its_name(source: Run) -> None:
    sql = (
        "select events.id, planes.seats from events join planes on planes.name = events.name where day = :day"
    )
    assert source(sql) == [{"id": 1, "seats": 7}]


def test_literals_that_look_like_binds_reach_the_database_as_they_are(source: Run) -> None:
    sql = (
        "select ':day' as a, '12:30:00' as b, '100%' as c, 'a\\:b' as d from events where id = 1 and day=:day"
    )
    assert source(sql) == [{"a": ":day", "b": "12:30:00", "c": "100%", "d": "a\\:b"}]


def test_a_column_may_have_the_name_of_a_bind(source: Run) -> None:
    sql = 'select id as ":day" from events where day = :day and id = 1 -- the :day'
    assert source(sql) == [{":day": 1}]


def test_instants_are_bound_as_instants(source: Run) -> None:
    sql = "select count(*) as n from events where known_at >= :day_start and known_at < :day_end"
    assert source(sql) == [{"n": 2}]


def test_two_sources_of_one_table_are_each_bounded_by_their_own_rule(sqlite: Run, tmp_path: Path) -> None:
    sources = {"events": Source(table="main.events", known_at="known_at")}
    sources["latest"] = Source(table="main.events", overwritten=True)
    sql = "select (select count(*) from events) as known, (select count(*) from latest) as rows, :day as day"
    rows = run(f"sqlite:///{tmp_path}/source.db", sql, sources)
    assert rows == [{"known": 2, "rows": 4, "day": "2013-05-01"}]


def test_a_table_named_like_another_source_is_the_table(sqlite: Run, tmp_path: Path) -> None:
    sources = {
        "planes": Source(table="events", known_at="known_at"),
        "events": Source(table="planes", overwritten=True),
    }
    sql = (
        "select (select count(*) from planes) as planes, (select count(*) from events) as events, :day as day"
    )
    rows = run(f"sqlite:///{tmp_path}/source.db", sql, sources)
    assert rows == [{"planes": 2, "events": 1, "day": "2013-05-01"}]


@pytest.mark.integration
def test_slashes_casts_and_arrays_of_postgresql_survive(postgres: Run) -> None:
    sql = r"""
        select day::text as day, (array[5, 6, 7])[2:3] as part, regexp_replace(name, '\w', E'\\:x') as name,
          (:day - 1)::text as before, :day_start at time zone 'America/New_York' as midnight
        from events where day = :day and id = 1
    """
    (row,) = postgres(sql)
    assert (row["day"], row["part"], row["name"], row["before"]) == (
        "2013-05-01",
        [6, 7],
        r"\:x",
        "2013-04-30",
    )
    assert str(row["midnight"]) == "2013-05-01 00:00:00"
