"""`nightshift rollout`: starts and stops what runs beside the champion, and compares the two."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.cli.console import emit, pairs
from pipeline.cli.models import instant
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.environment import Environment
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


def _report(row: Rollout, title: str, *, as_json: bool) -> None:
    emit(asdict(row), as_json=as_json, shown=pairs(title, list(vars(row).items())))
