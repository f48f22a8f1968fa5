"""What each page is made of, read elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from pipeline.monitoring.metrics import Metric
from pipeline.monitoring.report.facts import (
    AlertFacts,
    Declared,
    JobFacts,
    PromotionFacts,
    Realised,
    Reason,
    RolloutFacts,
    RunFacts,
    Status,
    TableFacts,
    VerdictFacts,
    VersionFacts,
)


@dataclass(frozen=True)
class Night:
    """The run that readers see of a day, as a point of a trend.

    `metrics` holds those of its rows, scores and estimates as `part/metric` or `part/metric/baseline`, the
    mean of its columns' as `drift/js/baseline`, and realised ones as `realised/metric`.
    """

    run: RunFacts
    metrics: Mapping[str, float]
    hindsight: bool | None = None
    """Whether its realised quality is that of a run published after the decision; None: not judged."""
    labelled: int = 0
    """Predictions that were judged."""

    @property
    def day(self) -> date:
        """Its business day."""
        return self.run.day


@dataclass(frozen=True)
class Day:
    """An expected day: what readers see, and how the newest attempt ended."""

    day: date
    status: Status
    run_id: str | None
    """The run that readers see, else the newest attempt."""
    restatements: int
    last_status: str | None
    reasons: tuple[str, ...] = ()
    """Why it may be trusted so far and no further."""


@dataclass(frozen=True)
class Scores:
    """How many scores lie in each of the equal bins from `low` to `high`."""

    low: float
    high: float
    counts: tuple[int, ...]
    before: tuple[int, ...] | None
    """The same of the day before; None where nothing of it is published."""


@dataclass(frozen=True)
class RunPage:
    """Everything that a run's page shows."""

    job: JobFacts
    declared: Declared | None
    run: RunFacts
    visible: Day | None
    """What readers see of the day; None where the schedule does not expect it."""
    visible_run_id: str | None
    others: tuple[RunFacts, ...]
    """All runs of the day, the newest first."""
    previous: RunFacts | None
    """The run that readers see of the last published day before."""
    following: RunFacts | None
    """The same of the next published day."""
    reasons: tuple[Reason, ...]
    metrics: tuple[Metric, ...]
    realised: tuple[Realised, ...]
    scores: Scores | None
    nights: tuple[Night, ...]
    version: VersionFacts | None
    promotions: tuple[PromotionFacts, ...]
    alerts: tuple[AlertFacts, ...]
    rollout: RolloutFacts | None = None
    """None where nothing ran beside the champion."""


@dataclass(frozen=True)
class JobPage:
    """Everything that a job's index page shows."""

    job: JobFacts
    declared: Declared | None
    champion: int | None
    days: tuple[Day, ...]
    nights: tuple[Night, ...]
    recent: tuple[RunFacts, ...]
    versions: tuple[VersionFacts, ...]
    promotions: tuple[PromotionFacts, ...]
    alerts: tuple[AlertFacts, ...]
    verdicts: tuple[VerdictFacts, ...] = ()
    """What the gate said last, the newest first."""


@dataclass(frozen=True)
class VerdictPage:
    """Everything that the page of a verdict shows."""

    job: JobFacts
    verdict: VerdictFacts
    promotions: tuple[PromotionFacts, ...]
    """Those of the challenger."""


@dataclass(frozen=True)
class JobLine:
    """A job in one line: its last days and who answers now."""

    job: JobFacts
    days: tuple[Day, ...]
    champion: int | None
    open_alerts: int


@dataclass(frozen=True)
class DictionaryPage:
    """Everything that a job's data dictionary shows."""

    job: JobFacts
    declared: Declared | None
    tables: tuple[TableFacts, ...]


@dataclass(frozen=True)
class ReadinessLine:
    """One item of the rubric and its answer."""

    id: str
    title: str
    required: bool
    status: str
    evidence: str
    fix: str | None


@dataclass(frozen=True)
class ReadinessPage:
    """Whether a version of a job is ready for its nights."""

    job: JobFacts
    version: int
    day: date
    made_at: datetime
    lines: tuple[ReadinessLine, ...]

    def count(self, status: str) -> int:
        """How many items have that status."""
        return sum(line.status == status for line in self.lines)

    @property
    def required_failed(self) -> int:
        """How many required items failed."""
        return sum(line.required and line.status == "fail" for line in self.lines)

    @property
    def ready(self) -> bool:
        """Whether no required item failed."""
        return self.required_failed == 0
