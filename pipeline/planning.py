"""What is fixed before a run reads anything: its day, its name, its token, its model version."""

from __future__ import annotations

import getpass
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal
from uuid import uuid4

import sqlalchemy as sa
import structlog

from pipeline.adapters import ledger, rollouts, versions
from pipeline.adapters.source import open_reader
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import SourceLate, UsageError
from pipeline.job import Job
from pipeline.lifecycle.rollout import Rollout
from pipeline.partition import Partition
from pipeline.query import Query, compose
from pipeline.run import Run, Trigger

log = structlog.get_logger()

_RUN_ID = re.compile(r"[\w.+:@-]{1,200}")

ModelPolicy = Literal["current", "as-of"] | int
"""Which version a run is pinned to: the champion now, the champion at the cut-off, or a version."""

Reprocess = Literal["none", "failed", "completed"]


@dataclass(frozen=True)
class Request:
    """What somebody asks for: one partition of one job, and how."""

    job: str
    partition: Partition
    policy: ModelPolicy = "current"
    trigger: Trigger = "manual"
    run_id: str | None = None
    """Given for a retry: the run of that name goes on where it stopped."""
    triggered_by: str | None = None
    """Who asks; the system's user when unset."""


def parse_policy(text: str) -> ModelPolicy:
    """Read current, as-of or a version's number; raises UsageError on anything else."""
    if text.isdecimal():
        return int(text)
    if text == "current":
        return "current"
    if text == "as-of":
        return "as-of"
    raise UsageError(f"the model must be current, as-of or a version number; got {text!r}")


def source_ready(env: Environment, name: str, partition: Partition) -> bool:
    """Whether the source has the partition's rows, as the declaration's `ready.sql` says.

    Raises SourceLate when it has not after `ready.until`, the day's local clock.
    """
    job = load_job(env.project, name)
    ready, instants = job.declaration.ready, job.instants(partition)
    if ready is None:
        return True
    with open_reader(env.source_url, instants.binds()) as reader:
        sql = compose(Query("ready.sql", ready.sql), job.declaration.sources, reader.dialect)
        rows = [row for batch in reader.batches(sql) for row in batch.to_pylist()]
    if rows and all(all(row.values()) for row in rows):
        return True
    if datetime.now(UTC) >= partition.instants(job.timezone, ready.until).cutoff:
        raise SourceLate(
            f"the source must have the rows of {partition} by {ready.until:%H:%M} {job.timezone.key}, "
            "as ready.sql says; it has not. Load them, then run the day again"
        )
    return False


def preview(env: Environment, request: Request) -> str:
    """What `plan` and the stages after it would do, in a sentence; nothing is written."""
    job = load_job(env.project, request.job)
    _refuse_unscheduled(job, request.partition)
    with env.engine.connect() as connection:
        version, rollout = _choose(connection, job, request)
        visible = ledger.visible_run(connection, job.name, request.partition)
    now = f"replacing run {visible['run_id']}" if visible else "the day is not published yet"
    beside = f" with version {rollout.version} beside it ({rollout.kind})" if rollout else ""
    return (
        f"Dry run: {job.name} {request.partition} would be scored by version {version.version} "
        f"({request.policy}){beside}, {now}."
    )


def plan(env: Environment, request: Request) -> Run:
    """Fix a run's name, token, model version and rollout, or take up the run of the given name again."""
    job = load_job(env.project, request.job)
    _refuse_unscheduled(job, request.partition)
    with env.engine.begin() as connection:
        if request.run_id and (found := ledger.find(connection, request.run_id)):
            if (found["job"], found["day"]) != (job.name, request.partition.day):
                raise UsageError(
                    f"run {request.run_id} must be of {job.name} {request.partition}; "
                    f"it is of {found['job']} {found['day']}"
                )
            ledger.refuse_pruned(found)
            ledger.resume(connection, found["run_no"])
            return ledger.as_run(ledger.record(connection, found["run_no"]))
        _refuse_name(request.run_id)
        version, rollout = _choose(connection, job, request)
        run = ledger.plan_run(connection, _planned(env, job, request, version, rollout))
    log.info("planned", run_id=run.run_id, job=job.name, day=run.partition.key, token=run.token)
    return run


def _refuse_name(run_id: str | None) -> None:
    """A run's files lie in a folder of its name: it must be no path out of the partition's folder."""
    if run_id and (not _RUN_ID.fullmatch(run_id) or not run_id.strip(".")):
        raise UsageError(
            "a run's name must be of letters, digits and . _ - + : @, at most 200, and not of dots alone; "
            f"got {run_id[:60]!r}"
        )


def _refuse_unscheduled(job: Job, partition: Partition) -> None:
    schedule = job.declaration.schedule
    if partition.day < schedule.start or (schedule.end and partition.day > schedule.end):
        raise UsageError(
            f"day must lie in the schedule of {job.name}, {schedule.start} to {schedule.end or 'today'}; "
            f"got {partition}"
        )
    if job.instants(partition).cutoff > datetime.now(UTC):
        raise UsageError(f"day must have passed its cut-off {schedule.cutoff}; got {partition}")


def _choose(connection: sa.Connection, job: Job, request: Request) -> tuple[ModelVersion, Rollout | None]:
    """The version, and what runs beside it: both of one instant; nothing beside a version asked for."""
    if isinstance(request.policy, int):
        return versions.version(connection, job.name, request.policy), None
    # No promotion comes between the reading of the two histories.
    versions.lock(connection, job.name)
    at = job.instants(request.partition).cutoff if request.policy == "as-of" else None
    champion = versions.version(connection, job.name, versions.in_force(connection, job.name, at).version)
    running = rollouts.running(connection, job.name, at)
    if running and versions.version(connection, job.name, running.challenger).extract != champion.extract:
        # A promotion that was back-dated behind the rollout's start: nobody chose these two.
        log.warning("rollout left out, its extract is another one", job=job.name, version=running.version)
        return champion, None
    return champion, running


def _planned(
    env: Environment, job: Job, request: Request, version: ModelVersion, rollout: Rollout | None
) -> ledger.Planned:
    following = job.instants(request.partition.next()).cutoff
    overwritten = any(source.overwritten for source in job.declaration.sources.values())
    return ledger.Planned(
        run_id=request.run_id or new_run_id(job.name, request.partition),
        job=job.name,
        partition=request.partition,
        trigger=request.trigger,
        triggered_by=request.triggered_by or getpass.getuser(),
        owners=job.declaration.owners.model_dump(mode="json"),
        cutoff=job.instants(request.partition).cutoff,
        as_of=not (overwritten and datetime.now(UTC) >= following),
        model_version=version.version,
        feature_version=version.feature_version,
        model_policy=str(request.policy),
        code_version=env.code_version,
        rollout_no=rollout.rollout_no if rollout else None,
    )


def days_to_run(
    env: Environment, job: str, days: Sequence[Partition], reprocess: Reprocess
) -> list[Partition]:
    """The days of a backfill: untried ones, with `failed` also unpublished ones, with `completed` all."""
    load_job(env.project, job)
    with env.engine.connect() as connection:
        tried = ledger.attempts(connection, job, days[0], days[-1])
        visible = ledger.visible_days(connection, job, days[0], days[-1])
    skipped: Container[date] = {"none": tried, "failed": visible, "completed": ()}[reprocess]
    return [partition for partition in days if partition.day not in skipped]


def new_run_id(job: str, partition: Partition) -> str:
    """A name that no other run has."""
    return f"{job}-{partition}-{uuid4().hex[:8]}"
