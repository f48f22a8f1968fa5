"""What each task of a training does: one call into pipeline, imported when the task runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import conf, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from dags.asked import AskedTraining, answer_told, approver, asked_training
from dags.tasks import NOTE, environment, job_of
from pipeline.partition import Partition, between

if TYPE_CHECKING:
    from pipeline.lifecycle.gate import Reason

SUBJECT, BODY = "subject", "body"
"""The XComs that the question to an approver shows."""

# Airflow may lie below a path of its own, behind a proxy.
_ROOT = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")


def resolve(job: str) -> dict[str, Any]:
    """Which nights, labels known when, with which seed, and why."""
    from pipeline import retraining

    context: Any = get_current_context()
    declared = job_of(job)
    given = asked_training(context["dag_run"], context["params"], _fired(context), datetime.now(UTC))
    known = datetime.fromisoformat(given.as_of)
    if given.last is None:
        nights = retraining.training_span(declared, known, declared.declaration.gate.nights)
        given = replace(given, first=nights[0].key, last=nights[-1].key)
    newest = max(str(given.last), retraining.newest_mature(declared, known).key)
    return asdict(replace(given, newest=newest))


def train(job: str, wanted: Mapping[str, Any]) -> int:
    """Register a challenger; its number."""
    given = AskedTraining(**wanted)
    number = _trained(job, given, given.last, None)
    _tell(NOTE, f"{job}: version {number} is trained on {given.first} to {given.last}; {_why(given)}")
    return number


def gate(job: str, wanted: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Let the gate judge the challenger; its verdict and where its page is."""
    from pipeline.gate import judge

    known = datetime.fromisoformat(wanted["as_of"])
    judged = judge(environment(), job, challenger=version, as_of=known)
    verdict = {
        "version": version,
        "verdict_no": judged.verdict_no,
        "outcome": judged.verdict.outcome,
        "champion": judged.champion,
        "page": f"/nightshift/jobs/{job}/verdicts/{judged.verdict_no}",
        "reasons": [_line(reason) for reason in judged.verdict.reasons],
    }
    _tell(NOTE, _noted(job, verdict))
    return verdict


def refit(job: str, wanted: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Fit what was accepted again, on all nights, unless declared otherwise; what is to be approved."""
    if verdict["outcome"] != "accept":
        raise AirflowSkipException(f"{_head(job, verdict)}\n{_reasons(verdict)}")
    given, accepted = AskedTraining(**wanted), verdict["version"]
    number, how = accepted, "as it was judged"
    if job_of(job).declaration.train.refit:
        number = _trained(job, given, given.newest, accepted)
        how = f"which is version {accepted} fitted again on {given.first} to {given.newest}"
    fitted = f"To be promoted, if an approver agrees: version {number}, {how}; {_why(given)}"
    link = f"[What the gate saw]({_ROOT}{verdict['page']})"
    _tell(SUBJECT, f"{job}: make version {number} the champion?")
    _tell(BODY, "\n\n".join([f"{fitted}.", _head(job, verdict), _reasons(verdict), link]))
    _tell(NOTE, _noted(job, verdict, fitted))
    return {"version": number, "reason": f"gate verdict {verdict['verdict_no']} on version {accepted}"}


def promote(job: str, accepted: Mapping[str, Any], response: Mapping[str, Any]) -> None:
    """Make the version the champion, in the name of the approver who has agreed."""
    from pipeline import training

    context: Any = get_current_context()
    login, who = approver(response, job_of(job).declaration.owners.approvers)
    promotion, warnings = training.promote(
        environment(),
        job,
        accepted["version"],
        approved_by=who,
        reason=accepted["reason"],
        actor=f"{login}, {context['dag_run'].run_id}",
    )
    told = f"{job}: version {promotion.version} is champion, approved by {who}; {promotion.reason}"
    _tell(NOTE, "\n".join([told, *(f"- warning: {warning}" for warning in warnings)]))


def tell_answer(response: Mapping[str, Any], within: timedelta) -> None:
    """Note what an approver has answered before what was asked."""
    context: Any = get_current_context()
    asked = context["ti"].xcom_pull(task_ids="refit", key=NOTE)
    _tell(NOTE, f"{answer_told(response, within)}\n{asked}")


def _trained(job: str, given: AskedTraining, last: str | None, refit_of: int | None) -> int:
    from pipeline.training import Cause, train

    days = list(between(Partition.parse(str(given.first)), Partition.parse(str(last))))
    known = datetime.fromisoformat(given.as_of)
    # One DAG run fits twice: a challenger, and what the gate has accepted of it again.
    fit = "challenger" if refit_of is None else f"refit of {refit_of}"
    cause = Cause(given.trigger, given.evidence, refit_of, f"{given.key} {fit}")
    return train(environment(), job, days, known, given.seed, lambda _: None, cause).version


def _fired(context: Any) -> list[dict[str, Any]]:
    """What the events say that have started the DAG run."""
    events = context.get("triggering_asset_events") or {}
    return [event.extra for of_asset in events.values() for event in of_asset]


def _head(job: str, verdict: Mapping[str, Any]) -> str:
    against = f" against version {verdict['champion']}" if verdict["champion"] else ""
    outcome = verdict["outcome"].replace("_", " ")
    return f"{job}: version {verdict['version']}{against}: **{outcome}**, verdict {verdict['verdict_no']}"


def _reasons(verdict: Mapping[str, Any]) -> str:
    return "\n".join(verdict["reasons"])


def _noted(job: str, verdict: Mapping[str, Any], *more: str) -> str:
    """The reasons, which may be long, come last: a note of Airflow's is cut at its end."""
    return "\n".join([_head(job, verdict), *more, f"page: {verdict['page']}", "", _reasons(verdict)])


def _line(reason: Reason) -> str:
    check, outcome = reason.check.replace("_", " "), reason.outcome.replace("_", " ")
    return f"- **{check}**: {outcome}. {reason.evidence}"


def _why(given: AskedTraining) -> str:
    by = {"manual": "hand", "schedule": "the schedule"}.get(given.trigger, given.trigger)
    return f"asked for by {by}" + (f": {given.evidence}" if given.evidence else "")


def _tell(key: str, text: str) -> None:
    context: Any = get_current_context()
    context["ti"].xcom_push(key=key, value=text)
