"""What the nights before say of a night: shares of usual values, and whether it is a copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.monitoring.columns import Categories, Unread, categories, numbers
from pipeline.monitoring.nightly import MOST_SHARES, copied_share, nightly_metrics
from pipeline.monitoring.profile import Profile, merge


def texts(**counts: int) -> Categories:
    return categories(pa.array([value for value, count in counts.items() for _ in range(count)]))


def night(seed: int) -> Profile:
    """Two columns of many values, one of few, and one that nobody may read."""
    draw = np.random.default_rng(seed)
    return Profile(
        input={
            "price": numbers(draw.random(200)),
            "name": categories(pa.array(draw.integers(0, 90, 200)).cast(pa.string())),
            "kind": texts(ball=100, kite=100),
            "email": Unread(200, 0),
        }
    )


def shares(profile: Profile, rolling: Profile) -> dict[str, float]:
    return {metric.metric: metric.value for metric in nightly_metrics(profile, rolling, None)}


def test_usual_values_have_shares_of_the_rows_that_have_one() -> None:
    usual = Profile(input={"kind": texts(ball=500, kite=480, doll=9)})
    tonight = Profile(input={"kind": categories(pa.array(["ball", "kite", "kite", "robot", None]))})
    assert shares(tonight, usual) == {"share:ball": 0.25, "share:kite": 0.5}


def test_a_usual_value_that_is_gone_has_no_share_left() -> None:
    usual = Profile(feature={"kind": texts(ball=50, kite=50)})
    assert shares(Profile(feature={"kind": texts(ball=10)}), usual) == {"share:ball": 1, "share:kite": 0}


def test_only_the_most_frequent_values_have_shares() -> None:
    many = Profile(input={"kind": texts(**{f"k{at:02}": 100 - at for at in range(40)})})
    assert list(shares(many, many)) == [f"share:k{at:02}" for at in range(MOST_SHARES)]


def test_numbers_and_columns_of_personal_data_have_no_shares() -> None:
    read = Profile(input={name: night(1).input[name] for name in ("price", "email", "kind")})
    assert set(shares(read, read)) == {"share:ball", "share:kite"}


def test_a_copy_has_the_counts_of_the_night_before() -> None:
    assert copied_share(night(1), night(1)) == 1
    assert copied_share(night(1), night(2)) == 0


def test_a_column_that_is_copied_counts_as_one_of_those_with_many_values() -> None:
    half = Profile(input={**night(2).input, "price": night(1).input["price"]})
    assert copied_share(half, night(1)) == 0.5


def test_of_copies_nothing_is_said_without_columns_of_many_values_or_a_night_before() -> None:
    few = Profile(input={"kind": texts(ball=1)})
    assert copied_share(few, few) is None
    assert [metric.metric for metric in nightly_metrics(few, merge([few]), few)] == ["share:ball"]
