"""Prediction rows: what is answered for a batch becomes the batches that the two sinks take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job import OUTPUT_COLUMNS, Job
from pipeline.partition import ARROW_TYPE, COLUMN
from pipeline.run import MASK, WITHHELD, Run
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
_LOW_CARDINALITY = (
    "decision",
    "score_source",
    "score_age_days",
    "arm",
    "model_version",
    "run_id",
    "scored_at",
)

UNANSWERED = pa.schema(
    [
        ("row", pa.int64()),
        ("verdict", pa.string()),
        ("rule", pa.string()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("key", pa.string()),
    ]
)
"""Rows that no step of a chain answered, as the quarantine takes them (see `run.Verdicts`)."""
_ANSWERED = "engine:answered"


@dataclass(frozen=True)
class Prediction:
    """One batch of answered rows, as each sink takes it, and the rows nobody answered (`UNANSWERED`)."""

    parquet: pa.RecordBatch
    sql: pa.RecordBatch
    unanswered: pa.RecordBatch


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


def shadow_schema(job: Job) -> pa.Schema:
    """The columns of a shadow's rows in the warehouse."""
    names = ("score", "decision", "model_version", "scored_at")
    own = [(name, _TYPES[name]) for name in names]
    keyed = [(COLUMN, _TYPES[COLUMN]), ("run_no", _TYPES["run_no"]), *_key_fields(job)]
    return pa.schema([*keyed, *own])


def dictionary_columns(job: Job) -> list[str]:
    """The Parquet columns that repeat few values."""
    text = [field.name for field in _key_fields(job) if pa.types.is_string(field.type)]
    return [*text, *_LOW_CARDINALITY]


def assemble(
    job: Job,
    run: Run,
    rows: pa.RecordBatch,
    numbers: npt.NDArray[np.int64],
    answers: Mapping[str, pa.Array],
    at: datetime,
) -> Prediction:
    """The rows of `rows` (snapshot positions `numbers`) with their answers, in the same order.

    `answers` has score, score_source, score_age_days and model_version, and arm where a challenger takes
    part; a null score means that nobody answered, and the row is left out.
    """
    answered = answers["score"].is_valid()
    missing = pc.invert(answered)
    unanswered = _unanswered(job, rows.filter(missing), numbers[missing.to_numpy(zero_copy_only=False)])
    if unanswered.num_rows:
        rows = rows.filter(answered)
        answers = {name: column.filter(answered) for name, column in answers.items()}
    count = rows.num_rows
    threshold = job.declaration.model.threshold
    values: dict[str, pa.Array] = {
        "arm": pa.nulls(count, pa.string()),
        **answers,
        "decision": decisions(answers["score"], threshold),
        "run_id": pa.repeat(pa.scalar(run.run_id), count),
        "scored_at": pa.repeat(pa.scalar(at, _TYPES["scored_at"]), count),
        COLUMN: pa.repeat(pa.scalar(run.partition.day, ARROW_TYPE), count),
        "run_no": pa.repeat(pa.scalar(run.run_no, pa.int64()), count),
    }
    values |= {name: rows.column(name) for name in job.declaration.extract.key}
    return Prediction(
        parquet=_batch(parquet_schema(job), values),
        sql=_batch(sql_schema(job), values),
        unanswered=unanswered,
    )


def assemble_shadow(
    job: Job,
    run: Run,
    version: int,
    rows: pa.RecordBatch,
    scores: npt.NDArray[np.float64],
    at: datetime,
) -> pa.RecordBatch:
    """What a shadow says of `rows`, one score a row, in their order."""
    count = rows.num_rows
    values: dict[str, pa.Array] = {
        COLUMN: pa.repeat(pa.scalar(run.partition.day, ARROW_TYPE), count),
        "run_no": pa.repeat(pa.scalar(run.run_no, pa.int64()), count),
        "score": pa.array(scores),
        "decision": decisions(pa.array(scores), job.declaration.model.threshold),
        "model_version": pa.repeat(pa.scalar(version, pa.int32()), count),
        "scored_at": pa.repeat(pa.scalar(at, _TYPES["scored_at"]), count),
    }
    values |= {name: rows.column(name) for name in job.declaration.extract.key}
    return _batch(shadow_schema(job), values)


def decisions(scores: pa.Array, threshold: float | None) -> pa.Array:
    """Whether each score reaches the threshold; null without one."""
    return pa.nulls(len(scores), pa.bool_()) if threshold is None else pc.greater_equal(scores, threshold)


def _unanswered(job: Job, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64]) -> pa.RecordBatch:
    extract = job.declaration.extract
    shown = rows.select(extract.key).to_pylist()
    keys = [{name: MASK if name in extract.pii else value for name, value in row.items()} for row in shown]
    texts = [json.dumps(key, default=str, ensure_ascii=False, separators=(",", ":")) for key in keys]
    count = len(numbers)
    values = [pa.array(numbers), pa.repeat(WITHHELD, count), pa.repeat(_ANSWERED, count)]
    nothing = pa.nulls(count, pa.string())
    return pa.RecordBatch.from_arrays(
        [*values, nothing, nothing, pa.array(texts, pa.string())], schema=UNANSWERED
    )


def _key_fields(job: Job) -> list[pa.Field]:
    schema = arrow_schema(job.declaration.extract.columns)
    return [schema.field(name) for name in job.declaration.extract.key]


def _batch(schema: pa.Schema, values: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema)
