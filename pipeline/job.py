"""What a job is: the schema of `dags/<job>.yaml`, its keys in the order in which data flows.

Strict and frozen; unknown keys are refused. `pipeline.declaration` reads the YAML and reports all faults.
"""

from __future__ import annotations

from datetime import date, time
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.partition import COLUMN, Instants, Partition

ColumnType = Literal[
    "text", "integer", "float", "boolean", "date", "timestamp",
    "text?", "integer?", "float?", "boolean?", "date?", "timestamp?",
]  # fmt: skip
"""A column's type at the typed boundary; a trailing `?` allows nulls. Timestamps are UTC instants."""

BadRowStep = Literal["rule", "carried_forward", "default"]
ModelFailureStep = Literal["previous_model", "baseline", "carried_forward", "default"]
ScoreSource = Literal[
    "champion", "challenger", "previous_model", "baseline", "rule", "carried_forward", "default"
]

OUTPUT_COLUMNS = (
    COLUMN, "score", "decision", "score_source", "score_age_days", "arm", "model_version",
    "run_id", "scored_at",
)  # fmt: skip
"""What every job publishes beside its key columns."""


def _identifier(name: str) -> str:
    if not name.isidentifier() or not name.islower() or not name.isascii() or len(name) > 40:
        raise ValueError("must be a lower-case name of letters, digits and _, at most 40 long")
    return name


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("must be an IANA time zone such as America/New_York")
    return name


def _clock(value: object) -> object:
    if isinstance(value, str):
        try:
            return time.fromisoformat(value)
        except ValueError as error:
            raise ValueError('must be a clock time such as "03:00"') from error
    return value


Name = Annotated[str, AfterValidator(_identifier)]
Text = Annotated[str, Field(min_length=1)]
Score = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Owners(_Part):
    """Who answers for the job."""

    team: Text
    on_call: Text
    approvers: Annotated[tuple[Text, ...], Field(min_length=1)]


class Schedule(_Part):
    """Which partitions exist and what instant each one may know up to."""

    grain: Literal["day"]
    timezone: Annotated[str, AfterValidator(_zone)]
    cutoff: Annotated[time, BeforeValidator(_clock)]
    start: date
    end: date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end must not lie before start; got {self.start} to {self.end}")
        return self


class Resources(_Part):
    """What one run may use."""

    cpus: Annotated[int, Field(ge=1, le=256)] = 2
    memory_mb: Annotated[int, Field(ge=256)] = 1024


class Source(_Part):
    """One table that queries may name by its alias, and when each of its rows was known."""

    table: Text
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


class Extract(_Part):
    """The partition's rows: one per key."""

    key: Annotated[tuple[Name, ...], Field(min_length=1)]
    columns: Annotated[dict[Name, ColumnType], Field(min_length=1)]
    pii: tuple[Name, ...] = ()
    empty_is_normal: bool = False
    sql: Text

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        problems = [
            f"{what} column {name!r} must be among columns"
            for what, names in (("key", self.key), ("pii", self.pii), ("partition", (COLUMN,)))
            for name in names
            if name not in self.columns
        ]
        problems += [
            f"key column {name!r} must not be nullable or a float; got {self.columns[name]}"
            for name in self.key
            if self.columns.get(name, "text").endswith("?") or self.columns.get(name) == "float"
        ]
        problems += [
            f"key column {name!r} has the name of an output column"
            for name in self.key
            if name in OUTPUT_COLUMNS
        ]
        if self.columns.get(COLUMN, "date") != "date":
            problems.append(f"column {COLUMN!r} must have type date; got {self.columns[COLUMN]}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class HistoryQuery(_Part):
    """One look-back input of the features: one row per key."""

    key: Annotated[tuple[Name, ...], Field(min_length=1)]
    sql: Text


class Validate(_Part):
    """How much bad data a run may carry, and the suite's day-dependent bounds."""

    max_quarantined_share: Annotated[float, Field(ge=0, le=1)]
    parameters: Text | None = None


class Model(_Part):
    """What the model gives and which version a backfill uses."""

    output: Literal["probability", "value"]
    threshold: Score | None = None
    backfill_policy: Literal["current", "as-of"] = "current"


class CarriedForward(_Part):
    """Take the last published score of the same key from an earlier partition."""

    key: Annotated[tuple[Name, ...], Field(min_length=1)]
    max_age_days: Annotated[int, Field(ge=1)]


class Fallback(_Part):
    """What answers instead, in order; a row that no step answers is withheld."""

    bad_row: tuple[BadRowStep, ...] = ()
    model_failure: tuple[ModelFailureStep, ...] = ()
    carried_forward: CarriedForward | None = None
    default: Score | None = None

    @model_validator(mode="after")
    def _steps_have_settings(self) -> Self:
        steps = (*self.bad_row, *self.model_failure)
        missing = [
            f"step {step} needs the key fallback.{step}"
            for step, setting in (
                ("carried_forward", self.carried_forward),
                ("default", self.default),
            )
            if step in steps and setting is None
        ]
        if missing:
            raise ValueError("; ".join(missing))
        return self


class Publish(_Part):
    """Which sinks readers use; the pointer in the warehouse is the truth for both."""

    sql: bool = True
    parquet: bool = True

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not (self.sql or self.parquet):
            raise ValueError("at least one of sql and parquet must be true")
        return self


class Outcomes(_Part):
    """The query that brings labels later: the job's key columns and the label."""

    label: Name
    sql: Text


class Train(_Part):
    """How a version is fitted."""

    rows_per_day: Annotated[int, Field(ge=1)] | None = None
    holdout_nights: Annotated[int, Field(ge=1)] = 14
    seed: Annotated[int, Field(ge=0)] = 0


class Declaration(_Part):
    """The whole of `dags/<job>.yaml`."""

    description: Text
    owners: Owners
    schedule: Schedule
    resources: Resources = Resources()
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    extract: Extract
    history: dict[Name, HistoryQuery] = Field(default_factory=dict)
    validate_: Validate = Field(alias="validate")
    model: Model
    fallback: Fallback = Fallback()
    publish: Publish = Publish()
    outcomes: Outcomes | None = None
    train: Train = Train()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        carried = self.fallback.carried_forward
        problems = []
        if carried is not None and not set(carried.key) <= set(self.extract.key):
            problems.append("fallback.carried_forward.key must be among extract.key")
        if self.model.output == "probability" and self.model.threshold is None:
            problems.append("model.threshold is needed where model.output is probability")
        default = self.fallback.default
        if self.model.output == "probability" and default is not None and not 0 <= default <= 1:
            problems.append(f"fallback.default must be a probability; got {default}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


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

    def output_columns(self) -> tuple[str, ...]:
        """The published columns in order: the key, then the same ones for every job."""
        return (*self.declaration.extract.key, *OUTPUT_COLUMNS)
