"""What reports show, read from the control tables and from a job's rows. Nothing is written here.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import date
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from pipeline.adapters.job_tables import rows_table
from pipeline.adapters.tables import (
    SCHEMA,
    alerts,
    gate_verdicts,
    jobs,
    metrics,
    model_versions,
    pointer,
    promotions,
    quarantine,
    runs,
)
from pipeline.adapters.warehouse import quoted
from pipeline.monitoring.metrics import Metric
from pipeline.monitoring.report.facts import (
    AlertFacts,
    JobFacts,
    PromotionFacts,
    Realised,
    Reason,
    RunFacts,
    VerdictFacts,
    VersionFacts,
)
from pipeline.monitoring.report.values import Day, Night, Scores

_BINS = 40
_ALERTS = 25
_VERDICTS = 25

T = TypeVar("T")
_Row = Mapping[str, Any] | sa.RowMapping

_DAYS = sa.text("""
select day, restatements, last_status, reasons,
    case when trust = 'missing' and last_status <> 'published' then last_status else trust end as status,
    coalesce(published_run_id, last_run_id) as run_id
from nightshift.day_status
where job = :job and day between :first and :last
order by day
""")
_COLUMNS = sa.text("""
select run_no, baseline, avg(value) as value
from nightshift.metrics
where job = :job and day between :first and :last and run_no = any(:runs)
    and part in ('input', 'feature') and metric = 'js'
group by run_no, baseline
""")
_REALISED = sa.text("""
select run_no, metric, value, hindsight, labelled
from nightshift.quality
where job = :job and day between :first and :last and run_no = any(:runs)
    and arm = 'all' and slice_column = 'all'
""")
_OF_RUN = sa.text("""
select arm, slice_column, slice_value, metric, value, rows, labelled, hindsight, labels_as_of
from nightshift.quality where run_no = :run_no
order by arm, slice_column, slice_value, metric
""")


def job_facts(connection: sa.Connection, job: str | None = None) -> list[JobFacts]:
    """One job or all, as the last migration recorded them, by name."""
    statement = sa.select(jobs).order_by(jobs.c.job)
    rows = connection.execute(statement if job is None else statement.where(jobs.c.job == job))
    return [_filled(JobFacts, row) for row in rows.mappings()]


def run_facts(row: _Row) -> RunFacts:
    """A row of the runs table, with whatever else was selected beside it."""
    return _filled(RunFacts, row)


def runs_of_day(connection: sa.Connection, job: str, day: date) -> list[RunFacts]:
    """All runs of a day, the newest first."""
    statement = sa.select(runs).where(runs.c.job == job, runs.c.day == day).order_by(runs.c.run_no.desc())
    return [run_facts(row) for row in connection.execute(statement).mappings()]


def recent_runs(connection: sa.Connection, job: str, most: int) -> list[RunFacts]:
    """The newest runs of a job, whatever became of them."""
    statement = sa.select(runs).where(runs.c.job == job).order_by(runs.c.run_no.desc()).limit(most)
    return [run_facts(row) for row in connection.execute(statement).mappings()]


def neighbour(connection: sa.Connection, job: str, day: date, *, before: bool) -> RunFacts | None:
    """The run that readers see of the nearest published day before or after."""
    side = pointer.c.day < day if before else pointer.c.day > day
    order = pointer.c.day.desc() if before else pointer.c.day
    statement = sa.select(runs).join(pointer, pointer.c.run_no == runs.c.run_no)
    found = connection.execute(statement.where(pointer.c.job == job, side).order_by(order).limit(1))
    row = found.mappings().first()
    return run_facts(row) if row else None


def newest_day(connection: sa.Connection, job: str) -> date | None:
    """The newest day that has a run; None where there is none."""
    statement = sa.select(sa.func.max(runs.c.day)).where(runs.c.job == job)
    return cast(date | None, connection.execute(statement).scalar_one())


def days(connection: sa.Connection, job: str, first: date, last: date) -> list[Day]:
    """What readers see of each expected day, and how its newest attempt ended."""
    rows = connection.execute(_DAYS, {"job": job, "first": first, "last": last}).mappings()
    return [_filled(Day, {**row, "reasons": tuple(row["reasons"])}) for row in rows]


def nights(connection: sa.Connection, job: str, first: date, last: date) -> list[Night]:
    """The runs that readers see, by day, with the metrics that trends show."""
    statement = (
        sa.select(runs)
        .join(pointer, pointer.c.run_no == runs.c.run_no)
        .where(pointer.c.job == job, pointer.c.day.between(first, last))
        .order_by(pointer.c.day)
    )
    shown = [run_facts(row) for row in connection.execute(statement).mappings()]
    measured: dict[int, dict[str, float]] = {run.run_no: {} for run in shown}
    values = {"job": job, "first": first, "last": last, "runs": list(measured)}
    narrow = sa.select(metrics).where(
        metrics.c.job == job,
        metrics.c.day.between(first, last),
        metrics.c.run_no.in_(list(measured)),
        metrics.c.part.in_(("rows", "score", "estimate")),
    )
    for row in connection.execute(narrow):
        against = "" if row.baseline == "none" else f"/{row.baseline}"
        measured[row.run_no][f"{row.part}/{row.metric}{against}"] = row.value
    for row in connection.execute(_COLUMNS, values):
        measured[row.run_no][f"drift/js/{row.baseline}"] = row.value
    judged: dict[int, tuple[bool, int]] = {}
    for row in connection.execute(_REALISED, values):
        measured[row.run_no][f"realised/{row.metric}"] = row.value
        judged[row.run_no] = (row.hindsight, row.labelled)
    return [Night(run, measured[run.run_no], *judged.get(run.run_no, ())) for run in shown]


def reasons(connection: sa.Connection, run_no: int) -> list[Reason]:
    """Why rows of a run are in quarantine, the most frequent first."""
    counted = sa.func.count(sa.distinct(quarantine.c.row))
    grouped = (quarantine.c.verdict, quarantine.c.rule, quarantine.c.column_name)
    statement = sa.select(*grouped, counted).where(quarantine.c.run_no == run_no).group_by(*grouped)
    return [Reason(*row) for row in connection.execute(statement.order_by(counted.desc(), *grouped))]


def of_run(connection: sa.Connection, run_no: int) -> list[Metric]:
    """All metrics of a run."""
    columns = [metrics.c[name] for name in ("part", "column_name", "metric", "baseline", "value")]
    rows = connection.execute(sa.select(*columns).where(metrics.c.run_no == run_no))
    return [Metric(*row) for row in rows]


def realised(connection: sa.Connection, run_no: int) -> list[Realised]:
    """The newest evaluation of a run; nothing while its labels are not there."""
    return [_filled(Realised, row) for row in connection.execute(_OF_RUN, {"run_no": run_no}).mappings()]


def scores(connection: sa.Connection, run: RunFacts, before: RunFacts | None) -> Scores | None:
    """The distribution of a run's scores and of another's, over common bins; None where it has no rows.

    From 0 to 1 where all scores lie there, else from the smallest to the largest.
    """
    shown = [run, *([before] if before else [])]
    low, high = _range(connection, shown)
    if low is None or high is None:
        return None
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)
    counts = [_histogram(connection, one, low, high) for one in shown]
    return Scores(low, high, counts[0], counts[1] if before else None) if sum(counts[0]) else None


def _rows(job: str) -> str:
    return f"{SCHEMA}.{quoted(rows_table(job))}"


def _range(connection: sa.Connection, shown: Iterable[RunFacts]) -> tuple[float | None, float | None]:
    lows, highs = [], []
    for run in shown:
        statement = sa.text(
            f"select min(score), max(score) from {_rows(run.job)} where day = :day and run_no = :run"
        )
        low, high = connection.execute(statement, {"day": run.day, "run": run.run_no}).one()
        if low is not None:
            lows.append(low)
            highs.append(high)
    return (min(lows), max(highs)) if lows else (None, None)


def _histogram(connection: sa.Connection, run: RunFacts, low: float, high: float) -> tuple[int, ...]:
    # The largest score lies on the last bin's edge, which width_bucket counts as beyond it.
    statement = sa.text(
        f"select least(width_bucket(score, :low, :high, :bins), :bins) as bin, count(*) as scores "
        f"from {_rows(run.job)} where day = :day and run_no = :run group by 1"
    )
    values = {"low": low, "high": high, "bins": _BINS, "day": run.day, "run": run.run_no}
    found = {row.bin: row.scores for row in connection.execute(statement, values)}
    return tuple(found.get(number, 0) for number in range(1, _BINS + 1))


def version_facts(connection: sa.Connection, job: str) -> list[VersionFacts]:
    """All versions of a job, the newest first."""
    columns = [model_versions.c[field.name] for field in fields(VersionFacts)]
    statement = (
        sa.select(*columns).where(model_versions.c.job == job).order_by(model_versions.c.version.desc())
    )
    return [_filled(VersionFacts, row) for row in connection.execute(statement).mappings()]


def promotion_facts(connection: sa.Connection, job: str) -> list[PromotionFacts]:
    """The whole promotion history of a job, in the order in which it came into force."""
    statement = sa.select(promotions).where(promotions.c.job == job)
    ordered = statement.order_by(promotions.c.effective_from, promotions.c.promotion_no)
    return [_filled(PromotionFacts, row) for row in connection.execute(ordered).mappings()]


def verdict_facts(connection: sa.Connection, job: str, number: int | None = None) -> list[VerdictFacts]:
    """What the gate said of a job's challengers, the newest first; or only the verdict of that number."""
    statement = sa.select(gate_verdicts).where(gate_verdicts.c.job == job)
    if number is not None:
        statement = statement.where(gate_verdicts.c.verdict_no == number)
    ordered = statement.order_by(gate_verdicts.c.verdict_no.desc()).limit(_VERDICTS)
    return [_filled(VerdictFacts, row) for row in connection.execute(ordered).mappings()]


def alert_facts(connection: sa.Connection, job: str, day: date | None = None) -> list[AlertFacts]:
    """Alerts of a job, the newest first: those whose episode holds the day, or the last ones of all."""
    statement = sa.select(alerts).where(alerts.c.job == job)
    if day is not None:
        until = sa.func.coalesce(alerts.c.last_day, alerts.c.day)
        statement = statement.where(alerts.c.day <= day, until >= day)
    ordered = statement.order_by(alerts.c.alert_no.desc()).limit(_ALERTS)
    return [_filled(AlertFacts, row) for row in connection.execute(ordered).mappings()]


def open_alerts(connection: sa.Connection, job: str) -> int:
    """How many alerts of a job nobody has resolved."""
    statement = sa.select(sa.func.count()).where(alerts.c.job == job, alerts.c.state != "resolved")
    return int(connection.execute(statement).scalar_one())


def _filled(kind: type[T], row: _Row) -> T:
    return kind(**{field.name: row[field.name] for field in fields(kind)})  # type: ignore[arg-type]
