"""`<job>__train`: a challenger is trained, judged by the gate, and promoted if a declared approver agrees."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, Param, chain, conf, task

from dags import training_tasks as tasks
from dags.common import at_work, dag_settings

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.hitl import HITLUser

    from pipeline.job import Job

_ANSWERED_WITHIN = timedelta(days=7)
_SIMPLE = "SimpleAuthManager"


class Approval(ApprovalOperator):
    """Airflow's question, whose answer stands in the DAG run's note."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Tell the answer, then let Airflow go on; a rejection leaves by an exception, so first."""
        tasks.tell_answer(event, _ANSWERED_WITHIN)
        return super().execute_complete(context, event)


def retrain_asset(job: str) -> Asset:
    """What a trigger of retraining announces, with its evidence."""
    return Asset(name=f"retrain.{job}", uri=f"nightshift://retrain/{job}")


def training_dag(job: Job) -> DAG:
    """The DAG resolve → train → gate → refit → approve → promote; what is not accepted ends there, green."""
    declared = job.declaration
    with DAG(
        f"{job.name}__train",
        description=f"Trains a challenger and asks for its approval. {declared.description}",
        schedule=_schedule(job),
        max_active_runs=1,
        params=_form(),
        # Training pages nobody: its DAG run is red, its owner looks when he wants a model.
        **dag_settings(job, _does(), pages=False),
    ) as dag:
        _tasks(job)
    return dag


def _tasks(job: Job) -> None:
    works = at_work(job)
    wanted = task(tasks.resolve)(job.name)
    version = task(**works)(tasks.train)(job.name, wanted)
    verdict = task(**works)(tasks.gate)(job.name, wanted, version)
    accepted = task(**works)(tasks.refit)(job.name, wanted, verdict)
    approval = _approval(job)
    promote: Any = task(tasks.promote)
    chain(accepted, approval, promote(job.name, accepted, approval.output))


def _approval(job: Job) -> ApprovalOperator:
    """A declared approver decides; who answers in time with nothing has rejected."""
    approvers = job.declaration.owners.approvers
    logins = _local_logins()
    assigned: list[HITLUser] = [{"id": who, "name": who} for who in approvers if who in logins]
    told = "{{ ti.xcom_pull(task_ids='refit', key='%s') }}"
    return Approval(
        task_id="approve",
        subject=told % tasks.SUBJECT,
        body=told % tasks.BODY,
        defaults=ApprovalOperator.REJECT,
        response_timeout=_ANSWERED_WITHIN,
        assigned_users=assigned or None,
        params={} if logins.issuperset(approvers) or not logins else {"approved_by": _approver(approvers)},
    )


def _local_logins() -> set[str]:
    """The logins of Airflow's simple auth manager; none where another one says who somebody is."""
    if not conf.get("core", "auth_manager").endswith(_SIMPLE):
        return set()
    return {entry.split(":")[0] for entry in conf.getlist("core", "simple_auth_manager_users")}


def _approver(approvers: tuple[str, ...]) -> Param:
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *approvers],
        title="Approved by (needed to approve)",
        description_md="Which declared approver agrees; local logins do not tell.",
    )


def _schedule(job: Job) -> Any:
    """The declared cron, where there is one, and the evidence of triggers, where any is declared."""
    declared, asset = job.declaration, retrain_asset(job.name)
    cron, zone = declared.train.schedule, declared.schedule.timezone
    timetable = CronTriggerTimetable(cron, timezone=zone) if cron else None
    if timetable and declared.retrain:
        return AssetOrTimeSchedule(timetable=timetable, assets=[asset])
    return timetable or ([asset] if declared.retrain else None)


def _form() -> dict[str, Param]:
    newest = "the newest mature nights but those that the gate judges by"
    days = {
        name: Param(
            None,
            type=["null", "string"],
            format="date",
            title=f"{name.capitalize()} night",
            description_md=f"{which} night to learn from; left empty: {newest}.",
        )
        for name, which in (("from", "First"), ("to", "Last"))
    }
    return {
        **days,
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Labels as of",
            description_md="Labels known later are absent; left empty: now.",
        ),
        "seed": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Seed",
            description_md="Random seed; left empty: the declared one.",
        ),
    }


def _does() -> str:
    return (
        "Replays nights, from sealed snapshots where there are any, fits a challenger and lets the gate "
        "judge it against the champion on nights that it has not seen. What is accepted is fitted again on "
        "all nights, and waits under Required Actions for an approver; no answer within "
        f"{_ANSWERED_WITHIN.days} days rejects it. What is rejected ends green, and its note tells by whom. "
        "What is refused, or lacks evidence, ends green without a question. The champion changes only in "
        "the last task; `nightshift promote` does the same by hand."
    )
