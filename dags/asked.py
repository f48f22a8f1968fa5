"""What a DAG run asks for: which day, which model, by whom. Never a guess."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.partition import Partition, instant
from pipeline.run import Trigger

TRIGGERS: Mapping[str, Trigger] = {
    "scheduled": "scheduled",
    "backfill": "backfill",
    "asset_triggered": "asset",
}
"""Airflow's run types by the words of the runs table; any other is manual."""


DAG_KIND = "__score"
"""What follows a job's name in the id of its nightly DAG."""


@dataclass(frozen=True)
class Asked:
    """What the tasks of one DAG run share; small and plain, as it goes through XCom."""

    day: str
    policy: str
    trigger: Trigger
    by: str
    dry_run: bool


def asked(job: Job, dag_run: Any, params: Mapping[str, Any], now: datetime) -> Asked:
    """What a DAG run asks for.

    The day is the run's partition key; else, of a manual run only, the parameter `day` (a backfill gives the
    same parameters to all its runs); else, of a manual run, the newest day whose cut-off has passed. Raises
    UsageError for a run that names no day, and for one of a day that has not passed its cut-off; a scheduled
    one waits for that.
    """
    trigger = TRIGGERS.get(str(getattr(dag_run.run_type, "value", dag_run.run_type)), "manual")
    day = dag_run.partition_key or (trigger == "manual" and (params.get("day") or _newest(job, now)))
    if not day:
        raise UsageError(
            f"a {trigger} run must have a partition key, the day it scores; got none. Trigger it with one"
        )
    partition = Partition.parse(day)
    if trigger != "scheduled" and job.instants(partition).cutoff > now:
        raise UsageError(
            f"a day must have passed its cut-off {job.declaration.schedule.cutoff} "
            f"{job.declaration.schedule.timezone} to be scored; got {partition}. Run it when it has"
        )
    return Asked(
        day=partition.key,
        policy=str(params.get("version") or params.get("model") or _default_policy(job, trigger)),
        trigger=trigger,
        by=f"{dag_run.triggering_user_name or 'airflow'}, {dag_run.run_id}",
        dry_run=bool(params.get("dry_run")) and trigger == "manual",
    )


@dataclass(frozen=True)
class AskedTraining:
    """What the tasks of one training share; small and plain, as it goes through XCom.

    `first` and `last` are the nights to learn from, none where the newest are meant; a refit goes on to
    `newest`.
    """

    first: str | None
    last: str | None
    as_of: str
    seed: int | None
    trigger: str
    evidence: str | None
    key: str
    """Names the training: a retry keeps it, clearing `resolve` makes another."""
    newest: str | None = None


def asked_training(
    dag_run: Any, params: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: datetime
) -> AskedTraining:
    """What a DAG run asks for, by a person, by the clock, or by the `events` of triggers that fired.

    Raises UsageError where only one of the two days is named, or `as_of` is no instant.
    """
    first, last = params.get("from"), params.get("to")
    if (first is None) is not (last is None):
        raise UsageError(f"a training must name its first and its last night, or none; got {first or last}")
    run_type = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    # An event that a person has made in Airflow tells nothing of a trigger.
    fired = [event for event in events if "kind" in event]
    trigger = fired[0]["kind"] if fired else {"scheduled": "schedule"}.get(run_type, "manual")
    return AskedTraining(
        first=first,
        last=last,
        # Airflow does not hold what it is given to the form's format.
        as_of=(instant(params["as_of"], "as_of") if params.get("as_of") else now).isoformat(),
        seed=params.get("seed"),
        trigger=trigger,
        evidence="; ".join(event["evidence"] for event in fired) or None,
        key=f"{dag_run.run_id} {dag_run.clear_number or 0}",
    )


def approver(response: Mapping[str, Any], approvers: Sequence[str]) -> tuple[str, str]:
    """The login that has answered, and the declared approver in whose name.

    A login that is no approver's own may name one where the form asks for it. Raises UsageError where nobody
    who may has agreed.
    """
    login, named = response["responded_by_user"]["name"], _named(response)
    who = login if login in approvers else str(named)
    if who not in approvers:
        raise UsageError(
            f"one of {', '.join(approvers)} must approve; got {login!r}"
            + (f" for {who!r}" if named else "")
            + ". Clear the task approve to ask again"
        )
    return login, who


def answer_told(response: Mapping[str, Any], within: timedelta) -> str:
    """What was answered and by whom, in one sentence; nobody's answer came `within` that time.

    In whose name stands beside a login that has named somebody.
    """
    approved, user = response["chosen_options"] == ["Approve"], response["responded_by_user"]
    if user is None:
        who = f": nobody has answered within {within.days} days"
    else:
        named = _named(response)
        who = f" by {user['name']}" + (f" for {named}" if named else "")
    return f"Approved{who}" if approved else f"Rejected{who}; the champion stays"


def _named(response: Mapping[str, Any]) -> str | None:
    return (response.get("params_input") or {}).get("approved_by")


def name_of_run(job: str, day: str, dag_run: Any) -> str:
    """The name of the run that a DAG run is at: a retry keeps it, clearing `plan` makes another."""
    return f"{job}-{day}{mark_of_run(dag_run.run_id)}{dag_run.clear_number or 0}"


def mark_of_run(dag_run_id: str) -> str:
    """What stands in the names of all runs that a DAG run is or was at, and in no others."""
    return f"-{hashlib.sha256(dag_run_id.encode()).hexdigest()[:10]}-"


def _newest(job: Job, now: datetime) -> str:
    return job.newest_partition(now).key


def _default_policy(job: Job, trigger: Trigger) -> str:
    return str(job.declaration.model.backfill_policy) if trigger == "backfill" else "current"
