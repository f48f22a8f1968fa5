"""`nightshift outcomes`: evaluates what is mature, then shows quality and cost by week."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, progress, table
from pipeline.cli.models import instant
from pipeline.partition import Partition

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.monitoring.weeks import Week

_REALISED = {
    "probability": ("auc", "brier", "base_rate", "mean_score", "cost_per_1000"),
    "value": ("mae", "rmse", "bias", "cost_per_1000"),
}
_SHOWN_WEEKS = 12


def run_outcomes(
    env: Environment, job: str, first: str | None, last: str | None, as_of: str | None, *, as_json: bool
) -> None:
    """Evaluate and show; of a range, its weeks, else the last twelve that have any evaluation."""
    from pipeline import outcomes
    from pipeline.declaration import load_job

    span = _span(first, last)
    with progress(quiet=as_json) as bar:
        task = bar.add_task(f"{job}: judging days", total=None)
        known = instant(as_of, "--as-of") if as_of else None
        done = outcomes.evaluate(env, job, span, known, lambda _: bar.advance(task))
    weeks = outcomes.weeks(env, job, span)
    shown = weeks if span else weeks[-_SHOWN_WEEKS:]
    report = {"job": job, **asdict(done), "weeks": [_row(week) for week in shown]}
    columns = _REALISED[load_job(env.project, job).declaration.model.output]
    title = (
        f"{job}: {done.days} mature days, {done.runs} runs judged, {done.written} evaluations written; "
        f"{done.immature} days wait for their labels"
    )
    cells = [_cells(week, columns) for week in shown]
    emit(report, as_json=as_json, shown=table(title, ("week of", *_HEAD, *columns), cells))


_HEAD = ("hindsight", "nights", "rows", "labelled")


def _span(first: str | None, last: str | None) -> tuple[Partition, Partition] | None:
    if first is None and last is None:
        return None
    earliest, latest = Partition(date.min), Partition(date.max)
    return (
        Partition.parse(first) if first else earliest,
        Partition.parse(last) if last else latest,
    )


def _row(week: Week) -> dict[str, Any]:
    return asdict(week)


def _cells(week: Week, columns: tuple[str, ...]) -> list[object]:
    coverage = f"{week.labelled / week.rows:.1%}" if week.rows else None
    head = [week.monday, "yes" if week.hindsight else "no", week.nights, week.rows, coverage]
    return [*head, *(_figure(week.realised, name) for name in columns)]


def _figure(metrics: Mapping[str, float], name: str) -> str | None:
    if name not in metrics:
        return None
    value = metrics[name]
    return f"{value:,.0f}" if name.startswith("cost") else f"{value:.3f}"
