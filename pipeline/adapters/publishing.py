"""Prediction rows in the warehouse: loaded unseen under their run number, then shown by moving a pointer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from adbc_driver_postgresql import dbapi
from sqlalchemy.dialects.postgresql import dialect

from pipeline.adapters import ledger
from pipeline.adapters.migrate import rows_table
from pipeline.adapters.source import driver_errors, plain_url
from pipeline.adapters.tables import SCHEMA, pointer, publications, run_parts, runs
from pipeline.errors import FatalError, SealError
from pipeline.partition import Partition
from pipeline.run import BATCH_ROWS, Run

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]

_WRITABLE = (
    f"select 1 from {SCHEMA}.runs where run_no = $1 and status = 'running' and stage = 'validated' for share"
)
_PART = (
    f"insert into {SCHEMA}.run_parts (run_no, part, rows, sha256, score_sources, rows_withheld) "
    "values ($1, $2, $3, $4, $5::jsonb, $6)"
)

_QUARANTINE_NAMES = {"column": "column_name"}

FlipResult = Literal["published", "superseded"]


@dataclass(frozen=True)
class LoadedPart:
    """What a part turned out to be, known once its last row is written."""

    rows: int
    sha256: str
    score_sources_json: str
    rows_withheld: int


class PartLoad:
    """One transaction that loads the rows of one part; rolled back unless `commit` is called.

    Use as a context manager. `rows` streams by COPY; `commit` records the part in the same transaction.
    """

    def __init__(self, url: str, run: Run, part: int) -> None:
        self._run, self._part = run, part
        self._connection = dbapi.connect(plain_url(url))

    def __enter__(self) -> PartLoad:
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute(_WRITABLE, (self._run.run_no,))
            if cursor.fetchone() is None:
                self._connection.close()
                raise FatalError(
                    f"run {self._run.run_id} must be at work to take rows; it is sealed, ended or gone"
                )
        return self

    def rows(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Stream batches into the job's rows, as they come."""
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.adbc_ingest(rows_table(self._run.job), reader, mode="append", db_schema_name=SCHEMA)

    def commit(self, part: LoadedPart) -> None:
        """Record the part and make its rows durable."""
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute(
                _PART,
                (
                    self._run.run_no,
                    self._part,
                    part.rows,
                    part.sha256,
                    part.score_sources_json,
                    part.rows_withheld,
                ),
            )
            self._connection.commit()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def load_quarantine(url: str, run: Run, file: Path) -> None:
    """Replace the run's quarantine by a verdicts file, in one transaction."""
    parquet = pq.ParquetFile(file)
    names = [_QUARANTINE_NAMES.get(name, name) for name in parquet.schema_arrow.names]
    schema = pa.schema([("run_no", pa.int64()), *zip(names, parquet.schema_arrow.types, strict=True)])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in parquet.iter_batches(BATCH_ROWS):
            numbers = pa.repeat(pa.scalar(run.run_no), batch.num_rows)
            yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=schema)

    with driver_errors(), dbapi.connect(plain_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"delete from {SCHEMA}.quarantine where run_no = $1", (run.run_no,))
        if parquet.metadata.num_rows:
            reader = pa.RecordBatchReader.from_batches(schema, batches())
            cursor.adbc_ingest("quarantine", reader, mode="append", db_schema_name=SCHEMA)
        connection.commit()


def check_sql_counts(connection: sa.Connection, run: Run, expected: Mapping[str, int]) -> None:
    """Raise SealError unless the warehouse holds exactly these rows for a run, by score_source."""
    got = _sql_counts(connection, run)
    if got != dict(expected):
        raise SealError(
            f"the warehouse must hold {dict(expected)} rows of run {run.run_id}; got {got}. "
            "Nothing was published"
        )


def lock_visible(connection: sa.Connection, job: str, partition: Partition) -> ledger.Record | None:
    """The run that readers see, under the day's lock: nobody else replaces its Parquet file meanwhile."""
    name = f"nightshift parquet {job} {partition}"
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    return ledger.visible_run(connection, job, partition)


def parquet_shown(connection: sa.Connection, job: str, partition: Partition, run_no: int) -> None:
    """Record whose rows the day's Parquet file holds."""
    connection.execute(
        sa.update(pointer)
        .where(pointer.c.job == job, pointer.c.day == partition.day)
        .values(parquet_run_no=run_no)
    )


def _sql_counts(connection: sa.Connection, run: Run) -> dict[str, int]:
    statement = sa.text(
        f"select score_source, count(*) from {SCHEMA}.{_quote(rows_table(run.job))} "
        "where day = :day and run_no = :run_no group by score_source"
    )
    values = {"day": run.partition.day, "run_no": run.run_no}
    return dict(connection.execute(statement, values).tuples().all())


def seal(connection: sa.Connection, run: Run, counts: Mapping[str, object]) -> None:
    """Close a run to further rows and record its counts; raises SealError if it is not at work."""
    sealed = connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run.run_no, runs.c.status == "running")
        .values(stage="sealed", **counts)
    )
    if sealed.rowcount != 1:
        raise SealError(f"run {run.run_id} must be at work to be sealed; it has ended")


def flip(connection: sa.Connection, run: Run) -> FlipResult:
    """Let readers see a sealed run, unless a newer token has been published; one short transaction.

    Raises SealError for a run that is not sealed. Publishing a published run again changes nothing.
    """
    connection.exec_driver_sql("set local lock_timeout = '5s'")
    state = connection.execute(
        sa.select(runs.c.status, runs.c.stage).where(runs.c.run_no == run.run_no).with_for_update()
    ).one()
    if state.status == "published":
        return "published"
    if state.stage != "sealed":
        raise SealError(f"run {run.run_id} must be sealed before it is published; it is {state.stage}")
    moved = connection.execute(_move_pointer(run)).scalar_one_or_none()
    if moved is None:
        _end(connection, run, "superseded", "sealed")
        return "superseded"
    here = (publications.c.job == run.job, publications.c.day == run.partition.day)
    connection.execute(
        sa.update(publications)
        .where(*here, publications.c.superseded_at.is_(None))
        .values(superseded_at=moved)
    )
    connection.execute(
        sa.insert(publications).values(
            job=run.job,
            day=run.partition.day,
            token=run.token,
            run_no=run.run_no,
            published_at=moved,
        )
    )
    _end(connection, run, "published", "published")
    return "published"


def _move_pointer(run: Run) -> sa.sql.dml.ReturningUpdate[tuple[datetime | None]]:
    # Instants of one (job, day) always grow, whatever the clock does.
    later = sa.func.greatest(
        sa.func.clock_timestamp(), pointer.c.published_at + sa.text("interval '1 microsecond'")
    )
    return (
        sa.update(pointer)
        .where(
            pointer.c.job == run.job,
            pointer.c.day == run.partition.day,
            pointer.c.token < run.token,
        )
        .values(token=run.token, run_no=run.run_no, published_at=later)
        .returning(pointer.c.published_at)
    )


def _end(connection: sa.Connection, run: Run, status: FlipResult, stage: str) -> None:
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no == run.run_no)
        .values(
            status=status,
            stage=stage,
            finished_at=sa.func.clock_timestamp(),
            error_type=None,
            error_message=None,
        )
    )


def retire_older(connection: sa.Connection, run: Run) -> None:
    """Mark runs of the same day that can never publish any more; those busy at this moment are left."""
    older = (
        sa.select(runs.c.run_no)
        .where(
            runs.c.job == run.job,
            runs.c.day == run.partition.day,
            runs.c.token < run.token,
            runs.c.status == "running",
        )
        .with_for_update(skip_locked=True)
    )
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_no.in_(older.scalar_subquery()))
        .values(status="superseded", finished_at=sa.func.clock_timestamp())
    )


def drop_parts(connection: sa.Connection, run: Run) -> None:
    """Remove a run's loaded rows, so that its scoring can be done again from the start."""
    rows = f"{SCHEMA}.{_quote(rows_table(run.job))}"
    connection.execute(
        sa.text(f"delete from {rows} where day = :day and run_no = :run_no"),
        {"day": run.partition.day, "run_no": run.run_no},
    )
    connection.execute(sa.delete(run_parts).where(run_parts.c.run_no == run.run_no))
