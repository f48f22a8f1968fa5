"""`nightshift prune`: what the declared retention ends is removed; what readers see stays whole.

Rows go first, in one transaction that marks the run; then its files. A crash in between leaves a marked run
with files, which the next prune removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import sqlalchemy as sa
import structlog

from pipeline.adapters import ledger, run_files
from pipeline.adapters import outcomes as evaluations
from pipeline.adapters import retention as stored
from pipeline.adapters import scoring_requests as queue
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.lifecycle.retention import Part, due
from pipeline.monitoring.decided import decision_instant, judged, matured
from pipeline.partition import EVER, Partition
from pipeline.run import Run

log = structlog.get_logger()


@dataclass(frozen=True)
class Pruned:
    """One run of which something goes: all of it or its snapshot, and the bytes of those files."""

    run_id: str
    day: date
    part: Part
    bytes: int


def prune(env: Environment, job: Job, *, dry_run: bool = False) -> list[Pruned]:
    """Remove what the job's retention ends, in the order of the runs; a dry run only tells what."""
    now = datetime.now(UTC)
    with env.engine.connect() as connection:
        begun = [ledger.as_run(row) for row in stored.unfinished(connection, job.name)]
        needed = (
            stored.shown_and_behind(connection, job.name)
            | stored.of_rollout(connection, job.name)
            | _under_evaluation(connection, job, now)
        )
        ended = due(stored.candidates(connection, job.name), needed, job.declaration.retention, now)
        chosen = evaluations.runs_of(connection, list(ended))
    done = [_pruned(env, run, "run", dry_run=dry_run) for run in begun]
    for run_no in ended:
        run, part = chosen[run_no], ended[run_no]
        if part == "run" and not dry_run:
            with env.engine.begin() as connection:
                if not stored.mark_pruned(connection, run):
                    log.info("kept, it is needed now", run_id=run.run_id)
                    continue
        done.append(_pruned(env, run, part, dry_run=dry_run))
    return [each for each in done if each is not None]


def prune_requests(env: Environment, job: Job, *, dry_run: bool = False) -> int:
    """Remove the scoring requests that ended longer ago than is declared; how many. Queued ones stay."""
    days = job.declaration.retention.requests_days
    if days is None:
        return 0
    before = datetime.now(UTC) - timedelta(days=days)
    with env.engine.begin() as connection:
        done = (queue.ended_before if dry_run else queue.prune)(connection, job.name, before)
    if done and not dry_run:
        log.info("pruned", job=job.name, requests=done)
    return done


def _under_evaluation(connection: sa.Connection, job: Job, now: datetime) -> dict[int, str]:
    """Runs that are judged, or will be: their labels are not mature, or nobody has looked at them yet."""
    if job.declaration.outcomes is None:
        return {}
    seen = evaluations.evaluated(connection, job.name)
    found: dict[int, str] = {}
    shown = evaluations.publications_of(connection, job.name, *EVER)
    for day, of_day in groupby(shown, key=lambda each: each.day):
        partition = Partition(day)
        for run_no in judged(list(of_day), decision_instant(job, partition)):
            if run_no not in seen or matured(job, partition) > now:
                found[run_no] = "it is not judged yet"
    return found


def _pruned(env: Environment, run: Run, part: Part, *, dry_run: bool) -> Pruned | None:
    """Remove files; None where a run is at work again, or another prune is at it or was."""
    with env.engine.begin() as connection:
        # Held until its files are gone, so that nobody takes the run up meanwhile.
        if not dry_run and not stored.hold(connection, run, part):
            log.info("kept, it is needed now or gone", run_id=run.run_id)
            return None
        places = [env.store.run_folder(run)] if part == "run" else run_files.between_stages(env.store, run)
        size = sum(env.store.size(place) for place in places)
        if not dry_run:
            for place in places:
                env.store.remove(place)
            if part == "run":
                stored.files_pruned(connection, run, size)
            else:
                stored.snapshot_pruned(connection, run)
            log.info("pruned", run_id=run.run_id, part=part, bytes=size)
    return Pruned(run.run_id, run.partition.day, part, size)


def summary(job: str, done: Sequence[Pruned], requests: int, *, dry_run: bool) -> str:
    """What was removed, in a line for people."""
    runs = sum(each.part == "run" for each in done)
    size = sum(each.bytes for each in done) / 2**20
    would = "would remove" if dry_run else "removed"
    return (
        f"{job}: {would} {runs} runs and {len(done) - runs} snapshots, {size:.1f} MiB of files; "
        f"{requests} scoring requests"
    )
