"""What the stack must show: a night, a backfill, and a night whose worker is killed, each published once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import psycopg
from psycopg.rows import dict_row

from deploy.api import Api, Json, until
from deploy.stack import Container

JOB = "flight_delays"
DAG = f"{JOB}__score"

NIGHT = date(2013, 5, 2)
BACKFILL = (date(2013, 5, 3), date(2013, 5, 5))
KILLED = date(2013, 5, 6)

_ENDED = ("success", "failed")
_PATIENCE = 600  # seconds for a night
_AT_WORK = "score"
"""The task in whose middle, that of a shard, a worker is killed."""


@dataclass(frozen=True)
class Kill:
    """One kill -9 of a whole worker."""

    worker: str
    task: str
    retried_after: float
    """Seconds from the kill to the next try's start."""


def wait_for_dag(api: Api) -> None:
    """Wait until the dag-processor has shown the job's DAG, and let it run."""
    until(lambda: _is_there(api), f"DAG {DAG}", patience=180)
    api.patch(f"/dags/{DAG}", {"is_paused": False})


def _is_there(api: Api) -> bool | None:
    for error in api.get("/importErrors")["import_errors"]:
        raise RuntimeError(f"{error['filename']} must be read; got:\n{error['stack_trace']}")
    return api.has(f"/dags/{DAG}") or None


def trigger(api: Api, day: date) -> str:
    """Start one night; the DAG run's id."""
    run = api.post(f"/dags/{DAG}/dagRuns", {"logical_date": None, "partition_key": day.isoformat()})
    return str(run["dag_run_id"])


def wait_for_run(api: Api, run_id: str) -> str:
    """Wait for a DAG run's end; its state."""

    def ended() -> str | None:
        state = str(api.get(f"/dags/{DAG}/dagRuns/{run_id}")["state"])
        return state if state in _ENDED else None

    return until(ended, f"the end of {run_id}", _PATIENCE)


def backfill(api: Api, first: date, last: date) -> list[str]:
    """Run a backfill to its end; the states of its runs."""
    made = api.post(
        "/backfills",
        {
            "dag_id": DAG,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T23:59:59Z",
            "reprocess_behavior": "none",
            "max_active_runs": 2,
            "dag_run_conf": {},
        },
    )
    until(lambda: api.get(f"/backfills/{made['id']}")["completed_at"], "the backfill's end", _PATIENCE)
    runs = api.get(f"/dags/{DAG}/dagRuns", run_type="backfill")["dag_runs"]
    return [str(run["state"]) for run in runs]


def kill_at_work(api: Api, run_id: str, workers: Iterable[Container]) -> Kill:
    """Kill -9 the worker that is in the middle of a task of this run, and wait for the task's next try."""
    workers = list(workers)
    worker, task = until(
        lambda: _at_work(_tasks(api, run_id), workers), "a task at work", _PATIENCE, every=0.1
    )
    worker.running.kill()
    killed = time.monotonic()
    until(lambda: _tried_again(_tasks(api, run_id), task), f"the next try of {task['task_id']}", _PATIENCE)
    return Kill(worker.place.name, str(task["task_id"]), time.monotonic() - killed)


def _tasks(api: Api, run_id: str) -> list[Json]:
    tasks: list[Json] = api.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return tasks


def _at_work(tasks: list[Json], workers: list[Container]) -> tuple[Container, Json] | None:
    for task in tasks:
        if task["state"] == "running" and task["task_id"] == _AT_WORK:
            for worker in workers:
                if any(str(task["id"]) in _title(process) for process in worker.running.processes()):
                    return worker, task
    return None


def _title(process: Any) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _tried_again(tasks: list[Json], before: Json) -> bool | None:
    again = any(
        (task["task_id"], task["map_index"]) == (before["task_id"], before["map_index"])
        and task["try_number"] > before["try_number"]
        and task["state"] in ("running", "success")
        for task in tasks
    )
    return again or None


@dataclass(frozen=True)
class Published:
    """What the warehouse holds of one day."""

    runs: int
    """Runs that ended as published."""
    publications: int
    rows: int
    keys: int
    rows_in: int
    """Rows in the run's snapshot, less those withheld."""

    @property
    def once_and_whole(self) -> bool:
        """Whether one run is published, with every row once."""
        return self.runs == self.publications == 1 and self.rows == self.keys == self.rows_in > 0


def published(warehouse_url: str, day: date) -> Published:
    """Count what is published of a day."""
    with psycopg.connect(warehouse_url, row_factory=dict_row) as connection:
        row = connection.execute(_COUNTS, {"job": JOB, "day": day}).fetchone()
    if row is None:
        raise LookupError(f"counts of {day} must be one row; got none")
    return Published(**row)


_COUNTS = """
select
  (select count(*) from nightshift.runs where job = %(job)s and day = %(day)s and status = 'published')
    as runs,
  (select count(*) from nightshift.publications where job = %(job)s and day = %(day)s) as publications,
  (select count(*) from predictions.flight_delays where day = %(day)s) as rows,
  (select count(distinct (carrier, flight, origin)) from predictions.flight_delays where day = %(day)s)
    as keys,
  (select coalesce(sum(rows_in - rows_withheld), 0)
    from nightshift.runs join nightshift.pointer using (run_no)
    where pointer.job = %(job)s and pointer.day = %(day)s)::bigint as rows_in
"""
