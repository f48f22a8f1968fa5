"""Which run of a day readers see: a pointer that only a newer token can move, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from pipeline.adapters import ledger
from pipeline.adapters.loading import LoadedPart, PartLoad, check_sql_counts, load_quarantine
from pipeline.adapters.tables import pointer, publications, runs
from pipeline.errors import SealError
from pipeline.partition import Partition
from pipeline.run import Run, Stage, Status

__all__ = [
    "FlipResult",
    "LoadedPart",
    "PartLoad",
    "check_sql_counts",
    "flip",
    "load_quarantine",
    "lock_visible",
    "parquet_shown",
    "retire_older",
    "seal",
]

FlipResult = Literal["published", "superseded"]


def lock_visible(connection: sa.Connection, job: str, partition: Partition) -> ledger.Record | None:
    """The run that readers see, under the day's lock: nobody else replaces its Parquet file meanwhile."""
    name = f"nightshift parquet {job} {partition}"
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    return ledger.visible_run(connection, job, partition)


def parquet_shown(connection: sa.Connection, job: str, partition: Partition, run_no: int) -> None:
    """Record whose rows the day's Parquet file holds."""
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
    if state.status in ("published", "superseded"):
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


def _move_pointer(run: Run) -> sa.sql.dml.ReturningUpdate[datetime | None]:
    # Instants of one (job, day) always grow, whatever the clock does.
    later = sa.func.greatest(
        sa.func.clock_timestamp(), pointer.c.published_at + sa.text("interval '1 microsecond'")
    )
    return (
        sa.update(pointer)
        .where(pointer.c.job == run.job, pointer.c.day == run.partition.day, pointer.c.token < run.token)
        .values(token=run.token, run_no=run.run_no, published_at=later)
        .returning(pointer.c.published_at)
    )


def _publish_from(connection: sa.Connection, run: Run, instant: datetime) -> None:
    """Close the day's open publication and open the run's own at the same instant."""
    here = {"job": run.job, "day": run.partition.day}
    connection.execute(
        sa.update(publications)
        .filter_by(**here)
        .where(publications.c.superseded_at.is_(None))
        .values(superseded_at=instant)
    )
    connection.execute(
        sa.insert(publications).values(**here, token=run.token, run_no=run.run_no, published_at=instant)
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
