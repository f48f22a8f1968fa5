"""The first stage: one consistent read of the source becomes an immutable snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import EmptyPartition, ExtractError, InconsistentRead
from pipeline.job import Extract, HistoryQuery, Source
from pipeline.query import Query, Reader, compose, parse
from pipeline.run import Parameter, Snapshot
from pipeline.scoring.boundary import arrow_schema, check_schema, conform, undeclared_schema
from pipeline.scoring.fingerprint import Fingerprint, combined, of_table
from pipeline.streams import ahead, rebatch

COMPRESSION = "zstd"
ROWS = "extract.sql"
PARAMETERS = "validate.parameters"


@dataclass(frozen=True)
class ExtractPlan:
    """What one run reads: the partition, each feature version's history, the suite's bounds."""

    extract: Extract
    sources: Mapping[str, Source]
    history: Mapping[str, HistoryQuery]
    parameters: str | None = None


def extract(reader: Reader, plan: ExtractPlan, folder: Path) -> Snapshot:
    """Write the snapshot of one partition into `folder`: rows, history, parameters, fingerprint.

    Raises EmptyPartition, MissingTable, ChangedColumn, InconsistentRead, ExtractError or TransientError, and
    leaves no snapshot then.
    """
    path = folder / "snapshot.parquet"
    with _nothing_on_failure(path):
        written = _write_rows(reader, plan, path)
        history = {name: folder / f"{name}.parquet" for name in plan.history}
        digests = {name: _write_history(reader, plan, name, file) for name, file in history.items()}
        parameters = _parameters(reader, plan)
    return Snapshot(
        path=path,
        rows=written.rows,
        bytes=written.bytes,
        fingerprint=combined(written.fingerprint, digests, parameters),
        history=history,
        parameters=parameters,
        warnings=tuple(f"extra column {name!r} is not declared and was left out" for name in written.extra),
        proved=reader.consistent,
        digests={ROWS: written.fingerprint, **{_place(name): digest for name, digest in digests.items()}},
    )


def questions(plan: ExtractPlan, binds: Mapping[str, date | datetime]) -> dict[str, str]:
    """sha256 of what each query of a plan asks, by its place: SQL, key and types, its sources, the binds.

    Equal questions to an unchanged source have equal answers.
    """
    rows = plan.extract.model_dump(mode="json", exclude={"sql"})
    asked: dict[str, tuple[str, object]] = {ROWS: (plan.extract.sql, rows)}
    asked |= {_place(name): (query.sql, list(query.key)) for name, query in plan.history.items()}
    if plan.parameters is not None:
        asked[PARAMETERS] = (plan.parameters, None)
    at = {name: value.isoformat() for name, value in binds.items()}
    return {place: _question(sql, rest, plan.sources, at) for place, (sql, rest) in asked.items()}


def _question(sql: str, rest: object, sources: Mapping[str, Source], binds: Mapping[str, str]) -> str:
    named = {table.name for table in parse(sql).tables()}
    known = {name: source.model_dump() for name, source in sources.items() if name in named}
    return hashlib.sha256(json.dumps([sql, rest, known, binds], sort_keys=True).encode()).hexdigest()


def answers(asked: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a snapshot that `asked` these questions holds the answer to all that are `wanted`."""
    return set(wanted.values()) <= set(asked.values())


def answered(sealed: Snapshot, plan: ExtractPlan, wanted: Mapping[str, str]) -> Snapshot:
    """The part of a snapshot that answers a plan's questions, as reading it for that plan would give it.

    The fingerprint included. What the snapshot holds beyond, such as another version's history, is left out.
    """
    held = {sealed.questions[_place(name)]: name for name in sealed.history}
    names = {name: held[wanted[_place(name)]] for name in plan.history}
    digests = {name: sealed.digests[_place(held_as)] for name, held_as in names.items()}
    parameters = sealed.parameters if plan.parameters is not None else {}
    return replace(
        sealed,
        fingerprint=combined(sealed.digests[ROWS], digests, parameters),
        history={name: sealed.history[held_as] for name, held_as in names.items()},
        parameters=parameters,
        digests={ROWS: sealed.digests[ROWS], **{_place(name): digest for name, digest in digests.items()}},
        questions=wanted,
    )


def _place(history: str) -> str:
    return f"history.{history}.sql"


@contextmanager
def _nothing_on_failure(path: Path) -> Iterator[None]:
    """A Parquet writer that fails closes its file, which then reads as if it were whole."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Written:
    rows: int
    bytes: int
    fingerprint: str
    extra: tuple[str, ...]


def _write_rows(reader: Reader, plan: ExtractPlan, path: Path) -> _Written:
    sql = compose(Query(ROWS, plan.extract.sql), plan.sources, reader.dialect)
    boundary = _Boundary(plan.extract, typed=reader.typed)
    fingerprint = Fingerprint(boundary.schema)
    rows = size = 0
    with pq.ParquetWriter(path, boundary.schema, compression=COMPRESSION) as writer:
        for batch in ahead(rebatch(boundary.conformed(reader.batches(sql)))):
            fingerprint.update(batch)
            writer.write_batch(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    if reader.consistent:
        _prove_count(reader, sql, rows)
    if rows == 0 and not plan.extract.empty_is_normal:
        raise EmptyPartition(
            "the partition must have rows; got none. If an empty day is normal, "
            "declare extract.empty_is_normal: true"
        )
    return _Written(rows, size, fingerprint.hexdigest(), boundary.extra)


class _Boundary:
    """Conforms a stream to the declared columns, and remembers which columns it left out."""

    def __init__(self, declared: Extract, *, typed: bool) -> None:
        self._columns, self._typed = declared.columns, typed
        self.schema = arrow_schema(declared.columns)
        self.extra: tuple[str, ...] = ()

    def conformed(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches with exactly the schema; a source without types may change them from batch to batch."""
        seen = None
        for batch in batches:
            if batch.schema != seen:
                self.extra = check_schema(batch.schema, self._columns, typed=self._typed)
                seen = batch.schema
            yield conform(batch, self.schema)


def _prove_count(reader: Reader, sql: str, rows: int) -> None:
    counted = _only_row(reader, f"select count(*) as n from ({sql}) counted", "count(*)")["n"]
    if counted != rows:
        raise InconsistentRead(
            f"the rows read must equal count(*) in the same transaction; got {rows} of {counted}"
        )


def _write_history(reader: Reader, plan: ExtractPlan, name: str, path: Path) -> str:
    """Write one history query's rows, sorted by its key; their fingerprint.

    That the key is unique is checked where the features look rows up (pipeline.frames).
    """
    key = plan.history[name].key
    query = Query(_place(name), plan.history[name].sql)
    table = _table(reader, compose(query, plan.sources, reader.dialect), query.place)
    missing = [column for column in key if column not in table.column_names]
    if missing:
        raise ExtractError(f"history {name!r} must give its key columns; got none named {missing}")
    table = table.sort_by([(column, "ascending") for column in key])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression=COMPRESSION)
    return of_table(table)


def _parameters(reader: Reader, plan: ExtractPlan) -> dict[str, Parameter]:
    if plan.parameters is None:
        return {}
    query = Query(PARAMETERS, plan.parameters)
    return _only_row(reader, compose(query, plan.sources, reader.dialect), query.place)


def _only_row(reader: Reader, sql: str, place: str) -> dict[str, Parameter]:
    rows: list[dict[str, Parameter]] = _table(reader, sql, place).to_pylist()
    if len(rows) != 1:
        raise ExtractError(f"{place} must give exactly one row; got {len(rows)}")
    return rows[0]


def _table(reader: Reader, sql: str, place: str) -> pa.Table:
    """All rows of a query whose columns are not declared, in plain types."""
    batches = [pa.Table.from_batches([batch]) for batch in reader.batches(sql)]
    undeclared_schema(batches[0].schema, place)
    try:
        table = pa.concat_tables(batches, promote_options="permissive")
    except pa.ArrowException as error:
        raise ExtractError(f"{place} must give each column one type in all rows; cast in its SQL") from error
    schema = undeclared_schema(table.schema, place)
    return pa.Table.from_batches([conform(batch, schema) for batch in table.to_batches()], schema)
