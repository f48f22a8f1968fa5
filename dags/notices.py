"""Who is told when a night fails or is late: thin calls into pipeline.alerting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

if TYPE_CHECKING:
    from pipeline.job import Job


def notify_failure(context: Mapping[str, Any]) -> None:
    """Raise the alert of a failed night, once, whichever of task and DAG run tells of it first."""
    from dags.asked import DAG_KIND, TRIGGERS
    from pipeline import alerting
    from pipeline.environment import Environment
    from pipeline.partition import Partition
    from pipeline.settings import Settings

    dag_run, error = context["dag_run"], context.get("exception")
    run_type = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    task_instance = context.get("ti") or context.get("task_instance")
    where = f"task {task_instance.task_id}" if task_instance is not None else "the DAG run"
    alerting.alert_failed(
        Environment(Settings()),
        dag_run.dag_id.removesuffix(DAG_KIND),
        Partition.parse(day) if (day := _day(context)) else None,
        cause=f"{dag_run.run_id}#{dag_run.clear_number or 0}",
        trigger=TRIGGERS.get(run_type, "manual"),
        error_type=type(error).__name__ if error is not None else "ProcessDied",
        error_message=str(error) if error is not None else f"{where} ended without an error of its own",
    )


def _day(context: Mapping[str, Any]) -> str | None:
    """The day the DAG run is of; None where only its tasks could tell, and this process is none."""
    dag_run, task_instance = context["dag_run"], context.get("ti")
    if dag_run.partition_key:
        return str(dag_run.partition_key)
    given = context.get("params") or dag_run.conf or {}
    if task_instance is not None and hasattr(task_instance, "xcom_pull"):
        wanted = task_instance.xcom_pull(task_ids="resolve_day")
        return wanted["day"] if wanted else given.get("day")
    return given.get("day")


def late_alert(job: Job) -> DeadlineAlert | None:
    """Looks whether the night has published by its declared clock time; None where none is declared."""
    by, schedule = job.declaration.alerts.publish_by, job.declaration.schedule
    if by is None:
        return None
    since_midnight = timedelta(hours=by.hour, minutes=by.minute)
    return DeadlineAlert(
        # A scheduled run is queued at its day's first instant, local midnight.
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=since_midnight,
        callback=SyncCallback(notify_late, {"job": job.name, "timezone": schedule.timezone}),
    )


def notify_late(job: str, timezone: str, **_: Any) -> None:
    """Raise the alert of a late night unless its day is published by now."""
    from zoneinfo import ZoneInfo

    from pipeline import alerting
    from pipeline.environment import Environment
    from pipeline.partition import Partition
    from pipeline.settings import Settings

    now = datetime.now(UTC)
    today = Partition(now.astimezone(ZoneInfo(timezone)).date())
    alerting.alert_late(Environment(Settings()), job, today, now)
