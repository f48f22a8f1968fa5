"""Which run of a day readers see: a pointer that only a newer token can move, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from pipeline.adapters.loading import LoadedPart, PartLoad, check_sql_counts, load_quarantine
from pipeline.adapters.tables import pointer, publications, runs, withdrawals
from pipeline.errors import SealError, UsageError
from pipeline.partition import Partition
from pipeline.run import Run, Stage, Status

__all__ = [
    "FlipResult",
    "LoadedPart",
    "PartLoad",
    "Shown",
    "Withdrawal",
    "check_sql_counts",
    "flip",
    "load_quarantine",
    "lock_shown",
    "parquet_shown",
    "retire_older",
    "seal",
    "withdraw",
]

FlipResult = Literal["published", "superseded"]


@dataclass(frozen=True)
class Shown:
    """Which run of a day readers see in SQL, and whose rows its Parquet file holds; None for none."""

    run_no: int | None
    parquet_run_no: int | None


@dataclass(frozen=True)
class Withdrawal:
    """Why a run that readers saw was taken back, and by whom; `approved_by` where an approver was named."""

    actor: str
    approved_by: str | None
    reason: str


def lock_shown(connection: sa.Connection, job: str, partition: Partition) -> Shown:
    """What readers see of a day, under its lock: nobody else replaces its Parquet file meanwhile."""
    name = f"nightshift parquet {job} {partition}"
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    statement = sa.select(pointer.c.run_no, pointer.c.parquet_run_no)
    row = connection.execute(statement.filter_by(job=job, day=partition.day)).first()
    return Shown(*row) if row else Shown(None, None)


def parquet_shown(connection: sa.Connection, job: str, partition: Partition, run_no: int | None) -> None:
    """Record whose rows the day's Parquet file holds; None where there is no file."""
    connection.execute(
        sa.update(pointer)
        .where(pointer.c.job == job, pointer.c.day == partition.day)
        .values(parquet_run_no=run_no)
    )


def seal(connection: sa.Connection, run: Run, counts: Mapping[str, object]) -> None:
    """Close a run to further rows and record its counts, waiting for loads in flight.

    Raises SealError unless the run is at work and scored, and its counts add up; sealing a sealed run
    again is allowed.
    """
    connection.execute(sa.select(runs.c.run_no).where(runs.c.run_no == run.run_no).with_for_update())
    update = (
        sa.update(runs)
        .where(runs.c.run_no == run.run_no, runs.c.status == "running")
        .where(runs.c.stage.in_(("validated", "scored", "sealed")))
        .values(stage="sealed", **counts)
    )
    try:
        sealed = connection.execute(update)
    except sa.exc.IntegrityError:
        rows = {name: count for name, count in counts.items() if name.startswith("rows_")}
        raise SealError(f"the counts of run {run.run_id} must add up; got {rows}") from None
    if sealed.rowcount != 1:
        raise SealError(f"run {run.run_id} must be at work and scored to be sealed; it is not, or has ended")


def flip(connection: sa.Connection, run: Run) -> FlipResult:
    """Let readers see a sealed run, unless a newer token has been published; one short transaction.

    Raises SealError for a run that is not sealed or has failed, TransientError when the day stays locked
    for 5 s. Publishing a published run again changes nothing.
    """
    connection.exec_driver_sql("set local lock_timeout = '5s'")
    state = connection.execute(
        sa.select(runs.c.status, runs.c.stage).where(runs.c.run_no == run.run_no).with_for_update()
    ).one()
    if state.status in ("published", "superseded", "withdrawn"):
        return "published" if state.status == "published" else "superseded"
    if (state.status, state.stage) != ("running", "sealed"):
        raise SealError(
            f"run {run.run_id} must be at work and sealed to be published; "
            f"it is {state.status} and {state.stage}"
        )
    moved = connection.execute(_move_pointer(run)).scalar_one_or_none()
    if moved is None:
        _end(connection, run, "superseded", "sealed")
        return "superseded"
    _publish_from(connection, run, moved)
    _end(connection, run, "published", "published")
    return "published"


def withdraw(connection: sa.Connection, run: Run, why: Withdrawal) -> int | None:
    """Take back the run that readers see: they see the one published before it that was not taken back.

    Takes a new token, so that no run at work publishes over it. Gives the restored run's number; None where
    there is none, and readers see no rows. Raises UsageError when readers do not see the run (any more),
    TransientError when the day stays locked for 5 s.
    """
    connection.exec_driver_sql("set local lock_timeout = '5s'")
    here = {"job": run.job, "day": run.partition.day}
    place = sa.select(pointer).filter_by(**here).with_for_update()
    held = connection.execute(place).one_or_none()
    if held is None or held.run_no != run.run_no:
        raise UsageError(
            f"run {run.run_id} must be the one that readers see of {run.job} {run.partition}; it is not any "
            "more. Look at `nightshift status`, then unpublish again"
        )
    connection.execute(sa.update(runs).filter_by(run_no=run.run_no).values(status="withdrawn"))
    before = connection.execute(newest_published(run.job, run.partition))
    restored: int | None = before.scalar_one_or_none()
    token = held.last_token + 1
    moved = connection.execute(
        sa.update(pointer)
        .filter_by(**here)
        .values(last_token=token, token=token, run_no=restored, published_at=_LATER)
        .returning(pointer.c.published_at)
    )
    instant = moved.scalar_one()
    _close_publication(connection, run, instant)
    if restored is not None:
        connection.execute(
            sa.insert(publications).values(**here, token=token, run_no=restored, published_at=instant)
        )
    connection.execute(
        sa.insert(withdrawals).values(
            **here,
            token=token,
            run_no=run.run_no,
            restored_run_no=restored,
            withdrawn_at=instant,
            **vars(why),
        )
    )
    return restored


def newest_published(job: str, partition: Partition, besides: int | None = None) -> sa.Select[Any]:
    """The number of a day's newest run, `besides` one, that was published, not taken back and not pruned."""
    statement = sa.select(runs.c.run_no).filter_by(
        job=job, day=partition.day, status="published", pruned_at=None
    )
    if besides is not None:
        statement = statement.where(runs.c.run_no != besides)
    return statement.order_by(runs.c.token.desc()).limit(1)


_LATER = sa.func.greatest(
    sa.func.clock_timestamp(), pointer.c.published_at + sa.text("interval '1 microsecond'")
)
"""Instants of one (job, day) always grow, whatever the clock does."""


def _move_pointer(run: Run) -> sa.sql.dml.ReturningUpdate[datetime | None]:
    return (
        sa.update(pointer)
        .where(pointer.c.job == run.job, pointer.c.day == run.partition.day, pointer.c.token < run.token)
        .values(token=run.token, run_no=run.run_no, published_at=_LATER)
        .returning(pointer.c.published_at)
    )


def _publish_from(connection: sa.Connection, run: Run, instant: datetime) -> None:
    """Close the day's open publication and open the run's own at the same instant."""
    _close_publication(connection, run, instant)
    values = {"token": run.token, "run_no": run.run_no, "published_at": instant}
    connection.execute(sa.insert(publications).values(job=run.job, day=run.partition.day, **values))


def _close_publication(connection: sa.Connection, run: Run, instant: datetime) -> None:
    connection.execute(
        sa.update(publications)
        .filter_by(job=run.job, day=run.partition.day)
        .where(publications.c.superseded_at.is_(None))
        .values(superseded_at=instant)
    )


def _end(connection: sa.Connection, run: Run, status: Status, stage: Stage) -> None:
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run.run_no)
        .values(status=status, stage=stage, finished_at=sa.func.clock_timestamp())
    )


def retire_older(connection: sa.Connection, run: Run) -> None:
    """Mark runs of the same day that can never publish any more; those busy at this moment are left."""
    shown = sa.select(pointer.c.token).where(pointer.c.job == run.job, pointer.c.day == run.partition.day)
    older = (
        sa.select(runs.c.run_no)
        .where(
            runs.c.job == run.job,
            runs.c.day == run.partition.day,
            runs.c.token < shown.scalar_subquery(),
            runs.c.status == "running",
        )
        .with_for_update(skip_locked=True, of=runs)
    )
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no.in_(older.scalar_subquery()))
        .values(status="superseded", finished_at=sa.func.clock_timestamp())
    )
