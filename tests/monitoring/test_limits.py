"""Limits of nights: few false alarms whatever nights share, large changes found soon, one finding a cause."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from pipeline.job import Monitor
from pipeline.monitoring.breaks import broken
from pipeline.monitoring.causes import findings, findings_of
from pipeline.monitoring.false_alarms import alerts_of, measured, rate
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import judge

COLUMNS = ("age", "price", "weight", "width")
ROWS = 1000
MONITOR = Monitor()


def history(nights: int, seed: int = 0, carried: float = 0.5, weekend: float = 0.0) -> pd.DataFrame:
    """Metrics of normal nights, wide: each column's level follows a shock that all share and its own one.

    Shocks carry over to the next night by `carried`; at weekends levels are higher by `weekend`.
    """
    draw = np.random.default_rng(seed)
    days = pd.date_range("2023-01-01", periods=nights)
    wide = {("rows", "rows", "rows_in"): np.round(ROWS * np.exp(0.02 * draw.standard_normal(nights)))}
    shared = walk(draw, nights, carried)
    for column in COLUMNS:
        level = 0.1 * (shared + walk(draw, nights, carried)) + weekend * (days.day_of_week >= 5)
        wide["input", column, "mean"] = 5 + 2 * level
        wide["input", column, "std"] = 2 * np.exp(0.02 * draw.standard_normal(nights))
        wide["input", column, "js"] = 0.004 * np.exp(0.4 * draw.standard_normal(nights) + level)
        wide["input", column, "missing_share"] = draw.binomial(ROWS, 0.02, nights) / ROWS
    return pd.DataFrame(wide, index=pd.Index(days, name="day"))


def walk(draw: np.random.Generator, nights: int, carried: float) -> npt.NDArray[np.float64]:
    shocks: npt.NDArray[np.float64] = draw.standard_normal(nights) * np.sqrt(1 - carried**2)
    for night in range(1, nights):
        shocks[night] += carried * shocks[night - 1]
    return shocks


def as_metrics(wide: pd.DataFrame) -> pd.DataFrame:
    """As the table of metrics has them."""
    long = wide.unstack().reset_index()
    long.columns = pd.Index(["part", "column_name", "metric", "day", "value"])
    return long.assign(baseline=np.where(long["metric"].isin(["js", "unseen_share"]), "rolling", "none"))


def told(wide: pd.DataFrame) -> list[Finding]:
    return findings("toys", as_metrics(wide), MONITOR)


def changed(
    wide: pd.DataFrame, column: str, metric: str, value: float, nights: slice | int = slice(-2, None)
) -> pd.DataFrame:
    made = wide.copy()
    values = made["input", column, metric].to_numpy(copy=True)
    values[nights] = value
    made["input", column, metric] = values
    return made


@pytest.fixture(scope="module")
def normal() -> pd.DataFrame:
    return history(150)


# False alarms


@pytest.mark.soak
@pytest.mark.parametrize("carried", [0.0, 0.7])
def test_normal_nights_give_no_more_alerts_than_promised(carried: float) -> None:
    alerts = nights = 0
    for seed in range(3):
        judged = judge(as_metrics(history(380, seed, carried)), MONITOR)
        alerts += len({finding.day for finding in alerts_of("toys", judged)})
        nights += 359
    assert rate(alerts, nights, MONITOR).low <= MONITOR.false_alarms_a_year


def test_a_week_has_its_own_shape(normal: pd.DataFrame) -> None:
    assert told(history(150 - (normal.index[149].day_of_week - 5) % 7, weekend=1.0)) == []


def test_nothing_is_told_before_there_are_three_weeks() -> None:
    assert told(changed(history(20), "age", "missing_share", 1.0)) == []


def test_a_job_whose_nights_are_all_alike_is_quiet() -> None:
    wide = history(60)
    still = wide.iloc[[0] * 60].set_axis(wide.index)
    assert told(still) == []


# What is found, and when


def test_a_small_change_that_lasts_is_told_after_twice_as_many_nights(normal: pd.DataFrame) -> None:
    wide = changed(normal, "age", "mean", 6.2, slice(-4, None))
    assert [told(wide.iloc[: len(wide) - back]) for back in (3, 2, 1)] == [[], [], []]
    (finding,) = told(wide)
    assert (finding.cause, finding.since) == ("input age: another level", normal.index[-4].date())


def test_a_level_that_moved_is_told_on_the_second_night(normal: pd.DataFrame) -> None:
    assert told(changed(normal, "age", "mean", 7.0, -1)) == []
    (finding,) = told(changed(normal, "age", "mean", 7.0))
    assert (finding.kind, finding.cause) == ("drift", "input age: another level")
    assert finding.since == normal.index[-2].date()
    assert finding.evidence.startswith("input age, mean: 7, usually 4.")


@pytest.mark.parametrize(
    ("metric", "value", "cause"),
    [
        ("missing_share", 0.09, "more values missing"),
        ("js", 0.2, "another distribution"),
    ],
)
def test_missing_values_and_other_distributions_are_told_too(
    normal: pd.DataFrame, metric: str, value: float, cause: str
) -> None:
    (finding,) = told(changed(normal, "price", metric, value))
    assert finding.cause == f"input price: {cause}"


@pytest.mark.parametrize(("metric", "value"), [("missing_share", 0.0), ("js", 0.0)])
def test_what_got_better_is_not_told(normal: pd.DataFrame, metric: str, value: float) -> None:
    assert told(changed(normal, "price", metric, value)) == []


@pytest.mark.parametrize(
    ("metric", "value", "cause"),
    [("missing_share", 1.0, "no values"), ("mean", 5 * 1.609, "another unit or another column")],
)
def test_a_structural_break_is_told_on_its_first_night(
    normal: pd.DataFrame, metric: str, value: float, cause: str
) -> None:
    (finding,) = told(changed(normal, "weight", metric, value, -1))
    assert (finding.kind, finding.cause) == ("structure", f"input weight: {cause}")


@pytest.mark.parametrize(
    ("metric", "usual", "tonight", "cause"),
    [
        ("withheld_share", 0.0, 0.04, "rows: more rows withheld"),
        ("copied_share", 0.0, 0.8, "rows: a copy of the night before"),
        ("rows_in", 1000.0, 300.0, "rows: another number of rows"),
    ],
)
def test_rows_break_at_once(
    normal: pd.DataFrame, metric: str, usual: float, tonight: float, cause: str
) -> None:
    column = ("rows", "rows", metric)
    values = normal[column].to_numpy() if column in normal else np.full(len(normal), usual)
    (finding,) = told(normal.pipe(with_column, column, [*values[:-1], tonight]))
    assert (finding.kind, finding.cause) == ("structure", cause)


def test_a_new_category_is_told_at_once_for_the_next_night_it_is_known(normal: pd.DataFrame) -> None:
    column = ("input", "kind", "unseen_share")
    quiet = with_column(normal, column, [0.0] * len(normal))
    (finding,) = told(with_column(quiet, column, [0.0] * (len(normal) - 1) + [0.03]))
    assert (finding.kind, finding.cause) == ("structure", "input kind: unknown values")
    assert told(with_column(quiet, column, [0.0] * (len(normal) - 1) + [0.001])) == []


def with_column(wide: pd.DataFrame, name: tuple[str, str, str], values: list[float]) -> pd.DataFrame:
    made = wide.copy()
    made[name] = values
    return made


def test_a_broken_week_does_not_blind_the_weeks_after_it(normal: pd.DataFrame) -> None:
    week = changed(normal, "age", "mean", 40.0, slice(-20, -13))
    assert [finding.cause for finding in told(changed(week, "age", "mean", 11.0))] == [
        "input age: another level"
    ]


# One finding a cause


def test_what_changed_on_one_night_is_one_finding(normal: pd.DataFrame) -> None:
    wide = normal
    for column in ("age", "price", "width"):
        wide = changed(wide, column, "missing_share", 1.0, -1)
    (finding,) = told(wide)
    assert set(finding.columns) == {"input age", "input price", "input width"}


def test_what_begins_the_night_after_has_the_same_cause(normal: pd.DataFrame) -> None:
    wide = changed(changed(normal, "age", "mean", 7.2, slice(-3, None)), "price", "js", 0.3)
    (finding,) = told(wide)
    assert (finding.since, len(finding.columns)) == (normal.index[-3].date(), 2)


def test_what_begins_days_apart_has_two_causes(normal: pd.DataFrame) -> None:
    wide = changed(changed(normal, "age", "mean", 7.2, slice(-5, None)), "price", "js", 0.3)
    assert [finding.cause for finding in told(wide)] == [
        "input age: another level",
        "input price: another distribution",
    ]


def test_an_episode_keeps_its_first_night_and_is_one_alert(normal: pd.DataFrame) -> None:
    wide = changed(normal, "age", "mean", 8.0, slice(-10, None))
    judged = judge(as_metrics(wide), MONITOR)
    nights = range(len(wide) - 9, len(wide))
    found = [findings_of("toys", judged, broken(judged), night) for night in nights]
    assert {finding.since for night in found for finding in night} == {wide.index[-10].date()}
    late = [finding for finding in alerts_of("toys", judged) if finding.day >= wide.index[-10].date()]
    assert len(late) == 1


# Promise and measure


def test_the_promise_stands_beside_the_measure_and_its_exact_interval() -> None:
    told_rate = rate(3, 100, MONITOR)
    figures = [told_rate.promised, told_rate.measured, told_rate.low, told_rate.high]
    assert figures == pytest.approx([4, 0.03 * 365, 0.006230 * 365, 0.085176 * 365], rel=1e-4)


def test_the_smallest_change_is_one_that_is_told(normal: pd.DataFrame) -> None:
    _, smallest = measured("toys", as_metrics(normal), MONITOR)
    found = {(one.column, one.metric): one for one in smallest}
    for metric in ("mean", "missing_share"):
        one = found["width", metric]
        assert one.change is not None
        lasting = slice(-2 * MONITOR.nights_running, None)
        assert told(changed(normal, "width", metric, one.usual + 1.2 * one.change, lasting))
        assert told(changed(normal, "width", metric, one.usual + 0.2 * one.change, lasting)) == []


def test_without_three_weeks_nothing_is_measured() -> None:
    assert measured("toys", as_metrics(history(20)), MONITOR) == (None, [])
