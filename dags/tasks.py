"""What each task of a night does: one call into pipeline.steps, imported when the task runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from dags.asked import Asked, asked, name_of_run
from pipeline.partition import Partition

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.job import Job

NOTE = "note"
"""The XCom that stands as the DAG run's note (see plugins/notes.py)."""


def resolve_day(job: str) -> dict[str, Any]:
    """Which day, which model policy, by whom."""
    context: Any = get_current_context()
    return asdict(asked(job_of(job), context["dag_run"], context["params"], datetime.now(UTC)))


def wait_for_source(job: str, wanted: dict[str, Any]) -> bool:
    """Wait for the cut-off, then for the source, until the declared clock time."""
    from pipeline import steps

    partition = Partition.parse(wanted["day"])
    cutoff = job_of(job).instants(partition).cutoff
    if datetime.now(UTC) < cutoff:
        raise AirflowRescheduleException(cutoff)  # type: ignore[no-untyped-call]
    return steps.source_ready(environment(), job, partition)


def plan(job: str, wanted: dict[str, Any]) -> str:
    """Fix the run's name, token and model version; a dry run only tells what would be done."""
    from pipeline import steps

    context: Any = get_current_context()
    given = Asked(**wanted)
    request = steps.Request(
        job,
        Partition.parse(given.day),
        policy=steps.parse_policy(given.policy),
        trigger=given.trigger,
        run_id=name_of_run(job, given.day, context["dag_run"]),
        triggered_by=given.by,
    )
    if given.dry_run:
        told = steps.preview(environment(), request)
        context["ti"].xcom_push(key=NOTE, value=told)
        raise AirflowSkipException(told)
    return steps.plan(environment(), request).run_id


def extract(run_name: str) -> None:
    """Read the partition once into the sealed snapshot."""
    from pipeline import steps

    env = environment()
    steps.extract(env, steps.run_named(env, run_name), sharded=True)


def validate(run_name: str) -> list[int]:
    """Judge the snapshot by the suite; gives the shards."""
    from pipeline import steps

    env = environment()
    run = steps.run_named(env, run_name)
    steps.validate(env, run)
    return steps.parts(env, run)


def score(run_name: str, part: int) -> None:
    """Score one shard and load its rows unseen."""
    from pipeline import steps

    context: Any = get_current_context()
    context["shard"] = part + 1
    env = environment()
    steps.score(env, steps.run_named(env, run_name), part)


def publish(run_name: str) -> None:
    """Prove conservation and let readers see the run; tell Airflow that the day is there."""
    from pipeline import steps

    env = environment()
    context: Any = get_current_context()
    record = steps.publish(env, steps.run_named(env, run_name))
    if record["status"] != "published":
        raise AirflowSkipException(f"run {run_name} is {record['status']}: readers do not see it")
    (asset,) = context["task"].outlets
    event = context["outlet_events"][asset]
    event.extra = steps.event(record)
    event.add_partitions(record["day"].isoformat())


def report(run_name: str) -> None:
    """Write the run's metrics, tell what became of it, and send what no channel took before.

    Fails visibly where the metrics could not be written: the day is published all the same.
    """
    from pipeline import alerting, monitor, steps

    context: Any = get_current_context()
    env = environment()
    run = steps.run_named(env, run_name)
    try:
        monitor.monitor(env, run)
    finally:
        page = f"/nightshift/jobs/{run.job}/runs/{run.run_id}"
        context["ti"].xcom_push(key=NOTE, value=steps.note(env, run, page))
        alerting.retry_undelivered(env, run.job)


def evaluate(job: str) -> list[dict[str, Any]]:
    """Judge what is mature, or the days that the form names; estimate what waits for its labels.

    Gives the triggers of retraining that fire, small and plain.
    """
    from pipeline import estimates, outcomes, retraining
    from pipeline.partition import EVER

    context: Any = get_current_context()
    params = context["params"]
    first, last = params.get("from"), params.get("to")
    span = (Partition.parse(first or last), Partition.parse(last or first)) if first or last else None
    env = environment()
    done = outcomes.evaluate(env, job, span)
    estimates.estimate_days(env, job, span or EVER, missing_only=True)
    fired = retraining.evaluate_triggers(env, job, dag_run_id=context["dag_run"].run_id)
    told = [outcomes.note(job, done), *(f"- {line}" for line in retraining.told(fired))]
    context["ti"].xcom_push(key=NOTE, value="\n".join(told))
    return [{"kind": each.kind, "evidence": each.evidence, "trigger_no": each.trigger_no} for each in fired]


def roll_out(job: str) -> None:
    """Start, change or stop what runs beside the champion, as the form says."""
    from pipeline import rollouts

    context: Any = get_current_context()
    given, dag_run = context["params"], context["dag_run"]
    by = f"{dag_run.triggering_user_name or 'airflow'}, {dag_run.run_id}"
    action, reason = given["action"], given["reason"] or f"{given['action']} from the form"
    if action == "stop":
        row = rollouts.stop(environment(), job, reason=reason, actor=by)
    else:
        asked = {name: given.get(name) for name in ("version", "share", "approved_by")}
        row = rollouts.start(environment(), job, action, reason=reason, actor=by, **asked)
    context["ti"].xcom_push(key=NOTE, value=rollouts.told(row))


def retrain(fired: list[dict[str, Any]]) -> None:
    """Start the training DAG where a trigger has fired."""
    if not fired:
        raise AirflowSkipException("no trigger of retraining has fired")
    context: Any = get_current_context()
    (asset,) = context["task"].outlets
    context["outlet_events"][asset].extra = {
        "kind": fired[0]["kind"],
        "evidence": "; ".join(f"{each['kind']}: {each['evidence']}" for each in fired),
        "triggers": [each["trigger_no"] for each in fired],
    }


def answer(job: str) -> None:
    """Answer what other systems asked for, and tell how much it was."""
    from pipeline.scoring_requests import answer_requests

    context: Any = get_current_context()
    done = answer_requests(environment(), job_of(job))
    told = f"{done.answered} requests answered, {done.failed} failed, {done.expired} expired"
    context["ti"].xcom_push(key=NOTE, value=told)


def job_of(name: str) -> Job:
    """The declaration as it stands in the project."""
    from pipeline.declaration import load_job

    return load_job(environment().project, name)


def environment() -> Environment:
    """Where this task works."""
    from pipeline.environment import Environment
    from pipeline.settings import Settings

    return Environment(Settings())
