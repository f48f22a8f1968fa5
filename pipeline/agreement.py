"""Where keys of a declaration must agree: the place and the sentence of each that does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import nearest
from pipeline.fields import Place
from pipeline.partition import COLUMN

if TYPE_CHECKING:
    from pipeline.job import Alerts, Extract, Fallback, Model, Outcomes, Publish, Schedule
    from pipeline.job_life import Retrain, Train

Faults = Iterator[tuple[Place, str]]

_MODELS = ("previous_model", "baseline")
"""Steps of `fallback.model_failure` that are models, which answer whole shards."""


def column_faults(key: Sequence[str], columns: Mapping[str, str], taken: Sequence[str]) -> Faults:
    """The key must be declared, comparable and unlike the columns `taken` beside it."""
    for index, name in enumerate(key):
        for sentence in _key_faults(name, columns, taken):
            yield ("key", index), sentence
    got = columns.get(COLUMN, "none")
    if got != "date":
        yield ("columns", COLUMN), f"must have type date; got {got}"


def _key_faults(name: str, columns: Mapping[str, str], taken: Sequence[str]) -> Iterator[str]:
    if name not in columns:
        yield f"column {name!r} must be among columns; {nearest(name, tuple(columns))}"
    elif columns[name].endswith("?") or columns[name] == "float":
        yield f"key column {name!r} must not be nullable or a float; got {columns[name]}"
    if name in taken:
        yield f"key column {name!r} has the name of an output column; rename it in extract.sql"


def pii_faults(pii: Sequence[str], columns: Sequence[str]) -> Faults:
    """What is personal must be a column."""
    for index, name in enumerate(pii):
        if name not in columns:
            yield ("pii", index), f"column {name!r} must be among columns; {nearest(name, columns)}"


def threshold_faults(threshold: float | None, output: str | None) -> Faults:
    """A probability needs a threshold that it can reach."""
    if output == "probability" and (threshold is None or not 0 <= threshold <= 1):
        yield ("threshold",), f"must be from 0 to 1 where model.output is probability; got {threshold}"


def fallback_faults(fallback: Fallback, extract: Extract | None, model: Model | None) -> Faults:
    """A fallback must answer by the job's key and in the model's unit, and models before steps by row."""
    carried, default = fallback.carried_forward, fallback.default
    by_row: list[str] = []
    for index, step in enumerate(fallback.model_failure):
        if step not in _MODELS:
            by_row.append(step)
        elif by_row:
            yield (
                ("fallback", "model_failure", index),
                f"{step} must stand before {by_row[0]}: a model answers for all rows, or none",
            )
    if extract and carried and not set(carried.key) <= set(extract.key):
        yield (
            ("fallback", "carried_forward", "key"),
            f"must be among extract.key; got {', '.join(carried.key)}",
        )
    if model and model.output == "probability" and default is not None and not 0 <= default <= 1:
        yield (
            ("fallback", "default"),
            f"must be from 0 to 1 where model.output is probability; got {default}",
        )


def publish_faults(publish: Publish, fallback: Fallback | None) -> Faults:
    """What is carried forward must have been published where it is read."""
    steps = (*fallback.bad_row, *fallback.model_failure) if fallback else ()
    if "carried_forward" in steps and not publish.sql:
        yield ("publish", "sql"), "must be true: the step carried_forward reads the published table"


def outcome_faults(outcomes: Outcomes | None, extract: Extract | None, model: Model | None) -> Faults:
    """The label must stand beside the key, slices must be columns, and costs be of the model's output."""
    if outcomes is None:
        return
    if extract and outcomes.label in extract.key:
        yield ("outcomes", "label"), f"must not be a column of extract.key; got {outcomes.label!r}"
    for index, name in enumerate(outcomes.slices if extract else ()):
        columns = tuple(extract.columns) if extract else ()
        if name not in columns:
            place = ("outcomes", "slices", index)
            yield place, f"column {name!r} must be among extract.columns; {nearest(name, columns)}"
    if outcomes.costs and model:
        unfit = {"probability": ("over", "under"), "value": ("hit", "false_alarm", "miss", "pass")}
        for name in unfit[model.output]:
            if name.replace("pass", "pass_") in outcomes.costs.model_fields_set:
                yield ("outcomes", "costs", name), f"must be left out where model.output is {model.output}"


def train_faults(train: Train, model: Model | None, outcomes: Outcomes | None) -> Faults:
    """Only probabilities are calibrated, nights are left to learn from, and the outcomes bring labels."""
    if model and model.output == "value" and train.calibrate is not None:
        yield ("train", "calibrate"), f"must be left out where model.output is value; got {train.calibrate}"
    held = train.holdout_nights if train.calibrate is None else 2 * train.holdout_nights
    if train.nights is not None and train.nights <= held:
        what = "holdout_nights" if train.calibrate is None else "twice holdout_nights, to calibrate on"
        yield ("train", "nights"), f"must be more than {what}: {held}; got {train.nights}"
    if train.schedule is not None and outcomes is None:
        yield ("train", "schedule"), "must be left out without outcomes: these bring the labels"


def retrain_faults(retrain: Retrain | None, outcomes: Outcomes | None) -> Faults:
    """Triggers need outcomes, and a cost needs costs; a cool-down is of a trigger that is there."""
    if retrain is None:
        return
    if outcomes is None:
        yield (
            ("retrain",),
            "must be left out without outcomes: triggers wait for their evaluation",
        )
    elif retrain.cost_above is not None and outcomes.costs is None:
        yield ("retrain", "cost_above"), "must be left out without outcomes.costs"
    for kind in retrain.own_cool_down_days:
        if not getattr(retrain, kind):
            yield (
                ("retrain", "own_cool_down_days", kind),
                f"must be of a declared trigger; {kind} is none",
            )


def gain_faults(gain: float, margin: float | None) -> Faults:
    """What is asked for must not be worse than what is refused."""
    if margin is not None and gain < -margin:
        yield ("gain",), f"must be -margin, {-margin:g}, at least; got {gain:g}"


def behaviour_faults(kind: str, names: Sequence[str], others: Sequence[str]) -> Faults:
    """A column can do one thing only."""
    for index, name in enumerate(names):
        if name in others:
            yield (kind, index), f"must stand in one of rising, falling and invariant; got {name!r} twice"


def alert_faults(alerts: Alerts, schedule: Schedule | None) -> Faults:
    """A day cannot be late before it may begin."""
    by = alerts.publish_by
    if schedule and by is not None and by <= schedule.cutoff:
        yield ("alerts", "publish_by"), f"must be later than schedule.cutoff, {schedule.cutoff}; got {by}"
