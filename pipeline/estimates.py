"""Estimated quality of published nights, from what was known at each; kept beside their other metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import groupby

import numpy as np

from pipeline.adapters import outcomes as stored
from pipeline.answers import read_answers
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.labels import declared_outcomes, read_labels
from pipeline.monitoring.decided import decision_instant, judged, matured
from pipeline.monitoring.estimate import Night, estimates
from pipeline.partition import Partition
from pipeline.run import Run

LOOK_BACK_NIGHTS = 180
"""So many nights before the first estimated one are learned from, at most."""


def estimate(env: Environment, job_name: str, partition: Partition) -> Mapping[str, float]:
    """Estimate the quality of the day's visible run and keep it in nightshift.metrics.

    In a canary or an A/B test that of the champion's arm: what scores of one version mean does not tell what
    those of another do, and a challenger has too few nights to be calibrated by.

    Empty where the day is not published, the model gives values, or no outcomes are declared. See
    `pipeline.monitoring.estimate.estimates` for the metrics.
    """
    made = estimate_days(env, job_name, (partition, partition))
    return made.get(partition.day, {})


def estimate_days(
    env: Environment, job_name: str, span: tuple[Partition, Partition], *, missing_only: bool = False
) -> dict[date, dict[str, float]]:
    """The same for each day of the span, its ends included; each as it was to be expected at its cut-off.

    With `missing_only`, nothing is read or written for runs that have their estimate already.
    """
    job = load_job(env.project, job_name)
    if job.declaration.outcomes is None or job.declaration.model.output != "probability":
        return {}
    runs = _visible_runs(env, job, span)
    if missing_only:
        with env.engine.connect() as connection:
            there = stored.estimated(connection, job.name, *span)
        runs = {day: run for day, run in runs.items() if run.run_no not in there}
    made: dict[date, dict[str, float]] = {}
    for version, days in _by_version(runs).items():
        made |= _estimate_version(env, job, version, {day: runs[day] for day in days})
    return made


def _by_version(runs: Mapping[date, Run]) -> dict[int, list[date]]:
    ordered = sorted(runs, key=lambda day: (runs[day].model_version, day))
    grouped = groupby(ordered, key=lambda day: runs[day].model_version)
    return {version: list(days) for version, days in grouped}


def _estimate_version(
    env: Environment, job: Job, version: int, runs: Mapping[date, Run]
) -> dict[date, dict[str, float]]:
    first, last = min(runs), max(runs)
    earlier = Partition(first - timedelta(days=LOOK_BACK_NIGHTS))
    history = _runs_of_version(env, job, version, (earlier, Partition(last)))
    nights = [_night(env, job, run) for _, run in sorted({**history, **runs}.items())]
    made = {}
    found = estimates(nights, declared_outcomes(job, "estimated").costs)
    for night, values in zip(nights, found, strict=True):
        if night.day in runs:
            with env.engine.begin() as connection:
                stored.replace_estimate(connection, runs[night.day], values)
            made[night.day] = values
    return made


def _night(env: Environment, job: Job, run: Run) -> Night:
    known_at = matured(job, run.partition)
    answers = read_answers(env, job, run, read_labels(env, job, run.partition, known_at)).of_champion
    return Night(
        day=run.partition.day,
        cutoff=job.instants(run.partition).cutoff,
        labels_known_at=known_at,
        score=answers.score,
        decision=np.asarray(answers.decision, dtype=bool),
        label=answers.label,
    )


def _visible_runs(env: Environment, job: Job, span: tuple[Partition, Partition]) -> dict[date, Run]:
    with env.engine.connect() as connection:
        shown = stored.publications_of(connection, job.name, *span)
        visible = {each.day: each.run_no for each in shown if each.superseded_at is None}
        runs = stored.runs_of(connection, list(visible.values()))
    return {day: runs[number] for day, number in visible.items()}


def _runs_of_version(
    env: Environment, job: Job, version: int, span: tuple[Partition, Partition]
) -> dict[date, Run]:
    """The run of each day to learn from: of that version, the one that was acted upon if it is."""
    with env.engine.connect() as connection:
        shown = stored.publications_of(connection, job.name, *span)
        runs = stored.runs_of(connection, [each.run_no for each in shown])
    chosen = {}
    for day, of_day in groupby(shown, key=lambda each: each.day):
        numbers = judged(list(of_day), decision_instant(job, Partition(day)))
        fitting = [number for number in numbers if number in runs and runs[number].model_version == version]
        if fitting:
            chosen[day] = runs[min(fitting, key=lambda number: numbers[number])]
    return chosen
