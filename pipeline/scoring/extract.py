"""The first stage: one consistent read of the source becomes an immutable snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import EmptyPartition, ExtractError, InconsistentRead
from pipeline.job import Extract, HistoryQuery, Source
from pipeline.query import Dialect, Query, compose
from pipeline.run import Parameter, Snapshot
from pipeline.scoring.boundary import arrow_schema, check_schema, conform
from pipeline.scoring.fingerprint import Fingerprint, combined, of_table
from pipeline.streams import ahead, rebatch

COMPRESSION = "zstd"


class Reader(Protocol):
    """One consistent view of the source (see adapters.source)."""

    dialect: Dialect
    consistent: bool
    typed: bool

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement; at least one batch, which may be empty."""
        ...


@dataclass(frozen=True)
class ExtractPlan:
    """What one run reads: the partition, each feature version's history, the suite's bounds."""

    extract: Extract
    sources: Mapping[str, Source]
    history: Mapping[str, HistoryQuery]
    parameters: str | None = None


def extract(reader: Reader, plan: ExtractPlan, folder: Path) -> Snapshot:
    """Write the snapshot of one partition into `folder`: rows, history, parameters, fingerprint.

    Raises EmptyPartition, MissingTable, ChangedColumn, InconsistentRead or TransientError.
    """
    query = Query("extract.sql", plan.extract.sql)
    sql = compose(query, plan.sources, reader.dialect)
    path = folder / "snapshot.parquet"
    written = _write_rows(reader.batches(sql), plan.extract, path, typed=reader.typed)
    _prove_count(reader, sql, written.rows)
    if written.rows == 0 and not plan.extract.empty_is_normal:
        raise EmptyPartition(
            "the partition must have rows; got none. If an empty day is normal, "
            "declare extract.empty_is_normal: true"
        )
    history = {
        name: _write_history(reader, plan, name, declared, folder) for name, declared in plan.history.items()
    }
    parameters = _parameters(reader, plan)
    digests = {name: digest for name, (_, digest) in history.items()}
    return Snapshot(
        path=path,
        rows=written.rows,
        bytes=written.bytes,
        fingerprint=combined(written.fingerprint, digests, parameters),
        history={name: file for name, (file, _) in history.items()},
        parameters=parameters,
        warnings=tuple(f"extra column {name!r} is not declared and was left out" for name in written.extra),
        proved=reader.consistent,
    )


@dataclass(frozen=True)
class _Written:
    rows: int
    bytes: int
    fingerprint: str
    extra: tuple[str, ...]


def _write_rows(batches: Iterable[pa.RecordBatch], declared: Extract, path: Path, *, typed: bool) -> _Written:
    schema = arrow_schema(declared.columns)
    fingerprint = Fingerprint(schema)
    extra: tuple[str, ...] | None = None
    rows = size = 0
    with pq.ParquetWriter(path, schema, compression=COMPRESSION) as writer:

        def conformed() -> Iterator[pa.RecordBatch]:
            nonlocal extra
            for batch in batches:
                if extra is None:
                    extra = check_schema(batch.schema, declared.columns, typed=typed)
                yield conform(batch, schema)

        for batch in ahead(rebatch(conformed())):
            fingerprint.update(batch)
            writer.write_batch(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    return _Written(rows, size, fingerprint.hexdigest(), extra or ())


def _prove_count(reader: Reader, sql: str, rows: int) -> None:
    counted = _only_row(reader, f"select count(*) as n from ({sql}) counted", "count(*)")["n"]
    if reader.consistent and counted != rows:
        raise InconsistentRead(
            f"the rows read must equal count(*) in the same transaction; got {rows} of {counted}"
        )


def _write_history(
    reader: Reader, plan: ExtractPlan, name: str, declared: HistoryQuery, folder: Path
) -> tuple[Path, str]:
    query = Query(f"history.{name}.sql", declared.sql)
    table = pa.Table.from_batches(list(reader.batches(compose(query, plan.sources, reader.dialect))))
    missing = [column for column in declared.key if column not in table.column_names]
    if missing:
        raise ExtractError(f"history {name!r} must give its key columns; got none named {missing}")
    table = table.sort_by([(column, "ascending") for column in declared.key])
    path = folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression=COMPRESSION)
    return path, of_table(table)


def _parameters(reader: Reader, plan: ExtractPlan) -> dict[str, Parameter]:
    if plan.parameters is None:
        return {}
    query = Query("validate.parameters", plan.parameters)
    return _only_row(reader, compose(query, plan.sources, reader.dialect), query.place)


def _only_row(reader: Reader, sql: str, place: str) -> dict[str, Parameter]:
    rows = pa.Table.from_batches(list(reader.batches(sql))).to_pylist()
    if len(rows) != 1:
        raise ExtractError(f"{place} must give exactly one row; got {len(rows)}")
    row: dict[str, Parameter] = rows[0]
    return row
