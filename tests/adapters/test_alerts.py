"""The alerts table: each cause of a day once, sent by one at a time, and what waits for its channel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from support.publishing import DAY, Warehouse

from pipeline.adapters import alerts
from pipeline.monitoring.alerts import Notice, Subject, failure_notice

pytestmark = pytest.mark.integration

NOTICE = failure_notice(
    Subject("toy", "Toys", "on-call@example.com"), DAY, "extract", "MissingTable", "a table must exist", None
)
DAY_LONG = timedelta(hours=24)


def raised(warehouse: Warehouse, notice: Notice = NOTICE) -> int | None:
    with warehouse.engine.begin() as connection:
        return alerts.raise_once(connection, notice, "toy-run", "ops")


def waiting(warehouse: Warehouse) -> list[int]:
    with warehouse.engine.connect() as connection:
        return alerts.undelivered(connection, "toy", DAY_LONG)


def mark(warehouse: Warehouse, alert_no: int, error: str | None) -> None:
    with warehouse.engine.begin() as connection:
        if error is None:
            alerts.delivered(connection, alert_no)
        else:
            alerts.not_delivered(connection, alert_no, error)


def delivery(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("select delivered_at is not null, delivery_error from nightshift.alerts")


def test_a_raised_alert_holds_the_whole_notice(warehouse: Warehouse) -> None:
    assert raised(warehouse) == 1
    columns = "job, day, run_id, kind, cause, owner, message, channel, delivered_at, delivery_error"
    (row,) = warehouse.query(f"select {columns} from nightshift.alerts")
    assert row[:5] == ("toy", DAY.day, "toy-run", "failed", "extract")
    assert row[5:] == ("Toys, on-call@example.com", NOTICE.text, "ops", None, None)


def test_a_cause_of_a_day_is_raised_once_whatever_its_text(warehouse: Warehouse) -> None:
    assert raised(warehouse) is not None
    assert raised(warehouse, replace(NOTICE, failed="something else")) is None
    assert warehouse.query("select count(*) from nightshift.alerts") == [(1,)]


@pytest.mark.parametrize(
    "other",
    [{"job": "toys"}, {"day": date(2024, 1, 26)}, {"kind": "late"}, {"cause": "score"}],
)
def test_another_job_day_kind_or_cause_is_another_alert(warehouse: Warehouse, other: dict[str, Any]) -> None:
    assert raised(warehouse) is not None
    assert raised(warehouse, replace(NOTICE, **other)) is not None


def test_a_cause_of_no_single_day_is_raised_once_too(warehouse: Warehouse) -> None:
    timeless = replace(NOTICE, day=None)
    assert [raised(warehouse, timeless) is None for _ in range(2)] == [False, True]


def test_who_does_not_know_the_day_does_not_tell_again_what_is_told(warehouse: Warehouse) -> None:
    assert raised(warehouse) is not None
    assert raised(warehouse, replace(NOTICE, day=None)) is None


def test_of_many_who_raise_a_cause_at_once_one_does(warehouse: Warehouse) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: raised(warehouse), range(16)))
    assert sum(number is not None for number in numbers) == 1


def test_an_alert_that_was_rolled_back_is_raised_again(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection:
        assert alerts.raise_once(connection, NOTICE, None, None) is not None
    assert raised(warehouse) is not None


def test_another_kind_than_failed_and_late_is_refused(warehouse: Warehouse) -> None:
    raised(warehouse)
    with pytest.raises(psycopg.errors.CheckViolation, match="alerts_kind"):
        warehouse.execute("update nightshift.alerts set kind = 'odd'")


def test_a_claimed_alert_is_nobody_elses_until_the_transaction_ends(warehouse: Warehouse) -> None:
    number = raised(warehouse)
    assert number is not None
    with warehouse.engine.connect() as first:
        claimed = alerts.claim(first, number)
        with warehouse.engine.connect() as second:
            assert alerts.claim(second, number) is None
    with warehouse.engine.connect() as third:
        assert alerts.claim(third, number) == claimed is not None
    assert (claimed.title, claimed.text) == (NOTICE.title, NOTICE.text)


def test_a_delivered_alert_is_never_claimed_again(warehouse: Warehouse) -> None:
    number = raised(warehouse)
    assert number is not None
    mark(warehouse, number, None)
    with warehouse.engine.connect() as connection:
        assert alerts.claim(connection, number) is None


def test_an_alert_waits_until_it_is_delivered_and_tells_why(warehouse: Warehouse) -> None:
    number = raised(warehouse)
    assert number is not None
    assert delivery(warehouse) == [(False, None)]
    mark(warehouse, number, "ChannelError: down")
    assert (waiting(warehouse), delivery(warehouse)) == ([number], [(False, "ChannelError: down")])
    mark(warehouse, number, None)
    assert (waiting(warehouse), delivery(warehouse)) == ([], [(True, None)])


def test_only_the_jobs_own_recent_alerts_wait_the_oldest_first(warehouse: Warehouse) -> None:
    numbers = [raised(warehouse, replace(NOTICE, cause=cause)) for cause in ("old", "second", "third")]
    raised(warehouse, replace(NOTICE, job="other"))
    warehouse.execute(
        "update nightshift.alerts set raised_at = raised_at - interval '25 hours' where cause = 'old'"
    )
    assert waiting(warehouse) == numbers[1:]


def test_the_owners_on_record_are_those_of_the_last_migration(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection:
        assert alerts.recorded_subject(connection, "toy") == Subject("toy", "Toys", "on-call@example.com")
        assert alerts.recorded_subject(connection, "unheard_of") is None
