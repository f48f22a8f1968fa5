"""`nightshift unpublish`: a day goes back to what was published before, in SQL and in Parquet."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

import structlog

from pipeline.adapters import ledger, publishing
from pipeline.dataset import mended, repair
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.lifecycle.promote import check_approver, check_reason
from pipeline.partition import Partition

log = structlog.get_logger()


@dataclass(frozen=True)
class Unpublished:
    """Which run of a day was taken back and which one readers see now, None for none.

    `parquet` is false where the day's file could not follow: the next command mends it.
    """

    run_id: str
    restored_run_id: str | None
    parquet: bool


def unpublish(
    env: Environment, job_name: str, partition: Partition, *, approved_by: str | None, reason: str
) -> Unpublished:
    """Take back the run that readers see of a day, for the one published before it, with a new token.

    Runs of the day that are at work can publish no more; a later one can. Raises UsageError when readers
    see no run of the day, `approved_by` is no declared approver, or the reason is blank.
    """
    job = load_job(env.project, job_name)
    if approved_by is not None:
        check_approver(approved_by, job.declaration.owners.approvers)
    check_reason(reason)
    repair(env, job)
    with env.engine.connect() as connection:
        visible = ledger.visible_run(connection, job.name, partition)
    if visible is None:
        raise UsageError(
            f"a run of {job.name} {partition} must be published to be taken back; readers see none"
        )
    run = ledger.as_run(visible)
    why = publishing.Withdrawal(getpass.getuser(), approved_by, reason)
    with env.engine.begin() as connection:
        restored = publishing.withdraw(connection, run, why)
    with env.engine.begin() as connection:
        publishing.retire_older(connection, run)
        shown = None if restored is None else str(ledger.record(connection, restored)["run_id"])
    log.info("withdrawn", job=job.name, day=partition.key, run_id=run.run_id, restored=shown)
    parquet = not job.declaration.publish.parquet or mended(env, job.name, partition)
    return Unpublished(run.run_id, shown, parquet)
