"""`nightshift prune`: what the declared retention ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.console import emit, err, out, table
from pipeline.declaration import load_job, load_jobs

if TYPE_CHECKING:
    from pipeline.environment import Environment


def run_prune(env: Environment, job: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Prune one job or all; a dry run lists what would go."""
    from pipeline import retention

    jobs = (load_job(env.project, job),) if job else load_jobs(env.project)
    report, requests = [], {}
    for each in jobs:
        with err.status(f"{each.name}: pruning"):
            done = retention.prune(env, each, dry_run=dry_run)
            requests[each.name] = retention.prune_requests(env, each, dry_run=dry_run)
        report += [{"job": each.name, **vars(one)} for one in done]
        if not as_json:
            told = retention.summary(each.name, done, requests[each.name], dry_run=dry_run)
            out.print(told, markup=False)
    if not as_json and report:
        out.print(table(None, report[0], [line.values() for line in report]))
    emit(
        {
            "dry_run": dry_run,
            "bytes": sum(line["bytes"] for line in report),
            "pruned": report,
            "requests": requests,
        },
        as_json=as_json,
    )
