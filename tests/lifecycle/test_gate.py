"""The gate's rules, each with a challenger that it is made for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.job_life import Behaviour, Gate
from pipeline.lifecycle.gate import (
    Evidence,
    Night,
    Pair,
    Part,
    Probe,
    Reason,
    Slice,
    Verdict,
    decide,
    figures,
    night,
    running_bounds,
    slice_lines,
    whole_loss,
)

FIRST = date(2024, 1, 1)
SETTINGS = Gate()


def nights(
    count: int = 28,
    better: float = 20.0,
    noise: float = 10.0,
    slices: dict[Slice, tuple[int, float]] | None = None,
    seed: int = 0,
) -> list[Night]:
    """Nights of 1,000 rows on which the champion loses about 700 and the challenger so much less.

    slices: by name their rows a night and how much worse the challenger is on them.
    """
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        champion = 700 + 100 * random.standard_normal()
        challenger = champion - better + noise * random.standard_normal()
        of_slices = {
            name: Part(rows, Pair(champion, champion + worse + noise * random.standard_normal()))
            for name, (rows, worse) in (slices or {}).items()
        }
        day = FIRST + timedelta(days=number)
        whole = Part(1000, Pair(champion, challenger))
        made.append(Night(day, 0.2, Pair(0.21, 0.19), whole, of_slices))
    return made


def evidence(**changed: Any) -> Evidence:
    """Of a challenger that is better and has no fault."""
    given_: dict[str, Any] = {
        "loss": "cost in EUR per 1,000 rows",
        "output": "probability",
        "nights": nights(),
        "tests": [Probe("robustness", "every number 0", 1000, 0)],
        "cpu_seconds": Pair(1.0, 1.2),
        "memory_mb": Pair(100.0, 110.0),
    }
    return Evidence(**(given_ | changed))


def reason(verdict: Verdict, check: str) -> Reason:
    (found,) = (one for one in verdict.reasons if one.check == check)
    return found


def said(check: str, settings: Gate = SETTINGS, **changed: Any) -> str:
    """What one check says; the verdict must follow a refusal."""
    verdict = decide(evidence(**changed), settings)
    outcome = reason(verdict, check).outcome
    assert outcome != "refuse" or verdict.outcome == "refuse"
    return outcome


def test_a_better_challenger_without_fault_is_accepted_and_every_check_says_so() -> None:
    verdict = decide(evidence(), SETTINGS)
    assert verdict.outcome == "accept"
    assert {one.outcome for one in verdict.reasons} == {"accept"}
    assert [one.check for one in verdict.reasons] == [
        "quality", "slices", "calibration", "behaviour", "robustness", "golden_rows", "latency", "memory",
    ]  # fmt: skip


def test_a_worse_challenger_is_refused_with_the_figures() -> None:
    verdict = decide(evidence(nights=nights(better=-40.0)), SETTINGS)
    assert verdict.outcome == "refuse"
    told = reason(verdict, "quality").evidence
    assert "Over 28 nights the challenger's cost in EUR per 1,000 rows is" in told
    assert "It is shown to be worse" in told


def test_five_nights_are_not_enough_evidence_however_large_the_difference() -> None:
    for better in (200.0, -200.0):
        assert decide(evidence(nights=nights(5, better)), SETTINGS).outcome == "not_enough_evidence"


def test_no_night_at_all_is_not_enough_evidence() -> None:
    assert decide(evidence(nights=[]), SETTINGS).outcome == "not_enough_evidence"


def test_a_large_difference_is_told_before_all_nights_are_there() -> None:
    assert said("quality", nights=nights(10, better=60.0)) == "accept"
    assert said("quality", nights=nights(10, better=-60.0)) == "refuse"


def test_what_may_be_worse_by_more_than_the_margin_is_not_accepted_yet() -> None:
    wild = nights(better=20.0, noise=100.0, seed=3)
    assert running_bounds(evidence(nights=wild), SETTINGS)[-1].mean < 0
    assert said("quality", nights=wild) == "not_enough_evidence"
    assert said("quality", Gate(margin=0.5), nights=wild) == "accept"


def test_what_is_not_better_over_the_declared_nights_is_refused_and_before_that_it_waits() -> None:
    same = nights(27, better=-3.0, noise=30.0)
    assert said("quality", nights=same) == "not_enough_evidence"
    assert said("quality", Gate(nights=27), nights=same) == "refuse"


def test_the_very_same_answers_are_accepted_as_they_are_no_worse() -> None:
    assert said("quality", nights=nights(better=0.0, noise=0.0)) == "accept"


def test_a_declared_gain_must_be_reached_on_average() -> None:
    assert said("quality", Gate(gain=0.02)) == "accept"
    assert said("quality", Gate(gain=0.04)) == "refuse"


def test_a_job_may_allow_a_challenger_that_is_a_little_worse() -> None:
    worse = nights(better=-10.0)
    assert said("quality", nights=worse) == "refuse"
    assert said("quality", Gate(gain=-0.03), nights=worse) == "accept"


@given(st.integers(0, 200))
def test_an_accepted_challenger_is_bounded_by_the_margin_and_better_on_average(seed: int) -> None:
    random = np.random.default_rng(seed)
    held = evidence(nights=nights(28, float(random.normal(0, 20)), float(random.uniform(1, 80)), seed=seed))
    size = whole_loss(held).champion
    bounds = running_bounds(held, SETTINGS)[-1]
    accepted = decide(held, SETTINGS).outcome == "accept"
    assert accepted is (bounds.mean <= 0 and bounds.upper <= SETTINGS.margin * size and bounds.lower <= 0)


def test_the_mean_difference_is_that_of_all_rows_together() -> None:
    two = [
        Night(FIRST, 0.2, Pair(0.2, 0.2), Part(100, Pair(10.0, 20.0))),
        Night(FIRST, 0.2, Pair(0.2, 0.2), Part(300, Pair(10.0, 12.0))),
    ]
    held = evidence(nights=two)
    assert running_bounds(held, SETTINGS)[-1].mean == pytest.approx(whole_loss(held).difference) == 4.0


def test_a_bad_slice_refuses_a_challenger_that_is_better_on_average() -> None:
    held = nights(slices={("shop", "big"): (900, -30.0), ("shop", "small"): (100, 140.0)})
    verdict = decide(evidence(nights=held), SETTINGS)
    assert reason(verdict, "quality").outcome == "accept"
    assert verdict.outcome == "refuse"
    assert "shop small" in reason(verdict, "slices").evidence
    assert "shop big" not in reason(verdict, "slices").evidence


def test_a_slice_that_is_worse_within_its_margin_passes() -> None:
    assert said("slices", nights=nights(slices={("shop", "small"): (100, 40.0)})) == "accept"
    assert (
        said("slices", Gate(slice_margin=0.02), nights=nights(slices={("shop", "a"): (100, 40.0)}))
        == "refuse"
    )


def test_a_slice_with_too_few_rows_is_not_judged_but_told() -> None:
    held = nights(slices={("shop", "tiny"): (10, 500.0), ("shop", "big"): (900, 0.0)})
    verdict = decide(evidence(nights=held), SETTINGS)
    assert reason(verdict, "slices").outcome == "accept"
    assert "with fewer than 1,000 rows and not judged: 1." in reason(verdict, "slices").evidence
    assert said("slices", nights=nights(slices={("shop", "tiny"): (10, 500.0)})) == "not_enough_evidence"


def test_a_slice_that_is_worse_by_chance_alone_passes() -> None:
    noise = np.where(np.arange(28) % 2, 2500.0, -2200.0)  # on average 150 worse, a fifth of the loss
    held = [
        replace(one, slices={("shop", "a"): Part(100, Pair(700.0, 700.0 + float(extra)))})
        for one, extra in zip(nights(), noise, strict=True)
    ]
    assert said("slices", nights=held) == "accept"


def test_many_slices_share_the_error() -> None:
    many = nights(slices={("shop", str(number)): (100, 0.0) for number in range(20)})
    one = [replace(each, slices={("shop", "0"): each.slices["shop", "0"]}) for each in many]
    (alone,) = slice_lines(evidence(nights=one), Gate(error=0.02))
    assert slice_lines(evidence(nights=many), Gate(error=0.4))[0] == alone


def test_scores_far_from_what_becomes_true_are_refused() -> None:
    off = [replace(one, score=Pair(0.21, 0.25 + 0.01 * (number % 2))) for number, one in enumerate(nights())]
    assert said("calibration", nights=off) == "refuse"
    assert said("calibration", Gate(calibration_margin=0.1), nights=off) == "accept"


def test_one_odd_night_does_not_spoil_the_calibration() -> None:
    odd = nights()
    odd[3] = replace(odd[3], score=Pair(0.21, 0.9))
    assert said("calibration", nights=odd) == "accept"
    told = reason(decide(evidence(nights=odd), SETTINGS), "calibration").evidence
    assert told.endswith("it may be 0.02 further away, and is by more, but not beyond chance.")


def test_nights_on_which_only_the_challenger_failed_are_not_told_as_unlabelled() -> None:
    failed = evidence(nights=[], tests=[Probe("robustness", "scores of 2024-01-01", 9, 9)])
    assert reason(decide(failed, SETTINGS), "quality").evidence == "No labelled night was answered by both."


def test_values_are_calibrated_in_mean_labels() -> None:
    off = [
        replace(one, label=200.0, score=Pair(201.0, 203.0 + number % 2))
        for number, one in enumerate(nights())
    ]
    assert said("calibration", nights=off, output="value") == "accept"
    assert said("calibration", nights=off) == "refuse"


def test_the_evidence_of_values_tells_its_unit() -> None:
    off = [replace(one, label=200.0, score=Pair(201.0, 203.0)) for one in nights()]
    told = reason(decide(evidence(nights=off, output="value"), SETTINGS), "calibration").evidence
    assert told == (
        "By night, the challenger's mean score is 0.0150 mean labels from the mean label, the "
        "champion's 0.0050 mean labels; it may be 0.02 further away."
    )


@pytest.mark.parametrize("check", ["behaviour", "robustness", "golden_rows"])
def test_a_broken_test_refuses_and_is_named(check: Any) -> None:
    tests = [Probe(check, "good", 100, 0), Probe(check, "bad one", 100, 1)]
    verdict = decide(evidence(tests=tests), SETTINGS)
    assert verdict.outcome == "refuse"
    assert "1 of 2, bad one (1 of 100 rows)." in reason(verdict, check).evidence


def test_declared_behaviour_may_be_broken_by_the_allowed_share_and_nothing_else_may() -> None:
    allowing = Gate(behaviour=Behaviour(violations=0.01))
    assert said("behaviour", allowing, tests=[Probe("behaviour", "x rising", 100, 1)]) == "accept"
    assert said("behaviour", allowing, tests=[Probe("behaviour", "x rising", 100, 2)]) == "refuse"
    assert said("golden_rows", allowing, tests=[Probe("golden_rows", "x", 100, 1)]) == "refuse"


def test_a_test_that_no_row_could_show_is_no_test_passed() -> None:
    tests = [Probe("behaviour", "x rising", 100, 0), Probe("behaviour", "y falling", 0, 0)]
    found = reason(decide(evidence(tests=tests), SETTINGS), "behaviour")
    assert found.outcome == "not_enough_evidence"
    assert found.evidence.endswith("No row could show: y falling.")


@pytest.mark.parametrize(("check", "name"), [("latency", "cpu_seconds"), ("memory", "memory_mb")])
def test_a_challenger_that_needs_too_much_is_refused(check: str, name: str) -> None:
    for used, outcome in (
        (Pair(1.0, 1.9), "accept"),
        (Pair(1.0, 2.1), "refuse"),
        (Pair(0.0, 2.1), "not_enough_evidence"),
    ):
        changed: dict[str, Any] = {name: used}
        assert said(check, **changed) == outcome


def test_a_night_is_made_of_rows_with_their_slices() -> None:
    shop = np.array(["a", "b", "a", "a"], dtype=object)
    loss = (np.array([1.0, 2.0, 3.0, 5.0]), np.array([0.0, 2.0, 0.0, 0.0]))
    score = (np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.2, 0.2, 0.2, 0.2]))
    made = night(FIRST, np.array([0.0, 1.0, 1.0, 0.0]), score, loss, {"shop": shop})
    assert made.label == 0.5
    assert made.score.champion == 0.25
    assert made.score.challenger == pytest.approx(0.2)
    assert made.whole == Part(4, Pair(2.75, 0.5))
    assert made.slices == {("shop", "a"): Part(3, Pair(3.0, 0.0)), ("shop", "b"): Part(1, Pair(2.0, 2.0))}


def test_the_figures_are_json_and_hold_no_infinity() -> None:
    made = figures(evidence(nights=nights(3, slices={("shop", "a"): (900, 0.0)})), SETTINGS)
    held = json.loads(json.dumps(made, allow_nan=False))
    assert held["nights"][0]["bounds"]["lower"] is None
    assert [one["value"] for one in held["slices"]] == ["a"]


def test_the_figures_keep_the_most_frequent_slices_of_each_column() -> None:
    many = nights(3, slices={("id", str(number)): (10 + number, 0.0) for number in range(60)})
    made = figures(evidence(nights=many), SETTINGS)
    assert [one["value"] for one in made["slices"]] == [str(number) for number in range(59, 9, -1)]
    assert made["slice_values"] == {"id": 60}


def test_the_figures_keep_a_slice_that_refuses_however_rare_it_is() -> None:
    many = nights(slices={("id", str(number)): (100 + number, 300.0 * (number == 0)) for number in range(60)})
    made = figures(evidence(nights=many), SETTINGS)
    assert [one["value"] for one in made["slices"]] == [*(str(number) for number in range(59, 9, -1)), "0"]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"gain": -0.06}, r"gain: must be -margin|must be -margin, -0.05, at least; got -0.06"),
        ({"behaviour": {"rising": ("a",), "invariant": ("a",)}}, "must stand in one of rising, falling"),
        ({"nights": 1}, "greater than or equal to 2"),
        ({"error": 0.5}, "less than 0.5"),
    ],
)
def test_a_gate_that_contradicts_itself_is_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Gate.model_validate(given_)
