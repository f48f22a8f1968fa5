"""Migrate on a real PostgreSQL: idempotent, quoted, guarded, and what the analyst may and may not do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import errors
from support.publishing import DAY, Warehouse, make_job

from pipeline.adapters import ledger, tables
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.migrate import migrate
from pipeline.adapters.warehouse import warehouse_engine
from pipeline.errors import FatalError, UsageError
from pipeline.job import Job
from pipeline.partition import Partition, between

pytestmark = pytest.mark.integration

_CATALOG = {
    "relations": """
        select relname, relkind, relacl::text, obj_description(pg_class.oid, 'pg_class'),
            pg_get_viewdef(pg_class.oid), pg_get_expr(relpartbound, pg_class.oid)
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace where nspname = any(%s)
        order by 1""",
    "columns": """
        select relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
        from pg_attribute join pg_class on pg_class.oid = attrelid
        join pg_namespace on pg_namespace.oid = relnamespace
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where nspname = any(%s) and attnum > 0 order by relname, attnum""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid)
        from pg_constraint join pg_namespace on pg_namespace.oid = connamespace
        where nspname = any(%s) order by 1, 2""",
    "indexes": "select indexdef from pg_indexes where schemaname = any(%s) order by 1",
    "triggers": """
        select tgrelid::regclass::text, tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
        join pg_namespace on pg_namespace.oid = relnamespace where nspname = any(%s) order by 1, 2""",
}


def catalog(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that migrate makes, by name."""
    schemas = [tables.SCHEMA, tables.PREDICTIONS]
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(statement.encode(), [schemas]).fetchall()
            for name, statement in _CATALOG.items()
        }


@contextmanager
def engine_of(url: str) -> Iterator[sa.Engine]:
    engine = warehouse_engine(url)
    yield engine
    engine.dispose()


def run_migration(url: str, *jobs: Job) -> None:
    with engine_of(url) as engine:
        migrate(engine, jobs)


@pytest.fixture
def analyst(server: EmbeddedServer, warehouse: Warehouse) -> Iterator[psycopg.Connection]:
    """The read-only role in the warehouse, with writes allowed by its own session."""
    url = server.url(sa.make_url(warehouse.url).database or "", "analyst")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        yield connection


def test_a_second_migration_changes_nothing(warehouse: Warehouse) -> None:
    before = catalog(warehouse.url)
    migrate(warehouse.engine, [warehouse.job])
    assert catalog(warehouse.url) == before
    assert len(before["relations"]) > 20


def test_a_server_that_is_too_old_is_refused_before_anything_changes(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.adapters.migrate._LEAST_MAJOR", 99)
    with pytest.raises(UsageError, match=r"must be PostgreSQL 99 or newer; got \d\d\."):
        migrate(warehouse.engine, [warehouse.job])


def test_two_migrations_at_once_both_end_well(warehouse_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run_migration(warehouse_url, make_job()), range(2)))
    before = catalog(warehouse_url)
    run_migration(warehouse_url, make_job())
    assert catalog(warehouse_url) == before


def test_a_migration_that_changes_nothing_waits_for_no_reader(warehouse: Warehouse) -> None:
    with psycopg.connect(warehouse.url) as reader:
        for view in ("predictions.toy", "predictions.toy_history", "nightshift.day_status"):
            reader.execute(f"select * from {view}".encode())
        with ThreadPoolExecutor(1) as pool:
            pool.submit(migrate, warehouse.engine, [warehouse.job]).result(timeout=20)


def test_new_months_are_added_beside_a_reader_of_one_day(warehouse: Warehouse) -> None:
    with psycopg.connect(warehouse.url) as reader:
        reader.execute("select * from predictions.toy where day = '2024-01-25'")
        with ThreadPoolExecutor(1) as pool:
            longer = make_job(end="2024-12-31")
            pool.submit(migrate, warehouse.engine, [longer]).result(timeout=20)
    assert warehouse.query("select to_regclass('nightshift.predictions_toy$2024_12') is not null") == [
        (True,)
    ]


def test_a_changed_description_reaches_the_comments(warehouse: Warehouse) -> None:
    migrate(warehouse.engine, [make_job(description="Another toy.")])
    assert warehouse.query("select obj_description('predictions.toy'::regclass)") == [
        ("Another toy. Current rows only.",)
    ]


def test_the_tables_module_and_the_migrations_agree(migrated_url: str) -> None:
    with engine_of(migrated_url) as engine, engine.connect() as connection:
        options = {"include_schemas": True, "version_table_schema": tables.SCHEMA}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []


def test_checks_and_identities_agree_too_which_alembic_does_not_compare(
    server: EmbeddedServer, migrated_url: str
) -> None:
    server.create_database("plain")
    with engine_of(server.url("plain")) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql("create schema nightshift")
        tables.metadata.create_all(engine)
    plain, migrated = catalog(server.url("plain")), catalog(migrated_url)
    server.drop_database("plain")
    for kind in ("columns", "constraints", "indexes"):
        missing = set(plain[kind]) - set(migrated[kind])
        assert not missing, f"{kind} of tables.py that no migration makes"
        assert {row[0] for row in set(migrated[kind]) - set(plain[kind])} <= _ONLY_MIGRATED


_ONLY_MIGRATED = {
    "alembic_version",
    "alembic_version_pkc",
    "nightshift.alembic_version",
    "day_publishes",
    "day_status",
    "quality",
    "CREATE UNIQUE INDEX alembic_version_pkc ON nightshift.alembic_version USING btree (version_num)",
}


@pytest.mark.parametrize(
    "key", [{"id": "text"}, {"other": "integer"}, {"id": "integer", "more": "text"}], ids=str
)
def test_another_key_than_the_published_rows_have_is_refused(
    warehouse: Warehouse, key: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=r"extract.key must stay id bigint.*got .*new job name"):
        migrate(warehouse.engine, [make_job(key=key)])


def test_a_refused_job_leaves_everything_as_it_was(warehouse: Warehouse) -> None:
    before = catalog(warehouse.url)
    with pytest.raises(UsageError):
        migrate(warehouse.engine, [make_job("new"), make_job(key={"id": "text"})])
    assert catalog(warehouse.url) == before
    assert warehouse.query("select job from nightshift.jobs") == [("toy",)]


@pytest.mark.parametrize("name", ["toy_history", "toy_shadow"])
def test_a_job_may_not_have_the_name_of_anothers_view(warehouse: Warehouse, name: str) -> None:
    with pytest.raises(UsageError, match=f"job {name} must have another name"):
        migrate(warehouse.engine, [make_job(name)])


def test_a_job_may_have_a_name_that_looks_like_anothers_month(warehouse: Warehouse) -> None:
    migrate(warehouse.engine, [make_job(f"toy_{suffix}") for suffix in ("2024_01", "default", "other")])
    warehouse.published()
    assert warehouse.query("select count(*) from predictions.toy_2024_01") == [(0,)]


def test_sql_keywords_are_usable_names_of_jobs_and_keys(warehouse_url: str) -> None:
    key = {"order": "integer", "user": "text", "select": "date", "rows": "boolean", "runs": "timestamp"}
    job = make_job("table", key)
    with engine_of(warehouse_url) as engine:
        migrate(engine, [job])
        migrate(engine, [job])
        warehouse = Warehouse(warehouse_url, engine, job)
        assert warehouse.query('select "order", "user", "select" from predictions."table"') == []


def test_a_description_may_hold_any_sign(warehouse: Warehouse) -> None:
    text = "50% of O'Hara's \\ :flights %s %(x)s — \"all\"\nof them; drop table x"
    migrate(warehouse.engine, [make_job(description=text)])
    assert warehouse.query("select obj_description('predictions.toy'::regclass)") == [
        (f"{text} Current rows only.",)
    ]


def test_the_view_has_exactly_the_promised_columns_in_order(warehouse: Warehouse) -> None:
    migrate(warehouse.engine, [job := make_job("wide", {"b": "text", "a": "integer"})])
    statement = "select column_name from information_schema.columns where table_schema = 'predictions' "
    statement += "and table_name = %s order by ordinal_position"
    columns = [name for (name,) in warehouse.query(statement, "wide")]
    assert columns == list(job.output_columns()) == ["b", "a", *job.output_columns()[2:]]
    history = [name for (name,) in warehouse.query(statement, "wide_history")]
    assert history == [*columns, "published_at", "superseded_at"]


_PROMISED = (
    "predictions.toy",
    "predictions.toy_history",
    "predictions.toy_shadow",
    *(
        f"nightshift.{name}"
        for name in (
            "day_status",
            "runs",
            "quarantine",
            "promotions",
            "pointer",
            "alerts",
            "rollouts",
            "rollout_nights",
        )
    ),
)


def test_every_relation_and_column_that_is_promised_is_explained(warehouse: Warehouse) -> None:
    statement = """
        select attrelid::regclass::text, attname, obj_description(attrelid, 'pg_class'),
            col_description(attrelid, attnum)
        from pg_attribute where attrelid = any(%s::regclass[]) and attnum > 0"""
    explained = warehouse.query(statement, list(_PROMISED))
    assert {relation for relation, *_ in explained} == set(_PROMISED)
    assert [row for row in explained if not all(row)] == []


def partition_of(warehouse: Warehouse, day: str) -> str:
    statement = "select distinct tableoid::regclass::text from nightshift.predictions_toy where day = %s"
    return str(warehouse.query(statement, date.fromisoformat(day))[0][0])


def test_months_are_made_ahead_and_other_days_go_to_the_default_partition(warehouse: Warehouse) -> None:
    for day in ("2024-01-01", "2024-02-29", "2024-03-01", "2023-12-31"):
        warehouse.published(Partition.parse(day))
    assert partition_of(warehouse, "2024-01-01") == 'nightshift."predictions_toy$2024_01"'
    assert partition_of(warehouse, "2024-02-29") == 'nightshift."predictions_toy$2024_02"'
    assert partition_of(warehouse, "2024-03-01") == 'nightshift."predictions_toy$other"'
    assert partition_of(warehouse, "2023-12-31") == 'nightshift."predictions_toy$other"'


def test_rows_in_the_default_partition_do_not_stop_a_later_migration(warehouse: Warehouse) -> None:
    march = Partition.parse("2024-03-15")
    warehouse.published(march)
    migrate(warehouse.engine, [make_job(end="2024-04-30")])
    assert len(warehouse.visible(march)) == 1
    warehouse.published(april := Partition.parse("2024-04-15"))
    assert partition_of(warehouse, "2024-04-15") == 'nightshift."predictions_toy$2024_04"'
    assert len(warehouse.visible(april)) == 1


def test_a_job_without_an_end_has_months_for_a_year_ahead(warehouse: Warehouse) -> None:
    migrate(warehouse.engine, [make_job("endless", start=str(date.today()), end=None)])
    statement = (
        "select count(*) from pg_inherits where inhparent = 'nightshift.predictions_endless'::regclass"
    )
    assert warehouse.query(statement)[0][0] >= 14


def test_a_day_is_read_without_a_look_at_other_days(warehouse: Warehouse) -> None:
    for day in between(Partition.parse("2024-01-20"), Partition.parse("2024-02-10")):
        warehouse.published(day, range(50))
    warehouse.execute("analyze")
    (plan,) = warehouse.query(
        "explain (analyze, format json) select * from predictions.toy where day = %s", DAY.day
    )
    scans = [
        node for node in _nodes(plan[0][0]["Plan"]) if "predictions_toy" in node.get("Relation Name", "")
    ]
    assert [node["Relation Name"] for node in scans] == ["predictions_toy$2024_01"]
    assert scans[0]["Actual Rows"] * scans[0]["Actual Loops"] == 50
    assert "run_no" in scans[0]["Index Cond"]
    assert scans[0].get("Rows Removed by Filter", 0) == 0


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def test_the_analyst_reads_predictions_and_the_days(
    warehouse: Warehouse, analyst: psycopg.Connection
) -> None:
    warehouse.published()
    assert analyst.execute("select count(*) from predictions.toy").fetchone() == (3,)
    assert analyst.execute("select count(*) from predictions.toy_history").fetchone() == (3,)
    assert analyst.execute("select count(*) from nightshift.day_status").fetchone() == (60,)


def test_the_analyst_joins_trust_to_predictions(warehouse: Warehouse, analyst: psycopg.Connection) -> None:
    run = warehouse.published()
    warehouse.execute("update nightshift.runs set warnings = %s where run_no = %s", '["odd: 7"]', run.run_no)
    joined = analyst.execute(
        "select distinct trust, reasons from predictions.toy"
        " join nightshift.day_status on published_run_id = run_id where day_status.job = 'toy'"
    )
    assert joined.fetchall() == [("warned", ["warning: odd"])]


_FORBIDDEN = (
    "select * from nightshift.runs",
    "select * from nightshift.quarantine",
    "select * from nightshift.promotions",
    "select * from nightshift.alerts",
    "select * from nightshift.day_publishes",
    "select * from nightshift.rollouts",
    "select * from nightshift.rollout_nights",
    "select * from predictions.toy_shadow",
    "select * from nightshift.shadow_toy",
    'select * from nightshift."predictions_toy$2024_01"',
    "select * from nightshift.predictions_toy",
    "delete from predictions.toy",
    "insert into predictions.toy (id) values (1)",
    "update nightshift.pointer set run_no = null",
    "drop view predictions.toy",
    "create table predictions.mine (a int)",
    "create table nightshift.mine (a int)",
    "create table public.mine (a int)",
    "create schema mine",
    "create temp table mine (a int)",
    "set role nightshift_owner",
    "set session authorization nightshift_owner",
    "grant nightshift_owner to nightshift_analyst",
    "alter role nightshift_analyst superuser",
)


def test_the_analyst_can_do_nothing_else(analyst: psycopg.Connection) -> None:
    refused = {statement for statement in _FORBIDDEN if is_refused(analyst, statement)}
    assert refused == set(_FORBIDDEN)


def is_refused(connection: psycopg.Connection, statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
        return True
    return False


@pytest.mark.parametrize("table", ["promotions", "model_versions", "gate_verdicts", "rollouts"])
def test_what_is_append_only_refuses_every_change(warehouse: Warehouse, table: str) -> None:
    for change in ("update {} set job = 'x'", "delete from {}", "truncate {} cascade"):
        with pytest.raises(errors.RaiseException, match=f"{table} is append-only"):
            warehouse.execute(change.format(f"nightshift.{table}"))


def test_a_sealed_run_without_its_counts_is_refused_by_the_table_itself(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with pytest.raises(errors.CheckViolation, match="runs_conserve_rows"):
        warehouse.execute("update nightshift.runs set stage = 'sealed' where run_no = %s", run.run_no)


def test_a_warehouse_without_control_tables_says_what_to_do(warehouse_url: str) -> None:
    with (
        engine_of(warehouse_url) as engine,
        engine.connect() as connection,
        pytest.raises(FatalError, match="Run `nightshift migrate`"),
    ):
        ledger.find(connection, "x")
