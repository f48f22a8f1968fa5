"""`nightshift rollout`: starts and stops what runs beside the champion, and compares the two."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, out, pairs, table
from pipeline.errors import UsageError
from pipeline.partition import instant

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.guardrails import Night, Standing
    from pipeline.lifecycle.rollout import Kind, Rollout


@dataclass(frozen=True)
class Asked:
    """The options that were given; None where one was not."""

    version: int | None
    share: float | None
    approved_by: str | None
    reason: str | None
    effective_from: str | None

    def only(self, action: str, *names: str) -> None:
        """Refuse options that this action does not take."""
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if odd := [f"--{name.replace('_', '-')}" for name in given if name not in names]:
            raise UsageError(f"rollout {action} takes no {', '.join(odd)}")

    @property
    def since(self) -> datetime | None:
        """The instant that `effective_from` names."""
        return instant(self.effective_from, "--effective-from") if self.effective_from else None


def run_rollout(env: Environment, job: str, kind: Kind, asked: Asked, *, as_json: bool) -> None:
    """Start, or go on in another way, and report the new row of the history."""
    from pipeline import rollouts

    started = rollouts.start(
        env,
        job,
        kind,
        version=asked.version,
        share=asked.share,
        approved_by=asked.approved_by,
        reason=asked.reason or f"{kind} by hand",
        effective_from=asked.since,
    )
    _report(started, f"{job}: version {started.version} runs beside the champion", as_json=as_json)


def run_rollout_stop(env: Environment, job: str, asked: Asked, *, as_json: bool) -> None:
    """Stop and report the new row of the history."""
    from pipeline import rollouts

    asked.only("stop", "reason", "effective_from")
    reason = asked.reason or "stopped by hand"
    stopped = rollouts.stop(env, job, reason=reason, effective_from=asked.since)
    _report(stopped, f"{job}: the champion answers alone", as_json=as_json)


def run_rollout_status(env: Environment, job: str, asked: Asked, *, as_json: bool) -> None:
    """Show how the newest rollout stands: its arms by night, and what they say together."""
    from pipeline import guardrails, rollouts

    asked.only("status")
    found = guardrails.standing(env, job)
    if found is None:
        emit(
            {"job": job, "rollout": None},
            as_json=as_json,
            shown=f"{job}: nothing ran beside the champion yet",
        )
        return
    emit({"job": job, **asdict(found)}, as_json=as_json)
    if not as_json:
        out.print(rollouts.told(found.rollout), markup=False)
        out.print(_state(found), markup=False)
        head = (
            "day", "kind", "share", "champion rows", "challenger rows", "failed", "decides yes", "beside",
            "changed", "ratio p", f"champion {found.metric}", "challenger",
        )  # fmt: skip
        out.print(table(None, head, [_cells(night, found) for night in found.nights]), markup=False)
        for night in found.nights:
            for fault in night.faults:
                out.print(f"{night.day}: {fault}", markup=False)


def _state(found: Standing) -> str:
    if found.begins is not None:
        return f"begins at {found.begins:%Y-%m-%d %H:%M} UTC; until then the champion answers alone"
    compared = found.comparison
    state = "running" if found.running else f"ended: {found.ended or 'the champion changed'}"
    if compared is None:
        return state
    told = f"{state}; {compared.conclusion} after {compared.nights} judged nights"
    if not isfinite(compared.lower):
        return told
    bounds = f"between {compared.lower:.4g} and {compared.upper:.4g}"
    return f"{told}: {found.metric} differs by {compared.difference:.4g}, {bounds}"


def _cells(night: Night, found: Standing) -> list[Any]:
    held = night.answered
    champion, challenger = (
        f"{decisions / rows:.1%}" if rows and found.decides else None
        for decisions, rows in (
            (held.champion_decisions, held.champion_rows),
            (held.challenger_decisions, held.challenger_rows),
        )
    )
    figures = [night.sample_ratio_p, night.champion, night.challenger]
    return [
        night.day, night.kind, night.share, held.champion_rows, held.challenger_rows, held.failed_rows,
        champion, challenger, night.changed, *(None if each is None else f"{each:.4g}" for each in figures),
    ]  # fmt: skip


def _report(row: Rollout, title: str, *, as_json: bool) -> None:
    emit(asdict(row), as_json=as_json, shown=pairs(title, list(vars(row).items())))
