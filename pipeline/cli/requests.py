"""`nightshift requests`: the queue of scoring requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.adapters import scoring_requests as queue
from pipeline.cli.console import emit, pairs, table
from pipeline.declaration import load_job

if TYPE_CHECKING:
    from pipeline.environment import Environment

_MOST = 20
_SHOWN = (
    "request_no",
    "status",
    "key",
    "requested_at",
    "requested_by",
    "score",
    "score_source",
    "day",
    "error",
)


def run_requests(env: Environment, job_name: str, *, answer: bool, as_json: bool) -> None:
    """Answer where that is asked; then how many requests stand how, and the newest ones."""
    from pipeline.scoring_requests import answer_requests, declared

    job = load_job(env.project, job_name)
    declared(job)
    done = vars(answer_requests(env, job)) if answer else None
    with env.engine.connect() as connection:
        counted = queue.counts(connection, job.name)
        newest = queue.newest(connection, job.name, _MOST)
    report = {"job": job.name, "now": done, "counts": counted, "newest": newest}
    if as_json or not newest:
        emit(report, as_json=as_json, shown=f"{job.name}: nobody has asked for anything")
        return
    emit(report, as_json=False, shown=pairs(job.name, list(counted.items())))
    emit(report, as_json=False, shown=table(None, _SHOWN, [[row[name] for name in _SHOWN] for row in newest]))
