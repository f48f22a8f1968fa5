"""The runs table and its companions: what was planned, what each stage left, what readers see.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline.adapters.tables import pointer, quarantine, run_parts, runs
from pipeline.errors import TransientError, UsageError
from pipeline.partition import Partition
from pipeline.run import Run, Stage, Status

Record = Mapping[str, Any]
"""One row of the runs table."""

_STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class Planned:
    """What is fixed when a run is planned."""

    run_id: str
    job: str
    partition: Partition
    trigger: str
    triggered_by: str
    owners: Mapping[str, Any]
    cutoff: datetime
    as_of: bool
    model_version: int
    feature_version: str
    model_policy: str
    code_version: str
    rollout_no: int | None = None


def next_token(connection: sa.Connection, job: str, partition: Partition) -> int:
    """A token above every one ever used for that (job, partition)."""
    statement = insert(pointer).values(job=job, day=partition.day, last_token=1)
    statement = statement.on_conflict_do_update(
        index_elements=["job", "day"], set_={"last_token": pointer.c.last_token + 1}
    )
    return int(connection.execute(statement.returning(pointer.c.last_token)).scalar_one())


def plan_run(connection: sa.Connection, planned: Planned) -> Run:
    """Insert the run with a new token; raises TransientError when another process plans it just now."""
    token = next_token(connection, planned.job, planned.partition)
    values = {k: v for k, v in vars(planned).items() if k != "partition"}
    statement = insert(runs).values(
        **values, day=planned.partition.day, token=token, status="running", stage="planned"
    )
    statement = statement.on_conflict_do_nothing(index_elements=["run_id"])
    run_no = connection.execute(statement.returning(runs.c.run_no)).scalar_one_or_none()
    if run_no is None:
        raise TransientError(f"run {planned.run_id} must be planned once; another process has planned it")
    return as_run(record(connection, run_no))


def record(connection: sa.Connection, run_no: int) -> Record:
    """The runs row of that number."""
    row = connection.execute(sa.select(runs).where(runs.c.run_no == run_no)).mappings().one()
    return cast(Record, row)


def find(connection: sa.Connection, run_id: str) -> Record | None:
    """The runs row of that name, if there is one."""
    row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().first()
    return cast(Record | None, row)


def refuse_pruned(row: Record) -> None:
    """Raise UsageError for a run that retention has removed: nothing can go on with it."""
    if row["pruned_at"] is not None:
        raise UsageError(
            f"run {row['run_id']} must have its rows and files; retention pruned them on "
            f"{row['pruned_at']:%Y-%m-%d}. Score the day under a new run: nightshift score {row['job']} "
            f"--day {row['day']}"
        )


def newest_marked(connection: sa.Connection, job: str, mark: str) -> Record | None:
    """The newest run of a job whose name holds the mark."""
    marked = sa.select(runs).where(runs.c.job == job, runs.c.run_id.contains(mark, autoescape=True))
    row = connection.execute(marked.order_by(runs.c.run_no.desc()).limit(1)).mappings().first()
    return cast(Record | None, row)


def as_run(row: Record) -> Run:
    """The part of a runs row that stages need."""
    return Run(
        run_no=row["run_no"],
        run_id=row["run_id"],
        job=row["job"],
        partition=Partition(row["day"]),
        token=row["token"],
        model_version=row["model_version"],
        status=row["status"],
        stage=row["stage"],
        rollout_no=row["rollout_no"],
    )


def resume(connection: sa.Connection, run_no: int) -> None:
    """A failed run is tried again under its own name."""
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run_no, runs.c.status == "failed")
        .values(status="running", error_type=None, error_message=None, finished_at=None)
    )


def advance(connection: sa.Connection, run_no: int, stage: Stage, **values: object) -> bool:
    """Record that a stage is finished, with what it left.

    False, and nothing changes, where the run has ended or another attempt has come as far already.
    """
    earlier = _STAGES[: _STAGES.index(stage)]
    advanced = connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run_no, runs.c.status == "running", runs.c.stage.in_(earlier))
        .values(stage=stage, **values)
    )
    return advanced.rowcount == 1


def add_warnings(connection: sa.Connection, run_no: int, warnings: Sequence[str]) -> None:
    """Append warnings to the run, each once."""
    held = connection.execute(
        sa.select(runs.c.warnings).where(runs.c.run_no == run_no).with_for_update(key_share=True)
    ).scalar_one()
    new = [warning for warning in dict.fromkeys(warnings) if warning not in held]
    if new:
        connection.execute(sa.update(runs).where(runs.c.run_no == run_no).values(warnings=[*held, *new]))


def add_usage(connection: sa.Connection, run_no: int, cpu: float, peak_mb: float) -> None:
    """Add a stage's CPU seconds to the run's, and raise its peak memory."""
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run_no)
        .values(
            cpu_seconds=runs.c.cpu_seconds + cpu,
            peak_memory_mb=sa.func.greatest(runs.c.peak_memory_mb, peak_mb),
        )
    )


def finish(
    connection: sa.Connection, run_no: int, status: Status, error: BaseException | None = None
) -> None:
    """End a run that is at work; one that was published or superseded meanwhile stays so."""
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run_no, runs.c.status == "running")
        .values(
            status=status,
            finished_at=sa.func.clock_timestamp(),
            error_type=type(error).__name__ if error else None,
            # PostgreSQL's texts hold no zero byte.
            error_message=str(error)[:4000].replace("\0", "\ufffd") if error else None,
        )
    )


def part_loaded(connection: sa.Connection, run_no: int, part: int) -> Record | None:
    """The record of a loaded part, if it is loaded."""
    statement = sa.select(run_parts).where(run_parts.c.run_no == run_no, run_parts.c.part == part)
    return cast(Record | None, connection.execute(statement).mappings().first())


def parts(connection: sa.Connection, run_no: int) -> list[Record]:
    """All loaded parts of a run, in order."""
    statement = sa.select(run_parts).where(run_parts.c.run_no == run_no).order_by(run_parts.c.part)
    return [cast(Record, row) for row in connection.execute(statement).mappings()]


def quarantine_reasons(connection: sa.Connection, run_no: int) -> list[tuple[str, str, int]]:
    """Verdict, rule and number of rows of a run's quarantine, the most frequent first."""
    counted = sa.func.count(sa.distinct(quarantine.c.row))
    statement = (
        sa.select(quarantine.c.verdict, quarantine.c.rule, counted)
        .where(quarantine.c.run_no == run_no)
        .group_by(quarantine.c.verdict, quarantine.c.rule)
        .order_by(counted.desc(), quarantine.c.rule)
    )
    return [(verdict, rule, count) for verdict, rule, count in connection.execute(statement)]


def attempts(
    connection: sa.Connection, job: str, first: Partition, last: Partition
) -> dict[date, set[Status]]:
    """The statuses of a day's runs, for each day that has any."""
    statement = sa.select(runs.c.day, runs.c.status).where(
        runs.c.job == job, runs.c.day.between(first.day, last.day)
    )
    found: dict[date, set[Status]] = {}
    for day, status in connection.execute(statement):
        found.setdefault(day, set()).add(status)
    return found


def with_snapshot(connection: sa.Connection, job: str, first: Partition, last: Partition) -> list[Record]:
    """The runs of these days that have sealed a snapshot, the best to learn from first.

    Those that read their day in time go before those that read an overwritten source later, those that
    were published and not taken back before others, the newest before older ones.
    """
    statement = (
        sa.select(runs)
        .where(runs.c.job == job, runs.c.day.between(first.day, last.day))
        .where(runs.c.snapshot_fingerprint.is_not(None))
        .order_by(
            runs.c.day, runs.c.as_of.desc(), (runs.c.status == "published").desc(), runs.c.run_no.desc()
        )
    )
    return [cast(Record, row) for row in connection.execute(statement).mappings()]


def last_status(connection: sa.Connection, job: str, partition: Partition) -> Status | None:
    """How the newest run of a day stands; None where there is none."""
    statement = sa.select(runs.c.status).where(runs.c.job == job, runs.c.day == partition.day)
    newest = connection.execute(statement.order_by(runs.c.run_no.desc()).limit(1))
    return cast(Status | None, newest.scalar_one_or_none())


def visible_days(connection: sa.Connection, job: str, first: Partition, last: Partition) -> set[date]:
    """The days that readers see."""
    statement = sa.select(pointer.c.day).where(
        pointer.c.job == job,
        pointer.c.run_no.is_not(None),
        pointer.c.day.between(first.day, last.day),
    )
    return set(connection.execute(statement).scalars())


def visible_run(connection: sa.Connection, job: str, partition: Partition) -> Record | None:
    """The run that readers see for a day, with its `published_at` and the pointer's token."""
    statement = (
        sa.select(
            runs, pointer.c.token.label("pointer_token"), pointer.c.parquet_run_no, pointer.c.published_at
        )
        .join(pointer, pointer.c.run_no == runs.c.run_no)
        .where(pointer.c.job == job, pointer.c.day == partition.day)
    )
    return cast(Record | None, connection.execute(statement).mappings().first())


def visible_before(connection: sa.Connection, job: str, partition: Partition, most: int) -> list[Record]:
    """The runs that readers see of the last days before a partition, at most so many, the newest first."""
    statement = (
        sa.select(runs)
        .join(pointer, pointer.c.run_no == runs.c.run_no)
        .where(pointer.c.job == job, pointer.c.day < partition.day)
        .order_by(pointer.c.day.desc())
        .limit(most)
    )
    return [cast(Record, row) for row in connection.execute(statement).mappings()]


def visible_after(connection: sa.Connection, job: str, partition: Partition, most: int) -> list[Record]:
    """The runs that readers see of the first days after a partition, at most so many, the oldest first."""
    statement = (
        sa.select(runs)
        .join(pointer, pointer.c.run_no == runs.c.run_no)
        .where(pointer.c.job == job, pointer.c.day > partition.day)
        .order_by(pointer.c.day)
        .limit(most)
    )
    return [cast(Record, row) for row in connection.execute(statement).mappings()]


def stale_parquet(connection: sa.Connection, job: str) -> list[Partition]:
    """Days whose current Parquet file is not the one of the run that readers see."""
    statement = sa.select(pointer.c.day).where(
        pointer.c.job == job, pointer.c.run_no.is_distinct_from(pointer.c.parquet_run_no)
    )
    return [Partition(day) for day in connection.execute(statement).scalars()]
