"""A year of monthly retraining on the flights: frozen, always and gated champions side by side, in money.

    make bench-retraining ARGS="--json"

On the first of each month from June on, at its cut-off, a challenger learns from every mature night but the
last 28, the gate judges it on those, and once accepted it is fitted again on all of them and promoted.
`always` takes each such fit without asking; `frozen` keeps the version of the demo. Each policy's versions
answer the same nights of May to December. The gate's settings are those of dags/flight_delays.yaml.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy import stats

from pipeline import gate, training
from pipeline.adapters import versions
from pipeline.cli.demo import JOB, run_demo
from pipeline.compare import Contender, compared
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.partition import Partition, between
from pipeline.retraining import training_span
from pipeline.settings import Settings
from pipeline.training import Cause

FIRST, LAST = Partition(date(2013, 5, 1)), Partition(date(2013, 12, 31))
MONTHS = range(6, 13)
POLICIES = ("frozen", "always", "gated")
ERROR = 0.05


@dataclass(frozen=True)
class Month:
    """What the gate said on the first of a month, and which version each policy used from then on."""

    month: int
    challenger: int | None
    outcome: str | None
    reasons: tuple[str, ...]
    versions: dict[str, int]


@dataclass(frozen=True)
class Cost:
    """One night's labelled rows and its cost per 1,000 of them, by policy."""

    day: date
    rows: int
    per_1000: dict[str, float]


def retrained(env: Environment, job: Job) -> Iterator[Month]:
    """May with the first version, then each month's challenger, verdict and versions in use."""
    using = dict.fromkeys(POLICIES, 1)
    yield Month(5, None, None, (), dict(using))
    for number in MONTHS:
        at = job.instants(Partition(date(2013, number, 1))).cutoff
        challenger = _trained(env, training_span(job, at, job.declaration.gate.nights), at, Cause())
        judged = gate.judge(env, JOB, challenger, champion=using["gated"], as_of=at)
        everything = _trained(env, training_span(job, at, 0), at, Cause(refit_of=challenger))
        using["always"] = everything
        if judged.verdict.outcome == "accept":
            using["gated"] = everything
            training.promote(
                env,
                JOB,
                everything,
                approved_by="ana",
                reason=f"verdict {judged.verdict_no}",
                effective_from=at,
            )
        reasons = [each for each in judged.verdict.reasons if each.outcome != "accept"]
        quality = [each for each in judged.verdict.reasons if each.check == "quality" and each not in reasons]
        told = tuple(f"{each.check}: {each.evidence}" for each in (*reasons, *quality))
        yield Month(number, challenger, judged.verdict.outcome, told, dict(using))


def _trained(env: Environment, span: list[Partition], at: datetime, cause: Cause) -> int:
    return training.train(env, JOB, span, at, None, lambda _: None, cause).version


def costs(env: Environment, job: Job, month: Month) -> Iterator[Cost]:
    """Each night of a month, answered by every policy's version."""
    days = [day for day in between(FIRST, LAST) if day.day.month == month.month]
    frozen, found = month.versions["frozen"], dict[int, dict[date, tuple[int, float]]]()
    for other in {month.versions["always"], month.versions["gated"]} - {frozen} or {frozen}:
        found |= _losses(env, job, (frozen, other), days)
    for day in found[frozen]:
        rows = found[frozen][day][0]
        yield Cost(day, rows, {name: found[month.versions[name]][day][1] for name in POLICIES})


def _losses(
    env: Environment, job: Job, pair: tuple[int, int], days: list[Partition]
) -> dict[int, dict[date, tuple[int, float]]]:
    losses: dict[int, dict[date, tuple[int, float]]] = {number: {} for number in pair}
    with env.engine.connect() as connection:
        held = [versions.version(connection, JOB, number) for number in pair]
    with env.store.workspace() as folder:
        contenders = [
            Contender.of(each, folder / f"{place}-{each.version}", env.registry_url)
            for place, each in enumerate(held)
        ]
        for one in compared(env, job, (contenders[0], contenders[1]), days, datetime.now(UTC), folder):
            if one.night is not None:
                whole = one.night.whole
                losses[pair[0]][one.night.day] = (whole.rows, whole.loss.champion)
                losses[pair[1]][one.night.day] = (whole.rows, whole.loss.challenger)
            shutil.rmtree(folder / one.partition.key, ignore_errors=True)
    return losses


@dataclass(frozen=True)
class Comparison:
    """Of one policy against another: the mean difference, in money and per cent, with its bounds."""

    policy: str
    against: str
    difference: float
    lower: float
    upper: float
    per_cent: float


def compare(nights: list[Cost], policy: str, against: str) -> Comparison:
    """Cost per 1,000 rows; a t-interval of weeks, as nights of a week go together."""
    rows = np.array([night.rows for night in nights], dtype=np.float64)
    one, other = (np.array([night.per_1000[name] for night in nights]) for name in (policy, against))
    weeks = np.array([night.day.isocalendar()[1] for night in nights])
    weekly = [
        float(np.average((one - other)[weeks == week], weights=rows[weeks == week]))
        for week in np.unique(weeks)
    ]
    mean = float(np.average(one - other, weights=rows))
    half = float(stats.sem(weekly) * stats.t.ppf(1 - ERROR / 2, len(weekly) - 1))
    share = 100 * mean / float(np.average(other, weights=rows))
    return Comparison(policy, against, mean, mean - half, mean + half, share)


def total(nights: list[Cost], policy: str) -> float:
    """Cost per 1,000 labelled rows of these nights."""
    return float(
        np.average([night.per_1000[policy] for night in nights], weights=[night.rows for night in nights])
    )


def report(months: list[Month], nights: list[Cost]) -> dict[str, Any]:
    """All figures."""
    better = min(("frozen", "always"), key=lambda policy: total(nights, policy))
    worse = "always" if better == "frozen" else "frozen"
    by_month = [
        asdict(month)
        | {
            name: total([night for night in nights if night.day.month == month.month], name)
            for name in POLICIES
        }
        for month in months
    ]
    return {
        "months": by_month,
        "total": {name: total(nights, name) for name in POLICIES},
        "better": better,
        "regret": asdict(compare(nights, "gated", better)),
        "against_worse": asdict(compare(nights, "gated", worse)),
        "nights": len(nights),
    }


def shown(found: dict[str, Any]) -> Table:
    """The same for people."""
    table = Table(title="Cost per 1,000 flights, USD", title_justify="left")
    for name in ("month", "challenger", "verdict", "gated uses", *POLICIES):
        table.add_column(name, justify="right")
    for month in found["months"]:
        cost = [f"{month[name]:,.0f}" for name in POLICIES]
        used = str(month["versions"]["gated"])
        table.add_row(
            str(month["month"]), str(month["challenger"] or ""), month["outcome"] or "", used, *cost
        )
    table.add_row("all", "", "", "", *(f"{found['total'][name]:,.0f}" for name in POLICIES))
    return table


def main(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False) -> None:
    """Retrain month by month, and compare what each policy would have cost."""
    settings = Settings()
    env = Environment(settings.model_copy(update={"home": settings.state / "bench-retraining"}))
    err = Console(stderr=True, highlight=False)
    run_demo(env, as_json=False)
    job = load_job(env.project, JOB)
    months: list[Month] = []
    nights: list[Cost] = []
    for month in retrained(env, job):
        months.append(month)
        nights += costs(env, job, month)
        err.print(
            f"month {month.month}: {month.outcome or 'first version'}; " + "; ".join(month.reasons),
            markup=False,
        )
    found = report(months, nights)
    if as_json:
        sys.stdout.write(json.dumps(found, default=str) + "\n")
    else:
        console = Console(width=120)
        console.print(shown(found))
        for name in ("regret", "against_worse"):
            one = found[name]
            console.print(
                f"{one['policy']} against {one['against']}: {one['difference']:+,.0f} USD per 1,000 "
                f"({one['lower']:+,.0f} to {one['upper']:+,.0f}), {one['per_cent']:+.2f} %"
            )


if __name__ == "__main__":
    typer.run(main)
