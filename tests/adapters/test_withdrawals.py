"""Publishes taken back: the pointer is always the last publish that was not, and no older token passes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors
from support.publishing import DAY, Warehouse, make_run

from pipeline.adapters import ledger, publishing
from pipeline.adapters.publishing import Withdrawal
from pipeline.errors import UsageError
from pipeline.partition import Partition
from pipeline.run import Run

pytestmark = pytest.mark.integration

WHY = Withdrawal(actor="ops", approved_by="ana", reason="wrong prices")


def withdraw(warehouse: Warehouse, run: Run) -> int | None:
    with warehouse.engine.begin() as connection:
        return publishing.withdraw(connection, run, WHY)


def test_readers_see_the_run_before_as_a_whole(warehouse: Warehouse) -> None:
    first, second = warehouse.published(ids=range(4)), warehouse.published()
    assert withdraw(warehouse, second) == first.run_no
    assert warehouse.visible() == {first.run_id: 4}
    assert warehouse.status(second) == ("withdrawn", "published")
    assert warehouse.status(first) == ("published", "published")


def test_without_a_run_before_readers_see_no_rows(warehouse: Warehouse) -> None:
    run, yesterday = warehouse.published(), warehouse.published(DAY.previous())
    assert withdraw(warehouse, run) is None
    assert warehouse.visible() == {}
    assert warehouse.visible(DAY.previous()) == {yesterday.run_id: 3}


def test_who_took_what_back_and_why_is_kept_for_ever(warehouse: Warehouse) -> None:
    first, second = warehouse.published(), warehouse.published()
    withdraw(warehouse, second)
    columns = "run_no, restored_run_no, token, actor, approved_by, reason"
    assert warehouse.query(f"select {columns} from nightshift.withdrawals") == [
        (second.run_no, first.run_no, 3, "ops", "ana", "wrong prices")
    ]
    with pytest.raises(errors.RaiseException, match="withdrawals is append-only"):
        warehouse.execute("update nightshift.withdrawals set reason = 'x'")


def test_the_history_of_publications_stays_true(warehouse: Warehouse) -> None:
    first, second = warehouse.published(), warehouse.published()
    withdraw(warehouse, second)
    rows = warehouse.query(
        "select run_no, token, published_at, superseded_at from nightshift.publications order by token"
    )
    assert [(run_no, token) for run_no, token, *_ in rows] == [
        (first.run_no, 1), (second.run_no, 2), (first.run_no, 3),
    ]  # fmt: skip
    assert [row[3] for row in rows] == [rows[1][2], rows[2][2], None]


def test_a_run_at_work_before_can_publish_no_more_and_a_later_one_can(warehouse: Warehouse) -> None:
    shown, at_work = warehouse.published(), warehouse.sealed()
    withdraw(warehouse, shown)
    assert warehouse.flip(at_work) == "superseded"
    assert warehouse.visible() == {}
    later = warehouse.published()
    assert warehouse.visible() == {later.run_id: 3}


def test_a_late_retry_of_the_withdrawn_run_does_not_bring_it_back(warehouse: Warehouse) -> None:
    run = warehouse.published()
    withdraw(warehouse, run)
    assert warehouse.flip(run) == "superseded"
    assert warehouse.visible() == {}


def test_only_the_run_that_readers_see_can_be_taken_back(warehouse: Warehouse) -> None:
    first, second = warehouse.published(), warehouse.published()
    for run in (first, make_run(day=DAY.next())):
        with pytest.raises(UsageError, match="must be the one that readers see"):
            withdraw(warehouse, run)
    assert warehouse.visible() == {second.run_id: 3}


def test_of_two_at_once_one_takes_the_run_back(warehouse: Warehouse) -> None:
    runs = [warehouse.published() for _ in range(3)]

    def attempt(_: int) -> bool:
        try:
            withdraw(warehouse, runs[-1])
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(4))) == 1
    assert warehouse.visible() == {runs[1].run_id: 3}


def test_the_day_tells_that_it_was_taken_back(warehouse: Warehouse) -> None:
    first = warehouse.published()
    second = warehouse.published()
    status = (
        "select published_run_id, restatements, last_status, trust, reasons[1] from nightshift.day_status "
        "where day = %s"
    )
    withdraw(warehouse, second)
    told = f"withdrawn: run {second.run_id}, wrong prices"
    assert warehouse.query(status, DAY.day)[0] == (first.run_id, 2, "withdrawn", "ok", told)
    withdraw(warehouse, first)
    missing = "missing: the last run is withdrawn"
    assert warehouse.query(status, DAY.day)[0] == (None, 2, "withdrawn", "missing", missing)
    third = warehouse.published()
    assert warehouse.query(status, DAY.day)[0][:4] == (third.run_id, 3, "published", "ok")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.sampled_from(["publish", "withdraw", "publish older"]), min_size=3, max_size=7))
def test_the_pointer_is_always_the_last_publish_not_taken_back(
    warehouse: Warehouse, commands: list[str]
) -> None:
    day = _new_day(warehouse)
    shown: list[Run] = []
    at_work = warehouse.sealed(day)
    for command in commands:
        if command == "publish":
            shown.append(warehouse.published(day))
        elif command == "withdraw" and shown:
            restored = withdraw(warehouse, shown.pop())
            assert restored == (shown[-1].run_no if shown else None)
        elif command == "publish older" and "publish" in commands[: commands.index(command)]:
            assert warehouse.flip(at_work) == "superseded"
        assert warehouse.visible(day) == ({shown[-1].run_id: 3} if shown else {})
        _assert_one_truth(warehouse, day, shown[-1].run_no if shown else None)


def _new_day(warehouse: Warehouse) -> Partition:
    with warehouse.engine.connect() as connection:
        last = connection.execute(sa.text("select max(day) from nightshift.pointer")).scalar_one()
    return DAY if last is None else Partition(last).next()


def _assert_one_truth(warehouse: Warehouse, day: Partition, run_no: int | None) -> None:
    """Pointer, open publication and the newest run still marked published are the same run."""
    with warehouse.engine.connect() as connection:
        visible = ledger.visible_run(connection, "toy", day)
    assert (visible["run_no"] if visible else None) == run_no
    expected = [] if run_no is None else [(run_no,)]
    for statement in (
        "select run_no from nightshift.publications where day = %s and superseded_at is null",
        "select run_no from nightshift.runs where day = %s and status = 'published' "
        "order by token desc limit 1",
    ):
        assert warehouse.query(statement, day.day) == expected
