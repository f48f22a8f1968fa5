"""`nightshift outcomes`: evaluates what is mature, then shows quality and cost by week."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, out, progress, table
from pipeline.partition import EVER, Partition, instant, refuse_swapped

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.environment import Environment
    from pipeline.monitoring.findings import Finding
    from pipeline.monitoring.quality import Output
    from pipeline.monitoring.weeks import Week

_REALISED = {
    "probability": ("auc", "brier", "base_rate", "mean_score", "cost_per_1000"),
    "value": ("mae", "rmse", "bias", "cost_per_1000"),
}
_ESTIMATED = {"probability": ("auc", "cost_per_1000"), "value": ()}
_SHOWN_WEEKS = 12
_LONGEST_GAP = 7  # days; findings of one cause further apart are two episodes


def run_outcomes(
    env: Environment, job: str, first: str | None, last: str | None, as_of: str | None, *, as_json: bool
) -> None:
    """Evaluate, estimate and show; of a range, its weeks, else the last twelve that have any evaluation."""
    from pipeline import estimates, outcomes, retraining
    from pipeline.declaration import load_job

    span = _span(first, last)
    with progress(quiet=as_json) as bar:
        task = bar.add_task(f"{job}: judging days", total=None)
        known = instant(as_of, "--as-of") if as_of else None
        done = outcomes.evaluate(env, job, span, known, lambda _: bar.advance(task))
        estimates.estimate_days(env, job, span or EVER, missing_only=True)
        # What was known on another day asks for nothing today.
        asked = [] if known else retraining.evaluate_triggers(env, job)
    weeks = outcomes.weeks(env, job, span)
    shown = weeks if span else weeks[-_SHOWN_WEEKS:]
    drift = _episodes(outcomes.concept_drift(env, job))
    report = {
        "job": job,
        **asdict(done),
        "weeks": [asdict(week) for week in shown],
        "concept_drift": drift,
        "retrain": [asdict(each) for each in asked],
    }
    emit(report, as_json=as_json)
    if not as_json:
        output = load_job(env.project, job).declaration.model.output
        out.print(_table(outcomes.summary(job, done), shown, output), markup=False)
        for episode in drift:
            out.print(
                "\nconcept drift, {cause}: {first} to {last}\n{evidence}".format(**episode), markup=False
            )
        for line in retraining.told(asked):
            out.print(f"\n{line}", markup=False)


def _table(title: str, weeks: Sequence[Week], output: Output) -> Table:
    estimated = [f"estimated {name}" for name in _ESTIMATED[output]]
    head = ("week of", "hindsight", "nights", "rows", "labelled", *_REALISED[output], *estimated)
    return table(title, head, [_cells(week, output) for week in weeks])


def _cells(week: Week, output: Output) -> list[object]:
    coverage = f"{week.labelled / week.rows:.1%}" if week.rows else None
    head = [week.monday, "yes" if week.hindsight else "no", week.nights, week.rows, coverage]
    realised = [_figure(week.realised, name) for name in _REALISED[output]]
    return [*head, *realised, *(_with_error(week.estimated, name) for name in _ESTIMATED[output])]


def _with_error(metrics: Mapping[str, float], name: str) -> str | None:
    error = _figure(metrics, f"{name}_error")
    figure = _figure(metrics, name)
    return f"{figure} ± {error}" if figure and error else figure


def _figure(metrics: Mapping[str, float], name: str) -> str | None:
    if name not in metrics:
        return None
    value = metrics[name]
    return f"{value:,.0f}" if name.startswith("cost") else f"{value:.3f}"


def _episodes(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings of one cause on nights that follow each other, as one with its first night's evidence."""
    made: dict[str, list[dict[str, Any]]] = {}
    for each in findings:
        episodes = made.setdefault(each.cause, [])
        if not episodes or (each.day - episodes[-1]["last"]).days > _LONGEST_GAP:
            episodes.append({"cause": each.cause, "first": each.day, "evidence": each.evidence})
        episodes[-1]["last"] = each.day
    return sorted((each for episodes in made.values() for each in episodes), key=lambda each: each["first"])


def _span(first: str | None, last: str | None) -> tuple[Partition, Partition] | None:
    if first is None and last is None:
        return None
    span = (Partition.parse(first) if first else EVER[0], Partition.parse(last) if last else EVER[1])
    refuse_swapped(*span)
    return span
