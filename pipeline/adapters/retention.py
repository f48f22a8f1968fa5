"""What retention looks at and what it removes from the warehouse.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

import sqlalchemy as sa

from pipeline.adapters import publishing, rollouts
from pipeline.adapters.job_tables import rows_table, shadow_table
from pipeline.adapters.ledger import Record
from pipeline.adapters.tables import SCHEMA, pointer, publications, quarantine, runs
from pipeline.adapters.warehouse import quoted
from pipeline.lifecycle.retention import Candidate, Part
from pipeline.lifecycle.rollout import series
from pipeline.run import Run


def candidates(connection: sa.Connection, job: str) -> list[Candidate]:
    """The job's runs that are not pruned, in the order of their planning."""
    shown = sa.select(sa.func.max(publications.c.superseded_at)).where(publications.c.run_no == runs.c.run_no)
    # What readers saw until now has ended now, whenever it was made.
    ended = sa.func.greatest(sa.func.coalesce(runs.c.finished_at, runs.c.started_at), shown.scalar_subquery())
    statement = (
        sa.select(runs.c.run_no, runs.c.status, ended, runs.c.snapshot_uri.is_not(None))
        .where(runs.c.job == job, runs.c.pruned_at.is_(None))
        .order_by(runs.c.run_no)
    )
    return [Candidate(*row) for row in connection.execute(statement)]


def shown_and_behind(connection: sa.Connection, job: str) -> dict[int, str]:
    """The runs that readers see and those that `unpublish` would restore, each with why it is needed."""
    behind = runs.alias("behind")
    newest = (
        sa.select(sa.func.max(behind.c.token))
        .where(behind.c.job == pointer.c.job, behind.c.day == pointer.c.day)
        .where(behind.c.status == "published", behind.c.pruned_at.is_(None))
        .where(behind.c.run_no != pointer.c.run_no)
        .scalar_subquery()
    )
    restored = sa.select(runs.c.run_no).where(
        runs.c.job == pointer.c.job, runs.c.day == pointer.c.day, runs.c.token == newest, pointer.c.job == job
    )
    shown = sa.select(pointer.c.run_no).where(pointer.c.job == job, pointer.c.run_no.is_not(None))
    found = dict.fromkeys(connection.execute(restored).scalars(), "unpublish would restore it")
    return found | dict.fromkeys(connection.execute(shown).scalars(), "readers see it")


def of_rollout(connection: sa.Connection, job: str) -> dict[int, str]:
    """The runs of the rollout that is in force, and of those that it goes on with: arms still compared."""
    running = rollouts.running(connection, job)
    if running is None:
        return {}
    compared = [row.rollout_no for row in series(rollouts.history(connection, job), running)]
    own = sa.select(runs.c.run_no).where(runs.c.job == job, runs.c.rollout_no.in_(compared))
    return dict.fromkeys(connection.execute(own).scalars(), "a rollout compares its arms")


def unfinished(connection: sa.Connection, job: str) -> list[Record]:
    """Runs whose rows are pruned and whose files may still be there."""
    statement = sa.select(runs).where(
        runs.c.job == job, runs.c.pruned_at.is_not(None), runs.c.pruned_bytes.is_(None)
    )
    return [dict(row) for row in connection.execute(statement.order_by(runs.c.run_no)).mappings()]


def mark_pruned(connection: sa.Connection, run: Run) -> bool:
    """Delete a run's rows and its quarantine, and mark it; False, and nothing changes, where it is needed.

    Holds the day's pointer, so that nothing restores the run meanwhile.
    """
    connection.exec_driver_sql("set local lock_timeout = '5s'")
    place = sa.select(pointer.c.run_no).filter_by(job=run.job, day=run.partition.day).with_for_update()
    shown = connection.execute(place).scalar_one_or_none()
    behind = connection.execute(publishing.newest_published(run.job, run.partition, besides=shown)).scalar()
    if run.run_no in (shown, behind):
        return False
    marked = connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run.run_no, runs.c.status != "running", runs.c.pruned_at.is_(None))
        .values(pruned_at=sa.func.clock_timestamp(), snapshot_uri=None)
    )
    if marked.rowcount != 1:
        return False
    for table in (rows_table(run.job), shadow_table(run.job)):
        rows = f"delete from {SCHEMA}.{quoted(table)} where day = :day and run_no = :run_no"
        connection.execute(sa.text(rows), {"day": run.partition.day, "run_no": run.run_no})
    connection.execute(sa.delete(quarantine).where(quarantine.c.run_no == run.run_no))
    return True


def files_pruned(connection: sa.Connection, run: Run, size: int) -> None:
    """Record that the last of a pruned run's files is removed."""
    connection.execute(sa.update(runs).filter_by(run_no=run.run_no).values(pruned_bytes=size))


def hold(connection: sa.Connection, run: Run, part: Part) -> bool:
    """Keep a run to oneself until the transaction ends.

    False where it is at work, another has it, or that part of it is gone already.
    """
    there = runs.c.pruned_bytes.is_(None) if part == "run" else runs.c.snapshot_uri.is_not(None)
    ended = sa.select(runs.c.run_no).where(runs.c.run_no == run.run_no, runs.c.status != "running", there)
    return connection.execute(ended.with_for_update(skip_locked=True)).first() is not None


def snapshot_pruned(connection: sa.Connection, run: Run) -> None:
    """Record that a run's snapshot and parts are removed."""
    connection.execute(sa.update(runs).filter_by(run_no=run.run_no).values(snapshot_uri=None))
