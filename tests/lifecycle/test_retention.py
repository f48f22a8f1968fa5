"""Which runs are old enough to go: by how they ended, and never one that is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Retention
from pipeline.lifecycle.retention import Candidate, Part, due
from pipeline.run import Status

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def run(days: float, status: Status = "published", number: int = 1, *, snapshot: bool = True) -> Candidate:
    return Candidate(number, status, NOW - timedelta(days=days), snapshot)


def test_where_nothing_is_declared_nothing_goes() -> None:
    everything = [run(9999, status, number) for number, status in enumerate(get_args(Status))]
    assert due(everything, {}, Retention(), NOW) == {}


@pytest.mark.parametrize(
    ("status", "days", "gone"),
    [
        ("published", 9.9, "snapshot"),
        ("published", 10, "run"),
        ("withdrawn", 10, "run"),
        ("superseded", 2.9, "snapshot"),
        ("superseded", 3, "run"),
        ("failed", 3, "run"),
        ("failed", 1, None),
        ("running", 999, None),
    ],
)
def test_a_run_goes_once_it_is_as_old_as_declared_for_its_kind(
    status: Status, days: float, gone: Part | None
) -> None:
    declared = Retention(replaced_days=10, unpublished_days=3, snapshots_days=2)
    assert due([run(days, status)], {}, declared, NOW).get(1) == gone


def test_a_snapshot_that_is_gone_does_not_go_twice() -> None:
    assert due([run(5, snapshot=False)], {}, Retention(snapshots_days=2), NOW) == {}


@given(
    runs=st.lists(st.tuples(st.integers(0, 50), st.sampled_from(get_args(Status))), max_size=20),
    needed=st.sets(st.integers(0, 19)),
    days=st.tuples(*[st.none() | st.integers(1, 40)] * 3),
)
def test_nothing_needed_at_work_or_young_ever_goes(
    runs: list[tuple[int, Status]], needed: set[int], days: tuple[int | None, int | None, int | None]
) -> None:
    candidates = [run(age, status, number) for number, (age, status) in enumerate(runs)]
    declared = Retention(replaced_days=days[0], unpublished_days=days[1], snapshots_days=days[2])
    youngest = min((limit for limit in days if limit is not None), default=None)
    for number in due(candidates, dict.fromkeys(needed, "readers see it"), declared, NOW):
        age, status = runs[number]
        assert number not in needed
        assert status != "running"
        assert youngest is not None
        assert age >= youngest
