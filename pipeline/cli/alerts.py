"""`nightshift alerts`: what the owners were told, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Self

from pipeline.cli.console import emit, table
from pipeline.declaration import load_job
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.monitoring.false_alarms import Rate

_YEAR = 365 + 56
"""Nights that are looked at: a year, and the weeks before its first one."""

_SHOWN = (
    "alert_no", "day", "last_day", "kind", "cause", "state", "raised_at", "acknowledged_by", "resolved_by",
    "delivered_at",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """Somebody takes an alert on, or ends its episode."""

    alert_no: int
    state: str
    who: str

    @classmethod
    def asked(cls, acknowledged: int | None, resolved: int | None, who: str | None) -> Self | None:
        """The change that the options ask for; None for none. Raises UsageError where they contradict."""
        if acknowledged is None and resolved is None and who is None:
            return None
        if (acknowledged is None) is (resolved is None) or not who:
            raise UsageError("an alert must be changed by one of --acknowledge and --resolve, with --by WHO")
        if acknowledged is not None:
            return cls(acknowledged, "acknowledged", who)
        return cls(resolved or 0, "resolved", who)


def run_alerts(env: Environment, job: str, *, lasting: bool, as_json: bool) -> None:
    """The job's alerts, the newest first."""
    from pipeline.adapters import episodes

    name = load_job(env.project, job).name
    with env.engine.connect() as connection:
        rows = episodes.listed(connection, name, lasting=lasting)
    shown = table(f"alerts of {name}", _SHOWN, [[_cell(row[column]) for column in _SHOWN] for row in rows])
    emit({"job": name, "alerts": rows}, as_json=as_json, shown=shown)


def run_limits(env: Environment, job: str, *, as_json: bool) -> None:
    """False alarms, promised and in the job's own year, and the smallest change that each column can show."""
    from dataclasses import asdict
    from datetime import timedelta

    from pipeline.adapters import ledger, metrics
    from pipeline.monitoring.false_alarms import measured
    from pipeline.partition import Partition

    declared = load_job(env.project, job)
    with env.engine.connect() as connection:
        days = ledger.visible_days(connection, job, Partition(date.min), Partition(date.max))
        if not days:
            raise UsageError(f"{job} must have published nights; got none. Backfill some weeks first")
        last = Partition(max(days))
        first = Partition(last.day - timedelta(days=_YEAR))
        history = metrics.of_visible_runs(connection, job, first, last)
    rate, smallest = measured(declared.name, history, declared.declaration.monitor)
    rows = [[_cell(value) for value in asdict(one).values()] for one in smallest]
    shown = table(_promise(rate), ("part", "column", "metric", "usual", "smallest change"), rows)
    told = {"rate": asdict(rate) if rate else None, "smallest": [asdict(one) for one in smallest]}
    emit({"job": job, **told}, as_json=as_json, shown=shown)


def _promise(rate: Rate | None) -> str:
    if rate is None:
        return "no limits yet: they need metrics of three weeks of nights"
    return (
        f"false alarms a year: {rate.promised:g} promised, at most {rate.measured:.1f} measured "
        f"({rate.alerts} alerts in {rate.nights} nights, 95 % interval {rate.low:.1f} to {rate.high:.1f})"
    )


def run_change(env: Environment, job: str, change: Change, *, as_json: bool) -> None:
    """Record who took the alert on or ended it; raises UsageError where that alert is in no such state."""
    from pipeline.adapters import episodes

    name = load_job(env.project, job).name
    make = episodes.acknowledge if change.state == "acknowledged" else episodes.resolve
    with env.engine.begin() as connection:
        changed = make(connection, name, change.alert_no, change.who)
    if not changed:
        must = "open" if change.state == "acknowledged" else "open or acknowledged"
        raise UsageError(
            f"alert {change.alert_no} of {name} must be {must}; see `nightshift alerts {name} --open`"
        )
    told = {"job": name, "alert_no": change.alert_no, "state": change.state, "by": change.who}
    emit(told, as_json=as_json, shown=f"alert {change.alert_no} is {change.state} by {change.who}")


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else value
