"""The metrics table: what each run's data looked like, and the metrics that readers of a job see.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import psycopg
import sqlalchemy as sa

from pipeline.adapters.tables import metrics, pointer
from pipeline.monitoring.metrics import Metric
from pipeline.partition import Partition
from pipeline.run import Run

_COLUMNS = [column.name for column in metrics.c]


def replace(connection: sa.Connection, run: Run, found: Sequence[Metric]) -> None:
    """Make these the metrics of the run, whatever it had before, except those of the part `estimate`."""
    connection.execute(sa.delete(metrics).where(metrics.c.run_no == run.run_no, metrics.c.part != "estimate"))
    lead = (run.run_no, run.run_id, run.job, run.partition.day)
    target = psycopg.sql.SQL("copy {} ({}) from stdin").format(
        psycopg.sql.Identifier(metrics.schema or "", metrics.name),
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, _COLUMNS)),
    )
    # A COPY within the caller's transaction: some thousand rows in a few milliseconds.
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(target) as copy:
        for one in found:
            copy.write_row((*lead, one.part, one.column, one.metric, one.baseline, one.value))


def of_visible_runs(connection: sa.Connection, job: str, first: Partition, last: Partition) -> pd.DataFrame:
    """The metrics of the runs that readers see, of days from `first` to `last`, both included.

    One row per (day, part, column_name, metric, baseline), sorted so; the columns of the table, day as date.
    """
    statement = (
        sa.select(metrics)
        .join(pointer, pointer.c.run_no == metrics.c.run_no)
        .where(metrics.c.job == job, metrics.c.day.between(first.day, last.day))
        .order_by(*(metrics.c[name] for name in ("day", "part", "column_name", "metric", "baseline")))
    )
    return pd.DataFrame(connection.execute(statement).all(), columns=_COLUMNS)
