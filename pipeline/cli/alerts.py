"""`nightshift alerts`: what the owners were told, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pipeline.cli.console import emit, table
from pipeline.declaration import load_job
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.environment import Environment

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
    from datetime import datetime

    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else value
