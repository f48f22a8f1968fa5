"""What becomes of raised alerts: a night lengthens an episode, people take it on or end it, quiet ends it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from support.publishing import DAY, Warehouse

from pipeline.adapters import alerts, episodes
from pipeline.monitoring.alerts import Notice, Subject, failure_notice, finding_notice
from pipeline.monitoring.findings import Finding, FindingKind
from pipeline.partition import Partition

pytestmark = pytest.mark.integration

SUBJECT = Subject("toy", "Toys", "on-call@example.com")
FIRST = DAY.day
ANA = "ana"


def night(offset: int) -> date:
    return FIRST + timedelta(days=offset)


def notice(cause: str = "input amount: no values", since: int = 0, kind: FindingKind = "structure") -> Notice:
    return finding_notice(SUBJECT, Finding("toy", night(since), kind, cause, "all", "Look."), None)


def raise_now(warehouse: Warehouse, raised: Notice | None = None) -> int:
    with warehouse.engine.begin() as connection:
        number = alerts.raise_once(connection, raised or notice(), "toy-run", "ops")
    assert number is not None
    return number


def known(warehouse: Warehouse, again: Notice, since: date | None, day: date) -> bool:
    with warehouse.engine.begin() as connection:
        episodes.lock(connection, "toy")
        return episodes.is_known(connection, again, since, day)


def listed(warehouse: Warehouse, *, lasting: bool = False) -> list[dict[str, Any]]:
    with warehouse.engine.connect() as connection:
        return episodes.listed(connection, "toy", lasting=lasting)


def publish(warehouse: Warehouse, *offsets: int) -> None:
    for offset in offsets:
        warehouse.published(Partition(night(offset)))


def quiet(
    warehouse: Warehouse, day: date, kinds: tuple[FindingKind, ...] = ("structure", "drift")
) -> list[int]:
    with warehouse.engine.begin() as connection:
        return episodes.resolve_quiet(connection, "toy", kinds, day, 3)


def test_a_night_of_a_known_cause_lengthens_its_episode(warehouse: Warehouse) -> None:
    raise_now(warehouse)
    assert known(warehouse, notice(since=5), night(5), night(6))
    (row,) = listed(warehouse)
    assert (row["state"], row["day"], row["last_day"]) == ("open", FIRST, night(6))


def test_an_older_night_does_not_shorten_an_episode(warehouse: Warehouse) -> None:
    raise_now(warehouse)
    known(warehouse, notice(), FIRST, night(4))
    known(warehouse, notice(), FIRST, night(2))
    assert listed(warehouse)[0]["last_day"] == night(4)


@pytest.mark.parametrize("since", [0, 1])
def test_what_began_with_an_episode_or_the_night_after_belongs_to_it(
    warehouse: Warehouse, since: int
) -> None:
    raise_now(warehouse)
    assert known(warehouse, notice("feature amount: another level", kind="drift"), night(since), night(2))


def test_what_began_later_is_another_episode(warehouse: Warehouse) -> None:
    raise_now(warehouse)
    assert not known(warehouse, notice("feature amount: another level"), night(2), night(3))


def test_quality_and_data_are_never_one_episode(warehouse: Warehouse) -> None:
    raise_now(warehouse)
    assert not known(warehouse, notice("AUC: worse", kind="concept"), FIRST, FIRST)


def test_what_somebody_ended_is_not_told_again_but_its_cause_may_come_back(warehouse: Warehouse) -> None:
    number = raise_now(warehouse)
    with warehouse.engine.begin() as connection:
        assert episodes.resolve(connection, "toy", number, ANA)
    assert known(warehouse, notice(), FIRST, night(1))
    assert not known(warehouse, notice(since=9), night(9), night(9))
    assert listed(warehouse)[0]["last_day"] == FIRST


def test_an_open_alert_is_taken_on_once_and_ended_once(warehouse: Warehouse) -> None:
    number = raise_now(warehouse)
    with warehouse.engine.begin() as connection:
        assert not episodes.acknowledge(connection, "other", number, ANA)
        taken = [episodes.acknowledge(connection, "toy", number, who) for who in (ANA, "ben")]
        ended = [episodes.resolve(connection, "toy", number, who) for who in ("ben", ANA)]
        late = episodes.acknowledge(connection, "toy", number, ANA)
    assert (taken, ended, late) == ([True, False], [True, False], False)
    (row,) = listed(warehouse)
    assert (row["state"], row["acknowledged_by"], row["resolved_by"]) == ("resolved", ANA, "ben")
    assert row["acknowledged_at"] <= row["resolved_at"]
    assert listed(warehouse, lasting=True) == []


def test_three_published_nights_without_it_end_an_episode(warehouse: Warehouse) -> None:
    number = raise_now(warehouse)
    publish(warehouse, 1, 2)
    assert quiet(warehouse, night(5)) == []
    publish(warehouse, 5)
    assert quiet(warehouse, night(4)) == []
    assert quiet(warehouse, night(5), ("concept",)) == []
    assert quiet(warehouse, night(5)) == [number]
    assert listed(warehouse)[0]["resolved_by"] == "nightshift"


def test_a_failed_night_ends_once_its_day_is_published(warehouse: Warehouse) -> None:
    number = raise_now(warehouse, failure_notice(SUBJECT, DAY, "extract", "MissingTable", "gone", None))
    change = raise_now(warehouse)
    with warehouse.engine.begin() as connection:
        assert episodes.resolve_published(connection, "toy") == []
    publish(warehouse, 0)
    with warehouse.engine.begin() as connection:
        assert episodes.resolve_published(connection, "toy") == [number]
    assert [row["alert_no"] for row in listed(warehouse, lasting=True)] == [change]
