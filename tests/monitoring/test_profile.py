"""Profiles merge as if all rows had been seen at once, stay small, and hold no personal data."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FatalError
from pipeline.job import Extract
from pipeline.monitoring.buckets import BOUND, Buckets
from pipeline.monitoring.columns import (
    MOST_VALUES,
    Categories,
    Column,
    Numbers,
    Unread,
    categories,
    merged,
    numbers,
)
from pipeline.monitoring.profile import (
    Profile,
    merge,
    profile_features,
    profile_inputs,
    profile_scored,
    profile_scores,
)
from pipeline.monitoring.profile_file import dumps, loads
from pipeline.monitoring.profiler import Profiler
from pipeline.partition import Instants, Partition
from pipeline.scoring.feature_code import FeatureType

RANDOM = np.random.default_rng(11)
FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100)
NIGHT = Instants(
    day=date(2024, 1, 2),
    day_start=datetime(2024, 1, 1, 23, tzinfo=UTC),
    day_end=datetime(2024, 1, 2, 23, tzinfo=UTC),
    cutoff=datetime(2024, 1, 2, 2, tzinfo=UTC),
    timezone=ZoneInfo("Europe/Berlin"),
)
EXTRACT = Extract(
    key=("id",),
    columns={
        "day": "date",
        "id": "integer",
        "kind": "text?",
        "fresh": "boolean",
        "amount": "float?",
        "items": "integer",
        "name": "text",
        "known_at": "timestamp",
    },
    pii=("name",),
    sql="select 1",
)
ROWS = pa.table(
    {
        "day": pa.array([date(2024, 1, 2), date(2024, 1, 1)], pa.date32()),
        "id": [1, 2],
        "kind": pa.array(["ball", None]),
        "fresh": [True, False],
        "amount": pa.array([2.5, None]),
        "items": [3, 2**60],
        "name": ["Ada", "Bo"],
        "known_at": pa.array(
            [datetime(2024, 1, 1, 23, 30), datetime(2024, 1, 2, 5)], pa.timestamp("us", "UTC")
        ),
    }
)
BATCH = ROWS.to_batches()[0]
FRAME = pd.DataFrame(
    {
        "kind": pd.Series(["ball", None], dtype="str"),
        "amount": [2.5, np.nan],
        "items": [3.0, 2.0**60],
        "name": pd.Series(["Ada", "Bo"], dtype="str"),
        "half": [1.0, 2.0],
    }
)
SCHEMA: dict[str, FeatureType] = {
    "kind": "category?", "amount": "float?", "items": "float", "name": "category", "half": "float"
}  # fmt: skip


def exact(column: Column) -> dict[str, Any]:
    """All of a column that does not depend on the order of additions."""
    match column:
        case Numbers():
            ends = {name: str(getattr(column, name) + 0.0) for name in ("min", "max")}  # NaN equals itself so
            buckets = column.buckets
            held = {
                "level": buckets.level,
                "codes": buckets.codes.tolist(),
                "counts": buckets.counts.tolist(),
            }
            return {"rows": column.rows, "missing": column.missing} | ends | held
        case Categories():
            return {
                "values": dict(column.counts),
                **{n: getattr(column, n) for n in ("rows", "missing", "undercount")},
            }
        case Unread():
            return {"rows": column.rows, "missing": column.missing}


def many(draw_from: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Consecutive pieces of these sizes, the last one the rest."""
    return np.split(draw_from, np.cumsum(sizes))


# Merging


@given(st.lists(st.lists(FINITE, max_size=30), min_size=1, max_size=4), st.randoms())
def test_merged_numbers_are_those_of_all_rows_in_any_order(parts: list[list[float]], random: Any) -> None:
    whole = numbers(np.array([value for part in parts for value in part]))
    shuffled = random.sample(parts, len(parts))
    together = merged([numbers(np.array(part)) for part in shuffled])
    assert isinstance(together, Numbers)
    assert exact(together) == exact(whole)
    scale = max((abs(value) for part in parts for value in part), default=0)
    assert together.mean == pytest.approx(whole.mean, abs=1e-12 * scale)
    assert together.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-12 * scale**2)


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.lognormal(3, 2, 30_000),
        RANDOM.normal(0, 1, 30_000),
        RANDOM.integers(-3000, 3000, 30_000).astype(float),
        np.concatenate([np.zeros(20_000), RANDOM.normal(1013, 7, 10_000)]),
        np.arange(1e9, 1e9 + 30_000),
    ],
    ids=["lognormal", "normal", "integers", "mostly zero", "numbered"],
)
def test_many_distinct_numbers_merge_into_the_very_same_buckets(values: np.ndarray) -> None:
    whole = Buckets.of(values)
    parts = [Buckets.of(part) for part in many(values, [10, 5_000, 20_000])]
    nested = Buckets.merged([Buckets.merged(parts[:2]), Buckets.merged(parts[2:])])
    for together in (*(Buckets.merged(order) for order in permutations(parts)), nested):
        assert together.level == whole.level > 0
        assert together.codes.tolist() == whole.codes.tolist()
        assert together.counts.tolist() == whole.counts.tolist()
    assert len(whole.codes) <= BOUND


@given(st.lists(st.lists(st.sampled_from([*"abcdef", None])), min_size=1, max_size=4))
def test_merged_categories_are_those_of_all_rows(parts: list[list[str | None]]) -> None:
    whole = categories(pa.array([value for part in parts for value in part], pa.string()))
    together = merged([categories(pa.array(part, pa.string())) for part in parts])
    assert exact(together) == exact(whole)


def test_profiles_of_shards_merge_into_the_profile_of_the_whole() -> None:
    frame = pd.DataFrame({"kind": pd.Series(["a", "b"] * 500, dtype="str"), "x": RANDOM.normal(size=1000)})
    schema: dict[str, FeatureType] = {"kind": "category", "x": "float"}
    whole = profile_features(frame, schema)
    shards = [profile_features(frame[at : at + 300], schema) for at in range(0, 1000, 300)]
    together = merge(shards[::-1])
    assert {name: exact(column) for name, column in together.feature.items()} == {
        name: exact(column) for name, column in whole.feature.items()
    }


def test_a_column_that_came_later_is_that_of_the_profiles_which_have_it() -> None:
    earlier, later = Profile(input={"x": numbers(np.ones(3))}), Profile(input={"y": numbers(np.ones(2))})
    assert [column.rows for column in merge([earlier, later]).input.values()] == [3, 2]


def test_a_profiler_counts_the_inputs_of_all_rows_and_the_rest_where_a_model_answered() -> None:
    profiler = Profiler(EXTRACT, NIGHT, threshold=0.5)
    for _ in range(3):
        profiler.scored(BATCH, FRAME, SCHEMA, np.array([0.2, 0.8]))
    profiler.unscored(BATCH)
    profile = profiler.profile
    assert {column.rows for column in profile.input.values()} == {8}
    assert {column.rows for column in (*profile.feature.values(), *profile.score.values())} == {6}
    assert exact(profile.score["decision"])["values"] == {"true": 3, "false": 3}


def test_a_feature_that_is_an_input_as_read_is_measured_once_and_alike() -> None:
    profile = profile_scored(BATCH, EXTRACT, NIGHT, FRAME, SCHEMA)
    same = {name for name in SCHEMA if profile.feature[name] is profile.input.get(name)}
    assert same == {"kind", "amount", "items"}
    alone = profile_features(FRAME, SCHEMA, EXTRACT.pii).feature
    assert {n: exact(c) for n, c in profile.feature.items()} == {n: exact(c) for n, c in alone.items()}


# What is kept


def test_few_distinct_numbers_are_kept_exactly() -> None:
    values = np.array([0.1, -0.0, 0.0, -7.5, 0.1, 1e300])
    column = numbers(values)
    assert column.middles().tolist() == [-7.5, 0, 0.1, 1e300]
    assert column.buckets.counts.tolist() == [1, 2, 2, 1]


def test_a_bucket_of_many_numbers_is_a_narrow_one() -> None:
    values = np.sort(RANDOM.lognormal(3, 0.8, 100_000))
    column = numbers(values)
    middles = np.repeat(column.middles(), column.buckets.counts)
    assert np.abs(middles / values - 1).max() < 0.01
    assert len(column.buckets.codes) > BOUND / 4


def test_null_nan_and_infinite_numbers_are_missing() -> None:
    column = numbers(np.array([1.0, np.nan, np.inf, -np.inf, 3.0]), missing=2)
    assert (column.rows, column.missing, column.mean, column.std) == (7, 5, 2.0, 1.0)


def test_moments_of_numbers_far_from_zero_keep_their_digits() -> None:
    values = 1e9 + RANDOM.normal(size=10_000)
    together = merged([numbers(part) for part in many(values, [3_000, 3_000])])
    assert isinstance(together, Numbers)
    assert together.std == pytest.approx(values.std(), rel=1e-6)


def test_beyond_the_bound_frequent_values_stay_and_tell_what_they_may_lack() -> None:
    rare = [f"rare {number}" for number in range(3 * MOST_VALUES)]
    parts = [categories(pa.array(["often"] * 5_000 + rare[at::3])) for at in range(3)]
    column = merged(parts)
    assert isinstance(column, Categories)
    assert len(column.counts) <= MOST_VALUES
    assert not column.is_exact
    assert 15_000 - column.undercount <= column.counts["often"] <= 15_000
    assert column.undercount <= column.rows / MOST_VALUES


def test_inputs_are_kept_by_their_declared_types() -> None:
    columns = profile_inputs(ROWS, EXTRACT, NIGHT).input
    middles = {name: c.middles().tolist() for name, c in columns.items() if isinstance(c, Numbers)}
    assert middles == {"day": [-1, 0], "amount": [2.5], "items": [3, 2**60], "known_at": [0.5, 6]}
    counts = {name: c.counts for name, c in columns.items() if isinstance(c, Categories)}
    assert counts == {"kind": {"ball": 1}, "fresh": {"true": 1, "false": 1}}
    assert {name: c.missing for name, c in columns.items() if c.missing} == {"kind": 1, "amount": 1}


@pytest.mark.parametrize("day", [date(2024, 3, 30), date(2024, 3, 31), date(2024, 4, 1), date(2024, 10, 27)])
def test_a_timestamp_is_told_by_the_wall_clock_so_that_a_change_of_clocks_is_none(day: date) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    known = [
        datetime.combine(day - timedelta(days=3), time(18), berlin),
        datetime.combine(day, time(22, 30), berlin),
    ]
    rows = ROWS.set_column(7, "known_at", pa.array(known, pa.timestamp("us", "UTC")))
    profile = profile_inputs(rows, EXTRACT, Partition(day).instants(berlin, time(2)))
    column = profile.input["known_at"]
    assert isinstance(column, Numbers)
    assert column.middles().tolist() == [-54, 22.5]


def test_of_personal_data_and_of_the_only_key_column_no_value_is_kept() -> None:
    profile = profile_inputs(ROWS, EXTRACT, NIGHT)
    assert [name for name, c in profile.input.items() if isinstance(c, Unread)] == ["id", "name"]
    frame = pd.DataFrame({"name": pd.Series(["Ada", None], dtype="str")})
    features = profile_features(frame, {"name": "category?"}, pii=EXTRACT.pii)
    assert features.feature["name"] == Unread(rows=2, missing=1)


def test_a_key_of_several_columns_is_profiled_as_any_other_column() -> None:
    extract = EXTRACT.model_copy(update={"key": ("id", "kind")})
    assert isinstance(profile_inputs(ROWS, extract, NIGHT).input["id"], Numbers)


# The file


def test_a_profile_comes_back_from_its_file_as_it_was() -> None:
    profile = merge([profile_inputs(ROWS, EXTRACT, NIGHT), profile_scores(RANDOM.random(10_000), 0.5)])
    content = dumps(profile)
    assert dumps(loads(content)) == content
    assert exact(loads(content).score["score"]) == exact(profile.score["score"])


def test_an_empty_profile_comes_back_too() -> None:
    empty = Profile(input={"x": numbers(np.empty(0))})
    assert loads(dumps(empty)).input["x"].rows == 0


def test_a_column_takes_few_kilobytes_of_a_file() -> None:
    assert len(dumps(profile_scores(RANDOM.random(1_000_000), None))) < 8_000


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"{}"])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(FatalError, match="a profile must be JSON in zstd"):
        loads(content)


def test_another_version_is_refused() -> None:
    newer = pa.Codec("zstd").compress(b'{"format":"nightshift-profile","version":99}', asbytes=True)
    with pytest.raises(FatalError, match="must be of format nightshift-profile 1; got nightshift-profile 99"):
        loads(newer)
