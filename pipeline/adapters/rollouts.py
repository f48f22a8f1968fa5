"""The rollout history: which version runs beside the champion.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from pipeline.adapters import versions
from pipeline.adapters.tables import rollouts
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
