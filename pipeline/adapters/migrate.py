"""All DDL: control tables by Alembic, then each job's rows, views, comments and the analyst's rights."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects.postgresql import dialect, insert
from sqlalchemy.exc import ProgrammingError

from pipeline.adapters import tables
from pipeline.adapters.tables import ANALYST, PREDICTIONS, SCHEMA
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.partition import COLUMN, SQL_TYPE

_LOCK = 7_305_414_021
_MONTHS_AHEAD = 14
_KEY_TYPES = {
    "text": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
}
_ROW_COLUMNS = (
    ("score", "double precision not null", "Probability or value that the job predicts"),
    ("decision", "boolean", "Whether the score reaches the declared threshold"),
    (
        "score_source",
        "text not null",
        "Who answered: champion, challenger, previous_model, baseline, rule, carried_forward, default",
    ),
    ("score_age_days", "integer", "Days since a carried-forward score was made; null for fresh ones"),
    ("arm", "text", "Arm of a running experiment; null without one"),
    ("model_version", "integer", "Version of the model that gave the score; null for rule and default"),
    ("scored_at", "timestamptz not null", "When the row was scored"),
)
_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]


def rows_table(job: str) -> str:
    """The table that holds every run's prediction rows of a job; readers use the views."""
    return f"predictions_{job}"


def migrate(engine: sa.Engine, jobs: Iterable[Job]) -> None:
    """Bring control tables and every job's tables, views, comments and rights up to date; idempotent.

    Raises UsageError when a job's key differs from the one its published rows have.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        for schema in (SCHEMA, PREDICTIONS):
            connection.exec_driver_sql(f"create schema if not exists {_quote(schema)}")
        _control_tables(connection)
        _analyst_role(connection)
        for job in jobs:
            _job(connection, job)
        _rights(connection)


def _control_tables(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _analyst_role(connection: sa.Connection) -> None:
    known = sa.text("select 1 from pg_roles where rolname = :role")
    if connection.execute(known, {"role": ANALYST}).first() is None:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"create role {_quote(ANALYST)} nologin")
        except ProgrammingError as error:
            if connection.execute(known, {"role": ANALYST}).first() is None:
                raise UsageError(
                    f"role {ANALYST} must exist; this login may not create it. "
                    f"Let an administrator run: create role {ANALYST} nologin"
                ) from error


def _job(connection: sa.Connection, job: Job) -> None:
    declaration = job.declaration
    values = {
        "description": declaration.description,
        "owners": declaration.owners.model_dump(mode="json"),
        "timezone": declaration.schedule.timezone,
        "cutoff": declaration.schedule.cutoff,
        "start_day": declaration.schedule.start,
        "end_day": declaration.schedule.end,
    }
    statement = insert(tables.jobs).values(job=job.name, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["job"], set_=values))
    _rows(connection, job)
    _views(connection, job)


def _rows(connection: sa.Connection, job: Job) -> None:
    extract = job.declaration.extract
    table = f"{SCHEMA}.{_quote(rows_table(job.name))}"
    keys = [f"{_quote(k)} {_KEY_TYPES[extract.columns[k]]} not null" for k in extract.key]
    columns = [
        f"{COLUMN} {SQL_TYPE} not null",
        "run_no bigint not null",
        *keys,
        *(f"{name} {kind}" for name, kind, _ in _ROW_COLUMNS),
    ]
    primary = ", ".join([COLUMN, "run_no", *map(_quote, extract.key)])
    connection.exec_driver_sql(
        f"create table if not exists {table} ({', '.join(columns)}, primary key ({primary})) "
        f"partition by range ({COLUMN})"
    )
    _check_key(connection, job)
    connection.exec_driver_sql(
        f"create table if not exists {SCHEMA}.{_quote(rows_table(job.name) + '_default')} "
        f"partition of {table} default"
    )
    for month in _months(job):
        _month(connection, job, month)


def _check_key(connection: sa.Connection, job: Job) -> None:
    extract = job.declaration.extract
    inspector = sa.inspect(connection)
    primary = inspector.get_pk_constraint(rows_table(job.name), schema=SCHEMA)
    there = tuple(primary["constrained_columns"][2:])
    if there != extract.key:
        raise UsageError(
            f"job {job.name}: extract.key must stay {list(there)}, as its published rows have it; "
            f"got {list(extract.key)}. Declare another key under a new job name"
        )


def _months(job: Job) -> Iterable[date]:
    schedule = job.declaration.schedule
    last = schedule.end or date.today() + timedelta(days=31 * _MONTHS_AHEAD)
    month = schedule.start.replace(day=1)
    while month <= last:
        yield month
        month = _next_month(month)


def _next_month(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def _month(connection: sa.Connection, job: Job, month: date) -> None:
    name = f"{rows_table(job.name)}_{month:%Y_%m}"
    if sa.inspect(connection).has_table(name, schema=SCHEMA):
        return
    parent = f"{SCHEMA}.{_quote(rows_table(job.name))}"
    bounds = {"first": month, "next": _next_month(month)}
    in_default = sa.text(
        f"select 1 from {SCHEMA}.{_quote(rows_table(job.name) + '_default')} "
        f"where {COLUMN} >= :first and {COLUMN} < :next limit 1"
    )
    # Rows of that month are already in the default partition: they are right there and stay.
    if connection.execute(in_default, bounds).first() is None:
        connection.exec_driver_sql(
            f"create table {SCHEMA}.{_quote(name)} partition of {parent} "
            f"for values from ('{month}') to ('{_next_month(month)}')"
        )


def _views(connection: sa.Connection, job: Job) -> None:
    keys = job.declaration.extract.key
    rows = f"{SCHEMA}.{_quote(rows_table(job.name))}"
    selected = ", ".join(
        "runs.run_id" if name == "run_id" else f"rows.{_quote(name)}" for name in job.output_columns()
    )
    current = f"{PREDICTIONS}.{_quote(job.name)}"
    history = f"{PREDICTIONS}.{_quote(job.name + '_history')}"
    connection.exec_driver_sql(
        f"create or replace view {current} as select {selected} from {rows} rows "
        f"join {SCHEMA}.pointer on pointer.job = {_literal(job.name)} "
        f"and pointer.day = rows.day and pointer.run_no = rows.run_no "
        f"join {SCHEMA}.runs on runs.run_no = rows.run_no"
    )
    connection.exec_driver_sql(
        f"create or replace view {history} as select {selected}, "
        f"publications.published_at, publications.superseded_at from {rows} rows "
        f"join {SCHEMA}.publications on publications.job = {_literal(job.name)} "
        f"and publications.day = rows.day and publications.run_no = rows.run_no "
        f"join {SCHEMA}.runs on runs.run_no = rows.run_no"
    )
    shared = {name: text for name, _, text in _ROW_COLUMNS} | {
        COLUMN: "Business day that was scored",
        "run_id": "Run that published the row; joins nightshift.runs",
    }
    shared |= dict.fromkeys(keys, "Part of the job's key")
    times = {
        "published_at": "When readers began to see the row",
        "superseded_at": "When a newer run replaced it; null while current",
    }
    described = job.declaration.description
    _comment(connection, current, f"{described} Current rows only.", shared)
    _comment(connection, history, f"{described} All published runs.", shared | times)


def _comment(connection: sa.Connection, view: str, text: str, columns: dict[str, str]) -> None:
    connection.exec_driver_sql(f"comment on view {view} is {_literal(text)}")
    for name, sentence in columns.items():
        connection.exec_driver_sql(f"comment on column {view}.{_quote(name)} is {_literal(sentence)}")


def _literal(text: str) -> str:
    """A text inside DDL, where PostgreSQL takes no bound values."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


def _rights(connection: sa.Connection) -> None:
    analyst = _quote(ANALYST)
    for statement in (
        f"revoke all on schema {SCHEMA} from public",
        f"grant usage on schema {SCHEMA}, {PREDICTIONS} to {analyst}",
        f"grant select on all tables in schema {PREDICTIONS} to {analyst}",
        f"grant select on {SCHEMA}.day_status to {analyst}",
    ):
        connection.exec_driver_sql(statement)
