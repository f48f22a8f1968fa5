from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.source import open_reader
from pipeline.errors import (
    ChangedColumn,
    EmptyPartition,
    ExtractError,
    FeatureError,
    InconsistentRead,
    MissingTable,
    RunError,
    TransientError,
)
from pipeline.frames import history_frame
from pipeline.job import Extract, HistoryQuery, Source
from pipeline.partition import Partition
from pipeline.query import Dialect, Reader
from pipeline.run import BATCH_ROWS, Snapshot
from pipeline.scoring.extract import ExtractPlan, extract

BINDS = Partition.parse("2013-05-01").instants(ZoneInfo("America/New_York"), time(3)).binds()
COLUMNS = {"day": "date", "id": "integer", "name": "text?", "size": "float?", "seen": "timestamp"}
ROWS = Extract.model_validate(
    {
        "key": ("id",),
        "columns": COLUMNS,
        "sql": "select day, id, name, size, seen from parcels where day = :day order by id",
    }
)
PLAN = ExtractPlan(
    extract=ROWS, sources={"parcels": Source(table="parcels", known_at="seen")}, history={}, parameters=None
)
TABLE = "create table parcels (day date, id bigint, name text, size float, seen {instant})"
PARCELS = [
    "('2013-05-01', 2, 'b', null, '2013-05-01 06:59:59')",
    "('2013-05-01', 1, 'é', 1.5, '2013-05-01 07:00:00')",
    "('2013-05-01', 3, 'too late', 1.5, '2013-05-01 07:00:01')",
    "('2013-04-30', 4, null, 1.5, '2013-04-30 07:00:00')",
]

MANY_ROWS = f"""
    with recursive numbers(id) as (
        select 1 where :day is not null union all select id + 1 from numbers where id < {BATCH_ROWS + 2}
    )
"""

integration = pytest.mark.integration


@dataclass
class Batches:
    """A source that answers the partition's query with these batches, and its count with their rows."""

    rows: list[pa.RecordBatch]
    counted: int | None = None
    consistent: bool = True
    typed: bool = True
    dialect: Dialect = field(default_factory=lambda: Dialect(quote=str, bind=lambda name: f":{name}"))
    asked: list[str] = field(default_factory=list)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        self.asked.append(sql)
        if "count(*)" in sql:
            count = sum(batch.num_rows for batch in self.rows) if self.counted is None else self.counted
            yield pa.record_batch({"n": [count]})
        else:
            yield from self.rows


@dataclass
class Meanwhile:
    """A reader beside which something happens: before its n-th batch of all, or after its n-th statement."""

    reader: Reader
    happens: Callable[[], None]
    before_batch: int | None = None
    after_statement: int | None = None
    statements: int = 0

    def __post_init__(self) -> None:
        self.dialect, self.consistent, self.typed = (
            self.reader.dialect,
            self.reader.consistent,
            self.reader.typed,
        )

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self.reader.batches(sql)):
            if self.statements == 0 and number == self.before_batch:
                self.happens()
            yield batch
        self.statements += 1
        if self.statements == self.after_statement:
            self.happens()


def batch(start: int, stop: int, **changed: pa.Array) -> pa.RecordBatch:
    """Parcels with the ids from start up to stop; columns may be changed."""
    count = stop - start
    columns = {
        "day": pa.array([date(2013, 5, 1)] * count),
        "id": pa.array(range(start, stop)),
        "name": pa.array([f"parcel {i}" for i in range(start, stop)]),
        "size": pa.array([i / 2 for i in range(start, stop)]),
        "seen": pa.array([datetime(2013, 5, 1, tzinfo=UTC)] * count, pa.timestamp("us", tz="UTC")),
    }
    return pa.record_batch(columns | changed)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The parcels in SQLite."""
    connection = sqlite3.connect(tmp_path / "source.db")
    with connection:
        connection.execute(TABLE.format(instant="text"))
        connection.execute(f"insert into parcels values {', '.join(PARCELS)}")
    connection.close()
    return f"sqlite:///{tmp_path}/source.db"


@pytest.fixture
def postgres_url(warehouse_url: str) -> str:
    """The parcels in PostgreSQL."""
    execute(
        warehouse_url,
        TABLE.format(instant="timestamp"),
        f"insert into parcels values {', '.join(PARCELS)}",
    )
    return warehouse_url


@pytest.fixture(params=["sqlite_url", pytest.param("postgres_url", marks=integration)])
def url(request: pytest.FixtureRequest) -> str:
    """The parcels in each database in turn."""
    found: str = request.getfixturevalue(request.param)
    return found


def snapshot(url: str, folder: Path, plan: ExtractPlan = PLAN) -> Snapshot:
    with open_reader(url, BINDS) as reader:
        return extract(reader, plan, folder)


def selecting(sql: str, **changed: object) -> ExtractPlan:
    """The plan with another extract."""
    return replace(PLAN, extract=Extract.model_validate(ROWS.model_dump() | {"sql": sql} | changed))


def with_history(sql: str, key: tuple[str, ...] = ("id",)) -> ExtractPlan:
    return replace(PLAN, history={"history/f-1/sizes": HistoryQuery(key=key, sql=sql)})


def refused(kind: type[RunError], run: Callable[[], object], folder: Path) -> str:
    """The message of the error that the extract must end with; it must leave no snapshot."""
    with pytest.raises(kind) as caught:
        run()
    assert not (folder / "snapshot.parquet").exists()
    return str(caught.value)


# The rows


def test_a_snapshot_holds_the_known_rows_of_the_partition_in_the_declared_types(
    url: str, tmp_path: Path
) -> None:
    made = snapshot(url, tmp_path)
    table = pq.read_table(made.path)
    assert table.schema.names == list(COLUMNS)
    assert [str(t) for t in table.schema.types][1:4] == ["int64", "string", "double"]
    assert table.select(["id", "name", "size"]).to_pylist() == [
        {"id": 1, "name": "é", "size": 1.5},
        {"id": 2, "name": "b", "size": None},
    ]
    assert table["seen"][0].as_py() == datetime(2013, 5, 1, 7, tzinfo=UTC)
    assert (made.rows, made.proved, made.warnings) == (2, True, ())
    assert made.bytes > 0


@integration
def test_the_same_rows_have_one_fingerprint_on_every_database(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    plan = replace(
        with_history("select id, name, count(*) as n from parcels where day = :day group by id, name"),
        parameters="select count(*) as rows_min, 'x' as kind from parcels where day = :day",
    )
    made = []
    for url in (sqlite_url, postgres_url):
        folder = tmp_path / url.split(":")[0]
        folder.mkdir()
        made.append(snapshot(url, folder, plan))
    assert made[0].fingerprint == made[1].fingerprint


def test_the_fingerprint_does_not_depend_on_the_batches_of_the_source(tmp_path: Path) -> None:
    rows = 2 * BATCH_ROWS + 1000
    cuts = ([0, rows], [0, 1, 7, BATCH_ROWS, BATCH_ROWS, rows], list(range(0, rows + 1, 33_018)))
    fingerprints = set()
    for ends in cuts:
        batches = [batch(start, stop) for start, stop in pairwise(ends)]
        made = extract(Batches(batches), PLAN, tmp_path)
        assert pq.read_metadata(made.path).num_rows == made.rows == rows
        fingerprints.add(made.fingerprint)
    assert len(fingerprints) == 1


def test_rows_histories_and_parameters_all_count_for_the_fingerprint(sqlite_url: str, tmp_path: Path) -> None:
    plans = [
        PLAN,
        selecting("select day, id, name, size, seen from parcels where day = :day order by id desc"),
        with_history("select id from parcels where day = :day"),
        with_history("select id from parcels where day < :day"),
        replace(PLAN, parameters="select 1 as low, :day as day"),
        replace(PLAN, parameters="select 2 as low, :day as day"),
    ]
    assert len({snapshot(sqlite_url, tmp_path, plan).fingerprint for plan in plans}) == len(plans)


def test_a_snapshot_is_compressed_by_zstd_and_written_in_batches(tmp_path: Path) -> None:
    made = extract(Batches([batch(0, BATCH_ROWS + 1)]), PLAN, tmp_path)
    metadata = pq.read_metadata(made.path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [BATCH_ROWS, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_extra_column_is_warned_about_and_left_out(url: str, tmp_path: Path) -> None:
    made = snapshot(url, tmp_path, selecting("select p.*, 7 as more from parcels as p where day = :day"))
    assert made.warnings == ("extra column 'more' is not declared and was left out",)
    assert pq.read_schema(made.path).names == list(COLUMNS)


def test_changed_and_missing_columns_are_all_named(url: str, tmp_path: Path) -> None:
    plan = selecting("select day, 'x' as id, name as title, size from parcels where day = :day")
    message = refused(ChangedColumn, lambda: snapshot(url, tmp_path, plan), tmp_path)
    assert "column 'id' must be integer; got " in message
    assert "column 'name' must be there; it is gone" in message
    assert "column 'seen' must be there; it is gone" in message


@integration
def test_a_numeric_is_refused_with_what_to_do(postgres_url: str, tmp_path: Path) -> None:
    plan = selecting("select day, id, name, size::numeric as size, seen from parcels where day = :day")
    message = refused(ChangedColumn, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert "column 'size' must be float?; got numeric: cast it, ::double precision or ::bigint" in message


@integration
def test_an_infinite_instant_is_refused(postgres_url: str, tmp_path: Path) -> None:
    plan = selecting(
        "select day, id, name, size, 'infinity'::timestamp as seen from parcels where day = :day"
    )
    message = refused(ChangedColumn, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert message.startswith("column 'seen' must lie in the years 1 to 9999")


def test_whole_numbers_may_stand_in_a_float_column(url: str, tmp_path: Path) -> None:
    plan = selecting("select day, id, name, id as size, seen from parcels where day = :day order by id")
    assert pq.read_table(snapshot(url, tmp_path, plan).path)["size"].to_pylist() == [1.0, 2.0]


def test_a_column_of_nothing_but_nulls_has_its_declared_type(url: str, tmp_path: Path) -> None:
    plan = selecting("select day, id, cast(null as text) as name, size, seen from parcels where day = :day")
    table = pq.read_table(snapshot(url, tmp_path, plan).path)
    assert (str(table.schema.field("name").type), table["name"].null_count) == ("string", 2)


def test_a_source_without_types_may_begin_a_column_with_nulls(tmp_path: Path) -> None:
    nulls = batch(0, 3, size=pa.nulls(3))
    made = extract(Batches([nulls, batch(3, 5)], typed=False), PLAN, tmp_path)
    assert pq.read_table(made.path)["size"].to_pylist() == [None, None, None, 1.5, 2.0]


def test_a_source_without_types_may_not_change_them_in_a_later_batch(tmp_path: Path) -> None:
    later = batch(3, 5, id=pa.array(["3", "4"]))
    source = Batches([batch(0, 3), later], typed=False)
    message = refused(ChangedColumn, lambda: extract(source, PLAN, tmp_path), tmp_path)
    assert "column 'id' must be integer; got string" in message


def test_sqlite_text_in_a_number_column_is_refused_without_its_value(sqlite_url: str, tmp_path: Path) -> None:
    mixed = "case id when 1 then 'secret' else 2 end as id"
    plan = selecting(f"select day, {mixed}, name, size, seen from parcels where day = :day")
    message = refused(ExtractError, lambda: snapshot(sqlite_url, tmp_path, plan), tmp_path)
    assert "column 'id' must hold values of one type" in message
    assert "secret" not in message


def test_text_that_is_no_utf8_gets_the_replacement_sign_from_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    plan = selecting(
        "select day, id, cast(x'ff41' as text) as name, size, seen from parcels where day = :day"
    )
    assert pq.read_table(snapshot(sqlite_url, tmp_path, plan).path)["name"].to_pylist() == ["\ufffdA"] * 2


@integration
def test_text_that_is_no_utf8_gets_the_replacement_sign_from_postgresql(
    server: EmbeddedServer, warehouse_url: str, tmp_path: Path
) -> None:
    name = f"test_{uuid4().hex[:12]}"
    execute(
        warehouse_url,
        f"create database {name} encoding 'SQL_ASCII' locale_provider libc locale 'C' template template0",
    )
    url = server.url(database=name)
    execute(url, TABLE.format(instant="timestamp"))
    execute(url, "insert into parcels values ('2013-05-01', 1, E'\\xff41', 1, '2013-05-01 06:00')")
    made = snapshot(url, tmp_path)
    assert pq.read_table(made.path)["name"].to_pylist() == ["\ufffd41"]
    server.drop_database(name)


# When it fails


def test_an_empty_partition_is_an_error_of_its_own(url: str, tmp_path: Path) -> None:
    plan = selecting("select day, id, name, size, seen from parcels where day > :day")
    message = refused(EmptyPartition, lambda: snapshot(url, tmp_path, plan), tmp_path)
    assert message.endswith("declare extract.empty_is_normal: true")


def test_an_empty_partition_that_is_normal_is_an_empty_snapshot(url: str, tmp_path: Path) -> None:
    sql = "select day, id, name, size, seen from parcels where day > :day"
    made = snapshot(url, tmp_path, selecting(sql, empty_is_normal=True))
    assert (made.rows, made.proved) == (0, True)
    assert pq.read_table(made.path).schema.names == list(COLUMNS)


def test_an_empty_partition_does_not_hide_a_changed_column(tmp_path: Path) -> None:
    empty = batch(0, 0, id=pa.array([], pa.string()))
    refused(ChangedColumn, lambda: extract(Batches([empty]), PLAN, tmp_path), tmp_path)


def test_a_missing_table_or_column_is_an_error_of_its_own(url: str, tmp_path: Path) -> None:
    gone = replace(PLAN, sources={"parcels": Source(table="shipments", overwritten=True)})
    assert "shipments" in refused(MissingTable, lambda: snapshot(url, tmp_path, gone), tmp_path)
    column = selecting("select day, id, title, size, seen from parcels where day = :day")
    assert "title" in refused(MissingTable, lambda: snapshot(url, tmp_path, column), tmp_path)


@integration
def test_a_source_that_says_wrongly_when_rows_were_known_is_refused(
    postgres_url: str, tmp_path: Path
) -> None:
    plan = replace(PLAN, sources={"parcels": Source(table="parcels", known_at="arrived")})
    message = refused(MissingTable, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert 'column "arrived" does not exist' in message


@integration
def test_a_connection_lost_in_mid_stream_is_transient_and_leaves_no_half_snapshot(
    postgres_url: str, tmp_path: Path
) -> None:
    plan = selecting(
        "select day, g as id, name, size, seen from parcels, generate_series(1, 1000000) g where day = :day"
    )
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where query like 'COPY%'"

    def run() -> None:
        with open_reader(postgres_url, BINDS) as reader:
            extract(Meanwhile(reader, lambda: execute(postgres_url, kill), before_batch=1), plan, tmp_path)

    message = refused(TransientError, run, tmp_path)
    assert "parcels" not in message


def test_any_failure_in_mid_stream_leaves_no_half_snapshot(tmp_path: Path) -> None:
    def breaks() -> None:
        raise OSError("no space left on device")

    source = Meanwhile(Batches([batch(0, BATCH_ROWS), batch(0, 5)]), breaks, before_batch=1)
    with pytest.raises(OSError, match="no space left"):
        extract(source, PLAN, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_history_leaves_no_snapshot(sqlite_url: str, tmp_path: Path) -> None:
    plan = with_history("select nowhere from parcels where day = :day")
    refused(MissingTable, lambda: snapshot(sqlite_url, tmp_path, plan), tmp_path)


# One consistent read


def test_rows_that_differ_from_their_count_are_refused(tmp_path: Path) -> None:
    source = Batches([batch(0, 5)], counted=6)
    message = refused(InconsistentRead, lambda: extract(source, PLAN, tmp_path), tmp_path)
    assert message.endswith("got 5 of 6")


def test_a_source_without_consistent_reads_gives_an_unproved_snapshot(tmp_path: Path) -> None:
    source = Batches([batch(0, 5)], counted=6, consistent=False)
    made = extract(source, PLAN, tmp_path)
    assert (made.rows, made.proved) == (5, False)
    assert len(source.asked) == 1


@integration
@pytest.mark.parametrize("after_statement", [1, 2])
def test_a_writer_between_the_read_the_count_and_the_history_disturbs_nothing(
    postgres_url: str, tmp_path: Path, after_statement: int
) -> None:
    late = "insert into parcels values ('2013-05-01', 9, 'late', 1, '2013-05-01 06:00')"
    plan = with_history("select id, count(*) as n from parcels where day = :day group by id")
    with open_reader(postgres_url, BINDS) as reader:
        write = Meanwhile(reader, lambda: execute(postgres_url, late), after_statement=after_statement)
        made = extract(write, plan, tmp_path)
    assert (made.rows, made.proved) == (2, True)
    assert pq.read_table(made.history["history/f-1/sizes"])["id"].to_pylist() == [1, 2]
    assert snapshot(postgres_url, tmp_path).rows == 3


# History and parameters


def test_a_history_is_sorted_by_its_key_in_plain_types(url: str, tmp_path: Path) -> None:
    sql = "select name, count(*) as n, max(size) as size from parcels where day = :day group by 1"
    sql += " order by name desc"
    made = snapshot(url, tmp_path, with_history(sql, key=("name",)))
    (file,) = made.history.values()
    table = pq.read_table(file)
    assert file == tmp_path / "history/f-1/sizes.parquet"
    assert table.to_pylist() == [{"name": "b", "n": 1, "size": None}, {"name": "é", "n": 1, "size": 1.5}]
    assert [str(t) for t in table.schema.types] == ["string", "int64", "double"]


def test_a_history_without_rows_keeps_its_columns(url: str, tmp_path: Path) -> None:
    made = snapshot(url, tmp_path, with_history("select id, name from parcels where day > :day"))
    (file,) = made.history.values()
    assert pq.read_table(file).schema.names == ["id", "name"]


def test_a_history_without_its_key_is_refused(url: str, tmp_path: Path) -> None:
    plan = with_history("select name from parcels where day = :day", key=("id", "name"))
    message = refused(ExtractError, lambda: snapshot(url, tmp_path, plan), tmp_path)
    assert message.endswith("must give its key columns; got none named ['id']")


@integration
def test_a_numeric_in_a_history_is_refused_with_what_to_do(postgres_url: str, tmp_path: Path) -> None:
    plan = with_history("select id, avg(id) as mean from parcels where day = :day group by id")
    message = refused(ChangedColumn, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert "column 'mean' must be text, integer, float" in message
    assert "got numeric: cast it, ::double precision or ::bigint" in message


@integration
def test_a_history_that_names_a_column_twice_is_refused(postgres_url: str, tmp_path: Path) -> None:
    plan = with_history("select p.id, q.id from parcels p join parcels q using (day) where day = :day")
    message = refused(ExtractError, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert "column 'id' must be there once" in message


def test_a_repeated_key_of_a_history_is_left_to_the_one_place_that_refuses_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    made = snapshot(sqlite_url, tmp_path, with_history("select 7 as id from parcels where day <= :day"))
    table = pq.read_table(made.history["history/f-1/sizes"])
    assert table.num_rows == 3
    with pytest.raises(FeatureError, match="one row per id"):
        history_frame("sizes", table, ["id"])


def test_a_history_of_many_batches_may_begin_with_nulls(sqlite_url: str, tmp_path: Path) -> None:
    sql = MANY_ROWS + f"select id, case when id > {BATCH_ROWS} then id end as late from numbers"
    made = snapshot(sqlite_url, tmp_path, with_history(sql))
    (file,) = made.history.values()
    assert pq.read_table(file)["late"].to_pylist()[-3:] == [None, BATCH_ROWS + 1, BATCH_ROWS + 2]


def test_a_history_may_not_change_a_type_from_batch_to_batch(sqlite_url: str, tmp_path: Path) -> None:
    sql = MANY_ROWS + f"select id, case when id > {BATCH_ROWS} then 'secret' else 7 end as late from numbers"
    message = refused(ExtractError, lambda: snapshot(sqlite_url, tmp_path, with_history(sql)), tmp_path)
    assert "must give each column one type in all rows" in message
    assert "secret" not in message


@integration
def test_parameters_are_one_row_of_plain_values(postgres_url: str, tmp_path: Path) -> None:
    sql = "select count(*) as low, 0.5::float8 as share, :day as day, :day_start as start from parcels"
    made = snapshot(postgres_url, tmp_path, replace(PLAN, parameters=sql))
    start = datetime(2013, 5, 1, 4, tzinfo=UTC)
    assert made.parameters == {"low": 3, "share": 0.5, "day": date(2013, 5, 1), "start": start}


@pytest.mark.parametrize(("condition", "got"), [("day > :day", 0), ("day <= :day", 3)])
def test_parameters_of_another_number_of_rows_are_refused(
    sqlite_url: str, tmp_path: Path, condition: str, got: int
) -> None:
    plan = replace(PLAN, parameters=f"select id as low from parcels where {condition}")
    message = refused(ExtractError, lambda: snapshot(sqlite_url, tmp_path, plan), tmp_path)
    assert message == f"validate.parameters must give exactly one row; got {got}"


@integration
def test_a_numeric_parameter_is_refused(postgres_url: str, tmp_path: Path) -> None:
    plan = replace(PLAN, parameters="select avg(id) as low, :day as day from parcels")
    message = refused(ChangedColumn, lambda: snapshot(postgres_url, tmp_path, plan), tmp_path)
    assert message.startswith("validate.parameters must give plain columns: column 'low' must be ")


# Size

MEASURE = """
import resource, sys, tempfile
from datetime import date
from pathlib import Path
from pipeline.adapters.source import open_reader
from pipeline.job import Extract, Source
from pipeline.scoring.extract import ExtractPlan, extract

BINDS = {"day": date(2013, 5, 1)}

def peak_mb(rows):
    sql = f"select :day as day, g as id, repeat('x', 200) || g as t from one, generate_series(1, {rows}) g"
    columns = {"day": "date", "id": "integer", "t": "text"}
    declared = Extract.model_validate({"key": ("id",), "columns": columns, "sql": sql})
    plan = ExtractPlan(declared, {"one": Source(table="one", overwritten=True)}, {})
    with tempfile.TemporaryDirectory() as folder, open_reader(sys.argv[1], BINDS) as reader:
        assert extract(reader, plan, Path(folder)).rows == rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

print(peak_mb(400_000), peak_mb(1_200_000))
"""


@integration
def test_a_partition_is_never_held_in_memory_as_a_whole(warehouse_url: str) -> None:
    execute(warehouse_url, "create table one as select 1 as x")
    command = [sys.executable, "-c", MEASURE, warehouse_url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    # The 800,000 rows more are 170 MB; measured: 50 to 75 MB more, and no more at ten times the rows.
    assert large - small < 120
