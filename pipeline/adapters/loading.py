"""Rows on their way into the warehouse: copied under their run number, unseen until the pointer moves."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipeline.adapters.arrow_connection import arrow_connection
from pipeline.adapters.driver_errors import driver_errors
from pipeline.adapters.job_tables import rows_table, shadow_table
from pipeline.adapters.tables import SCHEMA
from pipeline.adapters.warehouse import quoted
from pipeline.errors import FatalError, RunError, SealError, TransientError
from pipeline.run import BATCH_ROWS, Run, Stage

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection, Cursor

# Held until the end of the load. Shards hold it together; sealing waits for them, and refuses later ones.
_AT_WORK = f"""
select 1 from {SCHEMA}.runs where run_no = $1 and status = 'running' and stage = $2
"""
_SHARD = f"{_AT_WORK} for key share"
_ALONE = f"{_AT_WORK} for no key update"
# The part is claimed before its first row: of two attempts at once, one waits for the other.
_CLAIM = f"""
insert into {SCHEMA}.run_parts (run_no, part, rows, sha256, score_sources, rows_withheld)
values ($1, $2, 0, '', '{{}}', 0) on conflict do nothing returning part
"""
_RECORD = f"""
update {SCHEMA}.run_parts set rows = $3, sha256 = $4, score_sources = $5::jsonb, rows_withheld = $6
where run_no = $1 and part = $2
"""

_QUARANTINE_NAMES = {"column": "column_name"}


@dataclass(frozen=True)
class LoadedPart:
    """What a part turned out to be, known once its last row is written."""

    rows: int
    sha256: str
    score_sources_json: str
    rows_withheld: int


class PartLoad:
    """One transaction that loads the rows of one part; rolled back unless `commit` is called.

    Use as a context manager: it holds the run's row and the part's record, so nobody can seal the run or
    load the same part meanwhile; other parts can be loaded. Entering raises FatalError when the run takes no
    rows any more, TransientError when the part is loaded already.
    """

    def __init__(self, url: str, run: Run, part: int) -> None:
        self._url, self._run, self._part = url, run, part

    def __enter__(self) -> PartLoad:
        with driver_errors():
            self._connection = arrow_connection(self._url)
        try:
            self._claim()
        except BaseException:
            self._connection.close()
            raise
        return self

    def _claim(self) -> None:
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute("set local lock_timeout = '60s'")
            _hold(cursor, _SHARD, self._run, "validated")
            cursor.execute(_CLAIM, (self._run.run_no, self._part))
            if cursor.fetchone() is None:
                raise TransientError(
                    f"part {self._part} of run {self._run.run_id} must be loaded once; another attempt has "
                    "loaded it. Go on from there"
                )

    def rows(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Stream batches into the job's rows, as they come."""
        _copy(self._connection, rows_table(self._run.job), schema, batches)

    def quarantine(self, rows: pa.Table) -> None:
        """Keep rows of the part that nobody answered, lines as in `run.Verdicts`."""
        if rows.num_rows:
            _copy_quarantine(self._connection, self._run, rows.schema, rows.to_batches())

    def commit(self, part: LoadedPart) -> None:
        """Record the part and make its rows durable."""
        values = (part.rows, part.sha256, part.score_sources_json, part.rows_withheld)
        with driver_errors(), self._connection.cursor() as cursor:
            cursor.execute(_RECORD, (self._run.run_no, self._part, *values))
            self._connection.commit()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def load_shadow(url: str, run: Run, part: int, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Put a shadow's rows of one part in the place of those of an earlier attempt, in one transaction."""
    table = shadow_table(run.job)
    own = pa.field("part", pa.int32())

    def of_part() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.append_column(own, pa.repeat(pa.scalar(part, pa.int32()), batch.num_rows))

    with driver_errors(), arrow_connection(url) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                f"delete from {SCHEMA}.{quoted(table)} where day = $1 and run_no = $2 and part = $3",
                (run.partition.day, run.run_no, part),
            )
        _copy(connection, table, schema.append(own), of_part())
        connection.commit()


def shadow_rows(url: str, run: Run, key: Sequence[str]) -> pa.Table:
    """What a shadow said in a run: the key columns, score and decision."""
    columns = ", ".join([*map(quoted, key), "score", "decision"])
    statement = (
        f"select {columns} from {SCHEMA}.{quoted(shadow_table(run.job))} where day = $1 and run_no = $2"
    )
    with driver_errors(), arrow_connection(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement, (run.partition.day, run.run_no))
        found: pa.Table = cursor.fetch_arrow_table()
        return found


def _hold(cursor: Cursor, lock: str, run: Run, stage: Stage) -> None:
    cursor.execute(lock, (run.run_no, stage))
    if cursor.fetchone() is None:
        raise FatalError(
            f"run {run.run_id} must be at work and {stage} to take rows; it is further on, ended or gone"
        )


def _copy(connection: Connection, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    failures: list[BaseException] = []
    with closing(_watched(batches, failures)) as stream, connection.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(schema, stream)
        try:
            with driver_errors():
                cursor.adbc_ingest(table, reader, mode="append", db_schema_name=SCHEMA)
        except RunError:
            # The driver knows of a failed stream only that it failed.
            if failures:
                raise failures[0] from None
            raise


def _watched(
    batches: Iterable[pa.RecordBatch], failures: list[BaseException]
) -> Generator[pa.RecordBatch, None, None]:
    try:
        yield from batches
    except GeneratorExit:
        raise
    except BaseException as error:
        failures.append(error)
        raise


def load_quarantine(url: str, run: Run, file: Path) -> None:
    """Replace the quarantine of a run at validation by a verdicts file, in one transaction.

    Raises FatalError when the run has been validated already, or has ended.
    """
    parquet = pq.ParquetFile(file)
    with driver_errors(), arrow_connection(url) as connection:
        with connection.cursor() as cursor:
            _hold(cursor, _ALONE, run, "extracted")
            cursor.execute(f"delete from {SCHEMA}.quarantine where run_no = $1", (run.run_no,))
        _copy_quarantine(connection, run, parquet.schema_arrow, parquet.iter_batches(BATCH_ROWS))
        connection.commit()


def _copy_quarantine(
    connection: Connection, run: Run, lines: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> None:
    names = [_QUARANTINE_NAMES.get(name, name) for name in lines.names]
    own = [("run_no", pa.int64()), ("run_id", pa.string())]
    schema = pa.schema([*own, *zip(names, lines.types, strict=True)])

    def of_run() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            first = [pa.repeat(value, batch.num_rows) for value in (run.run_no, run.run_id)]
            yield pa.RecordBatch.from_arrays([*first, *batch.columns], schema=schema)

    _copy(connection, "quarantine", schema, of_run())


def check_sql_counts(connection: sa.Connection, run: Run, expected: Mapping[str, int]) -> None:
    """Raise SealError unless the warehouse holds exactly these rows for a run, by score_source."""
    statement = sa.text(
        f"select score_source, count(*) from {SCHEMA}.{quoted(rows_table(run.job))} "
        "where day = :day and run_no = :run_no group by score_source"
    )
    values = {"day": run.partition.day, "run_no": run.run_no}
    got: dict[str, int] = dict(connection.execute(statement, values).all())
    if got != dict(expected):
        raise SealError(
            f"the warehouse must hold {dict(expected)} rows of run {run.run_id}; got {got}. "
            "Nothing was published"
        )
