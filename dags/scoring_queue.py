"""`<job>__requests`: often, what other systems asked for. One call into pipeline.scoring_requests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import DAG, DeltaTriggerTimetable, task

from dags import tasks
from dags.nightly import POOL, task_defaults
from dags.notices import notify_failure
from pipeline.partition import Partition

if TYPE_CHECKING:
    from pipeline.job import Job, Requests


def requests_dag(job: Job, declared: Requests) -> DAG:
    """answer, every so many minutes as the declaration says; one at a time."""
    owners = job.declaration.owners
    with DAG(
        f"{job.name}__requests",
        description=f"Answers what other systems ask for. {job.declaration.description}",
        doc_md=_documentation(job, declared),
        schedule=DeltaTriggerTimetable(timedelta(minutes=declared.every_minutes)),
        start_date=job.instants(Partition(job.declaration.schedule.start)).day_start,
        catchup=False,
        max_active_runs=1,
        tags={"nightshift", job.name, owners.team},
        default_args=task_defaults(job),
        on_failure_callback=notify_failure,
    ) as dag:
        task(pool=POOL)(tasks.answer)(job.name)
    return dag


def _documentation(job: Job, declared: Requests) -> str:
    owners = job.declaration.owners
    return (
        f"{job.declaration.description}\n\n"
        f"Owner: **{owners.team}**, on call {owners.on_call}, approvers {', '.join(owners.approvers)}.\n\n"
        "Answers `nightshift.scoring_requests` once each, in order: from the newest published day, or, where "
        f"a request brings its row as a payload, by the champion. After {declared.expire_after_hours} hours "
        "a request expires. One that cannot be answered fails with its error and blocks no other."
    )
