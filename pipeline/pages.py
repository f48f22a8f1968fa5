"""What pages show, collected: from the tables, and from the declaration as it stands now."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from pipeline.adapters import catalogue, ledger, reports, versions
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.lifecycle import promote
from pipeline.monitoring.report.facts import Declared, JobFacts, RunFacts, SourceFacts
from pipeline.monitoring.report.values import (
    Day,
    DictionaryPage,
    JobLine,
    JobPage,
    RunPage,
    VerdictPage,
)
from pipeline.partition import Partition

_RUN_DAYS = 91
YEAR = 366
"""Days of a job that its index shows."""
_COSTS = {"probability": {"hit", "false_alarm", "miss", "pass_"}, "value": {"over", "under"}}
_LINE_DAYS = 28
_RECENT = 14


def shown_run(connection: sa.Connection, job: str, day: Partition) -> RunFacts:
    """The run that readers see of a day, else its newest one; UsageError where there is none."""
    visible = ledger.visible_run(connection, job, day)
    found = [reports.run_facts(visible)] if visible else reports.runs_of_day(connection, job, day.day)
    if not found:
        raise UsageError(
            f"{job} must have a run of {day}; there is none. Score it: nightshift score {job} --day {day}"
        )
    return found[0]


def run_named(connection: sa.Connection, run_id: str, job: str | None = None) -> RunFacts:
    """The run of that name, whatever became of it; UsageError where there is none, or none of that job."""
    found = ledger.find(connection, run_id)
    if found is None or job not in (None, found["job"]):
        raise UsageError(f"run {run_id!r} must have been planned; there is none of that name")
    return reports.run_facts(found)


def run_marked(connection: sa.Connection, job: str, mark: str) -> RunFacts:
    """The newest run of a job whose name holds the mark; UsageError where there is none."""
    found = ledger.newest_marked(connection, job, mark)
    if found is None:
        raise UsageError(f"a run of {job} must have {mark!r} in its name; there is none yet")
    return reports.run_facts(found)


def run_values(env: Environment, connection: sa.Connection, run: RunFacts) -> RunPage:
    """Everything that the page of a run shows."""
    before = reports.neighbour(connection, run.job, run.day, before=True)
    visible = ledger.visible_run(connection, run.job, Partition(run.day))
    registered = reports.version_facts(connection, run.job)
    return RunPage(
        job=job_facts(connection, run.job),
        declared=_declared(env, run.job),
        run=run,
        visible=next(iter(reports.days(connection, run.job, run.day, run.day)), None),
        visible_run_id=visible["run_id"] if visible else None,
        others=tuple(reports.runs_of_day(connection, run.job, run.day)),
        previous=before,
        following=reports.neighbour(connection, run.job, run.day, before=False),
        reasons=tuple(reports.reasons(connection, run.run_no)),
        metrics=tuple(reports.of_run(connection, run.run_no)),
        realised=tuple(reports.realised(connection, run.run_no)),
        scores=reports.scores(connection, run, before),
        nights=tuple(reports.nights(connection, run.job, run.day - timedelta(days=_RUN_DAYS - 1), run.day)),
        version=next((one for one in registered if one.version == run.model_version), None),
        promotions=tuple(reports.promotion_facts(connection, run.job)),
        alerts=tuple(reports.alert_facts(connection, run.job, run.day)),
    )


def job_values(env: Environment, connection: sa.Connection, job: str) -> JobPage:
    """Everything that a job's index shows, of the last year."""
    facts = job_facts(connection, job)
    days = last_days(connection, facts, YEAR)
    first, last = _span(connection, facts, YEAR)
    return JobPage(
        job=facts,
        declared=_declared(env, job),
        champion=_champion(connection, job),
        days=tuple(days),
        nights=tuple(reports.nights(connection, job, first, last)),
        recent=tuple(reports.recent_runs(connection, job, _RECENT)),
        versions=tuple(reports.version_facts(connection, job)),
        promotions=tuple(reports.promotion_facts(connection, job)),
        alerts=tuple(reports.alert_facts(connection, job)),
        verdicts=tuple(reports.verdict_facts(connection, job)),
    )


def verdict_values(connection: sa.Connection, job: str, number: int) -> VerdictPage:
    """Everything that the page of a verdict shows; UsageError where there is none of that number."""
    found = reports.verdict_facts(connection, job, number)
    if not found:
        raise UsageError(f"verdict {number} of {job} must be recorded; there is none of that number")
    promoted = reports.promotion_facts(connection, job)
    return VerdictPage(
        job=job_facts(connection, job),
        verdict=found[0],
        promotions=tuple(one for one in promoted if one.version == found[0].challenger),
    )


def job_lines(connection: sa.Connection, only: Collection[str] | None = None) -> list[JobLine]:
    """Every job that was migrated, or those of some names, in one line."""
    return [
        JobLine(
            job=facts,
            days=tuple(last_days(connection, facts, _LINE_DAYS)),
            champion=_champion(connection, facts.job),
            open_alerts=reports.open_alerts(connection, facts.job),
        )
        for facts in reports.job_facts(connection)
        if only is None or facts.job in only
    ]


def dictionary_values(env: Environment, connection: sa.Connection, job: str) -> DictionaryPage:
    """Everything that a job's data dictionary shows."""
    facts = job_facts(connection, job)
    return DictionaryPage(facts, _declared(env, job), tuple(catalogue.readable(connection, job)))


def last_days(connection: sa.Connection, facts: JobFacts, most: int) -> list[Day]:
    """The expected days up to the newest one that has any run."""
    first, last = _span(connection, facts, most)
    return reports.days(connection, facts.job, first, last)


def _span(connection: sa.Connection, facts: JobFacts, most: int) -> tuple[date, date]:
    last = reports.newest_day(connection, facts.job) or facts.start_day
    return last - timedelta(days=most - 1), last


def _champion(connection: sa.Connection, job: str) -> int | None:
    history = versions.promotion_history(connection, job)
    found = promote.in_force(history, datetime.now(UTC))
    return found.version if found else None


def job_facts(connection: sa.Connection, job: str) -> JobFacts:
    """A job as migrated; UsageError where it was not."""
    found = reports.job_facts(connection, job)
    if not found:
        known = ", ".join(facts.job for facts in reports.job_facts(connection)) or "none"
        raise UsageError(
            f"job {job!r} must be migrated to have reports; there are: {known}. Run `nightshift migrate`"
        )
    return found[0]


def _declared(env: Environment, job: str) -> Declared | None:
    """What the declaration says now; None where it is wrong or gone: its runs are shown all the same."""
    with suppress(UsageError):
        return _taken(load_job(env.project, job))
    return None


def _taken(job: Job) -> Declared:
    declaration = job.declaration
    outcomes = declaration.outcomes
    declared = outcomes.costs if outcomes else None
    costs = declared.model_dump(by_alias=True, include=_COSTS[declaration.model.output]) if declared else {}
    return Declared(
        key=declaration.extract.key,
        columns=declaration.extract.columns,
        pii=declaration.extract.pii,
        sources=tuple(
            SourceFacts(alias, source.table, source.known_at) for alias, source in declaration.sources.items()
        ),
        output=declaration.model.output,
        threshold=declaration.model.threshold,
        rolling_days=declaration.monitor.rolling_days,
        label=outcomes.label if outcomes else None,
        mature_after_days=outcomes.mature_after_days if outcomes else None,
        currency=declared.currency if declared else None,
        costs=costs,
    )
