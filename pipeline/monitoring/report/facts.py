"""Rows of the tables as pages show them. None always means: not known, not measured, does not apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any, Literal

Status = Literal["ok", "warned", "degraded", "failed", "running", "superseded", "missing"]
"""What a day or a run is shown as: how far it may be trusted where it was published, else how it stands."""


@dataclass(frozen=True)
class JobFacts:
    """A job as the last migration recorded it."""

    job: str
    description: str
    owners: Mapping[str, Any]
    timezone: str
    cutoff: time
    start_day: date
    end_day: date | None


@dataclass(frozen=True)
class SourceFacts:
    """A table that the job's queries may read; `known_at` is None where it is overwritten."""

    alias: str
    table: str
    known_at: str | None


@dataclass(frozen=True)
class Declared:
    """What pages take from the declaration as it stands now."""

    key: tuple[str, ...]
    columns: Mapping[str, str]
    pii: tuple[str, ...]
    sources: tuple[SourceFacts, ...]
    output: Literal["probability", "value"]
    threshold: float | None
    rolling_days: int
    label: str | None = None
    mature_after_days: int | None = None
    currency: str | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """One row of the runs table."""

    run_no: int
    run_id: str
    job: str
    day: date
    token: int
    status: Literal["running", "published", "failed", "superseded"]
    stage: str
    degraded: bool
    trigger: str
    triggered_by: str
    owners: Mapping[str, Any]
    cutoff: datetime
    as_of: bool
    model_version: int
    feature_version: str
    model_policy: str
    code_version: str
    snapshot_uri: str | None
    snapshot_fingerprint: str | None
    proved: bool | None
    bytes_read: int | None
    suite_sha256: str | None
    suite_results: Sequence[Mapping[str, Any]] | None
    rows_in: int | None
    rows_scored: int | None
    rows_fallback: int | None
    rows_withheld: int | None
    rows_quarantined: int | None
    score_sources: Mapping[str, int] | None
    warnings: Sequence[str]
    parquet_uri: str | None
    parquet_sha256: str | None
    error_type: str | None
    error_message: str | None
    started_at: datetime
    finished_at: datetime | None
    cpu_seconds: float
    peak_memory_mb: float
    parts: int | None

    @property
    def shown_as(self) -> Status:
        """How far it may be trusted by itself where it was published, else how it stands."""
        if self.status != "published":
            return self.status
        if self.degraded:
            return "degraded"
        return "warned" if self.warnings else "ok"

    @property
    def seconds(self) -> float | None:
        """From its plan to its end; None while it is at work."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None


@dataclass(frozen=True)
class Reason:
    """Rows that broke one rule; a row may have several reasons."""

    verdict: str
    rule: str
    column: str | None
    rows: int


@dataclass(frozen=True)
class Realised:
    """One row of the newest evaluation of a run."""

    arm: str
    slice_column: str
    slice_value: str
    metric: str
    value: float
    rows: int
    labelled: int
    hindsight: bool
    labels_as_of: datetime


@dataclass(frozen=True)
class PromotionFacts:
    """One row of the promotion history."""

    version: int
    previous_version: int | None
    kind: str
    effective_from: datetime
    recorded_at: datetime
    approved_by: str
    reason: str


@dataclass(frozen=True)
class VersionFacts:
    """A registered version."""

    version: int
    feature_version: str
    model_uri: str
    model_sha256: str
    sklearn_version: str
    trained_from: date
    trained_to: date
    labels_as_of: datetime
    rows: int
    data_fingerprint: str
    code_version: str
    seed: int
    metrics: Mapping[str, Any]
    registered_at: datetime


@dataclass(frozen=True)
class VerdictFacts:
    """What the gate said of a challenger; `reasons` and `figures` as they are recorded."""

    verdict_no: int
    job: str
    challenger: int
    champion: int
    first_day: date
    last_day: date
    nights: int
    labels_as_of: datetime
    outcome: Literal["accept", "refuse", "not_enough_evidence"]
    reasons: Sequence[Mapping[str, str]]
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    judged_at: datetime
    actor: str
    challenger_sha256: str
    champion_sha256: str


@dataclass(frozen=True)
class AlertFacts:
    """An alert that was told."""

    day: date | None
    last_day: date | None
    run_id: str | None
    kind: str
    cause: str
    state: str
    raised_at: datetime
    delivered_at: datetime | None
    channel: str | None


@dataclass(frozen=True)
class ColumnFacts:
    """A column of a table or view that analysts may read."""

    name: str
    kind: str
    comment: str | None


@dataclass(frozen=True)
class TableFacts:
    """A table or view that analysts may read."""

    name: str
    comment: str | None
    columns: tuple[ColumnFacts, ...]
