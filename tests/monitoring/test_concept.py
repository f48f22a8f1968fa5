"""Concept drift: how often it is told where nothing is wrong, and how soon where something is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, logit

from pipeline.monitoring.concept import findings, watch
from pipeline.monitoring.control_charts import CHARTS, Judged, log_odds_error, log_odds_gap
from pipeline.monitoring.cusum import autocorrelation, autoregressive, limit, rises

FIRST = date(2024, 1, 1)
HELD_OUT, YEAR = 14, 365
TOTALS_AGREE = 0.11
"""Log-odds by which scores must lie above the middle of the nights, as rates are skewed; found by drawing."""


def judged(number: int, **metrics: float) -> Judged:
    return Judged(FIRST + timedelta(days=number), 900, metrics)


def nights(
    random: np.random.Generator,
    count: int,
    *,
    auc: float = 0.7,
    too_high: npt.NDArray[Any] | float = 0.0,
    rho: float = 0.0,
    start: int = 0,
) -> list[Judged]:
    """Nights that differ as those of flights do; scores follow half of it and are too high by log-odds."""
    shock = 0.7 * autoregressive(random, (1, count), rho)[0]
    score = logit(0.2) + 0.6 * autoregressive(random, (1, count), 0.4)[0]
    rate = expit(score + shock)
    aucs = expit(logit(auc) + 0.33 * autoregressive(random, (1, count), rho)[0])
    shown = expit(score + TOTALS_AGREE + too_high)
    rows = zip(shown, rate, aucs, strict=True)
    return [judged(start + n, mean_score=s, base_rate=r, auc=a) for n, (s, r, a) in enumerate(rows)]


def episodes(days: Sequence[date]) -> int:
    """Runs of findings that are a week or more apart."""
    return sum(1 for n, day in enumerate(days) if n == 0 or (day - days[n - 1]).days > 7)


def found(promise: list[Judged], live: list[Judged], **settings: Any) -> dict[str, list[date]]:
    """The days of each cause."""
    given = {"worse_for_nights": 7, "false_alarms_a_year": 2.0} | settings
    by_cause: dict[str, list[date]] = {}
    for each in findings("toy", "probability", promise, live, **given):
        by_cause.setdefault(each.cause, []).append(each.day)
    return by_cause


@pytest.mark.soak
@pytest.mark.parametrize(("rho", "most"), [(0.0, 2.0), (0.3, 3.0)])
def test_where_nothing_is_wrong_the_promised_rate_of_false_alarms_is_kept(rho: float, most: float) -> None:
    random = np.random.default_rng(7)
    years = 120
    told = 0
    for _ in range(years):
        series = nights(random, HELD_OUT + YEAR, rho=rho)
        told += sum(episodes(days) for days in found(series[:HELD_OUT], series[HELD_OUT:]).values())
    assert told / years <= most


@pytest.mark.soak
def test_a_stricter_promise_tells_less() -> None:
    random = np.random.default_rng(8)
    told = dict.fromkeys((1.0, 4.0), 0)
    for _ in range(25):
        series = nights(random, HELD_OUT + YEAR)
        for rate in told:
            by_cause = found(series[:HELD_OUT], series[HELD_OUT:], false_alarms_a_year=rate)
            told[rate] += sum(map(episodes, by_cause.values()))
    assert told[1.0] < told[4.0]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"too_high": 0.7}, "calibration: scores too high"),
        ({"too_high": -0.7}, "calibration: scores too low"),
        ({"auc": 0.62}, "quality: AUC below its promise"),
    ],
)
def test_a_change_of_one_deviation_of_the_nights_is_found_within_three_weeks(
    change: dict[str, float], cause: str
) -> None:
    random = np.random.default_rng(9)
    delays = []
    for _ in range(60):
        promise, usual = nights(random, HELD_OUT), nights(random, 100)
        changed = nights(random, 60, start=100, **change)
        days = found(promise, usual + changed).get(cause, [])
        onset = changed[0].day
        delays.append(min(((day - onset).days for day in days if day >= onset), default=999))
    assert np.median(delays) <= 21
    assert np.mean(np.array(delays) <= 40) >= 0.9


@pytest.mark.parametrize("worse_for", [7, 20])
def test_it_is_told_after_the_declared_number_of_nights_at_the_soonest(worse_for: int) -> None:
    random = np.random.default_rng(10)
    live = nights(random, 60) + nights(random, 60, start=60, auc=0.52)
    first = next(each for each in watch(CHARTS["probability"][2], [], live, worse_for, 0.7))
    assert len(first.rise) >= worse_for
    assert (first.day - live[60].day).days <= worse_for + 7


def test_labels_of_other_rows_are_told_before_five_nights_of_them_are_over() -> None:
    random = np.random.default_rng(24)
    delays = []
    for _ in range(100):
        usual = [judged(n, calibration_slope=slope) for n, slope in enumerate(random.normal(1, 0.45, 60))]
        mixed = [judged(60 + n, calibration_slope=slope) for n, slope in enumerate(random.normal(0, 0.1, 5))]
        days = found([], usual + mixed).get("quality: scores have lost their meaning", [])
        delays.append(
            min((each - mixed[0].day).days for each in days if each >= mixed[0].day) + 1 if days else 9
        )
    assert np.median(delays) <= 4
    assert np.mean(np.array(delays) <= 5) >= 0.75


@pytest.mark.soak
def test_scores_of_usual_meaning_keep_the_promise() -> None:
    random = np.random.default_rng(25)
    told = 0
    for _ in range(200):
        slopes = random.normal(1, 0.45, YEAR)
        days = found([], [judged(n, calibration_slope=slope) for n, slope in enumerate(slopes)])
        told += sum(map(episodes, days.values()))
    assert told / 200 <= 0.3


def test_an_episode_ends_after_its_cause_has() -> None:
    random = np.random.default_rng(11)
    promise, usual = nights(random, HELD_OUT), nights(random, 60)
    bad = nights(random, 80, start=60, auc=0.55)
    well = nights(random, 120, start=140)
    days = found(promise, usual + bad + well)["quality: AUC below its promise"]
    assert bad[-1].day in days
    assert any(night.day not in days for night in well[:60])


def test_one_night_however_bad_tells_nothing() -> None:
    random = np.random.default_rng(12)
    promise, live = nights(random, HELD_OUT), nights(random, 60)
    storm = judged(60, mean_score=0.25, base_rate=0.95, auc=0.4)
    before = found(promise, live)
    assert found(promise, [*live, storm]) == before


def test_what_is_bad_from_its_first_night_is_held_against_the_promise_alone() -> None:
    random = np.random.default_rng(13)
    promise, live = nights(random, 40), nights(random, 120, auc=0.58)
    days = found(promise, live)["quality: AUC below its promise"]
    assert days[0] < live[28].day
    assert days[-1] == live[-1].day


def test_a_version_without_held_out_nights_is_held_against_its_own_first_ones() -> None:
    random = np.random.default_rng(14)
    live = nights(random, 60) + nights(random, 60, start=60, auc=0.58)
    assert found([], live)["quality: AUC below its promise"][0] >= live[60].day


def test_without_a_reference_nothing_is_told() -> None:
    live = nights(np.random.default_rng(15), 9, auc=0.5)
    assert found([], live) == {}


def test_nights_of_few_rows_and_of_one_class_say_nothing() -> None:
    random = np.random.default_rng(16)
    promise, live = nights(random, HELD_OUT), nights(random, 80)
    small = [Judged(each.day, 20, {"mean_score": 0.9, "base_rate": 0.1, "auc": 0.2}) for each in live]
    mixed = [each for pair in zip(live, small, strict=True) for each in pair]
    assert found(promise, mixed) == found(promise, live)
    assert np.isnan(CHARTS["probability"][2].value(judged(0, mean_score=0.3, base_rate=0.0)))


def test_the_evidence_tells_the_figures_and_what_to_do() -> None:
    random = np.random.default_rng(17)
    promise, live = nights(random, HELD_OUT), nights(random, 60)
    changed = nights(random, 40, start=60, too_high=-1.5)
    last = findings("toy", "probability", promise, live + changed, 7, 2.0)[-1]
    assert (last.kind, last.job, last.day) == ("concept", "toy", changed[-1].day)
    assert "base_rate 0." in last.evidence
    assert "42 reference nights" in last.evidence
    assert "nightshift train toy" in last.todo


def test_errors_of_values_are_watched_too() -> None:
    random = np.random.default_rng(18)
    values = [judged(n, mae=float(np.exp(random.normal(2, 0.2))), bias=random.normal()) for n in range(80)]
    worse = [judged(80 + n, mae=12.0, bias=random.normal()) for n in range(40)]
    causes = {each.cause for each in findings("toy", "value", values[:14], values[14:] + worse, 7, 2.0)}
    assert "quality: error above its promise" in causes


def test_the_limit_agrees_with_episodes_counted_otherwise() -> None:
    random = np.random.default_rng(19)
    most = limit(42, 0.0, 1.0)
    begun = 0
    for _ in range(400):
        reference, year = random.standard_normal(42), random.standard_normal(YEAR)
        places = [rise.place for rise in rises(year, reference, float(reference.mean()), most, 1)]
        begun += sum(place - 1 not in places for place in places)
    assert begun / 400 == pytest.approx(1.0, abs=0.2)


def test_the_limit_grows_with_autocorrelation_and_with_a_shorter_reference() -> None:
    assert limit(42, 0.0, 0.5) < limit(42, 0.3, 0.5)
    assert limit(100, 0.0, 0.5) < limit(14, 0.0, 0.5)


def test_the_autocorrelation_is_that_of_numpy_to_a_tenth() -> None:
    values = autoregressive(np.random.default_rng(20), (1, 5000), 0.3)[0]
    assert autocorrelation(values) == pytest.approx(np.corrcoef(values[1:], values[:-1])[0, 1], abs=0.05)


def test_a_cusum_by_hand() -> None:
    usual = np.array([-1.0, 1.0] * 10)
    spread = usual.std(ddof=1)
    values = np.array([0.0, 2.0, 2.0, np.nan, 2.0, -9.0, -9.0]) * spread
    raised = [(rise.place, rise.since, rise.cusum) for rise in rises(values, usual, 0.0, 3.0, 1)]
    assert raised == [(2, 1, 3.5), (3, 1, 3.5), (4, 1, 4.5)]


def test_the_moved_totals_agree() -> None:
    held = nights(np.random.default_rng(21), 200, too_high=0.5)
    moved = log_odds_error(held)
    total = sum(expit(logit(night.metric("mean_score")) + moved) for night in held)
    assert total == pytest.approx(sum(night.metric("base_rate") for night in held))
    assert moved == pytest.approx(-0.5, abs=0.2)


def test_the_log_odds_gap_of_a_night_without_positives_is_finite() -> None:
    assert log_odds_gap(judged(0, mean_score=0.2, base_rate=0.0)) == pytest.approx(
        logit(0.2) - logit(0.5 / 900)
    )


def test_watch_needs_no_more_than_a_chart_and_nights() -> None:
    live = nights(np.random.default_rng(22), 60) + nights(np.random.default_rng(23), 40, start=60, auc=0.55)
    raised = watch(CHARTS["probability"][2], [], live, 7, 1.0)
    assert raised[-1].day == live[-1].day
    assert raised[-1].cusum > raised[-1].limit
