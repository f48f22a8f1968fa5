"""Builders for what a run leaves in the warehouse and in the store, without a model and without a source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa

from pipeline.adapters import ledger, publishing
from pipeline.adapters.loading import LoadedPart, PartLoad
from pipeline.adapters.publishing import FlipResult
from pipeline.job import Declaration, Job
from pipeline.partition import Partition
from pipeline.run import Run
from pipeline.scoring.output import parquet_schema, sql_schema

DAY = Partition(date(2024, 1, 25))
AT = datetime(2024, 1, 25, 2, tzinfo=UTC)
SCHEDULE = {"grain": "day", "timezone": "UTC", "cutoff": "03:00", "start": "2024-01-01", "end": "2024-02-29"}


def make_job(
    name: str = "toy", key: Mapping[str, str] | None = None, description: str = "A toy.", **schedule: object
) -> Job:
    """A job with these key columns and their types; `schedule` replaces parts of the schedule."""
    keys = key or {"id": "integer"}
    declared = {
        "description": description,
        "owners": {"team": "Toys", "on_call": "on-call@example.com", "approvers": ["ana"]},
        "schedule": SCHEDULE | schedule,
        "sources": {"toy": {"table": "source.toy", "overwritten": True}},
        "extract": {
            "key": list(keys),
            "columns": {"day": "date", **keys},
            "sql": "select * from toy where day = :day",
        },
        "validate": {"max_quarantined_share": 0.2},
        "model": {"output": "probability", "threshold": 0.5},
    }
    return Job(name=name, declaration=Declaration.model_validate_json(json.dumps(declared)))


def make_run(job: str = "toy", day: Partition = DAY, run_id: str = "run-1", run_no: int = 1) -> Run:
    """A run as a stage gets it, without a warehouse."""
    return Run(run_no, run_id, job, day, run_no, 1, "running", "validated")


def sql_rows(job: Job, run: Run, ids: Sequence[int], source: str = "champion") -> pa.RecordBatch:
    """Prediction rows with these ids in the job's first key column; each score tells its run."""
    first, *others = job.declaration.extract.key
    values = {
        "day": run.partition.day,
        "run_no": run.run_no,
        "score": run.run_no / 1000,
        "decision": False,
        "score_source": source,
        "scored_at": AT,
    }
    rows = [values | {first: number} | dict.fromkeys(others) for number in ids]
    return pa.RecordBatch.from_pylist(rows, schema=sql_schema(job))


@dataclass(frozen=True)
class Warehouse:
    """A migrated database with one job, and runs that go through their stages in it."""

    url: str
    engine: sa.Engine
    job: Job

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode(), values or None).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Run SQL and commit."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode(), values or None)

    def planned(self, day: Partition = DAY, run_id: str | None = None) -> Run:
        """A new run."""
        with self.engine.begin() as connection:
            return ledger.plan_run(connection, make_plan(self.job.name, day, run_id))

    def validated(self, day: Partition = DAY, rows_in: int = 3) -> Run:
        """A run that takes rows."""
        run = self.planned(day)
        with self.engine.begin() as connection:
            ledger.advance(connection, run.run_no, "extracted", rows_in=rows_in)
            ledger.advance(connection, run.run_no, "validated")
        return run

    def load(self, run: Run, ids: Sequence[int] = (1, 2, 3), part: int = 0) -> None:
        """Load one part of a run."""
        with PartLoad(self.url, run, part) as load:
            load.rows(sql_schema(self.job), [sql_rows(self.job, run, ids)])
            load.commit(loaded_part(len(ids)))

    def seal(self, run: Run, rows: int = 3) -> None:
        """Close a run whose rows are all scored."""
        counts = {"rows_scored": rows, "rows_fallback": 0, "rows_withheld": 0}
        with self.engine.begin() as connection:
            publishing.seal(connection, run, {"rows_in": rows, **counts})

    def sealed(self, day: Partition = DAY, ids: Sequence[int] = (1, 2, 3)) -> Run:
        """A run that is ready to be published."""
        run = self.validated(day, len(ids))
        self.load(run, ids)
        self.seal(run, len(ids))
        return run

    def flip(self, run: Run) -> FlipResult:
        """Publish a sealed run."""
        with self.engine.begin() as connection:
            return publishing.flip(connection, run)

    def published(self, day: Partition = DAY, ids: Sequence[int] = (1, 2, 3)) -> Run:
        """A run that readers see."""
        run = self.sealed(day, ids)
        assert self.flip(run) == "published"
        return run

    def fail(self, run: Run) -> None:
        """End a run by an error."""
        with self.engine.begin() as connection:
            ledger.finish(connection, run.run_no, "failed", ValueError("planted"))

    def status(self, run: Run) -> tuple[str, str]:
        """Status and stage of a run."""
        with self.engine.begin() as connection:
            row = ledger.record(connection, run.run_no)
        return row["status"], row["stage"]

    def visible(self, day: Partition = DAY) -> dict[str, int]:
        """Run ids and numbers of rows that readers see of a day."""
        statement = f"select run_id, count(*) from predictions.{self.job.name} where day = %s group by 1"
        return dict(self.query(statement, day.day))


def make_plan(job: str = "toy", day: Partition = DAY, run_id: str | None = None) -> ledger.Planned:
    """What is fixed when a run is planned; a name of its own unless it is given."""
    return ledger.Planned(
        run_id=run_id or f"{job}-{day}-{datetime.now(UTC).timestamp()}",
        job=job,
        partition=day,
        trigger="manual",
        triggered_by="test",
        owners={},
        cutoff=datetime.combine(day.day, datetime.min.time(), UTC) + timedelta(hours=3),
        as_of=True,
        model_version=1,
        feature_version="f1",
        model_policy="current",
        code_version="test",
    )


def loaded_part(rows: int) -> LoadedPart:
    """The record of a part whose rows the champion scored."""
    return LoadedPart(rows, "0" * 64, json.dumps({"champion": rows}), 0)


def parquet_rows(job: Job, run: Run, ids: Sequence[int]) -> pa.RecordBatch:
    """The same rows as the Parquet file holds them."""
    rows = [row | {"run_id": run.run_id} for row in sql_rows(job, run, ids).to_pylist()]
    return pa.RecordBatch.from_pylist(rows, schema=parquet_schema(job))
