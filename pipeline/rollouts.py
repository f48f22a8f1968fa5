"""`nightshift rollout`: a version beside the champion, started and stopped; nothing of it fails a night."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import datetime
from typing import get_args
from uuid import uuid4

import sqlalchemy as sa

from pipeline.adapters import rollouts, versions
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.lifecycle.promote import check_approver
from pipeline.lifecycle.rollout import SHARED, Kind, Rollout, timeline


def start(
    env: Environment,
    job_name: str,
    kind: Kind,
    *,
    version: int | None = None,
    share: float | None = None,
    approved_by: str | None = None,
    reason: str,
    actor: str | None = None,
    effective_from: datetime | None = None,
) -> Rollout:
    """Let a version run beside the champion from an instant on, now by default.

    Without a version, the one that runs goes on in another way; its keys stay where they are, but for those
    that a changed share moves. Raises UsageError where that cannot be, or an approver is missing.
    """
    job = load_job(env.project, job_name)
    share = _share(job, kind, share)
    if kind in SHARED:
        _check_approval(job, kind, approved_by)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        at = effective_from or versions.now(connection)
        running = rollouts.running(connection, job.name, at)
        challenger = versions.version(connection, job.name, _version(job, version, running))
        _check_beside(connection, job, challenger, at)
        goes_on = running is not None and running.version == challenger.version
        return rollouts.start(
            connection,
            challenger,
            kind=kind,
            share=share,
            salt=running.salt if goes_on and running and running.salt else uuid4().hex,
            effective_from=at,
            actor=actor or getpass.getuser(),
            approved_by=approved_by if kind in SHARED else None,
            reason=reason,
        )


def stop(
    env: Environment,
    job_name: str,
    *,
    reason: str,
    actor: str | None = None,
    effective_from: datetime | None = None,
) -> Rollout:
    """End what runs beside the champion; raises UsageError where nothing does.

    An `actor` that is given names one request: tried again, its stop stands.
    """
    job = load_job(env.project, job_name)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        at = effective_from or versions.now(connection)
        running = rollouts.running(connection, job.name, at)
        if running is None:
            history = rollouts.history(connection, job.name)
            made = next((row for row in history if row.stops and row.actor == actor), None)
            if made is None:
                raise UsageError(_nothing_to_stop(job, history, at))
            return made
        by = actor or getpass.getuser()
        return rollouts.stop(connection, running, effective_from=at, actor=by, reason=reason)


def told(row: Rollout) -> str:
    """A row of the history in a line for people."""
    since = f"from {row.effective_from:%Y-%m-%d %H:%M} UTC, by {row.actor}: {row.reason}"
    if row.version is None:
        return f"{row.job}: rollout {row.stops} is stopped {since}"
    share = f" for {row.share:.1%} of the keys" if row.share else ""
    approved = f", approved by {row.approved_by}" if row.approved_by else ""
    return f"{row.job}: version {row.version} as {row.kind}{share}{approved}, {since}"


def _share(job: Job, kind: Kind, share: float | None) -> float | None:
    if kind == "shadow":
        if share is not None:
            raise UsageError(f"--share must be left out for a shadow, which answers no reader; got {share}")
        return None
    chosen = share if share is not None else job.declaration.rollout.shares[kind]
    if not 0 < chosen < 1:
        raise UsageError(
            f"--share must lie between 0 and 1, such as 0.1 for a tenth of the keys; got {chosen}"
        )
    return chosen


def _check_approval(job: Job, kind: Kind, approved_by: str | None) -> None:
    approvers = job.declaration.owners.approvers
    if approved_by is None:
        raise UsageError(
            f"--approved-by must name an approver, as a rollout of kind {kind} changes what readers see; got "
            f"nothing (owners.approvers: {', '.join(approvers)})"
        )
    check_approver(approved_by, approvers)


def _nothing_to_stop(job: Job, history: Sequence[Rollout], at: datetime) -> str:
    told = f"a rollout of {job.name} must run to be stopped; there is none"
    coming = next((row for row in timeline(history) if row.version and row.effective_from > at), None)
    if coming is None:
        kinds = "|".join(get_args(Kind))
        return f"{told}. Start one: nightshift rollout {job.name} {kinds} --version N"
    begins = coming.effective_from.isoformat()
    return f"{told} yet: rollout {coming.rollout_no} begins at {begins}. End that: --effective-from {begins}"


def _version(job: Job, version: int | None, running: Rollout | None) -> int:
    if version is not None:
        return version
    if running is None:
        raise UsageError(
            f"--version must name a registered version of {job.name}, as nothing runs beside its champion now"
        )
    return running.challenger


def _check_beside(connection: sa.Connection, job: Job, challenger: ModelVersion, at: datetime) -> None:
    champion = versions.version(connection, job.name, versions.in_force(connection, job.name, at).version)
    if champion.version == challenger.version:
        raise UsageError(
            f"--version must be another one than the champion of {job.name}; got {challenger.version}"
        )
    if champion.extract != challenger.extract:
        differs = [
            name
            for name in type(champion.extract).model_fields
            if getattr(champion.extract, name) != getattr(challenger.extract, name)
        ]
        raise UsageError(
            f"version {challenger.version} of {job.name} must have been trained on the champion's extract to "
            f"run beside it, as both score one snapshot; they differ in {', '.join(differs)}. Promote it "
            "through the gate instead"
        )
