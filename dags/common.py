"""What all DAGs of a job share: since when they are, whose they are, how their tasks are tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from dags.notices import notify_failure
from dags.pods import pod_override
from pipeline.partition import Partition

if TYPE_CHECKING:
    from pipeline.job import Job

POOL = "nightshift"
"""Airflow's pool of CPUs: a stage that works takes as many slots as the job declares."""

_RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule("pipeline.errors.TransientError", RetryAction.RETRY, reason="the fault may pass"),
        RetryRule("pipeline.errors.NightshiftError", RetryAction.FAIL, reason="a retry cannot help"),
    ]
)
"""Of any other failure, such as a killed process, the task's own retries decide."""


def dag_settings(job: Job, does: str, *, pages: bool = True) -> dict[str, Any]:
    """What every DAG of a job is made with; `does` says what it does, `pages` whether its failures do."""
    owners = job.declaration.owners
    told = notify_failure if pages else None
    return {
        "doc_md": (
            f"{job.declaration.description}\n\n"
            f"Owner: **{owners.team}**, on call {owners.on_call}, "
            f"approvers {', '.join(owners.approvers)}.\n\n{does}"
        ),
        "start_date": job.instants(Partition(job.declaration.schedule.start)).day_start,
        "catchup": False,
        "tags": {"nightshift", job.name, owners.team},
        "default_args": {
            "owner": owners.team,
            "retries": 3,
            "retry_delay": timedelta(seconds=20),
            "retry_exponential_backoff": 3.0,
            "max_retry_delay": timedelta(minutes=15),
            "retry_policy": _RETRIES,
            "on_failure_callback": told,
        },
        "on_failure_callback": told,
    }


def at_work(job: Job) -> dict[str, Any]:
    """What a task that works for the job takes: slots of the pool, and a pod of the declared size."""
    resources = job.declaration.resources
    return {"pool": POOL, "pool_slots": resources.cpus, "executor_config": pod_override(resources)}
