"""The dataset's current files follow the pointer: replaced or removed under the day's lock, mended later."""

from __future__ import annotations

import structlog

from pipeline.adapters import ledger, publishing, run_files
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.partition import Partition

log = structlog.get_logger()


def show_parquet(env: Environment, job: str, partition: Partition) -> None:
    """Make the dataset's file of a day that of the run the pointer names; remove it where that is null."""
    with env.engine.begin() as connection:
        shown = publishing.lock_shown(connection, job, partition)
        if shown.parquet_run_no == shown.run_no:
            return
        current = env.store.current_file(job, partition)
        if shown.run_no is None:
            env.store.remove(current)
        else:
            run = ledger.as_run(ledger.record(connection, shown.run_no))
            env.store.copy(run_files.predictions_file(env.store, run), current)
        publishing.parquet_shown(connection, job, partition, shown.run_no)


def repair(env: Environment, job: Job) -> int:
    """Bring Parquet files that a crash left behind the pointer up to it; how many could be.

    A file that cannot be mended is told in the log: it is no fault of the command that found it.
    """
    if not job.declaration.publish.parquet:
        return 0
    with env.engine.connect() as connection:
        stale = ledger.stale_parquet(connection, job.name)
    return sum(mended(env, job.name, partition) for partition in stale)


def mended(env: Environment, job: str, partition: Partition) -> bool:
    """Whether the day's file could be brought up to the pointer."""
    try:
        show_parquet(env, job, partition)
    except OSError as error:
        log.warning("parquet not mended", job=job, day=partition.key, error_type=type(error).__name__)
        return False
    return True
