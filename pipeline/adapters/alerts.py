"""The alerts that were raised: each cause of a (job, day) once, and whether its channel took it.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline.adapters.tables import alerts, jobs
from pipeline.monitoring.alerts import Notice, Subject, title


@dataclass(frozen=True)
class Raised:
    """A recorded alert, as it is sent."""

    alert_no: int
    title: str
    text: str
    raised_at: datetime


def raise_once(
    connection: sa.Connection,
    notice: Notice,
    run_id: str | None,
    channel: str | None,
    last_day: date | None = None,
) -> int | None:
    """The number of the new alert; None where this cause of the day, or of any for none, was raised.

    An episode may have been seen until a later day, `last_day`, than the notice's own.
    """
    if notice.day is None and _is_raised(connection, notice):
        return None
    statement = insert(alerts).values(
        job=notice.job,
        day=notice.day,
        run_id=run_id,
        kind=notice.kind,
        cause=notice.cause,
        owner=notice.owner,
        message=notice.text,
        channel=channel,
        last_day=last_day or notice.day,
    )
    statement = statement.on_conflict_do_nothing(constraint="alerts_once")
    return connection.execute(statement.returning(alerts.c.alert_no)).scalar_one_or_none()


def _is_raised(connection: sa.Connection, notice: Notice) -> bool:
    same = (alerts.c.job == notice.job, alerts.c.kind == notice.kind, alerts.c.cause == notice.cause)
    return connection.execute(sa.select(alerts.c.alert_no).where(*same)).first() is not None


def claim(connection: sa.Connection, alert_no: int, *, wait: bool = False) -> Raised | None:
    """The alert, nobody else's until the transaction ends; None where it is delivered or being sent.

    With `wait`, what somebody else does to it is awaited: a night that lengthens its episode sends nothing.
    """
    row = connection.execute(
        sa.select(alerts)
        .where(alerts.c.alert_no == alert_no, alerts.c.delivered_at.is_(None))
        .with_for_update(skip_locked=not wait)
    ).first()
    if row is None:
        return None
    return Raised(row.alert_no, title(row.job, row.day, row.kind, row.cause), row.message, row.raised_at)


def delivered(connection: sa.Connection, alert_no: int) -> None:
    """The channel took the notice."""
    _mark(connection, alert_no, delivered_at=sa.func.clock_timestamp(), delivery_error=None)


def not_delivered(connection: sa.Connection, alert_no: int, error: str) -> None:
    """The channel did not take the notice; `error` holds no secret."""
    _mark(connection, alert_no, delivery_error=error)


def _mark(connection: sa.Connection, alert_no: int, **values: object) -> None:
    connection.execute(sa.update(alerts).where(alerts.c.alert_no == alert_no).values(**values))


def undelivered(connection: sa.Connection, job: str, within: timedelta) -> list[int]:
    """Numbers of the job's alerts that were raised lately and that no channel took, the oldest first."""
    statement = (
        sa.select(alerts.c.alert_no)
        .where(alerts.c.job == job, alerts.c.delivered_at.is_(None))
        .where(alerts.c.raised_at > sa.func.clock_timestamp() - within)
        .order_by(alerts.c.alert_no)
    )
    return list(connection.execute(statement).scalars())


def recorded_subject(connection: sa.Connection, job: str) -> Subject | None:
    """The job and its owners as the last migration recorded them."""
    owners = connection.execute(sa.select(jobs.c.owners).where(jobs.c.job == job)).scalar_one_or_none()
    return Subject(job, owners["team"], owners["on_call"]) if owners else None
