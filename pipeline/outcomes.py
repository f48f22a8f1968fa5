"""`nightshift outcomes`: what published predictions were worth, once their labels are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

import structlog

from pipeline import guardrails
from pipeline.adapters import outcomes as stored
from pipeline.adapters import versions
from pipeline.adapters.versions import ModelVersion
from pipeline.alerting import alert_findings
from pipeline.answers import read_answers
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.labels import declared_outcomes, read_labels
from pipeline.monitoring import concept
from pipeline.monitoring.control_charts import Judged
from pipeline.monitoring.decided import Publication, decision_instant, judged, matured
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.quality import measure
from pipeline.monitoring.weeks import NightQuality, Week, by_week
from pipeline.partition import EVER, Partition

log = structlog.get_logger()

LOOK_BACK_DAYS = 35
"""So many days before the newest mature one are looked at again each time, for late and corrected labels."""


@dataclass(frozen=True)
class Evaluated:
    """How many mature days and runs were looked at, and how many evaluations said something new."""

    days: int
    runs: int
    written: int
    immature: int
    pruned: int = 0
    """Runs that cannot be judged again, as retention has removed them; what was said of them stays."""
    findings: tuple[Finding, ...] = ()
    """Concept drift that stands on the newest judged day, unless that one is judged in hindsight; told."""


def evaluate(
    env: Environment,
    job_name: str,
    span: tuple[Partition, Partition] | None = None,
    as_of: datetime | None = None,
    on_day: Callable[[Partition], None] = lambda _: None,
) -> Evaluated:
    """Judge published runs of mature days by the labels known at `as_of`, now by default.

    Without `span`, a first and a last day: the days that have a run which was never judged, and the last
    LOOK_BACK_DAYS. Of each day, the run that was acted upon, and in hindsight the one that readers see now.
    Raises UsageError where no outcomes are declared or `as_of` lies in the future, FatalError where labels
    are none.
    """
    job, now = load_job(env.project, job_name), datetime.now(UTC)
    declared_outcomes(job, "judged")
    known = as_of or now
    if known > now:
        raise UsageError(f"--as-of must not lie in the future; got {known.isoformat()}")
    wanted = _to_judge(env, job, span, known)
    mature = {day: shown for day, shown in wanted.items() if matured(job, Partition(day)) <= known}
    runs = written = pruned = 0
    for day, shown in mature.items():
        made, new, gone = _judge(env, job, Partition(day), shown, known, now)
        runs, written, pruned = runs + made, written + new, pruned + gone
        on_day(Partition(day))
    log.info("evaluated", job=job_name, days=len(mature), runs=runs, written=written, pruned=pruned)
    standing = _told(env, job) if written else ()
    # Also where an earlier attempt wrote all of it and ended before this.
    guardrails.judge(env, job_name)
    return Evaluated(len(mature), runs, written, len(wanted) - len(mature), pruned, standing)


def _to_judge(
    env: Environment, job: Job, span: tuple[Partition, Partition] | None, as_of: datetime
) -> dict[date, list[Publication]]:
    with env.engine.connect() as connection:
        publications = stored.publications_of(connection, job.name, *(span or EVER))
        seen = stored.evaluated(connection, job.name)
    by_day = {day: list(shown) for day, shown in groupby(publications, key=lambda shown: shown.day)}
    if span:
        return by_day
    recent = as_of.astimezone(job.timezone).date().toordinal() - LOOK_BACK_DAYS
    return {
        day: shown
        for day, shown in by_day.items()
        if day.toordinal() >= recent
        or not judged(shown, decision_instant(job, Partition(day))).keys() <= seen
    }


def _judge(
    env: Environment,
    job: Job,
    partition: Partition,
    shown: Sequence[Publication],
    as_of: datetime,
    now: datetime,
) -> tuple[int, int, int]:
    """How many runs of the day were judged, how many said something new, how many are pruned."""
    declared, model = declared_outcomes(job, "judged"), job.declaration.model
    chosen = judged(shown, decision_instant(job, partition))
    labels = read_labels(env, job, partition, as_of)
    written = 0
    with env.engine.connect() as connection:
        runs = stored.runs_of(connection, list(chosen))
    for run in runs.values():
        answers = read_answers(env, job, run, labels, declared.slices)
        measured = measure(answers, model.output, declared.costs)
        evaluation = stored.Evaluation(run, chosen[run.run_no], as_of, now, measured)
        with env.engine.begin() as connection:
            written += stored.append(connection, evaluation)
    return len(runs), written, len(chosen) - len(runs)


def summary(job_name: str, done: Evaluated) -> str:
    """What an evaluation did, in a line for people."""
    gone = f"; {done.pruned} pruned runs keep what was said of them" if done.pruned else ""
    return (
        f"{job_name}: {done.days} mature days, {done.runs} runs judged, {done.written} evaluations written; "
        f"{done.immature} days wait for their labels{gone}"
    )


def note(job_name: str, done: Evaluated) -> str:
    """The same, and what it found, in a few lines."""
    found = (f"- concept drift, {each.cause}. {each.evidence}" for each in done.findings)
    return "\n".join([summary(job_name, done), *found])


def concept_drift(env: Environment, job_name: str) -> list[Finding]:
    """What realised quality shows to be worse than promised, on every judged night, version by version."""
    job = load_job(env.project, job_name)
    return [finding for _, found in _concept_drift(env, job) for finding in found]


def _told(env: Environment, job: Job) -> tuple[Finding, ...]:
    """What stands on the newest judged night; its owner is told once an episode.

    Backfills page nobody: nights judged in hindsight are evidence, and raise nothing by themselves.
    """
    *_, (nights, found) = [((), []), *_concept_drift(env, job)]
    newest = nights[-1] if nights else None
    if newest is None or newest["hindsight"]:
        return ()
    day = newest["day"]
    standing = tuple(each for each in found if each.day == day)
    alert_findings(env, job.name, day, standing, "scheduled", kinds=("concept",))
    return standing


def _concept_drift(env: Environment, job: Job) -> list[tuple[list[dict[str, Any]], list[Finding]]]:
    """The judged nights of each version, in the order of their first days, and what they show."""
    declared, declaration = declared_outcomes(job, "judged"), job.declaration
    with env.engine.connect() as connection:
        # A bad challenger is no concept drift of the champion.
        rows = stored.realised(connection, job.name, *EVER, of_champion=True)
        # Rows of one day come with the run that was acted upon first.
        of_day = {row["day"]: row for row in reversed(rows)}
        nights = [of_day[day] for day in sorted(of_day)]
        promises = {
            version: _promise(versions.version(connection, job.name, version))
            for version in dict.fromkeys(row["model_version"] for row in nights)
        }
    found = []
    for version, promise in promises.items():
        own = [row for row in nights if row["model_version"] == version]
        judged_nights = [Judged(row["day"], row["labelled"], row["metrics"]) for row in own]
        drift = concept.findings(
            job.name,
            declaration.model.output,
            promise,
            judged_nights,
            declared.worse_for_nights,
            declaration.monitor.false_alarms_a_year / 2,
        )
        found.append((own, drift))
    return found


def _promise(version: ModelVersion) -> list[Judged]:
    """The nights held out from a version's training; none of versions that kept no nightly metrics."""
    by_night = version.metrics["holdout"].get("by_night", {})
    return [
        Judged(date.fromisoformat(day), int(metrics["rows"]), metrics) for day, metrics in by_night.items()
    ]


def weeks(env: Environment, job_name: str, span: tuple[Partition, Partition] | None = None) -> list[Week]:
    """Realised and estimated quality by week, runs judged in hindsight apart; of all days without `span`."""
    with env.engine.connect() as connection:
        judged_runs = stored.realised(connection, job_name, *(span or EVER))
        estimates = stored.estimated(connection, job_name, *(span or EVER))
    return by_week(
        NightQuality(
            day=row["day"],
            hindsight=row["hindsight"],
            rows=row["rows"],
            labelled=row["labelled"],
            realised=row["metrics"],
            estimated=estimates.get(row["run_no"], {}),
        )
        for row in judged_runs
    )
