"""What retention ends: which runs are old enough to go, and which are needed whatever their age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipeline.job import Retention
from pipeline.run import Status

Part = Literal["run", "snapshot"]
"""All that a run left, or only what it read and scored in between."""


@dataclass(frozen=True)
class Candidate:
    """One run that still has files: how it ended, when, and whether its snapshot is there.

    A run that readers saw has ended when they ceased to.
    """

    run_no: int
    status: Status
    ended_at: datetime
    has_snapshot: bool


def due(
    candidates: Iterable[Candidate], needed: Mapping[int, str], retention: Retention, now: datetime
) -> dict[int, Part]:
    """What goes of which run, by number; nothing of a run that is at work or `needed`."""
    found: dict[int, Part] = {}
    for run in candidates:
        if run.status == "running" or run.run_no in needed:
            continue
        seen = run.status in ("published", "withdrawn")
        if _older(run, retention.replaced_days if seen else retention.unpublished_days, now):
            found[run.run_no] = "run"
        elif run.has_snapshot and _older(run, retention.snapshots_days, now):
            found[run.run_no] = "snapshot"
    return found


def _older(run: Candidate, days: int | None, now: datetime) -> bool:
    return days is not None and run.ended_at <= now - timedelta(days=days)
