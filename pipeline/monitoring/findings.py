"""What monitoring found of a job on a day: the values that alerts, reports and retraining read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

FindingKind = Literal["structure", "drift", "concept", "rollout"]


@dataclass(frozen=True)
class Finding:
    """One change with its cause, the same text on every night of an episode."""

    job: str
    day: date
    kind: FindingKind
    cause: str
    """What changed, without figures of a night, such as `feature distance: another distribution`."""
    evidence: str
    """The night's figures, in sentences; no rows."""
    todo: str
    """What its owner does next, in a sentence."""
    since: date | None = None
    """The first night of the change, which names its episode; None where the cause alone does."""
    columns: tuple[str, ...] = ()
    """What changed, as `part column`, the clearest first."""
