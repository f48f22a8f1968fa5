"""Scores one shard of a snapshot: streamed, in parallel over batches, with the fallback chains.

A shard is answered by one model: where the champion fails, the whole shard is scored again by the next step
of the declared chain. Rows that no model may see have their own chain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.adapters import run_files
from pipeline.adapters.publishing import LoadedPart, PartLoad
from pipeline.adapters.store import sha256_of
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.lifecycle.fallback import Answer, Scores, Step
from pipeline.monitoring.profile_file import dumps
from pipeline.monitoring.profiler import Profiler
from pipeline.run import BATCH_ROWS, QUARANTINED, WITHHELD, Run, Verdicts
from pipeline.scoring.output import (
    UNANSWERED,
    Prediction,
    assemble,
    assemble_shadow,
    dictionary_columns,
    parquet_schema,
    sql_schema,
)
from pipeline.streams import ahead, mapped


@dataclass(frozen=True)
class Unfit:
    """The positions of a snapshot's rows that no model may see, sorted."""

    quarantined: npt.NDArray[np.int64]
    withheld: npt.NDArray[np.int64]

    @classmethod
    def of(cls, verdicts: Verdicts) -> Unfit:
        """Read the verdicts' file."""
        table = pq.read_table(verdicts.path, columns=["row", "verdict"])
        return cls(_positions(table, QUARANTINED), _positions(table, WITHHELD))


def _positions(table: pa.Table, verdict: str) -> npt.NDArray[np.int64]:
    found = table.filter(pc.field("verdict") == verdict).column("row")
    positions: npt.NDArray[np.int64] = np.unique(found.to_numpy())
    return positions


@dataclass
class Summary:
    """What became of a shard's rows."""

    score_sources: Counter[str] = field(default_factory=Counter)
    unanswered: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0

    def add(self, prediction: Prediction) -> None:
        """Count one batch."""
        for entry in prediction.parquet.column("score_source").value_counts().to_pylist():
            self.score_sources[entry["values"]] += entry["counts"]
        self.unanswered.append(prediction.unanswered)
        self.rows += prediction.parquet.num_rows


def predictions(
    job: Job,
    run: Run,
    batches: Iterable[tuple[int, pa.RecordBatch]],
    unfit: Unfit,
    good: Step,
    bad: Step,
    withheld: Callable[[pa.RecordBatch], None],
    arms: Callable[[pa.RecordBatch], pa.Array] | None = None,
) -> Iterator[Prediction]:
    """Numbered batches in their order, answered by `good` or `bad`; withheld rows go to `withheld` alone.

    `arms` says of each row in which arm of a rollout it is, whoever answers it.
    """
    at = datetime.now(UTC)

    def answered(item: tuple[int, pa.RecordBatch]) -> Prediction:
        start, batch = item
        numbers = np.arange(start, start + batch.num_rows, dtype=np.int64)
        shown = ~np.isin(numbers, unfit.withheld)
        if not shown.all():
            withheld(batch.filter(pa.array(~shown)))
            batch, numbers = batch.filter(pa.array(shown)), numbers[shown]
        answer = _answer(batch, np.isin(numbers, unfit.quarantined), good, bad)
        columns = answer.columns() | ({"arm": arms(batch)} if arms else {})
        return assemble(job, run, batch, numbers, columns, at)

    yield from mapped(answered, batches, job.declaration.resources.cpus)


def shadows(
    job: Job,
    run: Run,
    version: int,
    batches: Iterable[tuple[int, pa.RecordBatch]],
    unfit: Unfit,
    score: Callable[[pa.RecordBatch], Scores],
) -> Iterator[pa.RecordBatch]:
    """What a version says of the rows that a model may see, in batches of `output.shadow_schema`."""
    at = datetime.now(UTC)
    hidden = np.union1d(unfit.quarantined, unfit.withheld)

    def scored(item: tuple[int, pa.RecordBatch]) -> pa.RecordBatch:
        start, batch = item
        numbers = np.arange(start, start + batch.num_rows, dtype=np.int64)
        seen = batch.filter(pa.array(~np.isin(numbers, hidden)))
        scores = score(seen) if seen.num_rows else np.empty(0)
        return assemble_shadow(job, run, version, seen, scores, at)

    yield from mapped(scored, batches, job.declaration.resources.cpus)


def _answer(batch: pa.RecordBatch, is_bad: npt.NDArray[np.bool_], good: Step, bad: Step) -> Answer:
    if batch.num_rows and not is_bad.any():
        return good(batch)
    answer = Answer.none(batch.num_rows)
    for mask, step in ((~is_bad, good), (is_bad, bad)):
        positions = np.flatnonzero(mask)
        if len(positions):
            answer = answer.put(positions, step(batch.take(pa.array(positions))))
    return answer


def shards(path: Path, rows_per_shard: int) -> int:
    """Among how many shards a snapshot is divided: whole row groups, at least one."""
    metadata = pq.read_metadata(path)
    wanted = -(-metadata.num_rows // rows_per_shard)
    return int(max(1, min(wanted, metadata.num_row_groups)))


def numbered(path: Path, part: int, parts: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of one of `parts` equal shards of a snapshot, each with its first row's position."""
    # pyarrow's default reader buffers whole row groups ahead and is not bounded.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        first, end = (file.num_row_groups * number // parts for number in (part, part + 1))
        start = sum(file.metadata.row_group(group).num_rows for group in range(first))
        for batch in file.iter_batches(BATCH_ROWS, row_groups=range(first, end)):
            yield start, batch
            start += batch.num_rows


def write_part(
    env: Environment,
    job: Job,
    run: Run,
    part: int,
    stream: Iterable[Prediction],
    profiler: Profiler,
    folder: Path,
) -> Summary:
    """Write one part to both sinks: its file and its profile are sealed before its rows are committed."""
    summary = Summary()
    file = folder / f"part-{part:05d}.parquet"
    with PartLoad(env.warehouse_url, run, part) as load:
        with _part_writer(job, run, file) as writer:

            def written() -> Iterator[pa.RecordBatch]:
                for prediction in stream:
                    summary.add(prediction)
                    writer.write_batch(prediction.parquet)
                    yield prediction.sql

            if job.declaration.publish.sql:
                load.rows(sql_schema(job), ahead(written()))
            else:
                for _ in written():
                    continue
        unanswered = pa.Table.from_batches(summary.unanswered, UNANSWERED)
        load.quarantine(unanswered)
        _seal_profile(env, run, part, profiler, folder)
        load.commit(_seal_part(env, run, part, summary, unanswered, file))
    return summary


def _part_writer(job: Job, run: Run, file: Path) -> pq.ParquetWriter:
    provenance = {
        "nightshift.run_id": run.run_id,
        "nightshift.run_no": str(run.run_no),
        "nightshift.token": str(run.token),
    }
    return pq.ParquetWriter(
        file,
        parquet_schema(job).with_metadata(provenance),
        compression="zstd",
        use_dictionary=dictionary_columns(job),
    )


def _seal_profile(env: Environment, run: Run, part: int, profiler: Profiler, folder: Path) -> None:
    target = run_files.profile_file(env.store, run, part)
    local = folder / target.name
    local.write_bytes(dumps(profiler.profile))
    env.store.seal(local, target)


def _seal_part(
    env: Environment, run: Run, part: int, summary: Summary, unanswered: pa.Table, file: Path
) -> LoadedPart:
    positions = file.with_name(f"unanswered-{part:05d}.parquet")
    pq.write_table(unanswered.select(["row"]), positions)
    sha256 = sha256_of(file)
    env.store.seal(positions, run_files.unanswered_file(env.store, run, part))
    env.store.seal(file, run_files.part_file(env.store, run, part))
    return LoadedPart(
        rows=summary.rows,
        sha256=sha256,
        score_sources_json=json.dumps(summary.score_sources),
        rows_withheld=unanswered.num_rows,
    )
