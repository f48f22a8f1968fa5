"""What is concluded of two arms: never too early, never of uneven arms, and seldom wrongly."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pytest
from bench.rollout import World, simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.job_life import Rollout
from pipeline.lifecycle.arms import Answered, JudgedNight, compare, night_faults, sample_ratio_p
from pipeline.lifecycle.rollout import BUCKETS

DECLARED = Rollout(min_nights=10, max_nights=30)
FIRST = date(2024, 1, 1)
ANSWERED = Answered(
    champion_assigned=900, challenger_assigned=100, champion_rows=900, challenger_rows=100, failed_rows=0,
    champion_decisions=180, challenger_decisions=20, champion_mean=0.2, challenger_mean=0.2,
    champion_std=0.1, challenger_std=0.1,
)  # fmt: skip


def nights(
    count: int, worse_by: float = 0.0, noise: float = 0.01, keys: float = 0.0, seed: int = 0
) -> list[JudgedNight]:
    """Nights of a champion that costs 1 and a challenger that costs `worse_by` more; `keys` spreads them."""
    random = np.random.default_rng(seed)
    own = 1 + keys * random.standard_normal((2, BUCKETS))
    own += np.array([[0.0], [worse_by]])
    made = []
    for number in range(count):
        sums = 50 * (own + noise * random.standard_normal((2, BUCKETS)) * np.sqrt(BUCKETS))
        cost = sums.sum(axis=1) / (50 * BUCKETS)
        day = FIRST + timedelta(days=number)
        made.append(JudgedNight(day, cost[0], cost[1], sums, np.full((2, BUCKETS), 50.0)))
    return made


def test_nothing_is_concluded_before_the_declared_nights() -> None:
    early = compare(nights(9, worse_by=1.0), DECLARED)
    assert (early.conclusion, early.stops) == ("not enough nights", False)
    assert compare(nights(10, worse_by=1.0), DECLARED).stops


def test_worse_stops_and_better_does_not() -> None:
    worse, better = (compare(nights(20, worse_by=by), DECLARED) for by in (0.2, -0.2))
    assert (worse.conclusion, worse.stops) == ("worse", True)
    assert (better.conclusion, better.stops) == ("better", False)
    assert worse.lower < 0.2 < worse.upper
    assert worse.difference == pytest.approx(worse.challenger - worse.champion)


def test_a_margin_allows_a_challenger_that_is_a_little_worse() -> None:
    found = compare(nights(20, worse_by=0.1), DECLARED.model_copy(update={"margin": 0.2}))
    assert (found.conclusion, found.stops) == ("worse", False)
    assert compare(nights(20, worse_by=0.4), DECLARED.model_copy(update={"margin": 0.2})).stops


def test_equal_arms_end_without_a_difference_after_the_declared_nights() -> None:
    assert compare(nights(29), DECLARED).conclusion == "not enough nights"
    assert compare(nights(30), DECLARED).conclusion == "no difference found"


def test_uneven_arms_block_every_conclusion_but_not_the_stop_of_a_canary_that_is_worse() -> None:
    worse, equal = (compare(nights(30, worse_by=by), DECLARED, ratio_holds=False) for by in (1.0, 0.0))
    assert (worse.conclusion, worse.stops) == ("sample ratio broken", True)
    assert (equal.conclusion, equal.stops) == ("sample ratio broken", False)


def test_without_a_night_nothing_is_known() -> None:
    found = compare([], DECLARED)
    assert (found.nights, found.conclusion, found.stops) == (0, "not enough nights", False)
    assert (found.lower, found.upper) == (-np.inf, np.inf)


def test_arms_whose_keys_differ_much_are_not_told_apart_by_more_nights() -> None:
    """Keys stay in their arm: nights average the nights' noise away, and never the draw of the keys."""
    wide, narrow = (compare(nights(30, keys=keys), DECLARED) for keys in (0.5, 0.0))
    assert wide.upper - wide.lower > 5 * (narrow.upper - narrow.lower)
    found = [compare(nights(30, keys=0.5, seed=seed), DECLARED).conclusion for seed in range(200)]
    assert found.count("no difference found") >= 190


@given(st.permutations(nights(12, worse_by=0.1)))
def test_the_order_of_nights_does_not_matter(shuffled: list[JudgedNight]) -> None:
    one, other = compare(shuffled, DECLARED), compare(nights(12, worse_by=0.1), DECLARED)
    assert one.conclusion == other.conclusion
    assert one.lower == pytest.approx(other.lower)


@given(st.floats(0.01, 1000))
def test_the_unit_of_money_does_not_matter(unit: float) -> None:
    scaled = [
        JudgedNight(one.day, unit * one.champion, unit * one.challenger, unit * one.sums, one.counts)
        for one in nights(15, worse_by=0.05)
    ]
    one, other = compare(scaled, DECLARED), compare(nights(15, worse_by=0.05), DECLARED)
    assert (one.conclusion, one.stops) == (other.conclusion, other.stops)


# Before any label


def faults(declared: Rollout = DECLARED, **changed: object) -> list[str]:
    return night_faults(dataclasses.replace(ANSWERED, **changed), declared)  # type: ignore[arg-type]


def test_like_answers_are_no_fault() -> None:
    assert faults() == []


def test_a_challenger_that_fails_on_its_rows_is_a_fault() -> None:
    (fault,) = faults(challenger_rows=60, failed_rows=40)
    assert fault == "the challenger did not answer 40 of its 100 rows"
    assert (
        faults(DECLARED.model_copy(update={"max_failed_share": 0.5}), challenger_rows=60, failed_rows=40)
        == []
    )


def test_decisions_that_are_surely_further_apart_than_declared_are_a_fault() -> None:
    (fault,) = faults(challenger_decisions=90)
    assert "decides yes in 90.0% of its rows, the champion in 20.0%" in fault
    assert faults(challenger_decisions=45) == []  # 25 points apart, but of a hundred rows
    assert faults(challenger_rows=10, challenger_decisions=6) == []


def test_scores_are_compared_where_a_gap_is_declared() -> None:
    assert faults(challenger_mean=0.9) == []
    (fault,) = faults(DECLARED.model_copy(update={"max_score_gap": 0.1}), challenger_mean=0.9)
    assert fault == "the challenger's mean score is 0.9, the champion's 0.2: more than 0.1 apart"


@given(
    st.sampled_from([(9, 1), (100, 1), (18, 2), (3, 3), (45, 5), (180, 20)]),
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from([0.005, 0.05, 0.2, 0.5]),
)
@settings(max_examples=20)
def test_equal_arms_of_a_handful_of_rows_are_not_stopped_for_their_decisions(
    rows: tuple[int, int], gap: float, rate: float
) -> None:
    """The whole chance, summed over what equal arms may decide: one of a thousand nights at most."""
    declared = DECLARED.model_copy(update={"max_decision_gap": gap})
    few, many = (binom.pmf(np.arange(count + 1), count, rate) for count in rows)
    chance = sum(
        few[one] * many[other]
        for one, other in np.ndindex(rows[0] + 1, rows[1] + 1)
        if few[one] * many[other] > 1e-9
        and faults(
            declared,
            champion_rows=rows[0],
            challenger_rows=rows[1],
            champion_decisions=one,
            challenger_decisions=other,
        )
    )
    assert chance <= 0.001


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_equal_arms_of_a_handful_of_rows_are_not_stopped_for_their_scores(count: int) -> None:
    random, declared = np.random.default_rng(0), DECLARED.model_copy(update={"max_score_gap": 0.001})
    stopped = 0
    for _ in range(1000):
        held = [random.normal(0.4, 0.1, rows) for rows in (9 * count + 1, count)]
        means = [float(each.mean()) for each in held]
        stds = [float(each.std(ddof=1)) if len(each) > 1 else None for each in held]
        stopped += bool(
            faults(
                declared,
                champion_rows=len(held[0]),
                challenger_rows=count,
                champion_decisions=0,
                challenger_decisions=0,
                champion_mean=means[0],
                challenger_mean=means[1],
                champion_std=stds[0],
                challenger_std=stds[1],
            )
        )
    assert stopped <= 6  # of one promised; more by chance once in ten thousand


def test_an_arm_without_rows_is_not_compared() -> None:
    assert (
        faults(challenger_assigned=0, challenger_rows=0, challenger_decisions=0, challenger_mean=None) == []
    )


def test_the_sample_ratio_is_judged_exactly() -> None:
    assert sample_ratio_p(ANSWERED, 0.1) == 1.0
    assert sample_ratio_p(ANSWERED, 0.2) < 1e-10
    empty = dataclasses.replace(ANSWERED, champion_assigned=0, challenger_assigned=0)
    assert sample_ratio_p(empty, 0.1) == 1.0


# What was promised


def promised(world: World, tests: int) -> float:
    """The chance of so many equal canaries stopped, or more, if they are stopped as often as promised."""
    line = simulated(world, tests, seed=7)
    return float(binomtest(line.called["ours"], tests, 0.05, alternative="greater").pvalue)


def test_equal_arms_are_called_different_no_more_often_than_promised() -> None:
    assert promised(World(900, 0.5, key_spread=2.0), 40) > 0.01


def test_a_bad_canary_is_found() -> None:
    line = simulated(World(5_000, 0.1, worse_by=0.1), 10, seed=8)
    assert line.worse["ours"] == 10


@pytest.mark.soak
@pytest.mark.parametrize("world", [World(900, 0.1), World(900, 0.5), World(5_000, 0.5)])
def test_sixty_looks_at_equal_arms_keep_the_promise(world: World) -> None:
    assert promised(world, 400) > 0.001
