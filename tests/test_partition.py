from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.partition import BIND_NAMES, Partition, between

NEW_YORK = ZoneInfo("America/New_York")
ZONES = ["America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "UTC"]

unhurried = settings(deadline=None)  # the machine may be busy
days = st.dates(date(1901, 1, 1), date(2998, 12, 31))
recent_days = st.dates(date(1990, 1, 1), date(2035, 12, 31))
zones = st.sampled_from(ZONES).map(ZoneInfo)


def utc(day: str, clock: str) -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}:00+00:00")


def hours(day: str, zone: ZoneInfo = NEW_YORK) -> timedelta:
    instants = Partition.parse(day).instants(zone, time(3))
    return instants.day_end - instants.day_start


def cutoff(day: str, clock: str, zone: ZoneInfo = NEW_YORK) -> datetime:
    return Partition.parse(day).instants(zone, time.fromisoformat(clock)).cutoff


@unhurried
@given(days)
def test_next_and_previous_undo_each_other(day: date) -> None:
    partition = Partition(day)
    assert partition.next().previous() == partition == partition.previous().next()
    assert partition.next().minus(partition) == 1


@unhurried
@given(days)
def test_a_key_reads_back_as_its_partition(day: date) -> None:
    assert Partition.parse(Partition(day).key) == Partition(day)


@unhurried
@given(days, days)
def test_keys_sort_as_time_does(one: date, other: date) -> None:
    a, b = Partition(one), Partition(other)
    assert (a < b) is (a.key < b.key) is (one < other)
    assert a.minus(b) == -b.minus(a) == (one - other).days


@unhurried
@given(recent_days, zones)
def test_days_follow_each_other_without_a_gap_or_an_overlap(day: date, zone: ZoneInfo) -> None:
    today, tomorrow = Partition(day), Partition(day).next()
    end = today.instants(zone, time(3)).day_end
    assert end == tomorrow.instants(zone, time(3)).day_start
    assert end >= today.instants(zone, time(3)).day_start


@unhurried
@given(recent_days, zones, st.times())
def test_instants_are_in_utc_whatever_the_zone(day: date, zone: ZoneInfo, clock: time) -> None:
    instants = Partition(day).instants(zone, clock.replace(second=0, microsecond=0))
    assert {i.tzinfo for i in (instants.day_start, instants.day_end, instants.cutoff)} == {UTC}


def test_a_day_has_23_24_or_25_hours() -> None:
    assert hours("2013-03-10") == timedelta(hours=23)
    assert hours("2013-05-01") == timedelta(hours=24)
    assert hours("2013-11-03") == timedelta(hours=25)


def test_a_day_that_a_zone_skipped_has_no_hours() -> None:
    assert hours("2011-12-30", ZoneInfo("Pacific/Apia")) == timedelta(0)


def test_a_midnight_that_the_clocks_skip_is_the_instant_of_the_change() -> None:
    instants = Partition.parse("2018-11-04").instants(ZoneInfo("America/Sao_Paulo"), time(3))
    assert instants.day_start == utc("2018-11-04", "03:00")
    assert hours("2018-11-04", ZoneInfo("America/Sao_Paulo")) == timedelta(hours=23)


@pytest.mark.parametrize(
    ("day", "instant"), [("2013-03-09", "08:00"), ("2013-03-10", "07:00"), ("2013-11-03", "08:00")]
)
def test_three_in_the_morning_is_local_time_also_when_the_clocks_change(day: str, instant: str) -> None:
    assert cutoff(day, "03:00") == utc(day, instant)


def test_a_cutoff_that_the_clocks_skip_counts_by_the_offset_before_the_change() -> None:
    assert cutoff("2013-03-10", "02:30") == utc("2013-03-10", "07:30")


def test_a_cutoff_that_comes_twice_means_the_first() -> None:
    assert cutoff("2013-11-03", "01:30") == utc("2013-11-03", "05:30")


def test_the_binds_are_the_day_and_its_instants() -> None:
    binds = Partition.parse("2013-05-01").instants(NEW_YORK, time(3)).binds()
    assert tuple(binds) == BIND_NAMES
    assert binds["day"] == date(2013, 5, 1)
    assert binds["day_end"] == utc("2013-05-02", "04:00")


@pytest.mark.parametrize(
    "text",
    ["", "today", "20130501", "2013-5-1", "2013-W18-3", "2013-02-30", " 2013-05-01", "2013-05-01T00:00",
     "1899-12-31", "3000-01-01", "9999-12-31", "-2013-05-01"],
)  # fmt: skip
def test_anything_but_a_plain_day_is_refused_and_shown(text: str) -> None:
    with pytest.raises(UsageError, match="must be written YYYY-MM-DD") as caught:
        Partition.parse(text)
    assert repr(text) in str(caught.value)


def test_a_range_holds_both_its_ends() -> None:
    first, last = Partition.parse("2013-02-27"), Partition.parse("2013-03-01")
    assert [p.key for p in between(first, last)] == ["2013-02-27", "2013-02-28", "2013-03-01"]
    assert list(between(first, first)) == [first]


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(UsageError, match="got 2013-05-02 to 2013-05-01"):
        between(Partition.parse("2013-05-02"), Partition.parse("2013-05-01"))
