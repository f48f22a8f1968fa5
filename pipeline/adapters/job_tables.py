"""A job's part of the warehouse: the table of every run's rows, its month partitions, the analysts' views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

import sqlalchemy as sa

from pipeline.adapters.tables import PREDICTIONS, SCHEMA
from pipeline.adapters.warehouse import quoted
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.partition import COLUMN, SQL_TYPE

_MONTHS_AHEAD = 14
_KEY_TYPES = {
    "text": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
}
_ROW_COLUMNS = (
    ("score", "double precision not null", "Probability or value that the job predicts"),
    ("decision", "boolean", "Whether the score reaches the declared threshold; null without one"),
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
_COMMENTS = {name: comment for name, _, comment in _ROW_COLUMNS} | {
    COLUMN: "Business day that was scored",
    "run_id": "Run that published the row; joins nightshift.runs",
}
_TIMES = {
    "published_at": "When readers began to see the row",
    "superseded_at": "When a newer run replaced it; null while current",
}
_PRIMARY_KEY = sa.text("""
    select attname, format_type(atttypid, atttypmod)
    from pg_index, unnest(indkey) with ordinality as keys (attnum, place)
    join pg_attribute using (attnum)
    where indexrelid = (
        select conindid from pg_constraint where conrelid = to_regclass(:table) and contype = 'p'
    ) and attrelid = indrelid
    order by place
""")


def rows_table(job: str) -> str:
    """The table that holds every run's prediction rows of a job; readers use the views."""
    return f"predictions_{job}"


def shadow_table(job: str) -> str:
    """The table of what shadows of a job said, by run; those who run the job use its view."""
    return f"shadow_{job}"


def shadow_view(job: str) -> str:
    """The view of what a shadow said of the rows that readers see, beside what they see."""
    return f"{job}_shadow"


def migrate_job(connection: sa.Connection, job: Job) -> None:
    """Bring a job's rows, views and comments up to date; where nothing differs, nobody is kept waiting.

    Raises UsageError when the job's key differs from the one its published rows have.
    """
    _create_rows(connection, job)
    _check_key(connection, job)
    _add_months(connection, job)
    _define_views(connection, job)
    _create_shadow(connection, job)
    _define_shadow_view(connection, job)


def _table(name: str) -> str:
    return f"{SCHEMA}.{quoted(name)}"


def key_types(job: Job) -> dict[str, str]:
    """The job's key columns and their types in the warehouse."""
    extract = job.declaration.extract
    return {name: _KEY_TYPES[extract.columns[name]] for name in extract.key}


def _create_rows(connection: sa.Connection, job: Job) -> None:
    keys = key_types(job)
    columns = [
        f"{COLUMN} {SQL_TYPE} not null",
        "run_no bigint not null",
        *(f"{quoted(name)} {kind} not null" for name, kind in keys.items()),
        *(f"{name} {kind}" for name, kind, _ in _ROW_COLUMNS),
    ]
    primary = ", ".join([COLUMN, "run_no", *map(quoted, keys)])
    table = rows_table(job.name)
    connection.exec_driver_sql(
        f"create table if not exists {_table(table)} ({', '.join(columns)}, primary key ({primary})) "
        f"partition by range ({COLUMN})"
    )
    connection.exec_driver_sql(
        f"create table if not exists {_table(_default(table))} partition of {_table(table)} default"
    )


def _check_key(connection: sa.Connection, job: Job) -> None:
    rows = connection.execute(_PRIMARY_KEY, {"table": _table(rows_table(job.name))})
    there, declared = [(name, kind) for name, kind in rows][2:], list(key_types(job).items())
    if there != declared:
        raise UsageError(
            f"job {job.name}: extract.key must stay {_shown(there)}, as its published rows have it; "
            f"got {_shown(declared)}. Declare another key under a new job name"
        )


def _shown(key: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in key)


# No job's name can hold a `$`, so no other job's table can have a partition's name.
def _default(table: str) -> str:
    return f"{table}$other"


def _add_months(connection: sa.Connection, job: Job) -> None:
    table = rows_table(job.name)
    there = set(sa.inspect(connection).get_table_names(schema=SCHEMA))
    for month in _months(job):
        name = f"{table}${month:%Y_%m}"
        if name not in there and not _in_default(connection, table, month):
            # Attached, not created in place: only writers of the default partition have to wait.
            connection.exec_driver_sql(
                f"create table {_table(name)} (like {_table(table)} including defaults)"
            )
            connection.exec_driver_sql(
                f"alter table {_table(table)} attach partition {_table(name)} "
                f"for values from ('{month}') to ('{_next_month(month)}')"
            )


def _months(job: Job) -> Iterator[date]:
    schedule = job.declaration.schedule
    last = schedule.end or date.today() + timedelta(days=31 * _MONTHS_AHEAD)
    month = schedule.start.replace(day=1)
    while month <= last:
        yield month
        month = _next_month(month)


def _next_month(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def _in_default(connection: sa.Connection, table: str, month: date) -> bool:
    """Whether rows of that month are in the default partition: they are right there and stay."""
    found = sa.text(
        f"select 1 from {_table(_default(table))} where {COLUMN} >= :first and {COLUMN} < :next limit 1"
    )
    return connection.execute(found, {"first": month, "next": _next_month(month)}).first() is not None


def _define_views(connection: sa.Connection, job: Job) -> None:
    selected = ", ".join(
        "runs.run_id" if name == "run_id" else f"rows.{quoted(name)}" for name in job.output_columns()
    )
    rows = f"{_table(rows_table(job.name))} rows join {SCHEMA}.runs on runs.run_no = rows.run_no"
    current, history = (f"{PREDICTIONS}.{quoted(name)}" for name in (job.name, history_view(job.name)))
    # Both the day and the run are joined: else a day's query would look at every month.
    for view, columns, shown in (
        (current, selected, "pointer"),
        (history, f"{selected}, shown.published_at, shown.superseded_at", "publications"),
    ):
        query = (
            f"select {columns} from {rows} join {SCHEMA}.{shown} shown on shown.job = {_literal(job.name)} "
            f"and shown.day = rows.day and shown.run_no = rows.run_no"
        )
        _define(connection, view, query)
    comments = _COMMENTS | dict.fromkeys(job.declaration.extract.key, "Part of the job's key")
    described = job.declaration.description
    _comment(connection, current, f"{described} Current rows only.", comments)
    _comment(connection, history, f"{described} All published runs.", comments | _TIMES)


def _create_shadow(connection: sa.Connection, job: Job) -> None:
    keys = key_types(job)
    columns = [
        f"{COLUMN} {SQL_TYPE} not null",
        "run_no bigint not null",
        "part integer not null",
        *(f"{quoted(name)} {kind} not null" for name, kind in keys.items()),
        "score double precision not null",
        "decision boolean",
        "model_version integer not null",
        "scored_at timestamptz not null",
    ]
    primary = ", ".join([COLUMN, "run_no", *map(quoted, keys)])
    connection.exec_driver_sql(
        f"create table if not exists {_table(shadow_table(job.name))} "
        f"({', '.join(columns)}, primary key ({primary}))"
    )


def _define_shadow_view(connection: sa.Connection, job: Job) -> None:
    keys = [quoted(name) for name in job.declaration.extract.key]
    view = f"{PREDICTIONS}.{quoted(shadow_view(job.name))}"
    same_key = " and ".join(f"shown.{key} = rows.{key}" for key in keys)
    shown = ", ".join(
        [
            *(f"rows.{key}" for key in keys),
            *(f"rows.{name}" for name in (COLUMN, "score", "decision", "model_version")),
            "runs.run_id",
            "shown.score as champion_score",
            "shown.decision as champion_decision",
            "shown.score_source as champion_source",
            "rows.scored_at",
        ]
    )
    query = (
        f"select {shown} from {_table(shadow_table(job.name))} rows "
        f"join {SCHEMA}.runs on runs.run_no = rows.run_no "
        f"join {SCHEMA}.pointer on pointer.job = {_literal(job.name)} and pointer.day = rows.day "
        "and pointer.run_no = rows.run_no "
        f"join {_table(rows_table(job.name))} shown on shown.day = rows.day and shown.run_no = rows.run_no "
        f"and {same_key}"
    )
    _define(connection, view, query)
    described = job.declaration.description
    text = f"{described} What a shadow says of the rows that readers see; nobody acts upon it."
    _comment(connection, view, text, _shadow_comments(job))


def _shadow_comments(job: Job) -> dict[str, str]:
    return dict.fromkeys(job.declaration.extract.key, "Part of the job's key") | {
        COLUMN: _COMMENTS[COLUMN],
        "score": "What the shadow predicts",
        "decision": "Whether the shadow's score reaches the declared threshold; null without one",
        "model_version": "Version of the shadow",
        "run_id": "Run that both took part in; joins nightshift.runs",
        "champion_score": "The score that readers see",
        "champion_decision": "The decision that readers see",
        "champion_source": "Who gave the score that readers see",
        "scored_at": "When the shadow scored the row",
    }


def history_view(job: str) -> str:
    """The view of all published runs of a job."""
    return f"{job}_history"


def _define(connection: sa.Connection, view: str, query: str) -> None:
    """Replace a view only where it differs: a replacement waits for every reader, and all wait for it."""
    definition = sa.text("select pg_get_viewdef(to_regclass(:view))")
    there = connection.execute(definition, {"view": view}).scalar_one()
    with connection.begin_nested() as trial:
        probe = f"{SCHEMA}.{quoted('view$probe')}"
        connection.exec_driver_sql(f"create view {probe} as {query}")
        wanted = connection.execute(definition, {"view": probe}).scalar_one()
        trial.rollback()
    if there != wanted:
        connection.exec_driver_sql(f"create or replace view {view} as {query}")


def _comment(connection: sa.Connection, view: str, text: str, columns: Mapping[str, str]) -> None:
    connection.exec_driver_sql(f"comment on view {view} is {_literal(text)}")
    for name, sentence in columns.items():
        connection.exec_driver_sql(f"comment on column {view}.{quoted(name)} is {_literal(sentence)}")


def _literal(text: str) -> str:
    """A text inside DDL, where PostgreSQL takes no bound values and the driver reads `%`."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"
