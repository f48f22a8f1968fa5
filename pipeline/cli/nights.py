"""`nightshift score` and `nightshift backfill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import typer

from pipeline.cli.console import emit, err, pairs, progress
from pipeline.errors import NightshiftError
from pipeline.partition import Partition, between

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.planning import ModelPolicy
    from pipeline.validator import Validator

REPORTED = (
    "job", "day", "run_id", "token", "status", "stage", "degraded", "rows_in", "rows_scored", "rows_fallback",
    "rows_withheld", "rows_quarantined", "score_sources", "model_version", "feature_version", "model_policy",
    "as_of", "snapshot_fingerprint", "proved", "warnings", "error_type", "error_message", "started_at",
    "finished_at", "cpu_seconds", "peak_memory_mb",
)  # fmt: skip
"""The columns of the runs table that a run's report shows."""


def report(record: Any) -> dict[str, Any]:
    """A runs row as the commands print it."""
    return {name: record[name] for name in REPORTED}


def run_score(
    env: Environment,
    job: str,
    day: str,
    policy: ModelPolicy,
    run_id: str | None,
    validator: Validator,
    *,
    as_json: bool,
) -> None:
    """One night; a failed run is shown too, then ends with exit code 1."""
    from pipeline import planning, steps
    from pipeline.adapters import ledger

    partition = Partition.parse(day)
    name = run_id or planning.new_run_id(job, partition)
    request = planning.Request(job, partition, policy=policy, run_id=name)
    try:
        with err.status(f"{job} {partition}"):
            record = steps.night(env, request, validator)
    except NightshiftError as error:
        with env.engine.connect() as connection:
            failed = ledger.find(connection, name)
        if failed is None:
            raise
        emit(report(failed), as_json=as_json, shown=_shown(failed))
        err.print(f"[bold red]{type(error).__name__}[/]", end=" ")
        err.print(str(error), markup=False)
        raise typer.Exit(error.exit_code) from None
    emit(report(record), as_json=as_json, shown=_shown(record))


def _shown(record: Any) -> Any:
    skipped = ("job", "day", "run_id", "error_type", "error_message")
    rows = [(name, _cell(record[name])) for name in REPORTED if name not in skipped]
    title = f"{record['job']} {record['day']}  {record['run_id']}"
    return pairs(title, rows)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return value


def run_backfill(
    env: Environment,
    job: str,
    span: tuple[str, str],
    reprocess: Literal["none", "failed", "completed"],
    policy: ModelPolicy,
    validator: Validator | None = None,
    *,
    as_json: bool,
) -> None:
    """Many nights; exit code 1 when one failed."""
    from pipeline import planning, steps

    days = list(between(Partition.parse(span[0]), Partition.parse(span[1])))
    wanted = planning.days_to_run(env, job, days, reprocess)
    records, failures = [], []
    with progress(quiet=as_json) as bar:
        task = bar.add_task(f"{job} backfill", total=len(wanted))
        for partition in wanted:
            request = planning.Request(job, partition, policy=policy, trigger="backfill")
            try:
                records.append(steps.night(env, request, validator))
            except NightshiftError as error:
                failures.append((partition, error))
            bar.advance(task)
    summary = {
        "job": job,
        "from": span[0],
        "to": span[1],
        "days": len(days),
        "skipped": len(days) - len(wanted),
        "published": sum(record["status"] == "published" for record in records),
        "superseded": sum(record["status"] == "superseded" for record in records),
        "degraded": sum(record["degraded"] for record in records),
        "rows_in": sum(record["rows_in"] for record in records),
        "failed": [
            {"day": partition.key, "error": type(failure).__name__, "message": str(failure)}
            for partition, failure in failures
        ],
    }
    rows = [(name, value) for name, value in summary.items() if name != "failed"]
    emit(summary, as_json=as_json, shown=pairs(None, [*rows, ("failed", len(failures))]))
    for partition, failure in failures:
        err.print(f"{partition} {type(failure).__name__}: {failure}", markup=False)
    if failures:
        raise typer.Exit(1)
