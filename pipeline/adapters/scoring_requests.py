"""The queue of scoring requests: other systems insert keys, each request is answered once, in order.

Functions take a SQLAlchemy connection; the caller owns the transaction. Whoever answers locks the requests
and skips those that another process has locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline.adapters.job_tables import key_types, rows_table
from pipeline.adapters.tables import SCHEMA, runs, scoring_requests
from pipeline.adapters.tables import pointer as pointers
from pipeline.adapters.warehouse import quoted
from pipeline.job import Job

AT_ONCE = 1000
"""Requests with a payload that are scored together."""
MOST_ATTEMPTS = 3
"""So often a request is tried whose answering ended the process."""

_QUEUED = scoring_requests.c.status == "queued"


@dataclass(frozen=True)
class Asked:
    """One request with a payload: the job's key columns and the row's other columns, each a text of JSON."""

    request_no: int
    key: str
    payload: str


@dataclass(frozen=True)
class Reply:
    """What a request with a payload is answered, or why it cannot be."""

    request_no: int
    score: float | None = None
    decision: bool | None = None
    error: str | None = None


def expire(connection: sa.Connection, job: Job, hours: int) -> int:
    """End the requests that waited longer than they, or the declaration, allow, and tell when; how many."""
    ends = sa.func.coalesce(
        scoring_requests.c.expires_at,
        scoring_requests.c.requested_at + sa.func.make_interval(0, 0, 0, 0, hours),
    )
    return _end(connection, job, ends <= sa.func.now(), {"status": "expired", "expires_at": ends})


def refuse_bad_keys(connection: sa.Connection, job: Job) -> int:
    """Fail the requests whose key is not exactly the job's key columns, each of its type; how many."""
    types = key_types(job)
    names = ", ".join(_literal(name) for name in types)
    values = " and ".join(
        f"coalesce(pg_input_is_valid(key ->> {_literal(name)}, {_literal(kind)}), false)"
        for name, kind in types.items()
    )
    # Only `case` promises that an object is looked into after it is known to be one.
    bad = sa.text(
        f"not case when jsonb_typeof(key) = 'object' then key - array[{names}] = cast('{{}}' as jsonb) "
        f"and {values} else false end"
    )
    shown = ", ".join(f"{name} {kind}" for name, kind in types.items())
    error = f"the key must be an object of {shown}; it is not"
    return _end(connection, job, bad, {"status": "failed", "error": error})


def give_up(connection: sa.Connection, job: Job) -> int:
    """Fail the requests whose answering has ended the process too often; how many."""
    error = f"must be answered within {MOST_ATTEMPTS} attempts; each ended the process that made it"
    too_often = scoring_requests.c.attempts >= MOST_ATTEMPTS
    return _end(connection, job, too_often, {"status": "failed", "error": error})


def _end(
    connection: sa.Connection,
    job: Job,
    condition: sa.ColumnElement[bool] | sa.TextClause,
    values: Mapping[str, Any],
) -> int:
    chosen = (
        sa.select(scoring_requests.c.request_no)
        .where(scoring_requests.c.job == job.name, _QUEUED, condition)
        .with_for_update(skip_locked=True)
    )
    ended = sa.update(scoring_requests).where(scoring_requests.c.request_no.in_(chosen.scalar_subquery()))
    return int(connection.execute(ended.values(**values)).rowcount)


def answer_published(connection: sa.Connection, job: Job) -> int:
    """Answer requests without a payload whose key is in the newest published day; how many were.

    One statement over all of them; requests of other keys stay queued.
    """
    newest = connection.execute(
        sa.select(pointers.c.day, pointers.c.run_no, runs.c.run_id)
        .join(runs, runs.c.run_no == pointers.c.run_no)
        .where(pointers.c.job == job.name)
        .order_by(pointers.c.day.desc())
        .limit(1)
    ).first()
    if newest is None:
        return 0
    same = " and ".join(
        f"rows.{quoted(name)} = cast(case when pg_input_is_valid(asked.key ->> {_literal(name)}, "
        f"{_literal(kind)}) then asked.key ->> {_literal(name)} end as {kind})"
        for name, kind in key_types(job).items()
    )
    statement = sa.text(f"""
        with asked as materialized (
            select request_no, key from {SCHEMA}.scoring_requests
            where job = :job and status = 'queued' and payload is null
            order by request_no for update skip locked
        )
        update {SCHEMA}.scoring_requests requests
        set status = 'answered', attempts = attempts + 1, answered_at = clock_timestamp(), day = :day,
            run_id = :run_id, score = rows.score, decision = rows.decision,
            score_source = rows.score_source, model_version = rows.model_version
        from asked join {SCHEMA}.{quoted(rows_table(job.name))} rows
            on rows.day = :day and rows.run_no = :run_no and {same}
        where requests.request_no = asked.request_no
    """)
    values = {"job": job.name, "day": newest.day, "run_no": newest.run_no, "run_id": newest.run_id}
    return int(connection.execute(statement, values).rowcount)


def last_queued(connection: sa.Connection, job: Job) -> int:
    """The number of the request that was asked last; 0 where none is queued."""
    newest = sa.select(sa.func.max(scoring_requests.c.request_no))
    return int(connection.execute(newest.where(scoring_requests.c.job == job.name, _QUEUED)).scalar() or 0)


def attempt(connection: sa.Connection, job: Job, last: int) -> list[int]:
    """Count an attempt at the first requests with a payload, up to the `last`; their numbers, in order.

    One that was attempted before is taken alone: should it end the process, it ends no other request.
    """
    first = (
        sa.select(scoring_requests.c.request_no, scoring_requests.c.attempts)
        .where(scoring_requests.c.job == job.name, _QUEUED, scoring_requests.c.payload.is_not(None))
        .where(scoring_requests.c.request_no <= last)
        .order_by(scoring_requests.c.request_no)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(first).all()
    fresh = next((place for place, row in enumerate(rows) if row.attempts), len(rows))
    numbers = [row.request_no for row in rows[: max(fresh, 1)]]
    counted = sa.update(scoring_requests).where(scoring_requests.c.request_no.in_(numbers))
    connection.execute(counted.values(attempts=scoring_requests.c.attempts + 1))
    return numbers


def take_back(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Count the last attempt at these requests no more."""
    counted = sa.update(scoring_requests).where(scoring_requests.c.request_no.in_(numbers), _QUEUED)
    connection.execute(counted.values(attempts=scoring_requests.c.attempts - 1))


def lock_asked(connection: sa.Connection, numbers: Sequence[int]) -> list[Asked]:
    """Those of the requests that are still queued and that nobody else answers, in order."""
    statement = (
        sa.select(
            scoring_requests.c.request_no,
            *(sa.cast(scoring_requests.c[name], sa.Text) for name in ("key", "payload")),
        )
        .where(scoring_requests.c.request_no.in_(numbers), _QUEUED)
        .order_by(scoring_requests.c.request_no)
        .with_for_update(skip_locked=True)
    )
    return [Asked(*row) for row in connection.execute(statement)]


def reply(connection: sa.Connection, replies: Sequence[Reply], shared: Mapping[str, Any]) -> None:
    """Write the answers, one a request, with what they share: day and model_version."""
    for each in replies:
        values: dict[str, Any] = {"status": "failed", "error": each.error}
        if each.error is None:
            source = {"score": each.score, "decision": each.decision, "score_source": "champion"}
            values = {"status": "answered", "answered_at": sa.func.clock_timestamp(), **source, **shared}
        connection.execute(sa.update(scoring_requests).filter_by(request_no=each.request_no).values(**values))


def ended_before(connection: sa.Connection, job: str, instant: datetime) -> int:
    """How many requests of a job were answered, failed or expired before that."""
    statement = sa.select(sa.func.count()).select_from(scoring_requests).where(_ended(job, instant))
    return int(connection.execute(statement).scalar_one())


def prune(connection: sa.Connection, job: str, instant: datetime) -> int:
    """Remove the requests of a job that were answered, failed or expired before that; how many."""
    return int(connection.execute(sa.delete(scoring_requests).where(_ended(job, instant))).rowcount)


def _ended(job: str, instant: datetime) -> sa.ColumnElement[bool]:
    # A failure has no instant of its own; the queue is looked at within minutes.
    expired = sa.case((scoring_requests.c.status == "expired", scoring_requests.c.expires_at))
    ended = sa.func.greatest(scoring_requests.c.requested_at, scoring_requests.c.answered_at, expired)
    return sa.and_(scoring_requests.c.job == job, ~_QUEUED, ended < instant)


def counts(connection: sa.Connection, job: str) -> dict[str, int]:
    """How many requests of a job stand how."""
    statement = sa.select(scoring_requests.c.status, sa.func.count()).filter_by(job=job)
    rows = connection.execute(statement.group_by(scoring_requests.c.status))
    return {status: count for status, count in rows}  # noqa: C416 - rows are no tuples for mypy


def newest(connection: sa.Connection, job: str, most: int) -> list[dict[str, Any]]:
    """The last requests of a job, without their payloads."""
    shown = [column for column in scoring_requests.c if column.name not in ("job", "payload")]
    statement = sa.select(*shown).where(scoring_requests.c.job == job)
    rows = connection.execute(statement.order_by(scoring_requests.c.request_no.desc()).limit(most))
    return [dict(row) for row in rows.mappings()]


def _literal(text: str) -> str:
    """A text in SQL; a colon would be read as the beginning of a bound value."""
    return "'" + text.replace("'", "''").replace(":", r"\:") + "'"
