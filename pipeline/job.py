"""What a job is: the strict, frozen schema of `dags/<job>.yaml`, its keys in the order in which data flows.

`pipeline.declaration` reads the YAML and reports all faults.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pipeline import agreement
from pipeline.fields import Clock, Distinct, Key, Name, Part, Score, Table, Text, Zone, refuse
from pipeline.job_life import Gate, Retrain, Rollout, Train
from pipeline.partition import COLUMN, Instants, Partition

ColumnType = Literal[
    "text", "integer", "float", "boolean", "date", "timestamp",
    "text?", "integer?", "float?", "boolean?", "date?", "timestamp?",
]  # fmt: skip
"""A column's type at the typed boundary; a trailing `?` allows nulls. Timestamps are UTC instants."""

BadRowStep = Literal["rule", "carried_forward", "default"]
ModelFailureStep = Literal["previous_model", "baseline", "rule", "carried_forward", "default"]
ScoreSource = Literal[
    "champion", "challenger", "previous_model", "baseline", "rule", "carried_forward", "default"
]


OUTPUT_COLUMNS = (
    COLUMN, "score", "decision", "score_source", "score_age_days", "arm", "model_version",
    "run_id", "scored_at",
)  # fmt: skip
"""What every job publishes beside its key columns."""

_TAKEN = (*OUTPUT_COLUMNS, "run_no", "published_at", "superseded_at")
"""What a key column cannot be called: the rows and the history of every job have these."""

_JUDGED = Field(default=None, validate_default=True)  # absent, yet other keys may need it


class Owners(Part):
    """Who answers for the job."""

    team: Text
    on_call: Text
    approvers: Annotated[tuple[Text, ...], Field(min_length=1), Distinct]


class Schedule(Part):
    """Which partitions exist and what instant each one may know up to."""

    grain: Literal["day"]
    timezone: Zone
    cutoff: Clock
    start: date
    end: date | None = None
    after: Annotated[tuple[Name, ...], Distinct] = ()
    """Jobs whose publish of a day starts this one's; none: every midnight."""

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start")
        if end is not None and start is not None and end < start:
            raise ValueError(f"must not lie before start; got {start} to {end}")
        return end


class Resources(Part):
    """What one run may use."""

    cpus: Annotated[int, Field(ge=1, le=256)] = 2
    memory_mb: Annotated[int, Field(ge=256)] = 1024
    rows_per_shard: Annotated[int, Field(ge=1)] = 5_000_000
    """Above so many rows, workers share a night; a shard should take half a minute at least."""


class Source(Part):
    """One table that queries may name by its alias, and when each of its rows was known."""

    table: Table
    known_at: Text | None = None
    overwritten: bool = False

    @model_validator(mode="after")
    def _known_or_overwritten(self) -> Self:
        if (self.known_at is None) is not self.overwritten:
            raise ValueError(
                "must have either known_at (the column that says when a row was known) "
                "or overwritten: true (the table holds only its latest state)"
            )
        return self


class Ready(Part):
    """Whether the source has the partition's rows: one boolean, asked from the cut-off until `until`."""

    sql: Text
    until: Clock


class Extract(Part):
    """The partition's rows: one per key."""

    key: Key
    columns: Annotated[dict[Name, ColumnType], Field(min_length=1)]
    pii: Annotated[tuple[Name, ...], Distinct] = ()
    empty_is_normal: bool = False
    sql: Text

    @field_validator("columns")
    @classmethod
    def _hold_key_and_partition(cls, columns: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        refuse(agreement.column_faults(info.data.get("key", ()), columns, _TAKEN))
        return columns

    @field_validator("pii")
    @classmethod
    def _are_columns(cls, pii: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        refuse(agreement.pii_faults(pii, tuple(info.data.get("columns", pii))))
        return pii


class HistoryQuery(Part):
    """One look-back input of the features: one row per key."""

    key: Key
    sql: Text


class Validate(Part):
    """How much bad data a run may carry, and the suite's day-dependent bounds."""

    max_quarantined_share: Annotated[float, Field(ge=0, le=1)]
    parameters: Text | None = None


class Model(Part):
    """What the model gives and which version a backfill uses."""

    output: Literal["probability", "value"]
    threshold: Score | None = _JUDGED
    backfill_policy: Literal["current", "as-of"] | Annotated[int, Field(ge=1)] = "current"
    """The champion now, the champion at each day's cut-off, or a version."""

    @field_validator("threshold")
    @classmethod
    def _fits_the_output(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        refuse(agreement.threshold_faults(threshold, info.data.get("output")))
        return threshold


class CarriedForward(Part):
    """Take the last published score of the same key from an earlier partition."""

    key: Key
    max_age_days: Annotated[int, Field(ge=1)]


class Fallback(Part):
    """What answers instead, in order; a row that no step answers is withheld."""

    bad_row: Annotated[tuple[BadRowStep, ...], Distinct] = ()
    model_failure: Annotated[tuple[ModelFailureStep, ...], Distinct] = ()
    rule_sql: Text | None = None
    """The rule as one SQL expression over a row's columns, null where it has no answer; else rule_scores."""
    carried_forward: CarriedForward | None = _JUDGED
    default: Score | None = _JUDGED

    @field_validator("carried_forward", "default")
    @classmethod
    def _is_set_for_its_step(cls, setting: Any, info: ValidationInfo) -> Any:
        steps = (*info.data.get("bad_row", ()), *info.data.get("model_failure", ()))
        if setting is None and info.field_name in steps:
            raise ValueError(f"must be set, the step {info.field_name} stands in a chain; got nothing")
        return setting


class Publish(Part):
    """Which sinks readers use; the pointer in the warehouse is the truth for both."""

    sql: bool = True
    parquet: bool = True

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not (self.sql or self.parquet):
            raise ValueError("at least one of sql and parquet must be true")
        return self


class Requests(Part):
    """Other systems may ask for scores in `nightshift.scoring_requests`; how soon they are answered."""

    every_minutes: Annotated[int, Field(ge=1, le=1440)] = 5
    expire_after_hours: Annotated[int, Field(ge=1)] = 24
    """A request that says nothing of its own expires after so many."""


class Retention(Part):
    """For how many days after their end runs that readers do not see are kept; for ever where it is not said.

    A run that readers saw has ended when they ceased to.

    Scoring requests alone have an end by default: they are messages, and may hold inputs as others sent them.

    What readers see, what `nightshift unpublish` would restore, what is not judged yet and what is at work
    is never pruned; the runs table and all that was measured stay.
    """

    replaced_days: Annotated[int, Field(ge=1)] | None = None
    """Runs that readers saw once: rows and files."""
    unpublished_days: Annotated[int, Field(ge=1)] | None = None
    """Runs that readers never saw, failed or superseded: rows and files."""
    snapshots_days: Annotated[int, Field(ge=1)] | None = None
    """Of all of these, only the snapshot and the parts: the run's own Parquet file and its rows stay."""
    requests_days: Annotated[int, Field(ge=1)] | None = 30
    """Scoring requests that are answered, failed or expired, and never queued ones; null: for ever."""


class Monitor(Part):
    """What a night's data is compared with, and how often an alert may be a false one."""

    rolling_days: Annotated[int, Field(ge=7)] = 28
    """Nights before this one that make up the rolling baseline."""
    false_alarms_a_year: Annotated[float, Field(gt=0)] = 4.0
    """The promised budget of data-drift alerts where nothing is wrong; concept drift may add half as many."""
    nights_running: Annotated[int, Field(ge=1)] = 2
    """On how many consecutive nights a change must be seen before it is told; structural breaks at once."""


class Costs(Part):
    """What each answer costs once its label is known, in money; a gain is negative."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    hit: Score = 0.0
    """Decision yes, label yes."""
    false_alarm: Score = 0.0
    """Decision yes, label no."""
    miss: Score = 0.0
    """Decision no, label yes."""
    pass_: Score = Field(default=0.0, alias="pass")
    """Decision no, label no."""
    over: Score = 0.0
    """Of each unit that a value lies above its label."""
    under: Score = 0.0
    """Of each unit that a value lies below its label."""


class Outcomes(Part):
    """The query that brings labels later: the job's key columns and the label; and how they are judged."""

    label: Name
    sql: Text
    decided_at: Clock | None = None
    """Local clock time of the day at which its predictions are acted upon; none: the day's end."""
    mature_after_days: Annotated[int, Field(ge=0)] = 2
    """So many days after its own, a day's labels are expected to be there."""
    slices: Annotated[tuple[Name, ...], Distinct] = ()
    """Columns by whose values quality is told apart."""
    costs: Costs | None = None
    worse_for_nights: Annotated[int, Field(ge=2)] = 7
    """For how many nights quality must stay below its promise before concept drift is told."""


class Alerts(Part):
    """Where notices go, and from what local clock time on an unpublished day is late."""

    channel: Name | None = None
    publish_by: Clock | None = None


class Declaration(Part):
    """The whole of `dags/<job>.yaml`."""

    description: Text
    owners: Owners
    schedule: Schedule
    resources: Resources = Resources()
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    ready: Ready | None = None
    extract: Extract
    history: dict[Name, HistoryQuery] = Field(default_factory=dict)
    validate_: Validate = Field(alias="validate")
    model: Model
    fallback: Fallback = Fallback()
    publish: Publish = Publish()
    retention: Retention = Retention()
    requests: Requests | None = None
    monitor: Monitor = Monitor()
    outcomes: Outcomes | None = None
    train: Train = Train()
    retrain: Retrain | None = None
    gate: Gate = Gate()
    rollout: Rollout = Rollout()
    alerts: Alerts = Alerts()

    @field_validator("fallback")
    @classmethod
    def _answers_as_the_model(cls, fallback: Fallback, info: ValidationInfo) -> Fallback:
        refuse(agreement.fallback_faults(fallback, info.data.get("extract"), info.data.get("model")))
        return fallback

    @field_validator("publish")
    @classmethod
    def _keeps_what_is_carried(cls, publish: Publish, info: ValidationInfo) -> Publish:
        refuse(agreement.publish_faults(publish, info.data.get("fallback")))
        return publish

    @field_validator("outcomes")
    @classmethod
    def _label_is_no_key(cls, outcomes: Outcomes | None, info: ValidationInfo) -> Outcomes | None:
        extract, model = info.data.get("extract"), info.data.get("model")
        refuse(agreement.outcome_faults(outcomes, extract, model))
        return outcomes

    @field_validator("train")
    @classmethod
    def _can_be_fitted(cls, train: Train, info: ValidationInfo) -> Train:
        refuse(agreement.train_faults(train, info.data.get("model"), info.data.get("outcomes")))
        return train

    @field_validator("retrain")
    @classmethod
    def _has_what_fires(cls, retrain: Retrain | None, info: ValidationInfo) -> Retrain | None:
        refuse(agreement.retrain_faults(retrain, info.data.get("outcomes")))
        return retrain

    @field_validator("alerts")
    @classmethod
    def _late_after_the_cutoff(cls, alerts: Alerts, info: ValidationInfo) -> Alerts:
        refuse(agreement.alert_faults(alerts, info.data.get("schedule")))
        return alerts


class Job(BaseModel):
    """One model's scoring work: its name (the stem of its three files) and its declaration."""

    model_config = ConfigDict(frozen=True)

    name: Name
    declaration: Declaration

    @property
    def timezone(self) -> ZoneInfo:
        """The business time zone."""
        return ZoneInfo(self.declaration.schedule.timezone)

    def instants(self, partition: Partition) -> Instants:
        """What the queries of this partition bind."""
        return partition.instants(self.timezone, self.declaration.schedule.cutoff)

    def newest_partition(self, now: datetime) -> Partition:
        """The newest scheduled partition whose cut-off has passed."""
        schedule = self.declaration.schedule
        today = Partition(now.astimezone(self.timezone).date())
        newest = today if self.instants(today).cutoff <= now else today.previous()
        return min(newest, Partition(schedule.end)) if schedule.end else newest

    def due(self, partition: Partition) -> datetime | None:
        """The UTC instant from which an unpublished partition is late; None where none is declared.

        A partition outside of the schedule is never late.
        """
        schedule, publish_by = self.declaration.schedule, self.declaration.alerts.publish_by
        ended = schedule.end is not None and partition.day > schedule.end
        if publish_by is None or partition.day < schedule.start or ended:
            return None
        return partition.at(publish_by, self.timezone)

    def output_columns(self) -> tuple[str, ...]:
        """The published columns in order: the key, then the same ones for every job."""
        return (*self.declaration.extract.key, *OUTPUT_COLUMNS)
