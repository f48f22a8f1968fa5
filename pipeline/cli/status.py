"""`nightshift status`: what readers see of each expected day."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pipeline.cli.console import emit, table
from pipeline.declaration import job_names, load_job
from pipeline.errors import DeclarationError
from pipeline.partition import Partition, refuse_swapped

if TYPE_CHECKING:
    from pipeline.environment import Environment

_DAYS = """
select day_status.job, day_status.day, coalesce(quality, 'missing') as quality, published_run_id,
    restatements, runs.model_version, runs.rows_in, runs.rows_scored, runs.rows_fallback, runs.rows_withheld,
    last_run_id, last_status, last_attempt_at, missing_since
from nightshift.day_status left join nightshift.runs on runs.run_id = day_status.published_run_id
where day_status.job = any(:jobs) and day_status.day between :first and :last
order by day_status.job, day_status.day
"""
_SHOWN = (
    "job", "day", "quality", "model_version", "rows_in", "rows_scored", "rows_fallback", "rows_withheld",
    "restatements", "last_status", "last_run_id",
)  # fmt: skip
_RECENT = 14


def run_status(
    env: Environment, job: str | None, first: str | None, last: str | None, *, as_json: bool
) -> None:
    """Days of one job or of all; without a range, the last fortnight that has any attempt."""
    names = [load_job(env.project, job).name] if job else list(job_names(env.project))
    _repair(env, names)
    with env.engine.connect() as connection:
        span = _span(connection, names, first, last)
        values = {"jobs": names, "first": span[0].day, "last": span[1].day}
        days = [dict(row) for row in connection.execute(sa.text(_DAYS), values).mappings()]
    shown = table(f"{span[0]} to {span[1]}", _SHOWN, [[day[name] for name in _SHOWN] for day in days])
    emit({"from": span[0].key, "to": span[1].key, "days": days}, as_json=as_json, shown=shown)


def _repair(env: Environment, names: list[str]) -> None:
    from pipeline.steps import repair

    for name in names:
        # The days of a job whose files are wrong are shown all the same.
        with suppress(DeclarationError):
            repair(env, load_job(env.project, name))


def _span(
    connection: sa.Connection, names: list[str], first: str | None, last: str | None
) -> tuple[Partition, Partition]:
    newest = sa.text(
        "select coalesce((select max(day) from nightshift.runs where job = any(:jobs)), current_date)"
    )
    end = (
        Partition.parse(last) if last else Partition(connection.execute(newest, {"jobs": names}).scalar_one())
    )
    if first:
        refuse_swapped(Partition.parse(first), end)
        return Partition.parse(first), end
    start = end
    for _ in range(_RECENT - 1):
        start = start.previous()
    return start, end
