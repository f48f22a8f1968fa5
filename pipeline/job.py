"""What a job is: the strict, frozen schema of `dags/<job>.yaml`, its keys in the order in which data flows.

`pipeline.declaration` reads the YAML and reports all faults.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pipeline import agreement
from pipeline.fields import Clock, Cron, Distinct, Key, Name, Part, Score, Table, Text, Zone, refuse
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

TriggerKind = Literal["every_days", "on_drift", "on_concept", "cost_above", "new_labels"]
"""What may ask for a new version by itself, as the part `retrain` names it."""

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

    What readers see, what `nightshift unpublish` would restore, what is not judged yet and what is at work
    is never pruned; the runs table and all that was measured stay.
    """

    replaced_days: Annotated[int, Field(ge=1)] | None = None
    """Runs that readers saw once: rows and files."""
    unpublished_days: Annotated[int, Field(ge=1)] | None = None
    """Runs that readers never saw, failed or superseded: rows and files."""
    snapshots_days: Annotated[int, Field(ge=1)] | None = None
    """Of all of these, only the snapshot and the parts: the run's own Parquet file and its rows stay."""


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


class Train(Part):
    """How a version is fitted."""

    rows_per_day: Annotated[int, Field(ge=1)] | None = None
    holdout_nights: Annotated[int, Field(ge=1)] = 14
    seed: Annotated[int, Field(ge=0)] = 0
    calibrate: Literal["sigmoid", "temperature"] | None = None
    """How the scores of a model fitted before the last `holdout_nights` are calibrated on these."""
    schedule: Cron | None = None
    """When training starts by itself, in `schedule.timezone`; none: when asked, or when a trigger fires."""
    nights: Annotated[int, Field(ge=2)] | None = None
    """How many of the newest mature nights a training that names none replays; none: all since the start."""
    refit: bool = True
    """Whether the training DAG fits an accepted challenger again, on all nights, before it is promoted."""


class CostAbove(Part):
    """A mean cost that is too high."""

    per_1000: Score
    """Money for 1,000 labelled predictions."""
    nights: Annotated[int, Field(ge=1)] = 14
    """Over so many of the champion's newest judged nights."""


class Retrain(Part):
    """What asks for a new version by itself, looked at whenever outcomes are evaluated."""

    every_days: Annotated[int, Field(ge=1)] | None = None
    """So many days after the last night that the champion learned from."""
    on_drift: Annotated[int, Field(ge=1)] | None = None
    """A data-drift alert of the champion's time is open and has lasted for so many nights."""
    on_concept: bool = False
    """A concept-drift alert of the champion's time is open."""
    cost_above: CostAbove | None = None
    new_labels: Annotated[int, Field(ge=1)] | None = None
    """So many labelled rows of days after the last one that the champion learned from."""
    cool_down_days: Annotated[int, Field(ge=1)] = 14
    """For so many days after one of them has fired, these triggers fire no more."""
    own_cool_down_days: dict[TriggerKind, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """A trigger named here keeps its own: it waits for itself alone, and no other waits for it."""


class Behaviour(Part):
    """What a model must do by its owner's knowledge, named by feature columns."""

    rising: Annotated[tuple[Name, ...], Distinct] = ()
    """Where the column is higher, the score must not be lower."""
    falling: Annotated[tuple[Name, ...], Distinct] = ()
    """Where the column is higher, the score must not be higher."""
    invariant: Annotated[tuple[Name, ...], Distinct] = ()
    """Whatever other row's value the column holds, the score must be the same."""
    violations: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of rows that may break one of these."""

    @field_validator("falling", "invariant")
    @classmethod
    def _is_one_of_them(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        others = [*info.data.get("rising", ()), *info.data.get("falling", ())]
        refuse(agreement.behaviour_faults(info.field_name or "", names, others))
        return names


class Gate(Part):
    """What a challenger must show, on nights whose labels it has not seen, to replace the champion."""

    nights: Annotated[int, Field(ge=2)] = 28
    """Replayed nights after which one that is not better is refused; four weeks hold every weekday alike."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often chance alone may pass one that is worse by `margin`, or refuse one that is not worse."""
    margin: Annotated[float, Field(gt=0)] = 0.05
    """Share of the champion's loss by which an accepted challenger is at most worse, but for that error."""
    gain: float = 0.0
    """Share of the champion's loss by which it must be better on average; negative: may be worse."""
    slice_margin: Annotated[float, Field(ge=0)] = 0.1
    """Share of the champion's loss on a slice by which it may be worse there."""
    slice_rows: Annotated[int, Field(ge=1)] = 1000
    """Labelled rows, over all nights, that a slice must have to be judged."""
    calibration_margin: Annotated[float, Field(ge=0)] = 0.02
    """How much further its mean score may lie from the mean label of a night; of values, in mean labels."""
    latency_ratio: Annotated[float, Field(ge=1)] = 2.0
    """How many times the champion's CPU seconds it may use."""
    memory_ratio: Annotated[float, Field(ge=1)] = 2.0
    """How many times the champion's memory it may use."""
    behaviour: Behaviour = Behaviour()

    @field_validator("gain")
    @classmethod
    def _is_no_less_than_the_margin(cls, gain: float, info: ValidationInfo) -> float:
        refuse(agreement.gain_faults(gain, info.data.get("margin")))
        return gain


class Rollout(Part):
    """How a challenger beside the champion is judged, and when a guardrail stops it.

    Its cost is told from the champion's by a confidence sequence on the differences of nights; without
    declared costs by the Brier score, of values by the mean absolute error.
    """

    canary_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of the keys, where the command names no share."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The chance that a comparison of two equal models ever, on any night, calls one of them worse."""
    min_nights: Annotated[int, Field(ge=2)] = 10
    """Before so many nights are judged, nothing is concluded from outcomes."""
    max_nights: Annotated[int, Field(ge=2)] = 60
    """After so many, an A/B test that found no difference ends so."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """How much worse a canary may be, as a share of the champion's cost; surely more stops it."""
    max_decision_gap: Annotated[float, Field(gt=0, le=1)] = 0.2
    """How far the arms' shares of positive decisions may differ on one night, before any label."""
    max_score_gap: Annotated[float, Field(gt=0)] | None = None
    """How far the arms' mean scores may differ on one night; none: not looked at."""
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of its arm's rows, so many may the challenger fail to answer."""

    @field_validator("max_nights")
    @classmethod
    def _not_before_the_least(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("min_nights")
        if least is not None and most < least:
            raise ValueError(f"must not be less than min_nights; got {most} and {least}")
        return most

    @property
    def shares(self) -> dict[str, float]:
        """The challenger's share by kind, where the command names none."""
        return {"canary": self.canary_share, "ab": 0.5}


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
