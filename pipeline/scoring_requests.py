"""`nightshift requests`: what other systems asked for is answered once each, in order.

A request without a payload is answered from the newest published day; one with a payload, the extract's other
columns as JSON, by the champion through the features that a night makes. What cannot be answered fails alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from pipeline.adapters import scoring_requests as queue
from pipeline.adapters import versions
from pipeline.adapters.scoring_requests import Asked, Reply
from pipeline.adapters.source import open_reader
from pipeline.environment import Environment
from pipeline.errors import ChangedColumn, FeatureError, ModelError, NightshiftError, UsageError
from pipeline.job import ColumnType, Job, Requests
from pipeline.lifecycle.fallback import Step
from pipeline.monitoring.profiler import Profiler
from pipeline.partition import COLUMN, Partition
from pipeline.query import Reader
from pipeline.run import Run
from pipeline.scorers import Scorers, history_name
from pipeline.scoring.boundary import arrow_schema, column_faults, conform
from pipeline.scoring.extract import ExtractPlan, extract

log = structlog.get_logger()


@dataclass(frozen=True)
class Answered:
    """How many requests were answered, failed or expired just now."""

    answered: int
    failed: int
    expired: int


def declared(job: Job) -> Requests:
    """The job's `requests`; raises UsageError where none are declared."""
    if job.declaration.requests is None:
        raise UsageError(
            f"job {job.name} must declare requests to answer them; dags/{job.name}.yaml has none"
        )
    return job.declaration.requests


def answer_requests(env: Environment, job: Job) -> Answered:
    """Answer what is queued now. Another process at the same time answers other requests.

    Raises RegistryError or ModelError where there is no champion or it cannot be loaded, ExtractError or
    TransientError where its history cannot be read: requests stay queued until they expire.
    """
    limits = declared(job)
    with env.engine.begin() as connection:
        expired = queue.expire(connection, job, limits.expire_after_hours)
        failed = queue.refuse_bad_keys(connection, job) + queue.give_up(connection, job)
        last = queue.last_queued(connection, job)
    with env.engine.begin() as connection:
        answered = queue.answer_published(connection, job)
    replies = [reply for batch in _asked(env, job, last) for reply in batch]
    refused = sum(reply.error is not None for reply in replies)
    done = Answered(answered + len(replies) - refused, failed + refused, expired)
    log.info("requests", job=job.name, **vars(done))
    return done


def _asked(env: Environment, job: Job, last: int) -> Iterator[list[Reply]]:
    """Requests with a payload up to the `last`, batch after batch."""
    while True:
        with env.engine.begin() as connection:
            numbers = queue.attempt(connection, job, last)
        if not numbers:
            return
        try:
            replies = _answered(env, job, numbers)
        except NightshiftError:
            # What a request is at fault for is its reply; what ends all of them is no attempt at any.
            with env.engine.begin() as connection:
                queue.take_back(connection, numbers)
            raise
        yield replies


def _answered(env: Environment, job: Job, numbers: Sequence[int]) -> list[Reply]:
    """One batch, in one transaction."""
    with env.engine.begin() as connection:
        asked = queue.lock_asked(connection, numbers)
        champion = versions.in_force(connection, job.name)
        version = versions.version(connection, job.name, champion.version)
        partition = job.newest_partition(datetime.now(UTC))
        replies = list(_scored(env, job, version, partition, asked))
        queue.reply(connection, replies, {"day": partition.day, "model_version": version.version})
    return replies


def _scored(
    env: Environment, job: Job, version: versions.ModelVersion, partition: Partition, asked: Sequence[Asked]
) -> Iterator[Reply]:
    rows: dict[int, pa.RecordBatch] = {}
    for request in asked:
        try:
            rows[request.request_no] = typed_row(request, version.extract.columns, partition)
        except ChangedColumn as error:
            yield Reply(request.request_no, error=str(error))
    if not rows:
        return
    with env.store.workspace() as folder:
        step = _champion(env, job, version, partition, list(rows.values()), folder)
        yield from _halved(step, rows, job.declaration.model.threshold)


def typed_row(request: Asked, columns: Mapping[str, ColumnType], partition: Partition) -> pa.RecordBatch:
    """One row of the extract's columns, with the types of the boundary; the day is the partition's.

    Raises ChangedColumn when a column is missing, unknown, null where it may not be, or of another type.
    """
    try:
        key, payload = json.loads(request.key), json.loads(request.payload)
    except (RecursionError, ValueError) as error:
        # PostgreSQL takes numbers of more digits, and deeper nesting, than Python does.
        raise ChangedColumn(f"key and payload must be JSON to read; got {type(error).__name__}") from None
    if not (isinstance(payload, dict) and isinstance(key, dict)):
        raise ChangedColumn("key and payload must be objects; one is not")
    given = {**payload, **key, COLUMN: partition.day}
    if unknown := sorted(set(given) - set(columns)):
        raise ChangedColumn(
            f"the payload must hold columns of the extract alone; got {', '.join(unknown)[:200]}"
        )
    values = {name: given.get(name) for name, kind in columns.items() if name in given or kind[-1] == "?"}
    try:
        # JSON has one kind of number, and PostgreSQL writes 1e20 without its exponent.
        values |= {
            name: float(value)
            for name, value in values.items()
            if type(value) is int and columns[name].rstrip("?") == "float"
        }
        batch = pa.RecordBatch.from_pylist([values], schema=_inferred(values))
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise ChangedColumn(f"the payload must hold plain values; got {type(error).__name__}") from None
    if faults := column_faults(batch.schema, columns, typed=False):
        raise ChangedColumn(f"key and payload must hold the extract's columns: {'; '.join(faults)}")
    nulls = [name for name, kind in columns.items() if kind[-1] != "?" and values[name] is None]
    if nulls:
        raise ChangedColumn(f"the payload must have no null in {', '.join(nulls)}")
    try:
        return conform(batch, arrow_schema(columns))
    except pa.ArrowException as error:
        raise ChangedColumn(f"the payload must fit its columns' types; got {type(error).__name__}") from None


def _inferred(values: Mapping[str, Any]) -> pa.Schema:
    return pa.schema([(name, pa.infer_type([value])) for name, value in values.items()])


class _WithRows:
    """A reader of the source whose extract is what was asked; history stays the source's."""

    consistent = False
    typed = True

    def __init__(self, source: Reader, rows: Sequence[pa.RecordBatch]) -> None:
        self._source, self._rows, self._is_extract = source, rows, True
        self.dialect = source.dialect

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The asked rows for the first statement, the source's for all that follow."""
        if self._is_extract:
            self._is_extract = False
            return iter(self._rows)
        return self._source.batches(sql)


def _champion(
    env: Environment,
    job: Job,
    version: versions.ModelVersion,
    partition: Partition,
    rows: Sequence[pa.RecordBatch],
    folder: Path,
) -> Step:
    """The champion over the history of a day, read as a night reads it."""
    history = {history_name(version, name): query for name, query in version.history.items()}
    plan = ExtractPlan(version.extract, job.declaration.sources, history)
    instants = job.instants(partition)
    with open_reader(env.source_url, instants.binds()) as source:
        snapshot = extract(_WithRows(source, rows), plan, folder)
    run = Run(0, "requests", job.name, partition, 0, version.version, "running", "validated")
    scorers = Scorers(env, job, run, snapshot, [version], folder)
    profiler = Profiler(version.extract, instants, job.declaration.model.threshold)
    return scorers.model_step("champion", profiler)


def _halved(step: Step, rows: Mapping[int, pa.RecordBatch], threshold: float | None) -> Iterator[Reply]:
    """Answers in the order of the requests; where rows fail together, each half is tried by itself."""
    numbers = list(rows)
    table = pa.Table.from_batches(list(rows.values())).combine_chunks()
    try:
        (batch,) = table.to_batches()
        scores = step(batch).scores
    except (FeatureError, ModelError) as error:
        if len(numbers) == 1:
            yield Reply(numbers[0], error=str(error))
            return
        middle = len(numbers) // 2
        for part in (numbers[:middle], numbers[middle:]):
            yield from _halved(step, {number: rows[number] for number in part}, threshold)
        return
    for number, score in zip(numbers, scores.tolist(), strict=True):
        yield Reply(number, score, None if threshold is None else score >= threshold)
