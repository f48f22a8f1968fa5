"""Realised quality in the warehouse: what readers saw when, what was measured of it, and what was estimated.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isclose
from typing import Any

import sqlalchemy as sa

from pipeline.adapters import ledger
from pipeline.adapters.tables import metrics, outcomes, pointer, publications, runs
from pipeline.monitoring.decided import Publication
from pipeline.monitoring.quality import ALL, CHAMPION, Measured
from pipeline.partition import Partition
from pipeline.run import Run

_ESTIMATE = {"part": "estimate", "column_name": "quality", "baseline": "none"}


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation of a run says, and which labels it knew."""

    run: Run
    hindsight: bool
    labels_as_of: datetime
    evaluated_at: datetime
    measured: Sequence[Measured]


def publications_of(
    connection: sa.Connection, job: str, first: Partition, last: Partition
) -> list[Publication]:
    """From when until when readers saw which run, by day and then in order."""
    columns = [publications.c[name] for name in ("day", "run_no", "published_at", "superseded_at")]
    statement = sa.select(*columns).where(_within(publications, job, first, last))
    rows = connection.execute(statement.order_by(publications.c.day, publications.c.published_at))
    return [Publication(*row) for row in rows]


def runs_of(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, Run]:
    """The runs of these numbers, less those that retention has pruned."""
    kept = sa.select(runs).where(runs.c.run_no.in_(numbers), runs.c.pruned_at.is_(None))
    found = connection.execute(kept).mappings()
    return {row["run_no"]: ledger.as_run(row) for row in map(dict, found)}


def evaluated(connection: sa.Connection, job: str) -> set[int]:
    """The numbers of the job's runs that have been evaluated."""
    return set(connection.execute(sa.select(outcomes.c.run_no).distinct().filter_by(job=job)).scalars())


def append(connection: sa.Connection, evaluation: Evaluation) -> bool:
    """Append an evaluation unless it says nothing new; whether it did.

    Nothing new: the newest one of the run says the same, or knew labels of a later instant.
    """
    run = evaluation.run
    name = f"nightshift outcomes {run.run_no}"
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    newest = sa.select(sa.func.max(outcomes.c.evaluated_at)).filter_by(run_no=run.run_no)
    there = connection.execute(
        sa.select(outcomes).where(
            outcomes.c.run_no == run.run_no, outcomes.c.evaluated_at == newest.scalar_subquery()
        )
    )
    before = [dict(row) for row in there.mappings()]
    if before and (before[0]["labels_as_of"] > evaluation.labels_as_of or _same(before, evaluation)):
        return False
    shared = {
        "run_no": run.run_no,
        "run_id": run.run_id,
        "job": run.job,
        "day": run.partition.day,
        "hindsight": evaluation.hindsight,
        "model_version": run.model_version,
        "labels_as_of": evaluation.labels_as_of,
        "evaluated_at": evaluation.evaluated_at,
    }
    connection.execute(sa.insert(outcomes), [shared | vars(each) for each in evaluation.measured])
    return True


def _same(before: Sequence[Mapping[str, Any]], evaluation: Evaluation) -> bool:
    names = ("arm", "slice_column", "slice_value", "metric")
    held = {tuple(row[name] for name in names): row for row in before}
    made = {tuple(getattr(each, name) for name in names): each for each in evaluation.measured}
    return held.keys() == made.keys() and all(
        (row["rows"], row["labelled"], row["hindsight"])
        == (made[place].rows, made[place].labelled, evaluation.hindsight)
        and isclose(row["value"], made[place].value, rel_tol=1e-9, abs_tol=1e-12)
        for place, row in held.items()
    )


def realised(
    connection: sa.Connection, job: str, first: Partition, last: Partition, *, of_champion: bool = False
) -> list[dict[str, Any]]:
    """The newest evaluation of all rows of each run that was acted upon or that readers see now.

    With `of_champion`, in a canary or an A/B test only the rows of the champion's arm.

    One row a run, by day: run_no, day, hindsight, model_version, rows, labelled, labels_as_of, evaluated_at
    and metrics, a mapping of names to values.
    """
    newest = (
        sa.select(outcomes.c.run_no, sa.func.max(outcomes.c.evaluated_at).label("evaluated_at"))
        .where(_within(outcomes, job, first, last))
        .group_by(outcomes.c.run_no)
        .subquery()
    )
    shared = [
        outcomes.c[name]
        for name in (
            "run_no", "day", "hindsight", "model_version", "rows", "labelled", "labels_as_of", "evaluated_at"
        )
    ]  # fmt: skip
    statement = (
        sa.select(*shared, sa.func.jsonb_object_agg(outcomes.c.metric, outcomes.c.value).label("metrics"))
        .join(newest, sa.and_(newest.c.run_no == outcomes.c.run_no,
                              newest.c.evaluated_at == outcomes.c.evaluated_at))
        .outerjoin(pointer, pointer.c.run_no == outcomes.c.run_no)
        .where(_arm(of_champion=of_champion), outcomes.c.slice_column == ALL)
        .where(sa.or_(~outcomes.c.hindsight, pointer.c.run_no.is_not(None)))
        .group_by(*shared)
        .order_by(outcomes.c.day, outcomes.c.hindsight)
    )  # fmt: skip
    return [dict(row) for row in connection.execute(statement).mappings()]


def _arm(*, of_champion: bool) -> sa.ColumnElement[bool]:
    if not of_champion:
        return outcomes.c.arm == ALL
    own = outcomes.alias()
    same = (own.c.run_no == outcomes.c.run_no, own.c.evaluated_at == outcomes.c.evaluated_at)
    has_arms = sa.exists().where(*same, own.c.arm == CHAMPION)
    return outcomes.c.arm == sa.case((has_arms, CHAMPION), else_=ALL)


def replace_estimate(connection: sa.Connection, run: Run, values: Mapping[str, float]) -> None:
    """Put a run's estimated quality in the place of an earlier estimate."""
    connection.execute(sa.delete(metrics).where(metrics.c.run_no == run.run_no, metrics.c.part == "estimate"))
    shared = {"run_no": run.run_no, "run_id": run.run_id, "job": run.job, "day": run.partition.day}
    rows = [{**shared, **_ESTIMATE, "metric": name, "value": value} for name, value in values.items()]
    if rows:
        connection.execute(sa.insert(metrics), rows)


def estimated(
    connection: sa.Connection, job: str, first: Partition, last: Partition
) -> dict[int, dict[str, float]]:
    """The estimated quality of each run that has an estimate, by its number: metric to value."""
    statement = (
        sa.select(
            metrics.c.run_no, sa.func.jsonb_object_agg(metrics.c.metric, metrics.c.value).label("estimate")
        )
        .where(_within(metrics, job, first, last), metrics.c.part == "estimate")
        .group_by(metrics.c.run_no)
    )
    return {row.run_no: row.estimate for row in connection.execute(statement)}


def _within(table: sa.Table, job: str, first: Partition, last: Partition) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.job == job, table.c.day.between(first.day, last.day))
