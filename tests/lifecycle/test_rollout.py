"""A key stays in its arm; what is in force follows from two histories alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.lifecycle.promote import Promotion
from pipeline.lifecycle.rollout import Kind, Rollout, in_challenger_arm, in_force, positions, series

START = datetime(2013, 5, 1, tzinfo=UTC)
Keys = list[tuple[str, int]]


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def promotion(no: int, version: int, day: float) -> Promotion:
    return Promotion(no, "toy", version, None, "promote", at(day), at(no), "ben", "ana", "better", "0" * 64)


def rollout(
    no: int, version: int | None, day: float, kind: Kind = "canary", share: float = 0.1, salt: str = "a"
) -> Rollout:
    return Rollout(
        rollout_no=no,
        job="toy",
        kind=kind if version else "stop",
        version=version,
        share=share if version else None,
        salt=salt if version else None,
        effective_from=at(day),
        recorded_at=at(no),
        actor="ben",
        approved_by="ana",
        reason="try it",
        stops=None if version else no - 1,
        model_sha256="0" * 64 if version else None,
    )


def running(rollouts: list[Rollout], promotions: list[Promotion], *days: float) -> list[int | None]:
    found = [in_force(rollouts, promotions, at(day)) for day in days]
    return [None if row is None else row.rollout_no for row in found]


CHAMPION = [promotion(0, 1, 0)]


def test_a_rollout_is_in_force_from_its_instant_until_it_is_stopped() -> None:
    rows = [rollout(1, 2, 5), rollout(2, None, 8)]
    assert running(rows, CHAMPION, 4.9, 5, 7.9, 8, 99) == [None, 1, 1, None, None]


def test_a_later_row_takes_the_place_of_the_one_before() -> None:
    rows = [rollout(1, 2, 5, "shadow"), rollout(2, 2, 6), rollout(3, 3, 7)]
    assert running(rows, CHAMPION, 5, 6, 7) == [1, 2, 3]


def test_of_two_rows_of_one_instant_the_later_recorded_one_wins() -> None:
    assert running([rollout(2, None, 5), rollout(1, 2, 5)], CHAMPION, 5) == [None]


def test_a_promotion_of_the_challenger_ends_its_rollout() -> None:
    assert running([rollout(1, 2, 5)], [*CHAMPION, promotion(1, 2, 6)], 5, 6) == [1, None]


def test_a_promotion_of_another_version_ends_it_and_a_roll_back_does_not_revive_it() -> None:
    moves = [*CHAMPION, promotion(1, 3, 6), promotion(2, 1, 7)]
    assert running([rollout(1, 2, 5)], moves, 5, 6, 7, 99) == [1, None, None, None]


def test_the_champion_promoted_again_changes_nothing() -> None:
    assert running([rollout(1, 2, 5)], [*CHAMPION, promotion(1, 1, 6)], 7) == [1]


def test_without_a_champion_nothing_runs_beside_it() -> None:
    assert running([rollout(1, 2, 5)], [], 6) == [None]


def test_a_back_dated_promotion_of_the_challenger_leaves_it_without_a_rollout() -> None:
    assert running([rollout(1, 2, 5)], [*CHAMPION, promotion(1, 2, 4)], 5, 6) == [None, None]


@given(st.permutations([rollout(1, 2, 5), rollout(2, None, 8), rollout(3, 2, 9)]))
def test_the_order_in_which_rows_are_read_does_not_matter(rows: list[Rollout]) -> None:
    assert running(rows, CHAMPION, 5, 8, 9) == [1, None, 3]


def test_a_stop_ends_what_was_to_grow_later_too() -> None:
    """A guardrail stops a canary on day 6; on day 7, half of the keys would have got the same challenger."""
    rows = [rollout(1, 2, 5), rollout(2, 2, 7, share=0.5), dataclasses.replace(rollout(3, None, 6), stops=1)]
    assert running(rows, CHAMPION, 5, 6, 7, 99) == [1, None, None, None]


def test_a_stop_that_is_back_dated_behind_a_growth_ends_it() -> None:
    rows = [rollout(1, 2, 5), rollout(2, 2, 7), dataclasses.replace(rollout(3, None, 6), stops=1)]
    assert running(rows, CHAMPION, 6.5, 8) == [None, None]


def test_a_stop_leaves_alone_what_another_version_begins_later() -> None:
    rows = [rollout(1, 2, 5), rollout(2, 3, 7, salt="b"), dataclasses.replace(rollout(3, None, 6), stops=1)]
    assert running(rows, CHAMPION, 6.5, 8) == [None, 2]


def test_a_series_is_of_one_version_and_one_salt() -> None:
    rows = [rollout(1, 2, 1, salt="x"), rollout(2, None, 2), rollout(3, 2, 3), rollout(4, 2, 4, share=0.5)]
    assert [row.rollout_no for row in series(rows, rows[-1])] == [3, 4]
    assert [row.rollout_no for row in series(rows, rows[2])] == [3]


def table(keys: Keys, day: str = "2024-01-01") -> pa.Table:
    columns = {
        "shop": pa.array([shop for shop, _ in keys], pa.string()),
        "item": pa.array([item for _, item in keys], pa.int64()),
        "day": pa.array([day] * len(keys)),
    }
    return pa.table(columns)


def chosen(keys: Keys, share: float, salt: str = "a", day: str = "2024-01-01") -> dict[tuple[str, int], bool]:
    found = in_challenger_arm(table(keys, day), ["shop", "item"], salt, share)
    return dict(zip(keys, found.tolist(), strict=True))


KEYS = st.lists(st.tuples(st.text(max_size=4), st.integers(-(2**62), 2**62)), min_size=1, unique=True)
SHARE = st.floats(0.01, 0.99)


@given(KEYS, SHARE, st.data())
def test_a_key_stays_in_its_arm_on_any_day_in_any_company_and_order(
    keys: Keys, share: float, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(keys))
    some = shuffled[: data.draw(st.integers(1, len(keys)))]
    together = chosen(keys, share)
    assert chosen(shuffled, share, day="2031-12-31") == together
    assert chosen(some, share).items() <= together.items()


@given(KEYS, SHARE, SHARE)
def test_a_growing_share_moves_keys_one_way(keys: Keys, one: float, other: float) -> None:
    small, large = (chosen(keys, share) for share in sorted((one, other)))
    assert all(large[key] for key in keys if small[key])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_of_keys_is_the_declared_one(share: float) -> None:
    count = sum(chosen([("s", item) for item in range(50_000)], share).values())
    assert binomtest(count, 50_000, share).pvalue > 0.001


def test_another_salt_draws_the_keys_anew() -> None:
    keys = table([("s", item) for item in range(20_000)])
    one, other = (positions(keys, ["shop", "item"], salt) for salt in ("a", "b"))
    both = int(((one < 0.1) & (other < 0.1)).sum())
    assert binomtest(both, 20_000, 0.01).pvalue > 0.001
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_positions_are_the_same_in_every_process_and_version() -> None:
    """Pinned: a library that hashes otherwise would move keys between the arms of a running rollout."""
    code = (
        "import pyarrow as pa; from pipeline.lifecycle.rollout import positions;"
        "rows = pa.table({'shop': ['s', 'ü'], 'item': [1, 2]});"
        "print([round(x, 12) for x in positions(rows, ['shop', 'item'], 'a').tolist()])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[0.593225221954, 0.705670921365]"
