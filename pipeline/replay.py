"""Nights replayed for training: the very extract → validate → featurize that a night runs (law 1)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.adapters import ledger, run_files
from pipeline.adapters.source import open_reader
from pipeline.declaration import feature_file, suite_file
from pipeline.environment import Environment
from pipeline.errors import ExtractError, ValidationError
from pipeline.frames import history_frame
from pipeline.job import Extract, Job
from pipeline.labels import declared_outcomes, match, read_labels
from pipeline.lifecycle.fit import TrainingRows, key_hashes, sample_by_key
from pipeline.monitoring.profile import Profile, profile_inputs
from pipeline.partition import Partition
from pipeline.run import Run, Snapshot
from pipeline.scoring.extract import ExtractPlan, answered, answers, extract, questions
from pipeline.scoring.feature_code import FeatureCode, feeding_queries, load_feature_code
from pipeline.scoring.featurize import features
from pipeline.scoring.suite import Suite, load_suite
from pipeline.streams import ahead

_LABEL = "__label"


@dataclass(frozen=True)
class Replayed:
    """One replayed night: its labelled rows where there are any, what was read, or why it is refused."""

    partition: Partition
    fingerprint: str | None
    rows: TrainingRows | None
    refused: str | None
    inputs: Profile = field(default_factory=Profile)
    """Of all rows of the snapshot, good or bad, labelled or not."""
    reused: str | None = None
    """The run whose sealed snapshot was read instead of the source."""


@dataclass(frozen=True)
class _Read:
    """What a night has read: its snapshot, or the error it would have ended with."""

    partition: Partition
    folder: Path
    snapshot: Snapshot | None
    labels: pa.Table | None
    refused: str | None
    reused: str | None = None


def tree_code(env: Environment, job: Job) -> FeatureCode:
    """The feature code of the tree, with the declaration's queries."""
    source = feature_file(env.project, job.name).read_text(encoding="utf-8")
    declaration = job.declaration
    return load_feature_code(job.name, source, feeding_queries(declaration.extract, declaration.history))


def replay(
    env: Environment, job: Job, code: FeatureCode, days: Sequence[Partition], as_of: datetime
) -> Iterator[Replayed]:
    """Each night with the labels known at `as_of`; a night that would have failed is told as refused.

    Where a run of the day has sealed a snapshot that asked the very same, that is read, not the source: a
    table that is overwritten may hold something else by now than what the night saw.
    """
    declared_outcomes(job, "trained")
    suite = load_suite(suite_file(env.project, job.name))
    with env.store.workspace() as folder:
        for read in ahead(_read_nights(env, job, days, as_of, folder), depth=2):
            learned = _learn(job, code, suite, read)
            shutil.rmtree(read.folder)  # a year of nights would fill the disk
            yield learned


def _read_nights(
    env: Environment, job: Job, days: Sequence[Partition], as_of: datetime, folder: Path
) -> Iterator[_Read]:
    declaration = job.declaration
    plan = ExtractPlan(
        extract=declaration.extract,
        sources=declaration.sources,
        history=declaration.history,
        parameters=declaration.validate_.parameters,
    )
    sealed = _sealed_runs(env, job, days)
    for partition in days:
        night = folder / partition.key
        night.mkdir()
        binds = job.instants(partition).binds()
        reused, snapshot = _reused(env, plan, binds, sealed.get(partition.day, ()), night)
        try:
            if snapshot is None:
                with open_reader(env.source_url, binds) as reader:
                    snapshot = extract(reader, plan, night)
        except ExtractError as error:
            yield _Read(partition, night, None, None, f"{type(error).__name__}: {error}")
        else:
            labels = read_labels(env, job, partition, as_of)
            yield _Read(partition, night, snapshot, labels, None, reused)


def _sealed_runs(env: Environment, job: Job, days: Sequence[Partition]) -> dict[date, list[Run]]:
    """The runs of each day that have sealed a snapshot, the best to learn from first."""
    with env.engine.connect() as connection:
        records = ledger.with_snapshot(connection, job.name, min(days), max(days)) if days else []
    by_day = groupby(records, key=lambda record: record["day"])
    return {day: [ledger.as_run(record) for record in found] for day, found in by_day}


def _reused(
    env: Environment,
    plan: ExtractPlan,
    binds: Mapping[str, date | datetime],
    runs: Sequence[Run],
    folder: Path,
) -> tuple[str | None, Snapshot | None]:
    """The first run whose snapshot answers the plan, with it, held below `folder`."""
    wanted = questions(plan, binds) if runs else {}
    for run in runs:
        if answers(run_files.questions_of(env.store, run), wanted):
            # Retention may remove it at any moment until it is held.
            with suppress(FileNotFoundError):
                sealed = run_files.held_snapshot(env.store, run, folder / "sealed" / run.run_id)
                return run.run_id, answered(sealed, plan, wanted)
    return None, None


def good_rows(
    job: Job, declared: Extract, suite: Suite, snapshot: Snapshot, partition: Partition, folder: Path
) -> tuple[pa.Table, pa.Table]:
    """All rows of a snapshot, and those of them that a model may see; what is wrong is told in `folder`.

    Raises ValidationError where the night would not have been published.
    """
    from pipeline.scoring.validate import validate

    verdicts_file = folder / "verdicts.parquet"
    validate(
        snapshot,
        suite,
        declared,
        job.declaration.validate_,
        partition,
        job.instants(partition),
        verdicts_file,
        memory_mb=job.declaration.resources.memory_mb // 2,
        threads=job.declaration.resources.cpus,
    )
    unfit = pq.read_table(verdicts_file, columns=["row"]).column("row").to_numpy()
    table = pq.read_table(snapshot.path)
    return table, table.take(pa.array(np.setdiff1d(np.arange(table.num_rows), unfit)))


def _learn(job: Job, code: FeatureCode, suite: Suite, read: _Read) -> Replayed:
    if read.snapshot is None or read.labels is None:
        return Replayed(read.partition, None, None, read.refused)
    declared = job.declaration.extract
    try:
        table, good = good_rows(job, declared, suite, read.snapshot, read.partition, read.folder)
    except ValidationError as error:
        told = f"ValidationError: {error}"
        return Replayed(read.partition, read.snapshot.fingerprint, None, told, reused=read.reused)
    rows = _labelled_rows(job, code, read.snapshot, good, read.labels)
    inputs = profile_inputs(table, declared, job.instants(read.partition))
    return Replayed(read.partition, read.snapshot.fingerprint, rows, None, inputs, read.reused)


def _labelled_rows(
    job: Job, code: FeatureCode, snapshot: Snapshot, table: pa.Table, labels: pa.Table
) -> TrainingRows | None:
    declaration, key = job.declaration, list(job.declaration.extract.key)
    history = {
        name: history_frame(name, pq.read_table(snapshot.history[name]), query.key)
        for name, query in declaration.history.items()
    }
    known, label = match(labels, table, key)
    if not known.any():
        return None
    table = table.filter(pa.array(known)).append_column(_LABEL, pa.array(label))
    if declaration.train.rows_per_day is not None:
        table = sample_by_key(table, key, declaration.train.rows_per_day)
    rows = table.drop_columns([_LABEL]).combine_chunks()
    return TrainingRows(
        features=features(code, rows, declaration.extract.columns, history),
        label=table.column(_LABEL).to_numpy(),
        day=table.column("day").to_numpy().astype("datetime64[D]"),
        key=key_hashes(table, key),
    )
