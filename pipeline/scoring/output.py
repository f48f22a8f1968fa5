"""Prediction rows: what is answered for a batch becomes the batches that the two sinks take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.job import OUTPUT_COLUMNS, Job
from pipeline.partition import ARROW_TYPE, COLUMN
from pipeline.run import Run
from pipeline.scoring.boundary import arrow_schema

_TYPES: Mapping[str, pa.DataType] = {
    COLUMN: ARROW_TYPE,
    "run_no": pa.int64(),
    "score": pa.float64(),
    "decision": pa.bool_(),
    "score_source": pa.string(),
    "score_age_days": pa.int32(),
    "arm": pa.string(),
    "model_version": pa.int32(),
    "run_id": pa.string(),
    "scored_at": pa.timestamp("us", tz="UTC"),
}
_LOW_CARDINALITY = ("decision", "score_source", "score_age_days", "arm", "model_version", "run_id", "scored_at")


@dataclass(frozen=True)
class Answer:
    """What was answered for n rows; a NaN score means that nobody answered.

    `sources` holds ScoreSource names, `ages` days or -1 for fresh scores, `versions` model versions or -1.
    """

    scores: npt.NDArray[np.float64]
    sources: npt.NDArray[np.object_]
    ages: npt.NDArray[np.int32]
    versions: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prediction:
    """One batch of answered rows, as each sink takes it, and the snapshot rows nobody answered."""

    parquet: pa.RecordBatch
    sql: pa.RecordBatch
    unanswered: npt.NDArray[np.int64]


def parquet_schema(job: Job) -> pa.Schema:
    """The published file's columns; the day stands in the folder's name, as Hive partitioning has it."""
    names = [name for name in OUTPUT_COLUMNS if name != COLUMN]
    return pa.schema([*_key_fields(job), *((name, _TYPES[name]) for name in names)])


def sql_schema(job: Job) -> pa.Schema:
    """The columns of the job's rows in the warehouse."""
    names = [name for name in OUTPUT_COLUMNS if name not in (COLUMN, "run_id")]
    return pa.schema(
        [
            (COLUMN, _TYPES[COLUMN]),
            ("run_no", _TYPES["run_no"]),
            *_key_fields(job),
            *((name, _TYPES[name]) for name in names),
        ]
    )


def dictionary_columns(job: Job) -> list[str]:
    """The Parquet columns that repeat few values."""
    text = [field.name for field in _key_fields(job) if pa.types.is_string(field.type)]
    return [*text, *_LOW_CARDINALITY]


def assemble(
    job: Job, run: Run, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64], answer: Answer, at: datetime
) -> Prediction:
    """The rows of `rows` (snapshot positions `numbers`) with their answers, in the same order."""
    answered = ~np.isnan(answer.scores)
    kept = rows if answered.all() else rows.filter(pa.array(answered))
    threshold = job.declaration.model.threshold
    scores = answer.scores[answered]
    count = len(scores)
    values: dict[str, pa.Array] = {
        "score": pa.array(scores),
        "decision": pa.nulls(count, pa.bool_()) if threshold is None else pa.array(scores >= threshold),
        "score_source": pa.array(answer.sources[answered], pa.string()),
        "score_age_days": _or_null(answer.ages[answered]),
        "arm": pa.nulls(count, pa.string()),
        "model_version": _or_null(answer.versions[answered]),
        "run_id": pa.repeat(pa.scalar(run.run_id), count),
        "scored_at": pa.repeat(pa.scalar(at, _TYPES["scored_at"]), count),
        COLUMN: pa.repeat(pa.scalar(run.partition.day, ARROW_TYPE), count),
        "run_no": pa.repeat(pa.scalar(run.run_no), count),
    }
    values |= {name: kept.column(name) for name in job.declaration.extract.key}
    return Prediction(
        parquet=_batch(parquet_schema(job), values),
        sql=_batch(sql_schema(job), values),
        unanswered=numbers[~answered],
    )


def fresh(scores: npt.NDArray[np.float64], source: str, version: int) -> Answer:
    """The answer of one model for all rows."""
    count = len(scores)
    return Answer(
        scores=scores,
        sources=np.full(count, source, dtype=object),
        ages=np.full(count, -1, dtype=np.int32),
        versions=np.full(count, version, dtype=np.int32),
    )


def merged(count: int, parts: Sequence[tuple[npt.NDArray[np.bool_], Answer]]) -> Answer:
    """One answer for `count` rows out of answers for disjoint subsets of them."""
    whole = Answer(
        scores=np.full(count, np.nan),
        sources=np.full(count, None, dtype=object),
        ages=np.full(count, -1, dtype=np.int32),
        versions=np.full(count, -1, dtype=np.int32),
    )
    for mask, answer in parts:
        for name in ("scores", "sources", "ages", "versions"):
            getattr(whole, name)[mask] = getattr(answer, name)
    return whole


def _key_fields(job: Job) -> list[pa.Field]:
    schema = arrow_schema(job.declaration.extract.columns)
    return [schema.field(name) for name in job.declaration.extract.key]


def _or_null(values: npt.NDArray[np.int32]) -> pa.Array:
    return pa.array(values, pa.int32(), mask=values < 0)


def _batch(schema: pa.Schema, values: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema)
