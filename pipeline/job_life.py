"""How a job's model lives, as its declaration says: trained, asked for again, judged, rolled out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline import agreement
from pipeline.fields import Cron, Distinct, Name, Part, Score, refuse

TriggerKind = Literal["every_days", "on_drift", "far_from_training", "on_concept", "cost_above", "new_labels"]
"""What may ask for a new version by itself, as the part `retrain` names it."""


LARGEST_SEED = 2**31 - 1
"""The versions table holds no larger one."""


class Train(Part):
    """How a version is fitted."""

    rows_per_day: Annotated[int, Field(ge=1)] | None = None
    holdout_nights: Annotated[int, Field(ge=1)] = 14
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
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


class FarFromTraining(Part):
    """A feature lies far from the rows that the champion learned from, however slowly it got there.

    One night always lies some way from many; what counts is how much further than training's own nights did.
    """

    bits: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Jensen-Shannon divergence beyond that of training's own nights; a shift by 1.2 of its spread is 0.2."""
    nights: Annotated[int, Field(ge=7)] = 28
    """So many of the champion's nights after its training must be there, and half of them lie further."""
    seasonal: Annotated[tuple[Name, ...], Distinct] = ()
    """Features that go and come back with the season, which are not looked at."""


class Retrain(Part):
    """What asks for a new version by itself, looked at whenever outcomes are evaluated."""

    every_days: Annotated[int, Field(ge=1)] | None = None
    """So many days after the last night that the champion learned from."""
    on_drift: Annotated[int, Field(ge=1)] | None = None
    """A data-drift alert of the champion's time is open and has lasted for so many nights."""
    far_from_training: FarFromTraining | None = None
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
