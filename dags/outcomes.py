"""`<job>__outcomes`: each day, what published predictions were worth. One call into pipeline.outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, task

from dags import tasks
from dags.common import POOL, dag_settings
from dags.training import retrain_asset

if TYPE_CHECKING:
    from pipeline.job import Job


def outcomes_dag(job: Job) -> DAG:
    """The DAG evaluate → retrain, at the cut-off's clock time; retrain where triggers are declared."""
    declared = job.declaration
    cutoff, zone = declared.schedule.cutoff, declared.schedule.timezone
    with DAG(
        f"{job.name}__outcomes",
        description=f"What the predictions were worth. {declared.description}",
        schedule=CronTriggerTimetable(f"{cutoff.minute} {cutoff.hour} * * *", timezone=zone),
        max_active_runs=1,
        params={name: _day(name) for name in ("from", "to")},
        **dag_settings(job, _does(job)),
    ) as dag:
        fired = task(pool=POOL)(tasks.evaluate)(job.name)
        if declared.retrain:
            retrain: Any = task(outlets=[retrain_asset(job.name)])(tasks.retrain)
            retrain(fired)
    return dag


def _day(name: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title=f"{name.capitalize()} day",
        description_md="Judge these days again, however old; left empty: what is new or may have changed.",
    )


def _does(job: Job) -> str:
    outcomes = job.declaration.outcomes
    days = outcomes.mature_after_days if outcomes else 0
    return (
        f"Joins labels once they are mature, {days} days after a day's end, and judges the run that readers "
        "saw when they decided; a run that was published later is judged apart, as hindsight. Late and "
        "corrected labels of the last 35 days are judged again. Writes `nightshift.outcomes`; read "
        "`nightshift.quality`. Where a declared trigger of retraining fires, starts the training DAG."
    )
