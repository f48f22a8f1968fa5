"""The rollout history, and how the arms answered by night.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline.adapters import versions
from pipeline.adapters.tables import outcomes, pointer, rollout_nights, rollouts
from pipeline.adapters.versions import ModelVersion
from pipeline.lifecycle.rollout import Kind, Rollout, in_force
from pipeline.run import Run


@dataclass(frozen=True)
class Challenger:
    """The version that takes part in a run beside the pinned one, and how."""

    rollout: Rollout
    version: ModelVersion


def history(connection: sa.Connection, job: str) -> list[Rollout]:
    """Every rollout and stop of a job, in the order of recording."""
    statement = sa.select(rollouts).where(rollouts.c.job == job).order_by(rollouts.c.rollout_no)
    return [Rollout(**row) for row in connection.execute(statement).mappings()]


def running(connection: sa.Connection, job: str, at: datetime | None = None) -> Rollout | None:
    """The rollout in force at an instant, now by default."""
    promotions = versions.promotion_history(connection, job)
    return in_force(history(connection, job), promotions, at or versions.now(connection))


def challenger(connection: sa.Connection, run: Run) -> Challenger | None:
    """The challenger that was fixed when the run was planned; None without a rollout."""
    if run.rollout_no is None:
        return None
    statement = sa.select(rollouts).where(rollouts.c.rollout_no == run.rollout_no)
    rollout = Rollout(**connection.execute(statement).mappings().one())
    return Challenger(rollout, versions.version(connection, rollout.job, rollout.challenger))


def start(
    connection: sa.Connection,
    version: ModelVersion,
    *,
    kind: Kind,
    share: float | None,
    salt: str,
    effective_from: datetime,
    actor: str,
    approved_by: str | None,
    reason: str,
) -> Rollout:
    """Append a rollout of a version; the caller holds `versions.lock`."""
    values = {
        "job": version.job,
        "kind": kind,
        "version": version.version,
        "share": share,
        "salt": salt,
        "effective_from": effective_from,
        "actor": actor,
        "approved_by": approved_by,
        "reason": reason,
        "model_sha256": version.model_sha256,
    }
    return _appended(connection, values)


def stop(
    connection: sa.Connection, stopped: Rollout, *, effective_from: datetime, actor: str, reason: str
) -> Rollout:
    """Append the end of a rollout; the caller holds `versions.lock`."""
    values = {
        "job": stopped.job,
        "kind": "stop",
        "effective_from": effective_from,
        "actor": actor,
        "reason": reason,
        "stops": stopped.rollout_no,
    }
    return _appended(connection, values)


def _appended(connection: sa.Connection, values: dict[str, object]) -> Rollout:
    statement = sa.insert(rollouts).values(values).returning(rollouts)
    return Rollout(**connection.execute(statement).mappings().one())


def replace_night(connection: sa.Connection, run: Run, slices: Sequence[Mapping[str, Any]]) -> None:
    """Put how the arms of a run answered in the place of what was there, one row a slice."""
    connection.execute(sa.delete(rollout_nights).where(rollout_nights.c.run_no == run.run_no))
    shared = {
        "run_no": run.run_no,
        "run_id": run.run_id,
        "job": run.job,
        "day": run.partition.day,
        "rollout_no": run.rollout_no,
    }
    if slices:
        connection.execute(sa.insert(rollout_nights), [shared | dict(each) for each in slices])


def nights(connection: sa.Connection, job: str, numbers: Collection[int]) -> list[dict[str, Any]]:
    """How the arms answered in the runs of these rollouts that readers see, all rows together, by day."""
    statement = (
        sa.select(rollout_nights)
        .join(pointer, pointer.c.run_no == rollout_nights.c.run_no)
        .where(rollout_nights.c.job == job, rollout_nights.c.rollout_no.in_(numbers))
        .where(rollout_nights.c.slice_column == "all")
        .order_by(rollout_nights.c.day)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def judged_arms(connection: sa.Connection, runs: Collection[int], metric: str) -> list[dict[str, Any]]:
    """The newest evaluation of each run's arms and of their groups of keys, by one metric.

    One row each: run_no, arm, slice_column, slice_value, value, labelled.
    """
    newest = (
        sa.select(outcomes.c.run_no, sa.func.max(outcomes.c.evaluated_at).label("evaluated_at"))
        .where(outcomes.c.run_no.in_(runs))
        .group_by(outcomes.c.run_no)
        .subquery()
    )
    columns = ("run_no", "arm", "slice_column", "slice_value", "value", "labelled")
    statement = (
        sa.select(*(outcomes.c[name] for name in columns))
        .join(
            newest,
            sa.and_(newest.c.run_no == outcomes.c.run_no, newest.c.evaluated_at == outcomes.c.evaluated_at),
        )
        .where(outcomes.c.arm != "all", outcomes.c.metric == metric)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]
