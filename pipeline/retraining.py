"""When a job is trained again: which triggers fire, and which nights a training replays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from pipeline.adapters import outcomes, triggers, versions
from pipeline.adapters.triggers import Fired
from pipeline.adapters.versions import NIGHT_DISTANCE, ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.job_life import Retrain
from pipeline.labels import declared_outcomes
from pipeline.lifecycle import promote as decide
from pipeline.lifecycle.promote import Promotion
from pipeline.lifecycle.triggers import Distance, Facts, fired
from pipeline.monitoring.decided import matured
from pipeline.partition import EVER, Partition, between

log = structlog.get_logger()


def training_span(job: Job, now: datetime, held_back: int) -> list[Partition]:
    """The nights that a training replays which names none: `train.nights` of the newest mature ones.

    The newest `held_back` of the mature nights are left to the gate. Raises UsageError where none is left.
    """
    declared_outcomes(job, "trained")
    newest = newest_mature(job, now)
    last = Partition(newest.day - timedelta(days=held_back))
    start, nights = Partition(job.declaration.schedule.start), job.declaration.train.nights
    first = start if nights is None else max(start, Partition(last.day - timedelta(days=nights - 1)))
    if last < first:
        raise UsageError(
            f"training {job.name} needs mature nights from {start} on beside the {held_back} that the gate "
            f"judges by; the newest mature one is {newest}. Wait, or name the nights"
        )
    return list(between(first, last))


def newest_mature(job: Job, now: datetime) -> Partition:
    """The newest night whose labels should be there."""
    newest = job.newest_partition(now)
    while matured(job, newest) > now:
        newest = newest.previous()
    return newest


def evaluate_triggers(
    env: Environment, job_name: str, now: datetime | None = None, dag_run_id: str | None = None
) -> list[Fired]:
    """Record the declared triggers that hold now and are not silent; what fired.

    Without a champion there is nothing to challenge, and none fires. What a DAG run has found before it was
    retried is found again; what a command has found is silent to other commands, not to a DAG run.
    """
    job, now = load_job(env.project, job_name), now or datetime.now(UTC)
    declared = job.declaration.retrain
    if declared is None:
        return []
    day = now.astimezone(job.timezone).date()
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        found = triggers.of_dag_run(connection, job.name, dag_run_id) if dag_run_id else []
        champion = decide.in_force(versions.promotion_history(connection, job.name), now)
        if champion is None or found:
            return found
        facts = _facts(connection, job, declared, champion, now)
        # What a command only told has started no training.
        silences = triggers.silences(connection, job.name, started_only=dag_run_id is not None)
        firings = fired(declared, facts, silences)
        found = triggers.append(connection, job.name, day, champion.version, firings, dag_run_id)
    for each in found:
        log.info("retraining asked for", job=job.name, kind=each.kind, evidence=each.evidence)
    return found


def told(found: Sequence[Fired]) -> list[str]:
    """What fired, a line each."""
    return [f"retraining asked for, {each.kind}: {each.evidence}" for each in found]


def _facts(
    connection: sa.Connection, job: Job, declared: Retrain, champion: Promotion, now: datetime
) -> Facts:
    version = versions.version(connection, job.name, champion.version)
    far = declared.far_from_training
    since = champion.effective_from.astimezone(job.timezone).date()
    # A bad challenger's arm costs, and is no cost of the champion.
    own = _by_day(outcomes.realised(connection, job.name, *EVER, of_champion=True))
    nights = _by_day(outcomes.realised(connection, job.name, *EVER))
    return Facts(
        day=now.astimezone(job.timezone).date(),
        trained_to=version.trained_to,
        drift=triggers.episodes(connection, job.name, "drift", since),
        distances=_distances(connection, version, far.nights) if far else (),
        concept=triggers.episodes(connection, job.name, "concept", since),
        costs=[
            row["metrics"]["cost_per_1000"]
            for row in own
            if row["day"] >= since
            and row["model_version"] == champion.version
            and "cost_per_1000" in row["metrics"]
        ],
        new_labels=sum(row["labelled"] for row in nights if row["day"] > version.trained_to),
    )


def _by_day(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One run a day, in order: of one day, the run that was acted upon comes first."""
    of_day = {row["day"]: row for row in reversed(rows)}
    return [of_day[day] for day in sorted(of_day)]


def _distances(connection: sa.Connection, version: ModelVersion, nights: int) -> list[Distance]:
    """Of each feature that the version's training has measured; none of versions from before it did."""
    in_training = version.metrics.get(NIGHT_DISTANCE, {})
    found = triggers.distances(connection, version.job, version.version, version.trained_to, nights)
    return [Distance(name, bits, found.get(name, ())) for name, bits in in_training.items()]
