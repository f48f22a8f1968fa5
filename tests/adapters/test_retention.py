"""Pruned rows: whatever may go, the days that readers see keep all their rows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.publishing import DAY, Warehouse

from pipeline.adapters import outcomes, publishing
from pipeline.adapters import retention as stored
from pipeline.adapters.publishing import Withdrawal
from pipeline.run import Run

pytestmark = pytest.mark.integration


def withdraw(warehouse: Warehouse, run: Run) -> int | None:
    with warehouse.engine.begin() as connection:
        return publishing.withdraw(connection, run, Withdrawal("ops", None, "a test"))


def prune_all_that_may_go(warehouse: Warehouse) -> None:
    with warehouse.engine.begin() as connection:
        numbers = [each.run_no for each in stored.candidates(connection, "toy")]
        needed = stored.shown_and_behind(connection, "toy")
        for number, run in outcomes.runs_of(connection, numbers).items():
            assert stored.mark_pruned(connection, run) is (number not in needed and run.status != "running")


def test_what_is_shown_behind_it_or_at_work_is_never_marked(warehouse: Warehouse) -> None:
    old, behind, shown = (warehouse.published() for _ in range(3))
    at_work = warehouse.sealed()
    with warehouse.engine.connect() as connection:
        assert stored.shown_and_behind(connection, "toy") == {
            behind.run_no: "unpublish would restore it", shown.run_no: "readers see it",
        }  # fmt: skip
    prune_all_that_may_go(warehouse)
    kept = warehouse.query("select distinct run_no from nightshift.predictions_toy order by 1")
    assert kept == [(behind.run_no,), (shown.run_no,), (at_work.run_no,)]
    assert warehouse.query("select run_no from nightshift.runs where pruned_at is not null") == [
        (old.run_no,)
    ]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    commands=st.lists(st.sampled_from(["publish", "publish", "withdraw", "prune"]), min_size=3, max_size=7)
)
def test_whatever_is_pruned_readers_see_each_day_whole(warehouse: Warehouse, commands: list[str]) -> None:
    day = DAY
    for (last,) in warehouse.query("select max(day) from nightshift.pointer having count(*) > 0"):
        day = type(DAY)(last).next()
    shown: list[Run] = []
    for command in commands:
        if command == "publish":
            shown.append(warehouse.published(day))
        elif command == "withdraw" and shown:
            assert withdraw(warehouse, shown.pop()) == (shown[-1].run_no if shown else None)
        elif command == "prune":
            prune_all_that_may_go(warehouse)
            shown = shown[-2:]
        assert warehouse.visible(day) == ({shown[-1].run_id: 3} if shown else {})
