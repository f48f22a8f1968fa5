"""What the metrics of a night say, and that they agree with scipy on what it can see whole."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from pipeline.monitoring.columns import Categories, Numbers, categories, numbers
from pipeline.monitoring.divergence import (
    BINS,
    SMALLEST_SHARE,
    category_bins,
    number_bins,
    out_of_range_share,
    quantiles,
    unseen_share,
    wasserstein,
)
from pipeline.monitoring.metrics import (
    Metric,
    RowCounts,
    mean_entropy,
    night_distances,
    profile_metrics,
    row_metrics,
)
from pipeline.monitoring.profile import Profile, merge, profile_scores

RANDOM = np.random.default_rng(7)
FEW = RANDOM.normal(10, 3, 500)
MANY = RANDOM.normal(10, 3, 50_000)

Values = dict[tuple[str, str, str, str], float]


def texts(values: str) -> Categories:
    """One letter a row, a dash where it is missing."""
    return categories(pa.array([None if letter == "-" else letter for letter in values], pa.string()))


def by_name(metrics: list[Metric]) -> Values:
    found: Values = {(m.part, m.column, m.metric, m.baseline): m.value for m in metrics}
    assert len(found) == len(metrics)
    return found


def of(column: Numbers | Categories, baseline: Numbers | Categories | None = None) -> dict[str, float]:
    """The metrics of one input column alone, or against a baseline."""
    training = None if baseline is None else Profile(input={"x": baseline})
    wanted = "none" if baseline is None else "training"
    found = profile_metrics(Profile(input={"x": column}), training, None, "value")
    return {metric.metric: metric.value for metric in found if metric.baseline == wanted}


# Agreement with scipy and numpy


def test_js_is_the_squared_distance_of_scipy_in_bits_with_the_missing_as_a_bin() -> None:
    night, training = texts("aabbbb--"), texts("aaaaabbb--")
    expected = jensenshannon([2 / 8, 4 / 8, 2 / 8], [5 / 10, 3 / 10, 2 / 10], base=2) ** 2
    assert of(night, training)["js"] == pytest.approx(expected, abs=1e-12)


def test_psi_is_the_sum_of_both_relative_entropies() -> None:
    night, training = texts("aabbbb--"), texts("aaaaabbb--")
    p, q = [2 / 8, 4 / 8, 2 / 8], [5 / 10, 3 / 10, 2 / 10]
    assert of(night, training)["psi"] == pytest.approx(entropy(p, q) + entropy(q, p), abs=1e-12)


def test_an_empty_bin_counts_as_the_smallest_share_in_psi() -> None:
    expected = (0.5 - SMALLEST_SHARE) * np.log(0.5 / SMALLEST_SHARE) + (0.5 - 1) * np.log(0.5)
    assert of(texts("ab"), texts("aa"))["psi"] == pytest.approx(expected, abs=1e-12)


def test_js_is_0_for_equal_shares_and_1_for_nothing_in_common() -> None:
    assert of(texts("aab-"), texts("aabaab--"))["js"] == pytest.approx(0, abs=1e-12)
    assert of(texts("aa"), texts("bb"))["js"] == pytest.approx(1)
    assert of(numbers(FEW), numbers(FEW + 1000))["js"] == pytest.approx(1)


def test_numbers_are_compared_over_bins_of_equal_baseline_share() -> None:
    night, training = numbers(RANDOM.normal(11, 3, 400), missing=20), numbers(FEW, missing=10)
    counts, baseline = number_bins(night, training)
    ends = np.quantile(FEW, np.arange(1, BINS + 1) / BINS, method="inverted_cdf")
    assert baseline.tolist() == [0, *[50] * BINS, 0, 10]
    assert counts.sum() == 420
    assert counts[-1] == 20
    assert counts[-2] == 400 - np.searchsorted(np.sort(night.middles()), ends[-1], side="right")


@pytest.mark.parametrize(("values", "tolerance"), [(FEW, 1e-12), (MANY, 2e-3)])
def test_wasserstein_is_that_of_scipy_in_standard_deviations_of_the_baseline(
    values: np.ndarray, tolerance: float
) -> None:
    other = values * 1.1 + 1
    expected = wasserstein_distance(other, values) / values.std()
    assert wasserstein(numbers(other), numbers(values)) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("values", "tolerance"), [(FEW, 1e-12), (MANY, 2e-3)])
def test_quantiles_are_those_of_numpy(values: np.ndarray, tolerance: float) -> None:
    wanted = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    expected = np.quantile(values, wanted, method="inverted_cdf")
    assert quantiles(numbers(values), wanted) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("count", "tolerance"), [(300, 1e-12), (50_000, 1e-5)])
def test_entropy_is_the_mean_of_each_scores_own(count: int, tolerance: float) -> None:
    scores = RANDOM.beta(1, 4, count)
    expected = np.mean([entropy([p, 1 - p], base=2) for p in scores])
    assert mean_entropy(numbers(scores)) == pytest.approx(expected, rel=tolerance)


@given(st.lists(st.integers(-5, 5), min_size=1), st.lists(st.integers(-5, 5), min_size=1))
def test_js_never_leaves_0_to_1_and_is_symmetric_for_categories(one: list[int], other: list[int]) -> None:
    first, second = (categories(pa.array(map(str, each))) for each in (one, other))
    there, back = of(first, second)["js"], of(second, first)["js"]
    assert -1e-12 <= there <= 1 + 1e-12
    assert there == pytest.approx(back)


# What a column tells


def test_a_number_column_tells_its_moments_and_quantiles() -> None:
    told = of(numbers(np.arange(1.0, 101), missing=25))
    assert told == pytest.approx(
        {
            "missing_share": 0.2, "mean": 50.5, "std": np.arange(1, 101).std(), "min": 1, "max": 100,
            "q01": 1, "q05": 5, "q25": 25, "q50": 50, "q75": 75, "q95": 95, "q99": 99,
        }
    )  # fmt: skip


def test_a_category_column_tells_its_values_and_the_most_frequent_share() -> None:
    assert of(texts("aaab-")) == {"missing_share": 0.2, "distinct": 2, "top_share": 0.75}


def test_shares_outside_of_the_baseline_are_told() -> None:
    assert out_of_range_share(numbers(np.array([0.0, 1, 2, 3, 9])), numbers(np.array([1.0, 3]))) == 0.4
    assert unseen_share(texts("aabc-"), texts("ab")) == 0.25


def test_a_column_that_is_all_missing_tells_that_alone_and_differs_by_it() -> None:
    nothing = numbers(np.full(4, np.nan))
    assert of(nothing) == {"missing_share": 1}
    assert of(nothing, numbers(FEW)) == pytest.approx({"js": 1, "psi": of(nothing, numbers(FEW))["psi"]})
    assert set(of(numbers(FEW), nothing)) == {"js", "psi"}


def test_a_constant_column_is_compared_without_its_spread() -> None:
    constant = numbers(np.full(10, 5.0))
    assert of(constant, constant) == pytest.approx({"out_of_range_share": 0, "js": 0, "psi": 0})
    assert of(numbers(np.full(10, 6.0)), constant)["js"] == 1


def test_frequent_values_alone_are_compared_where_not_all_are_known() -> None:
    known = Categories(10_000, 0, {"a": 5_000, "b": 3_000, "c": 40}, undercount=50)
    night = texts("aaaaabbbde")
    counts, baseline = category_bins(night, known)
    assert (counts.tolist(), baseline.tolist()) == ([5, 3, 2, 0], [5_000, 3_000, 2_000, 0])
    assert set(of(night, known)) == {"js", "psi"}


def test_columns_that_a_baseline_lacks_or_has_as_another_kind_are_not_compared() -> None:
    night = Profile(input={"x": numbers(FEW), "new": numbers(FEW)})
    found = profile_metrics(night, Profile(input={"x": texts("ab")}), None, "value")
    assert {metric.baseline for metric in found} == {"none"}


# What a night tells


def test_scores_tell_how_sure_they_are_and_how_many_pass_the_threshold() -> None:
    night = profile_scores(np.array([0.5, 0.5, 0.1, 0.9]), threshold=0.5)
    told = by_name(profile_metrics(night, night, night, "probability"))
    alone = {metric for _, _, metric, baseline in told if baseline == "none"}
    assert alone == {
        "mean", "std", "min", "max", "q01", "q05", "q25", "q50", "q75", "q95", "q99",
        "share_over_threshold", "entropy",
    }  # fmt: skip
    assert told["score", "score", "share_over_threshold", "none"] == 0.75
    for baseline in ("training", "rolling"):
        assert {metric for _, _, metric, by in told if by == baseline} == {"js", "psi", "wasserstein"}


def test_values_have_no_entropy_and_no_threshold() -> None:
    told = by_name(profile_metrics(profile_scores(FEW, None), None, None, "value"))
    assert not {"entropy", "share_over_threshold"} & {metric for _, _, metric, _ in told}


def test_rows_tell_their_shares() -> None:
    told = by_name(row_metrics(RowCounts(rows_in=200, quarantined=20, withheld=5, fallback=15)))
    assert told == {
        ("rows", "rows", "rows_in", "none"): 200,
        ("rows", "rows", "quarantined_share", "none"): 0.1,
        ("rows", "rows", "withheld_share", "none"): 0.025,
        ("rows", "rows", "fallback_share", "none"): 0.075,
    }
    assert [metric.metric for metric in row_metrics(RowCounts(0, 0, 0, 0))] == ["rows_in"]


# How far nights of a training lie from all of its rows


def test_a_night_of_one_weekday_lies_far_from_all_of_them_and_an_ordinary_feature_does_not() -> None:
    days = [Profile(feature={"weekday": texts(day * 90), "kind": texts("aab" * 30)}) for day in "abcdefg" * 4]
    found = night_distances(days, merge(days))
    expected = jensenshannon([1, *[0] * 6], [1 / 7] * 7, base=2) ** 2
    assert found == {"weekday": pytest.approx(expected), "kind": pytest.approx(0.0, abs=1e-12)}
    assert expected > 0.5


def test_the_distance_of_nights_is_the_median_of_what_later_nights_are_measured_by() -> None:
    nights = [Profile(feature={"x": numbers(RANDOM.normal(place, 3, 300))}) for place in (8, 10, 11, 9, 30)]
    together = merge(nights)
    each = [
        metric.value
        for night in nights
        for metric in profile_metrics(night, together, None, "value")
        if (metric.metric, metric.baseline) == ("js", "training")
    ]
    assert night_distances(nights, together) == {"x": sorted(each)[2]}
    unread = Profile(feature={"x": numbers(np.array([]))})
    assert night_distances([unread], unread) == {}
