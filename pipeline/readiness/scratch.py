"""A scratch target: a PostgreSQL server and a store of its own, where nights run for real.

It reads the job's own source and model files, and writes nowhere else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from pipeline import steps
from pipeline.adapters import ledger, registry, run_files, versions
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.migrate import migrate
from pipeline.adapters.source import open_reader
from pipeline.adapters.versions import ModelVersion
from pipeline.environment import Environment
from pipeline.errors import ModelError
from pipeline.job import Job
from pipeline.lifecycle import promote as decide
from pipeline.partition import Partition
from pipeline.query import Query, Reader, compose
from pipeline.run import Run, Snapshot
from pipeline.scoring.extract import extract
from pipeline.settings import Settings

_LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)

Change = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""What happens to the partition's rows between the source and the snapshot."""


@dataclass(frozen=True)
class Scratch:
    """A job's scratch target, with the version under test as champion."""

    env: Environment
    job: Job
    version: ModelVersion
    behind: ModelVersion | None = None
    """The champion that stands behind it: what the step previous_model answers with."""

    def night(self, day: Partition, *, version: int | None = None) -> ledger.Record:
        """A whole night, as `nightshift score` runs it."""
        return steps.night(self.env, steps.Request(self.job.name, day, version or self.version.version))

    def changed_night(self, day: Partition, change: Change) -> ledger.Record:
        """A whole night whose rows come changed from the source; raises what ends the night."""
        run = steps.plan(self.env, steps.Request(self.job.name, day, self.version.version))
        with self.env.store.workspace() as folder:
            snapshot = self._read(run, change, folder)
            run_files.seal_snapshot(self.env.store, run, snapshot, folder)
        steps.extract(self.env, run)
        steps.validate(self.env, run)
        steps.score(self.env, run)
        return steps.publish(self.env, run)

    def _read(self, run: Run, change: Change, folder: Path) -> Snapshot:
        plan = steps.extract_plan(self.job, [self.version])
        with open_reader(self.env.source_url, self.job.instants(run.partition).binds()) as reader:
            sql = compose(Query("extract.sql", plan.extract.sql), plan.sources, reader.dialect)
            return extract(_Changed(reader, sql, change), plan, folder)

    def register_like(self, **changed: object) -> ModelVersion:
        """The version under test again under a new number, with some of its fields changed."""
        with self.env.engine.begin() as connection:
            number = versions.numbers(connection, self.job.name)[-1] + 1
            made = replace(self.version, version=number, **changed)  # type: ignore[arg-type]
            versions.insert(connection, made)
        return made

    def promote_behind(self, version: ModelVersion) -> None:
        """Let a version stand where the one under test does: over the champion behind that one."""
        with self.env.engine.begin() as connection:
            for each in filter(None, (self.behind, version)):
                versions.record_promotion(
                    connection, each, kind="promote", actor="readiness", approved_by="readiness",
                    reason="readiness", effective_from=_LONG_AGO,
                )  # fmt: skip


class _Changed:
    """A reader whose rows of the partition are changed; its own count would not agree with them."""

    consistent = False

    def __init__(self, reader: Reader, sql: str, change: Change) -> None:
        self.dialect, self.typed = reader.dialect, reader.typed
        self._reader, self._sql, self._change = reader, sql, change

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement."""
        batches = self._reader.batches(sql)
        return self._change(batches) if sql == self._sql else batches


@contextmanager
def scratch(
    env: Environment, job: Job, version: ModelVersion, project: Path | None = None
) -> Iterator[Scratch]:
    """A scratch target for as long as it is needed; `project` holds other files of the job than its own."""
    with tempfile.TemporaryDirectory(prefix="nightshift-readiness-") as name:
        folder = Path(name)
        server = EmbeddedServer(folder / "server")
        try:
            server.start()
            made = _environment(env, project or env.project, folder, server.url())
            migrate(made.engine, [job])
            behind = _behind(env, job, version)
            copied = [_with_artifacts(env, each, folder) for each in (version, behind) if each]
            with made.engine.begin() as connection:
                for each in copied:
                    versions.insert(connection, each)
            yield Scratch(made, job, *copied)
            made.engine.dispose()
        finally:
            server.remove()


def _behind(env: Environment, job: Job, version: ModelVersion) -> ModelVersion | None:
    """The champion that stood behind a version, or would if it was promoted now; None for none."""
    with env.engine.connect() as connection:
        history = versions.promotion_history(connection, job.name)
        if any(row.version == version.version for row in history):
            number = decide.predecessor(history, version.version)
        else:
            champion = decide.in_force(history, versions.now(connection))
            number = champion.version if champion else None
        return None if number is None else versions.version(connection, job.name, number)


def _with_artifacts(env: Environment, version: ModelVersion, folder: Path) -> ModelVersion:
    """The version with its files at hand: the scratch target asks no MLflow server.

    A file that cannot be had stays where it is said to be: the night tells it.
    """
    places: dict[str, Any] = {}
    for name in ("model_uri", "baseline_uri"):
        with suppress(ModelError):
            places[name] = str(registry.fetch(getattr(version, name), folder, env.registry_url))
    return replace(version, **places)


def _environment(env: Environment, project: Path, folder: Path, warehouse_url: str) -> Environment:
    return Environment(
        Settings(
            home=folder / "home",
            project=project,
            store=str(folder / "store"),
            warehouse_url=SecretStr(warehouse_url),
            source_url=SecretStr(env.source_url),
            registry_url=SecretStr(f"sqlite:///{folder / 'registry.db'}"),
            channels={},
        )
    )
