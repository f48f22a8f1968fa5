"""All DDL: control tables by Alembic, then each job's rows, views, comments and the readers' rights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline.adapters import tables
from pipeline.adapters.job_tables import history_view, migrate_job, rows_table, shadow_view
from pipeline.adapters.tables import ANALYST, PREDICTIONS, REPORTER, REQUESTER, SCHEMA
from pipeline.adapters.warehouse import quoted
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.partition import COLUMN

__all__ = ["migrate", "rows_table"]

_LOCK = 7_305_414_021
_LEAST_MAJOR = 16
"""Of PostgreSQL: the first with `pg_input_is_valid`."""
_SHOWN = ("day_status", "metrics", "outcomes", "quality")
_REPORTED = (
    *_SHOWN, "jobs", "runs", "pointer", "promotions", "model_versions", "alerts", "gate_verdicts", "rollouts",
    "rollout_nights",
)  # fmt: skip
_COUNTED = "run_no, run_id, row, verdict, rule, column_name"
"""Columns of the quarantine that hold nothing of a row: reports count."""
_ASKED = "job, key, payload, expires_at"
"""What a system that asks for a score may say."""
_DRAWN = f"{COLUMN}, run_no, score"
"""Columns of a job's rows that a histogram takes: whose scores they are stays unseen."""


def migrate(engine: sa.Engine, jobs: Iterable[Job]) -> None:
    """Bring control tables and every job's tables, views, comments and rights up to date; idempotent.

    Raises UsageError when the server is too old, when a job's key differs from the one its published rows
    have, when two jobs need the same view, or when this login may not create what is missing.
    """
    with engine.begin() as connection:
        _refuse_older(connection)
        connection.exec_driver_sql("set local lock_timeout = '30s'")
        connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _schemas(connection)
        _control_tables(connection)
        _analyst_role(connection)
        for job in jobs:
            _record_job(connection, job)
            _check_view_names(connection, job.name)
            migrate_job(connection, job)
        _rights(connection)


def _refuse_older(connection: sa.Connection) -> None:
    major = int(connection.exec_driver_sql("show server_version_num").scalar_one()) // 10_000
    if major < _LEAST_MAJOR:
        raise UsageError(
            f"the warehouse must be PostgreSQL {_LEAST_MAJOR} or newer; got {major}. Upgrade it, or let "
            "NIGHTSHIFT_WAREHOUSE_URL name a newer one"
        )


def _schemas(connection: sa.Connection) -> None:
    inspector = sa.inspect(connection)
    for schema in (SCHEMA, PREDICTIONS):
        # `if not exists` would ask for the right to create even where nothing is created.
        if not inspector.has_schema(schema):
            connection.exec_driver_sql(f"create schema {schema}")


def _control_tables(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _analyst_role(connection: sa.Connection) -> None:
    if _is_role(connection, ANALYST):
        return
    allowed = "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
    if not connection.exec_driver_sql(allowed).scalar_one():
        raise UsageError(
            f"role {ANALYST} must exist; this login may not create it. "
            f"Let an administrator run: create role {ANALYST} nologin"
        )
    # Roles belong to the whole server: another database's migration may create it at this moment.
    connection.exec_driver_sql(
        f"do $$ begin create role {ANALYST} nologin; "
        "exception when duplicate_object or unique_violation then null; end $$"
    )


def _is_role(connection: sa.Connection, name: str) -> bool:
    known = sa.text("select 1 from pg_roles where rolname = :role")
    return connection.execute(known, {"role": name}).first() is not None


def _record_job(connection: sa.Connection, job: Job) -> None:
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


def _check_view_names(connection: sa.Connection, job: str) -> None:
    others = set(connection.execute(sa.select(tables.jobs.c.job)).scalars())
    for name in others:
        for view, what in ((history_view(name), "history"), (shadow_view(name), "shadow")):
            if view in others and job in (name, view):
                raise UsageError(
                    f"job {view} must have another name: {PREDICTIONS}.{view} is the {what} of job {name}"
                )


def _rights(connection: sa.Connection) -> None:
    analyst, reporter = quoted(ANALYST), quoted(REPORTER)
    jobs = list(connection.execute(sa.select(tables.jobs.c.job)).scalars())
    for statement in (
        f"revoke all on schema {SCHEMA} from public",
        f"grant usage on schema {SCHEMA}, {PREDICTIONS} to {analyst}",
        f"grant select on all tables in schema {PREDICTIONS} to {analyst}",
        # What a shadow says is for those who run the job: nobody acts upon it by mistake.
        *(f"revoke all on {PREDICTIONS}.{quoted(shadow_view(job))} from {analyst}" for job in jobs),
        *(f"grant select on {SCHEMA}.{name} to {analyst}" for name in _SHOWN),
    ):
        connection.exec_driver_sql(statement)
    if _is_role(connection, REQUESTER):
        connection.exec_driver_sql(f"grant usage on schema {SCHEMA} to {REQUESTER}")
        connection.exec_driver_sql(f"grant select on {SCHEMA}.scoring_requests to {REQUESTER}")
        # Whose request it is, and what became of it, nobody can write who asks.
        connection.exec_driver_sql(f"grant insert ({_ASKED}) on {SCHEMA}.scoring_requests to {REQUESTER}")
    if not _is_role(connection, REPORTER):
        return
    rows = [quoted(rows_table(job)) for job in jobs]
    for statement in (
        f"grant usage on schema {SCHEMA} to {reporter}",
        *(f"grant select on {SCHEMA}.{name} to {reporter}" for name in _REPORTED),
        f"grant select ({_COUNTED}) on {SCHEMA}.quarantine to {reporter}",
        *(f"grant select ({_DRAWN}) on {SCHEMA}.{table} to {reporter}" for table in rows),
    ):
        connection.exec_driver_sql(statement)
