"""What asks for a new version by itself: rules over facts, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import fmean, median

from pipeline.job_life import FarFromTraining, Retrain, TriggerKind

_NAMED = 5
"""So many features the evidence names, the furthest first."""


@dataclass(frozen=True)
class Episode:
    """An open alert of a change: what changed, and its first and last night so far."""

    cause: str
    first: date
    last: date

    @property
    def nights(self) -> int:
        """How many nights it has lasted."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True)
class Distance:
    """How far a feature lies from the champion's training rows: Jensen-Shannon divergence, in bits."""

    feature: str
    in_training: float
    """Of a night of the training itself, the median."""
    nights: Sequence[float]
    """Of each night that the champion answered after its training, the newest last."""


@dataclass(frozen=True)
class Facts:
    """What is known of a champion on a day."""

    day: date
    trained_to: date
    """The last night that the champion learned from."""
    drift: Sequence[Episode] = ()
    """Open data-drift alerts that were seen in the champion's time."""
    distances: Sequence[Distance] = ()
    concept: Sequence[Episode] = ()
    costs: Sequence[float] = ()
    """Cost for 1,000 labelled predictions of its judged nights in its time, its arm's, the newest last."""
    new_labels: int = 0
    """Labelled rows of the judged days after `trained_to`."""


@dataclass(frozen=True)
class Firing:
    """One trigger that holds: why, in a sentence and in figures, and until when it is silent then."""

    kind: TriggerKind
    evidence: str
    figures: Mapping[str, float]
    cool_down_until: date


@dataclass(frozen=True)
class Silence:
    """A trigger that fired before is silent up to a day, that day included."""

    kind: TriggerKind
    until: date


def fired(retrain: Retrain, facts: Facts, before: Iterable[Silence]) -> list[Firing]:
    """The triggers that hold and are not silent, in the order of the declaration.

    Triggers share one cool-down, except those with one of their own.
    """
    silences = list(before)
    return [
        Firing(kind, evidence, figures, facts.day + timedelta(days=_cool_down(retrain, kind)))
        for kind, evidence, figures in _holding(retrain, facts)
        if not _is_silent(retrain, kind, silences, facts.day)
    ]


def _is_silent(retrain: Retrain, kind: TriggerKind, before: Sequence[Silence], day: date) -> bool:
    own = retrain.own_cool_down_days
    heard = [past for past in before if past.kind == kind or (kind not in own and past.kind not in own)]
    return any(day <= past.until for past in heard)


def _cool_down(retrain: Retrain, kind: TriggerKind) -> int:
    return retrain.own_cool_down_days.get(kind, retrain.cool_down_days)


def _holding(retrain: Retrain, facts: Facts) -> Iterator[tuple[TriggerKind, str, dict[str, float]]]:
    age, every = (facts.day - facts.trained_to).days, retrain.every_days
    if every is not None and age >= every:
        told = f"the champion learned up to {facts.trained_to}, {age} days ago; declared are {every}"
        yield "every_days", told, {"days": age, "declared": every}
    if retrain.on_drift is not None:
        lasting = [episode for episode in facts.drift if episode.nights >= retrain.on_drift]
        yield from _of_episodes("on_drift", lasting)
    if retrain.far_from_training is not None:
        yield from _of_distances(retrain.far_from_training, facts.distances)
    if retrain.on_concept:
        yield from _of_episodes("on_concept", facts.concept)
    yield from _of_costs(retrain, facts)
    rows = retrain.new_labels
    if rows is not None and facts.new_labels >= rows:
        told = f"{facts.new_labels} labelled rows since {facts.trained_to}; declared are {rows}"
        yield "new_labels", told, {"rows": facts.new_labels, "declared": rows}


def _of_episodes(
    kind: TriggerKind, episodes: Sequence[Episode]
) -> Iterator[tuple[TriggerKind, str, dict[str, float]]]:
    if episodes:
        longest = max(episodes, key=lambda episode: episode.nights)
        told = (f"{each.cause}, {each.first} to {each.last}" for each in episodes)
        yield kind, "; ".join(told), {"nights": longest.nights, "alerts": len(episodes)}


def _of_distances(
    declared: FarFromTraining, distances: Iterable[Distance]
) -> Iterator[tuple[TriggerKind, str, dict[str, float]]]:
    medians = [
        (median(each.nights[-declared.nights :]), each)
        for each in distances
        if len(each.nights) >= declared.nights and each.feature not in declared.seasonal
    ]
    far = [(now, each) for now, each in medians if now - each.in_training > declared.bits]
    if far:
        far.sort(key=lambda pair: (pair[1].in_training - pair[0], pair[1].feature))
        named = [f"{each.feature} {now:.3f} and {each.in_training:.3f}" for now, each in far[:_NAMED]]
        more = [f"{len(far) - _NAMED} more"] if len(far) > _NAMED else []
        told = (
            f"bits from the training rows, over the last {declared.nights} nights and in training: "
            f"{'; '.join(named + more)}; declared are {declared.bits:g} more"
        )
        bits, furthest = far[0]
        figures = {"features": len(far), "bits": bits, "in_training": furthest.in_training}
        yield "far_from_training", told, figures | {"nights": declared.nights, "declared": declared.bits}


def _of_costs(retrain: Retrain, facts: Facts) -> Iterator[tuple[TriggerKind, str, dict[str, float]]]:
    declared = retrain.cost_above
    if declared is None or len(facts.costs) < declared.nights:
        return
    mean = fmean(facts.costs[-declared.nights :])
    if mean > declared.per_1000:
        told = f"{mean:.1f} for 1,000 over the last {declared.nights} judged nights, over {declared.per_1000}"
        yield "cost_above", told, {"mean": mean, "nights": declared.nights, "declared": declared.per_1000}
