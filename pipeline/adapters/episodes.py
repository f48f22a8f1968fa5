"""What becomes of a raised alert: its episode goes on, somebody takes it on, it ends.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from pipeline.adapters.tables import alerts, pointer
from pipeline.monitoring.alerts import NIGHTS, Kind, Notice

BY_ITSELF = "nightshift"
"""Who resolved an alert whose cause is not seen any more."""

_DATA: tuple[Kind, ...] = ("structure", "drift")
_KIN: Mapping[Kind, tuple[Kind, ...]] = dict.fromkeys(_DATA, _DATA)
"""One change of the data may break its columns first and drift later."""
_AFTERSHOCK = timedelta(days=1)  # yesterday's outcomes are tonight's features

_LASTS = alerts.c.state.in_(("open", "acknowledged"))


def lock(connection: sa.Connection, job: str) -> None:
    """Until the transaction ends, nobody else continues or raises episodes of this job."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"alerts {job}"))))


def is_known(connection: sa.Connection, notice: Notice, since: date | None, day: date) -> bool:
    """Whether the episode was raised; one that lasts then lasts until `day` at least.

    It is the same episode while one of that cause lasts, and where a change of the data began on `since` or
    the night before, even if somebody ended it: what they know is not told again.
    """
    ours = (alerts.c.job == notice.job, alerts.c.kind.in_(_KIN.get(notice.kind, (notice.kind,))))
    began = sa.false() if since is None else alerts.c.day.between(since - _AFTERSHOCK, since)
    same = sa.or_(sa.and_(alerts.c.cause == notice.cause, _LASTS), began)
    last = sa.func.greatest(alerts.c.last_day, day)
    connection.execute(sa.update(alerts).where(*ours, same, _LASTS).values(last_day=last))
    return connection.execute(sa.select(alerts.c.alert_no).where(*ours, same)).first() is not None


def resolve_quiet(
    connection: sa.Connection, job: str, kinds: Collection[Kind], day: date, nights: int
) -> list[int]:
    """End the episodes that none of the last `nights` published nights up to `day` saw; their numbers."""
    published = (
        sa.select(sa.func.count())
        .where(pointer.c.job == alerts.c.job, pointer.c.run_no.is_not(None))
        .where(pointer.c.day > alerts.c.last_day, pointer.c.day <= day)
        .scalar_subquery()
    )
    return _resolve(connection, alerts.c.job == job, alerts.c.kind.in_(kinds), published >= nights)


def resolve_published(connection: sa.Connection, job: str) -> list[int]:
    """End the alerts of failed and late nights whose day is published by now; their numbers."""
    published = sa.exists().where(
        pointer.c.job == alerts.c.job, pointer.c.day == alerts.c.day, pointer.c.run_no.is_not(None)
    )
    return _resolve(connection, alerts.c.job == job, alerts.c.kind.in_(NIGHTS), published)


def _resolve(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> list[int]:
    statement = sa.update(alerts).where(*which, _LASTS).values(_ended(BY_ITSELF))
    return sorted(connection.execute(statement.returning(alerts.c.alert_no)).scalars())


def _ended(who: str) -> dict[str, Any]:
    return {"state": "resolved", "resolved_at": sa.func.clock_timestamp(), "resolved_by": who}


def acknowledge(connection: sa.Connection, job: str, alert_no: int, who: str) -> bool:
    """Somebody takes an open alert on; False where there is no such one."""
    taken = {"state": "acknowledged", "acknowledged_at": sa.func.clock_timestamp(), "acknowledged_by": who}
    which = (alerts.c.job == job, alerts.c.alert_no == alert_no, alerts.c.state == "open")
    return connection.execute(sa.update(alerts).where(*which).values(taken)).rowcount > 0


def resolve(connection: sa.Connection, job: str, alert_no: int, who: str) -> bool:
    """Somebody ends an episode; False where there is none that lasts."""
    which = (alerts.c.job == job, alerts.c.alert_no == alert_no, _LASTS)
    return connection.execute(sa.update(alerts).where(*which).values(_ended(who))).rowcount > 0


def listed(connection: sa.Connection, job: str, *, lasting: bool) -> list[dict[str, Any]]:
    """The job's alerts, the newest first; with `lasting`, those that nobody and nothing has resolved."""
    statement = sa.select(alerts).where(alerts.c.job == job).order_by(alerts.c.alert_no.desc())
    if lasting:
        statement = statement.where(_LASTS)
    return [dict(row) for row in connection.execute(statement).mappings()]
