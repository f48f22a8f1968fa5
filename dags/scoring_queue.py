"""`<job>__requests`: often, what other systems asked for. One call into pipeline.scoring_requests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import DAG, DeltaTriggerTimetable, task

from dags import tasks
from dags.common import POOL, dag_settings

if TYPE_CHECKING:
    from pipeline.job import Job, Requests


def requests_dag(job: Job, declared: Requests) -> DAG:
    """answer, every so many minutes as the declaration says; one at a time."""
    with DAG(
        f"{job.name}__requests",
        description=f"Answers what other systems ask for. {job.declaration.description}",
        schedule=DeltaTriggerTimetable(timedelta(minutes=declared.every_minutes)),
        max_active_runs=1,
        **dag_settings(job, _does(declared)),
    ) as dag:
        task(pool=POOL)(tasks.answer)(job.name)
    return dag


def _does(declared: Requests) -> str:
    return (
        "Answers `nightshift.scoring_requests` once each, in order: from the newest published day, or, where "
        f"a request brings its row as a payload, by the champion. After {declared.expire_after_hours} hours "
        "a request expires. One that cannot be answered fails with its error and blocks no other."
    )
