"""Triggers of retraining that fired, and what they are judged by in the alerts.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import sqlalchemy as sa

from pipeline.adapters.tables import alerts, metrics, pointer, retrain_triggers, runs
from pipeline.job_life import TriggerKind
from pipeline.lifecycle.triggers import Episode, Firing, Silence


@dataclass(frozen=True)
class Fired:
    """One row of the triggers that fired."""

    trigger_no: int
    job: str
    kind: TriggerKind
    day: date
    evidence: str
    figures: Mapping[str, Any]
    champion_version: int
    cool_down_until: date
    dag_run_id: str | None
    fired_at: datetime


def silences(connection: sa.Connection, job: str, *, started_only: bool) -> list[Silence]:
    """Until when each trigger that ever fired is silent; with `started_only`, those that DAG runs found."""
    until = sa.func.max(retrain_triggers.c.cool_down_until)
    statement = sa.select(retrain_triggers.c.kind, until).where(retrain_triggers.c.job == job)
    if started_only:
        statement = statement.where(retrain_triggers.c.dag_run_id.is_not(None))
    return [Silence(*row) for row in connection.execute(statement.group_by(retrain_triggers.c.kind))]


def append(
    connection: sa.Connection,
    job: str,
    day: date,
    champion: int,
    firings: Sequence[Firing],
    dag_run_id: str | None,
) -> list[Fired]:
    """Record what fired."""
    shared = {"job": job, "day": day, "champion_version": champion, "dag_run_id": dag_run_id}
    insert = sa.insert(retrain_triggers).returning(retrain_triggers)
    rows = [
        connection.execute(insert.values(**shared, **vars(firing))).mappings().one() for firing in firings
    ]
    return [Fired(**row) for row in rows]


def of_dag_run(connection: sa.Connection, job: str, dag_run_id: str) -> list[Fired]:
    """What a DAG run has found already, before it was retried."""
    statement = sa.select(retrain_triggers).filter_by(job=job, dag_run_id=dag_run_id)
    rows = connection.execute(statement.order_by(retrain_triggers.c.trigger_no)).mappings()
    return [Fired(**row) for row in rows]


def episodes(
    connection: sa.Connection, job: str, kind: Literal["drift", "concept"], since: date
) -> list[Episode]:
    """Open alerts of a change that was seen on `since` or later, the oldest first."""
    statement = (
        sa.select(alerts.c.cause, alerts.c.day, alerts.c.last_day)
        .where(alerts.c.job == job, alerts.c.kind == kind, alerts.c.state != "resolved")
        .where(alerts.c.last_day >= since)
        .order_by(alerts.c.day, alerts.c.alert_no)
    )
    return [Episode(*row) for row in connection.execute(statement)]


def distances(
    connection: sa.Connection, job: str, version: int, after: date, nights: int
) -> dict[str, list[float]]:
    """Each feature's divergence from the training rows on the newest nights, in bits, the newest last.

    Of nights later than `after` that readers see, answered by that version; a feature that a night has no
    divergence of has fewer.
    """
    measured = (
        sa.select(metrics.c.day, metrics.c.column_name, metrics.c.value)
        .join(pointer, pointer.c.run_no == metrics.c.run_no)
        .join(runs, runs.c.run_no == metrics.c.run_no)
        .where(runs.c.model_version == version, metrics.c.job == job, metrics.c.day > after)
        .where(metrics.c.part == "feature", metrics.c.metric == "js", metrics.c.baseline == "training")
        .cte("measured")
    )
    newest = sa.select(measured.c.day).distinct().order_by(measured.c.day.desc()).limit(nights)
    statement = sa.select(measured.c.column_name, measured.c.value).where(measured.c.day.in_(newest))
    found: dict[str, list[float]] = defaultdict(list)
    for feature, bits in connection.execute(statement.order_by(measured.c.day, measured.c.column_name)):
        found[feature].append(bits)
    return dict(found)
