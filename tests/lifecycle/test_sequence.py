"""The confidence sequence keeps its promise on all nights at once, and narrows as nights come in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.lifecycle.sequence import mean_bounds

ERROR = 0.05


def excluded_ever(means: np.ndarray, nights: int, years: int, scale: float = 1.0) -> float:
    """The share of simulated sequences whose bounds exclude zero on any night."""
    random = np.random.default_rng(0)
    found = 0
    for _ in range(years):
        differences = means + scale * random.standard_normal(nights)
        bounds = [mean_bounds(differences[:n], ERROR, 28) for n in range(2, nights + 1)]
        found += any(bound.lower > 0 or bound.upper < 0 for bound in bounds)
    return found / years


def test_sixty_looks_exclude_the_truth_no_more_often_than_promised() -> None:
    wrong = excluded_ever(np.zeros(60), 60, 400)
    assert stats.binomtest(round(wrong * 400), 400, ERROR, alternative="greater").pvalue > 0.01


def test_a_mean_of_one_standard_deviation_is_found_within_thirty_nights() -> None:
    assert excluded_ever(np.ones(30), 30, 100) > 0.9


def test_the_scale_of_money_does_not_matter() -> None:
    differences = np.random.default_rng(1).standard_normal(20) + 0.5
    one, thousand = (mean_bounds(differences * unit, ERROR, 28) for unit in (1, 1000))
    assert (thousand.lower, thousand.upper) == pytest.approx((1000 * one.lower, 1000 * one.upper))


def test_bounds_are_wider_than_those_of_a_single_look_and_less_so_where_they_are_planned() -> None:
    differences = np.random.default_rng(2).standard_normal(28)
    fixed = stats.t.ppf(1 - ERROR / 2, 27) * differences.std(ddof=1) / math.sqrt(28)
    planned, elsewhere = (mean_bounds(differences, ERROR, n) for n in (28, 300))
    assert fixed < planned.upper - planned.mean < elsewhere.upper - elsewhere.mean


@pytest.mark.parametrize("nights", [0, 1, 2])
def test_too_few_nights_exclude_nothing(nights: int) -> None:
    bounds = mean_bounds(np.linspace(5.0, 6.0, nights), ERROR, 28)
    assert (bounds.lower, bounds.upper) == (-math.inf, math.inf)
