"""`<job>__score`: the night as Airflow runs it. Every task is one call into pipeline.steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    DAG,
    Asset,
    Param,
    PartitionedAssetTimetable,
    TriggerRule,
    chain,
    task,
)

from dags import tasks
from dags.asked import DAG_KIND
from dags.common import at_work, dag_settings
from dags.notices import late_alert
from dags.timetable import BusinessDays

if TYPE_CHECKING:
    from pipeline.job import Job

_AT_ONCE = 8
_WAITS_AT_MOST = timedelta(days=2).total_seconds()


def predictions_asset(job: str) -> Asset:
    """What a publish announces: the job's predictions, partitioned by day."""
    return Asset(name=f"predictions.{job}", uri=f"nightshift://predictions/{job}")


def score_dag(job: Job) -> DAG:
    """resolve_day → wait_for_source → plan → extract → validate → score, by shard → publish → report."""
    declared = job.declaration
    with DAG(
        f"{job.name}{DAG_KIND}",
        description=declared.description,
        schedule=_timetable(job),
        max_active_runs=_AT_ONCE,
        params=_form(job),
        **dag_settings(job, _does(job)),
        deadline=late_alert(job),
    ) as dag:
        _tasks(job)
    return dag


def _tasks(job: Job) -> None:
    works, asset = at_work(job), predictions_asset(job.name)
    waits: dict[str, Any] = {"mode": "reschedule", "poke_interval": 60, "timeout": _WAITS_AT_MOST}
    wanted = _task(tasks.resolve_day)(job.name)
    ready = task.sensor(**waits)(tasks.wait_for_source)(job.name, wanted)
    run_name = _task(tasks.plan)(job.name, wanted)
    extracted = _task(tasks.extract, **works)(run_name)
    shards = _task(tasks.validate, **works)(run_name)
    scored = _task(tasks.score, map_index_template="shard {{ shard }}", **works)
    published = _task(tasks.publish, outlets=[asset], **works)(run_name)
    reported = _task(tasks.report, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)(run_name)
    chain(ready, run_name, extracted, shards)
    chain(scored.partial(run_name=run_name).expand(part=shards), published, reported)


def _task(function: Callable[..., Any], **settings: Any) -> Any:
    """The function as a task, whose arguments may be what other tasks give."""
    return task(**settings)(function)


def _timetable(job: Job) -> Any:
    """The business day is the partition key, of a scheduled night and of one that other jobs start."""
    schedule = job.declaration.schedule
    if schedule.after:
        assets = [predictions_asset(other) for other in schedule.after]
        return PartitionedAssetTimetable(assets=reduce(and_, assets))
    return BusinessDays(schedule.timezone, schedule.end)


def _form(job: Job) -> dict[str, Param]:
    newest = "the newest day whose cut-off has passed"
    return {
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description_md=f"Business day to score; left empty: {newest}. Backfills have their own days.",
        ),
        "model": Param(
            None,
            type=["null", "string"],
            enum=[None, "current", "as-of"],
            title="Model",
            description_md="`current`: the champion now. `as-of`: the champion at the day's cut-off. "
            "Left empty: current, in a backfill as the declaration says "
            f"({job.declaration.model.backfill_policy}).",
        ),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Model version",
            description_md="A version of the model instead, by its number.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description_md="Tell what would be done; read and publish nothing.",
        ),
    }


def _does(job: Job) -> str:
    declared = job.declaration
    return (
        f"Scores each day after its cut-off, {declared.schedule.cutoff:%H:%M} {declared.schedule.timezone}, "
        f"and publishes `predictions.{job.name}`. The partition key of a run is its business day.\n\n"
        "A task that is retried goes on with its run; clear `plan` and what follows for a new run of the "
        "day. A run that a newer one has overtaken ends green, with `publish` skipped."
    )
