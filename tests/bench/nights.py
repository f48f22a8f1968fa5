"""A year of nights for the monitoring benchmark: replayed once with the engine's own extract, then kept.

Needs the demo's warehouse: `nightshift demo` loads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.adapters.source import open_reader
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.frames import history_frame
from pipeline.job import Job
from pipeline.partition import Partition
from pipeline.query import Query, compose
from pipeline.replay import tree_code
from pipeline.scoring.extract import ExtractPlan, extract
from pipeline.scoring.feature_code import FeatureCode
from pipeline.scoring.featurize import features

ALL_LABELS = datetime(2014, 2, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Night:
    """What one night read: `rows` with the declared columns, `labels` with the key and the label."""

    day: date
    rows: pa.Table
    history: Mapping[str, pd.DataFrame]
    labels: pa.Table


@dataclass(frozen=True)
class Nights:
    """The job's replayed nights under `folder`, one folder a day."""

    job: Job
    code: FeatureCode
    folder: Path

    @property
    def days(self) -> list[date]:
        """The days that are kept, in order."""
        return sorted(date.fromisoformat(path.name) for path in self.folder.iterdir() if path.suffix == "")

    def read(self, day: date) -> Night:
        """One night as its run would find it."""
        night = self.folder / day.isoformat()
        history = {
            name: history_frame(name, pq.read_table(night / f"{name}.parquet"), query.key)
            for name, query in self.job.declaration.history.items()
        }
        return Night(day, pq.read_table(night / "snapshot.parquet"), history, pq.read_table(night / "labels"))

    def features(self, night: Night, rows: pa.Table) -> pd.DataFrame:
        """The features of `rows` with that night's history."""
        return features(self.code, rows, self.job.declaration.extract.columns, night.history)


def replayed(env: Environment, job_name: str, first: date, last: date) -> Nights:
    """Read each night of the span that is not kept yet, and keep it in the state folder."""
    job = load_job(env.project, job_name)
    folder = env.settings.state / "bench" / "nights" / job_name
    folder.mkdir(parents=True, exist_ok=True)
    for day in _between(first, last):
        if not (folder / day.isoformat()).exists():
            _replay(env, job, Partition(day), folder)
    return Nights(job, tree_code(env, job), folder)


def _between(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def _replay(env: Environment, job: Job, partition: Partition, folder: Path) -> None:
    declared = job.declaration
    unfinished = folder / f"{partition.key}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    plan = ExtractPlan(declared.extract, declared.sources, declared.history)
    with open_reader(env.source_url, job.instants(partition).binds()) as reader:
        extract(reader, plan, unfinished)
    if declared.outcomes is None:
        raise ValueError(f"{job.name} must declare outcomes: the benchmark shuffles labels")
    binds = {**job.instants(partition).binds(), "cutoff": ALL_LABELS}
    with open_reader(env.source_url, binds) as reader:
        sql = compose(Query("outcomes.sql", declared.outcomes.sql), declared.sources, reader.dialect)
        pq.write_table(pa.Table.from_batches(list(reader.batches(sql))), unfinished / "labels")
    unfinished.rename(folder / partition.key)
