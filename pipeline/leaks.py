"""The leak probe: what was known after the cut-off is scrambled, then deleted; no feature may change.

Rows of a source with `known_at` are late when it lies after the cut-off. An `overwritten` source does not
tell, so there every row counts as late that carries a date from the day on or an instant after the cut-off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.adapters.source import open_reader
from pipeline.adapters.versions import ModelVersion
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.frames import history_frame
from pipeline.job import Job, Source
from pipeline.partition import Partition
from pipeline.query import Dialect, Reader
from pipeline.replay import tree_code
from pipeline.scorers import feature_code
from pipeline.scoring.extract import ExtractPlan, extract
from pipeline.scoring.feature_code import FeatureCode
from pipeline.scoring.featurize import features

Mode = Literal["scrambled", "deleted"]
_MODES: tuple[Mode, ...] = ("scrambled", "deleted")


@dataclass(frozen=True)
class Leak:
    """One feature, or the extract's rows, that changed with what was not known yet."""

    mode: Mode
    what: str
    rows: int

    def __str__(self) -> str:
        return f"{self.what} changed in {self.rows} rows when later knowledge was {self.mode}"


def probe(
    env: Environment, job: Job, partition: Partition, version: ModelVersion | None = None
) -> list[Leak]:
    """The leaks of queries and features on one day, a version's or the tree's; none is a good answer.

    Raises UsageError where the day has no rows, on which nothing could leak.
    """
    if version is not None:
        job = _as_of_version(job, version)
    code = tree_code(env, job) if version is None else feature_code(version)
    binds = job.instants(partition).binds()

    def opened() -> AbstractContextManager[Reader]:
        return open_reader(env.source_url, binds)

    with opened() as reader:
        schemas = {s.table: _schema(reader, s) for s in job.declaration.sources.values()}
    rows, honest = _features(opened, job, code, lambda dialect: dialect)
    if rows.empty:
        raise UsageError(
            f"{partition} of {job.name} must have rows for leaks to show; got none. Probe another: "
            "--day YYYY-MM-DD"
        )
    leaks = []
    for mode in _MODES:
        altered_rows, altered = _features(opened, job, code, _altering(schemas, mode))
        if altered_rows.equals(rows):
            leaks += _differences(mode, honest, altered)
        else:
            leaks.append(
                Leak(mode, "the rows of extract.sql", abs(len(altered_rows) - len(rows)) or len(rows))
            )
    return leaks


def _as_of_version(job: Job, version: ModelVersion) -> Job:
    queries = {"extract": version.extract, "history": version.history}
    return job.model_copy(update={"declaration": job.declaration.model_copy(update=queries)})


def _features(
    opened: Callable[[], AbstractContextManager[Reader]],
    job: Job,
    code: FeatureCode,
    alter: Callable[[Dialect], Dialect],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows by key, and the features in the same order."""
    declaration = job.declaration
    plan = ExtractPlan(
        extract=declaration.extract.model_copy(update={"empty_is_normal": True}),
        sources=declaration.sources,
        history=declaration.history,
    )
    with tempfile.TemporaryDirectory() as folder, opened() as reader:
        reader.dialect = alter(reader.dialect)
        snapshot = extract(reader, plan, Path(folder))
        ordering = [(name, "ascending") for name in declaration.extract.key]
        table = pq.read_table(snapshot.path).sort_by(ordering).combine_chunks()
        history = {
            name: history_frame(name, pq.read_table(snapshot.history[name]), query.key)
            for name, query in declaration.history.items()
        }
    return table.to_pandas(), features(code, table, declaration.extract.columns, history)


def _differences(mode: Mode, honest: pd.DataFrame, altered: pd.DataFrame) -> list[Leak]:
    leaks = []
    for name in honest.columns:
        same = (honest[name] == altered[name]) | (honest[name].isna() & altered[name].isna())
        if not same.all():
            leaks.append(Leak(mode, f"feature {name!r}", int((~same).sum())))
    return leaks


def _schema(reader: Reader, source: Source) -> pa.Schema:
    table = ".".join(reader.dialect.quote(part) for part in source.table.split("."))
    sql = reader.dialect.literal(f"select * from {table} limit 0")
    return next(iter(reader.batches(sql))).schema


def _altering(schemas: dict[str, pa.Schema], mode: Mode) -> Callable[[Dialect], Dialect]:
    def alter(dialect: Dialect) -> Dialect:
        def relation(source: Source, table: str) -> str:
            late = _late(source, schemas[source.table], dialect)
            if late is None:
                return table
            if mode == "deleted":
                return f"(select * from {table} where not ({late})) altered"
            columns = ", ".join(_scrambled(field, late, dialect) for field in schemas[source.table])
            return f"(select {columns} from {table}) altered"

        return replace(dialect, relation=relation)

    return alter


def _late(source: Source, schema: pa.Schema, dialect: Dialect) -> str | None:
    cutoff, day = dialect.bind("cutoff"), dialect.bind("day")
    if source.known_at is not None:
        return f"{dialect.quote(source.known_at)} > {cutoff}"
    dates = [f"{dialect.quote(f.name)} >= {day}" for f in schema if pa.types.is_date(f.type)]
    instants = [f"{dialect.quote(f.name)} > {cutoff}" for f in schema if pa.types.is_timestamp(f.type)]
    return " or ".join(f"coalesce({mark}, false)" for mark in (*dates, *instants)) or None


def _scrambled(field: pa.Field, late: str, dialect: Dialect) -> str:
    """The column, with another value in late rows; dates and instants stay, they say what is late."""
    name = dialect.quote(field.name)
    if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
        other = f"17 - 3 * {name}"
    elif pa.types.is_boolean(field.type):
        other = f"not {name}"
    elif pa.types.is_string(field.type):
        other = f"{name} || '~'"
    else:
        return name
    return f"case when {late} then {other} else {name} end as {name}"
