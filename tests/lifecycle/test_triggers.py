"""When a new version is asked for: each trigger with its evidence, and the cool-downs between them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job_life import CostAbove, FarFromTraining, Retrain, TriggerKind
from pipeline.lifecycle.triggers import Distance, Episode, Facts, Firing, Silence, fired

DAY = date(2013, 6, 10)
ALL = Retrain(
    every_days=30,
    on_drift=3,
    far_from_training=FarFromTraining(bits=0.1, nights=7, seasonal=("warmth",)),
    on_concept=True,
    cost_above=CostAbove(per_1000=700.0, nights=2),
    new_labels=1000,
)


def facts(**given: Any) -> Facts:
    """A champion whose training is ten days old, and nothing wrong with it."""
    return Facts(**({"day": DAY, "trained_to": DAY - timedelta(days=10)} | given))


def episode(nights: int, cause: str = "feature distance: another distribution") -> Episode:
    return Episode(cause, DAY - timedelta(days=nights - 1), DAY)


def found(retrain: Retrain, given: Facts, *before: Silence) -> list[str]:
    return [firing.kind for firing in fired(retrain, given, before)]


def test_where_nothing_is_wrong_nothing_is_asked_for() -> None:
    assert found(ALL, facts(costs=[600.0] * 5, new_labels=999)) == []


HOLDS: dict[str, tuple[Facts, str, dict[str, float]]] = {
    "every_days": (
        facts(trained_to=DAY - timedelta(days=30)),
        "the champion learned up to 2013-05-11, 30 days ago; declared are 30",
        {"days": 30, "declared": 30},
    ),
    "on_drift": (
        facts(drift=[episode(3)]),
        "feature distance: another distribution, 2013-06-08 to 2013-06-10",
        {"nights": 3, "alerts": 1},
    ),
    "far_from_training": (
        facts(
            distances=[
                Distance("a", 0.02, [0.0, *[0.21] * 4, *[0.0] * 3]),
                Distance("b", 0.5, [0.6] * 7),
                Distance("c", 0.3, [0.9] * 7),
            ]
        ),
        "bits from the training rows, over the last 7 nights and in training: c 0.900 and 0.300; "
        "a 0.210 and 0.020; declared are 0.1 more",
        {"features": 2, "bits": 0.9, "in_training": 0.3, "nights": 7, "declared": 0.1},
    ),
    "on_concept": (
        facts(concept=[episode(1, "auc: below its promise")]),
        "auc: below its promise, 2013-06-10 to 2013-06-10",
        {"nights": 1, "alerts": 1},
    ),
    "cost_above": (
        facts(costs=[0.0, 700.0, 701.0]),
        "700.5 for 1,000 over the last 2 judged nights, over 700.0",
        {"mean": 700.5, "nights": 2, "declared": 700.0},
    ),
    "new_labels": (
        facts(new_labels=1000),
        "1000 labelled rows since 2013-05-31; declared are 1000",
        {"rows": 1000, "declared": 1000},
    ),
}


@pytest.mark.parametrize("kind", HOLDS)
def test_each_trigger_fires_with_its_evidence_and_only_where_it_is_declared(kind: TriggerKind) -> None:
    given, evidence, figures = HOLDS[kind]
    assert fired(ALL, given, []) == [Firing(kind, evidence, figures, DAY + timedelta(days=14))]
    without = ALL.model_copy(update={kind: False if kind == "on_concept" else None})
    assert fired(without, given, []) == []


@pytest.mark.parametrize(
    "given",
    [
        facts(trained_to=DAY - timedelta(days=29)),
        facts(drift=[episode(2), episode(1)]),
        facts(distances=[Distance("a", 0.0, [0.9] * 6)]),
        facts(distances=[Distance("a", 0.0, [*[0.9] * 9, *[0.0] * 4, *[0.9] * 3])]),
        facts(distances=[Distance("weekday", 0.8, [0.85] * 20)]),
        facts(distances=[Distance("warmth", 0.0, [0.9] * 20)]),
        facts(costs=[900.0]),
        facts(costs=[900.0, 650.0, 750.0]),
    ],
)
def test_what_does_not_hold_yet_does_not_fire(given: Facts) -> None:
    assert found(ALL, given) == []


def test_a_shared_cool_down_silences_all_that_share_it_up_to_its_last_day() -> None:
    given = facts(drift=[episode(5)], new_labels=2000)
    assert found(ALL, given) == ["on_drift", "new_labels"]
    assert found(ALL, given, Silence("every_days", DAY)) == []
    assert found(ALL, given, Silence("every_days", DAY - timedelta(days=1))) == ["on_drift", "new_labels"]


def test_a_trigger_with_a_cool_down_of_its_own_waits_for_itself_alone() -> None:
    own = ALL.model_copy(update={"own_cool_down_days": {"on_drift": 3}})
    given = facts(drift=[episode(5)], new_labels=2000)
    assert found(own, given, Silence("new_labels", DAY)) == ["on_drift"]
    assert found(own, given, Silence("on_drift", DAY)) == ["new_labels"]
    assert [each.cool_down_until.day for each in fired(own, given, [])] == [13, 24]


def test_the_evidence_names_the_furthest_features_and_counts_the_others() -> None:
    distances = [Distance(f"feature_{number}", 0.0, [0.2 + number / 100] * 7) for number in range(8)]
    (firing,) = fired(ALL, facts(distances=distances), [])
    assert "feature_7 0.270 and 0.000; feature_6" in firing.evidence
    assert firing.evidence.endswith("feature_3 0.230 and 0.000; 3 more; declared are 0.1 more")


@given(
    st.lists(st.floats(0, 1), min_size=0, max_size=20),
    st.floats(0, 1),
    st.integers(7, 10),
)
def test_far_from_training_needs_all_its_nights_and_most_of_them_further(
    nights: list[float], in_training: float, needed: int
) -> None:
    """So neither a fresh champion nor one bad week asks for another."""
    retrain = Retrain(far_from_training=FarFromTraining(nights=needed))
    further = sum(bits - in_training > 0.2 for bits in nights[-needed:])
    if found(retrain, facts(distances=[Distance("a", in_training, nights)])):
        assert len(nights) >= needed
        assert further >= needed / 2
    elif len(nights) >= needed:
        assert further <= needed / 2


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from([{}, {"on_drift": 5}]),
)
def test_no_two_firings_of_a_trigger_lie_within_its_cool_down(
    seen: list[bool], days: int, own: dict[TriggerKind, int]
) -> None:
    retrain = ALL.model_copy(update={"cool_down_days": days, "own_cool_down_days": own})
    last: dict[str, date] = {}
    silences: list[Silence] = []
    for number, is_there in enumerate(seen):
        day = DAY + timedelta(days=number)
        drift = [Episode("a", day - timedelta(days=9), day)] if is_there else []
        firings = fired(retrain, Facts(day, day, drift=drift, new_labels=1000), silences)
        for firing in firings:
            wait = own.get(firing.kind, days)
            assert firing.kind not in last or (day - last[firing.kind]).days > wait
            last[firing.kind] = day
        silences += [Silence(firing.kind, firing.cool_down_until) for firing in firings]
