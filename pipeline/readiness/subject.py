"""What is assessed: one version of a job on one day, with a scratch target and what its first night left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.adapters import ledger, run_files
from pipeline.adapters.versions import ModelVersion
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.frames import history_frame
from pipeline.job import Job
from pipeline.partition import Partition
from pipeline.readiness.scratch import Scratch
from pipeline.run import Snapshot
from pipeline.scorers import feature_code, history_name, load_model
from pipeline.scoring.feature_code import FeatureCode

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


ROUNDING = 1e-9
"""Of a score: matrix products of few rows round otherwise than those of many."""


@dataclass(frozen=True)
class Night:
    """A scratch night: its record and how long it took, in seconds."""

    record: ledger.Record
    seconds: float


@dataclass(frozen=True)
class Inputs:
    """The good rows of a night, at least one, in its snapshot's order, and what their features look up."""

    rows: pa.Table
    history: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Chosen:
    """Which version of which job, and the day whose inputs it is tried on."""

    job: Job
    version: ModelVersion
    day: Partition


@dataclass(frozen=True, eq=False)
class Subject:
    """What is chosen, its own environment and a scratch target."""

    env: Environment
    chosen: Chosen
    made: Scratch

    @property
    def job(self) -> Job:
        """The job."""
        return self.chosen.job

    @property
    def version(self) -> ModelVersion:
        """The version."""
        return self.chosen.version

    @property
    def day(self) -> Partition:
        """The day."""
        return self.chosen.day

    @cached_property
    def base(self) -> Night:
        """The day's night in the scratch target; raises what ends it."""
        begun = time.monotonic()
        record = self.made.night(self.day)
        return Night(record, time.monotonic() - begun)

    @contextmanager
    def snapshot(self, record: ledger.Record) -> Iterator[Snapshot]:
        """The sealed snapshot of a scratch night."""
        store = self.made.env.store
        with store.workspace() as folder:
            yield run_files.sealed_snapshot(store, ledger.as_run(record), folder)

    def rows(self, record: ledger.Record) -> pa.Table:
        """The rows of a scratch night's snapshot."""
        with self.snapshot(record) as snapshot:
            return pq.read_table(snapshot.path)

    def published(self, record: ledger.Record) -> pa.Table:
        """What a scratch night published."""
        store = self.made.env.store
        with store.workspace() as folder:
            file = run_files.predictions_file(store, ledger.as_run(record))
            return pq.read_table(store.fetch(file, folder))

    @cached_property
    def inputs(self) -> Inputs:
        """What the first night gave to the model; raises UsageError where that is no row."""
        store, run = self.made.env.store, ledger.as_run(self.base.record)
        with store.workspace() as folder:
            snapshot = run_files.sealed_snapshot(store, run, folder)
            unfit = pq.read_table(run_files.load_verdicts(store, run, folder).path, columns=["row"])
            table = pq.read_table(snapshot.path)
            fit = np.setdiff1d(np.arange(table.num_rows), unfit.column("row").to_numpy())
            history = {
                name: history_frame(
                    name, pq.read_table(snapshot.history[history_name(self.version, name)]), query.key
                )
                for name, query in self.version.history.items()
            }
        if not len(fit):
            raise UsageError(
                f"{self.day} must have rows that a model may see; got none of {table.num_rows}. Choose "
                f"another one: nightshift readiness {self.job.name} --day YYYY-MM-DD"
            )
        return Inputs(table.take(pa.array(fit)).combine_chunks(), history)

    @cached_property
    def code(self) -> FeatureCode:
        """The version's own feature code."""
        return feature_code(self.version)

    @cached_property
    def model(self) -> BaseEstimator:
        """The version's model, checked and loaded as a night does."""
        with self.env.store.workspace() as folder:
            return load_model(self.version, folder, self.env.registry_url)
