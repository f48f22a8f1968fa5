"""Quality estimated before labels come: what it counts, what it may know, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression

from pipeline.job import Costs
from pipeline.monitoring.estimate import (
    LEAST_NIGHTS,
    Night,
    calibrated,
    estimates,
    expected_auc,
)
from pipeline.monitoring.quality import quality

COSTS = Costs.model_validate({"currency": "USD", "hit": 100, "false_alarm": 100, "miss": 400})
START = datetime(2024, 1, 1, 3, tzinfo=UTC)
ROWS = 300


def night(number: int, score: npt.NDArray[np.float64], p: npt.NDArray[np.float64], seed: int) -> Night:
    """A night whose rows are positive with probability p; its labels are known three cut-offs later."""
    cutoff = START + timedelta(days=number)
    label = (np.random.default_rng([seed, number]).random(len(p)) < p).astype(float)
    day = date(2024, 1, 1) + timedelta(days=number)
    return Night(day, cutoff, cutoff + timedelta(days=3), score, score >= 0.3, label)


def changing(count: int, seed: int = 0, too_high: float = 0.0) -> list[Night]:
    """Nights whose scores spread more or less from night to night; `too_high` in log-odds."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        spread, level = random.uniform(0.2, 2.0), random.normal(-1.2, 0.7)
        p = expit(random.normal(level, spread, ROWS))
        made.append(night(number, expit(logit(p) + too_high), p, seed))
    return made


def realised(of: Night) -> dict[str, float]:
    return quality(of.score, of.decision, of.label, "probability", COSTS)


@given(st.integers(0, 1000))
def test_the_expected_auc_is_that_of_every_pair_by_its_weight(seed: int) -> None:
    random = np.random.default_rng(seed)
    score, p = np.round(random.random(30), 1), random.random(30)
    above = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    weight = np.outer(p, 1 - p)
    assert expected_auc(score, p) == pytest.approx(float((above * weight).sum() / weight.sum()))


def test_the_expected_auc_is_the_mean_over_drawn_labels() -> None:
    random = np.random.default_rng(0)
    p = random.beta(2, 5, 800)
    draws = [metrics.roc_auc_score(random.random(800) < p, p) for _ in range(200)]
    assert expected_auc(p, p) == pytest.approx(float(np.mean(draws)), abs=0.005)


def test_calibration_agrees_with_scikit_learn_on_the_rows_themselves() -> None:
    random = np.random.default_rng(1)
    score = np.round(random.random(4000), 3)
    label = (random.random(4000) < score**2).astype(float)
    cell = np.rint(score * 1000).astype(int)
    weights = (np.ones_like(label), label)
    counts = np.array([np.bincount(cell, weight, minlength=1001) for weight in weights], dtype=np.float64)
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, label)
    assert calibrated(score, counts) == pytest.approx(isotonic.predict(score), abs=1e-9)


def test_with_too_few_labelled_nights_nothing_is_claimed() -> None:
    made = estimates(changing(LEAST_NIGHTS + 4), COSTS)
    assert made[LEAST_NIGHTS + 1] == {"calibration_nights": LEAST_NIGHTS - 1}
    assert made[LEAST_NIGHTS + 2].keys() >= {"auc", "brier", "precision", "recall", "cost", "base_rate"}


def test_an_estimate_knows_no_label_that_came_after_its_cut_off() -> None:
    nights = changing(40)
    at = 30
    turned = [
        replace(each, label=1 - each.label) if each.labels_known_at > nights[at].cutoff else each
        for each in nights
    ]
    assert estimates(turned, COSTS)[: at + 1] == estimates(nights, COSTS)[: at + 1]
    assert estimates(turned, COSTS)[at + 1] != estimates(nights, COSTS)[at + 1]


def test_a_night_is_estimated_alike_with_and_without_the_nights_after_it() -> None:
    nights = changing(40)
    assert estimates(nights[:31], COSTS)[30] == estimates(nights, COSTS)[30]


@pytest.mark.parametrize("metric", ["auc", "brier", "recall", "precision", "cost_per_1000"])
def test_where_scores_change_the_estimate_is_better_than_the_last_known_value(metric: str) -> None:
    nights = changing(120, seed=2)
    made, known = estimates(nights, COSTS), [realised(each) for each in nights]
    has_metric = [metric in made[n] and metric in known[n] and metric in known[n - 3] for n in range(120)]
    places = [n for n in range(LEAST_NIGHTS + 3, 120) if has_metric[n]]
    assert len(places) > 80
    estimated = np.mean([abs(made[n][metric] - known[n][metric]) for n in places])
    last_known = np.mean([abs(known[n - 3][metric] - known[n][metric]) for n in places])
    assert estimated < 0.75 * last_known


@pytest.mark.parametrize("too_high", [-0.8, 0.8])
def test_scores_that_are_not_calibrated_are_no_hindrance(too_high: float) -> None:
    nights = changing(120, seed=3, too_high=too_high)
    made, known = estimates(nights, COSTS), [realised(each) for each in nights]
    places = range(60, 120)
    error = np.mean([made[n]["cost_per_1000"] - known[n]["cost_per_1000"] for n in places])
    assert abs(error) < 0.03 * np.mean([known[n]["cost_per_1000"] for n in places])


def test_a_change_of_what_scores_mean_is_not_seen_before_labels_come() -> None:
    nights = changing(63, seed=4)
    changed = night(62, nights[62].score, 1 - nights[62].score, seed=4)
    assert estimates([*nights[:62], changed], COSTS)[62] == estimates(nights, COSTS)[62]
    assert realised(changed)["auc"] < 0.5


def test_the_error_is_that_of_weekly_means_of_earlier_estimates() -> None:
    nights = changing(90, seed=5)
    made = pd.DataFrame(estimates(nights, COSTS))
    known = pd.DataFrame([realised(each) for each in nights])
    labelled = slice(LEAST_NIGHTS + 2, 90 - 3)  # nights with an estimate and, by the last cut-off, labels
    for metric in ("auc", "cost_per_1000"):
        difference = (made[metric] - known[metric])[labelled].dropna()[-56:]
        weeks = difference.groupby(np.arange(56) // 7).mean()
        assert made[f"{metric}_error"].iloc[-1] == pytest.approx(weeks.abs().mean())


def test_an_estimate_of_a_rate_stays_one() -> None:
    nights = changing(40, seed=6)
    perfect = [replace(each, label=each.decision.astype(float)) for each in nights]
    last = estimates(perfect, COSTS)[-1]
    assert all(0 <= last[name] <= 1 for name in ("auc", "precision", "recall", "brier", "base_rate"))


def test_a_night_without_rows_is_not_estimated_and_hinders_no_other() -> None:
    """A challenger's arm may take all the keys of a small night."""
    nights = changing(40, seed=7)
    none = np.array([])
    nights[30] = replace(nights[30], score=none, decision=none.astype(bool), label=none)
    made = estimates(nights, COSTS)
    assert made[30] == {"calibration_nights": 28}
    assert "auc" in made[29]
    assert "auc" in made[31]


def test_where_no_label_ever_came_nothing_is_estimated() -> None:
    unlabelled = [replace(each, label=np.full(ROWS, np.nan)) for each in changing(20)]
    assert estimates(unlabelled, COSTS)[-1] == {"calibration_nights": 17}


def test_the_cost_is_that_of_all_rows() -> None:
    last = estimates(changing(30), COSTS)[-1]
    assert last["cost"] == pytest.approx(last["cost_per_1000"] * ROWS / 1000)
