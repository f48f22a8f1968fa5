from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.cli import live
from pipeline.cli.demo import run_demo
from pipeline.cli.flight_tables import TABLES
from pipeline.cli.flights import load_flights
from pipeline.cli.live import moved_schedule, newest_day, nights_until, prepare, weeks_to
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import UsageError
from pipeline.partition import Partition
from pipeline.settings import Settings

NEW_YORK = ZoneInfo("America/New_York")
DAYS = st.dates(date(2014, 1, 1), date(2100, 12, 31))


def of_2013(today: date) -> date:
    """The day of 2013 that is moved to today."""
    return today - timedelta(weeks=weeks_to(today))


def days_off(today: date, source: date) -> int:
    """Days between today and the nearest day with the date of the other one."""
    years = range(today.year - 1, today.year + 2)
    return min(abs((today - date(year, source.month, source.day)).days) for year in years)


# The shift


@given(DAYS)
def test_today_is_a_day_of_2013_of_the_same_weekday(today: date) -> None:
    assert of_2013(today).year == 2013
    assert of_2013(today).weekday() == today.weekday()


@given(DAYS)
def test_today_is_at_most_four_days_off_its_season_and_no_other_week_is_nearer(today: date) -> None:
    found = days_off(today, of_2013(today))

    others = [date(2013, 1, 1) + timedelta(days=n) for n in range(365)]
    assert found <= 4
    assert found == min(days_off(today, day) for day in others if day.weekday() == today.weekday())


@pytest.mark.parametrize(
    ("today", "source"),
    [
        ("2026-11-24", "2013-11-26"),
        ("2026-01-01", "2013-01-03"),
        ("2026-12-29", "2013-12-31"),
        ("2026-12-30", "2013-01-02"),
        ("2028-02-29", "2013-02-26"),
        ("2013-07-04", "2013-07-04"),
    ],
)
def test_some_days_and_what_they_were_in_2013(today: str, source: str) -> None:
    assert of_2013(date.fromisoformat(today)) == date.fromisoformat(source)


def test_of_two_days_equally_near_the_one_with_more_past_is_taken() -> None:
    today, much, little = date(2021, 12, 29), date(2013, 12, 25), date(2013, 1, 2)

    assert days_off(today, much) == days_off(today, little) == 4
    assert of_2013(today) == much


def test_a_year_keeps_its_shift_until_its_last_days() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(363)]

    assert {weeks_to(day) for day in days} == {678}


# The nights


def test_late_in_the_year_the_nights_of_january_to_april_are_learned_from() -> None:
    nights = nights_until(date(2026, 11, 24))

    assert (nights.weeks, nights.scored.key) == (678, "2026-11-24")
    assert [day.key for day in nights.trained] == ["2026-01-06", "2026-04-28"]
    assert nights.since.key == "2026-04-29"


def test_early_in_the_year_the_nights_that_have_passed_are_learned_from() -> None:
    nights = nights_until(date(2026, 2, 3))

    assert [day.key for day in nights.trained] == ["2026-01-06", "2026-02-02"]
    assert nights.since == nights.scored == Partition.parse("2026-02-03")


def test_with_fewer_than_28_nights_the_user_is_told_from_which_day_on() -> None:
    with pytest.raises(UsageError, match="from 2026-02-03 on; got 27 on 2026-02-02"):
        nights_until(date(2026, 2, 2))


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-24 07:59:59", "2026-11-23"),
        ("2026-11-24 08:00:00", "2026-11-24"),
        ("2026-11-25 04:59:59", "2026-11-24"),
        ("2026-03-08 07:00:00", "2026-03-08"),
    ],
)
def test_today_begins_at_three_in_new_york(project: Path, now: str, day: str) -> None:
    instant = datetime.fromisoformat(now).replace(tzinfo=UTC)

    assert newest_day(project, instant) == date.fromisoformat(day)


# Its project and its state folder


def test_only_start_and_end_of_the_schedule_move(project: Path) -> None:
    text = (project / "dags" / "flight_delays.yaml").read_text(encoding="utf-8")

    moved = moved_schedule(text, 678)

    changed = [pair for pair in zip(text.splitlines(), moved.splitlines(), strict=True) if len(set(pair)) > 1]
    assert changed == [
        ("  start: 2013-01-01", "  start: 2025-12-30"),
        ("  end: 2013-12-31", "  end: 2026-12-29"),
    ]


@pytest.mark.parametrize("times", [0, 2])
def test_a_schedule_that_does_not_say_2013_once_is_refused(times: int) -> None:
    with pytest.raises(UsageError, match=f"`end: 2013-12-31` once, to be moved; got it {times} times"):
        moved_schedule("start: 2013-01-01\n" + "end: 2013-12-31\n" * times, 678)


def test_the_live_demo_has_a_folder_and_a_job_of_its_own(project: Path, tmp_path: Path) -> None:
    settings = prepare(Settings(home=tmp_path / "state"), 678)

    assert settings.home == tmp_path / "state" / "live"
    copied = load_job(settings.project, "flight_delays").declaration
    original = load_job(project, "flight_delays").declaration
    assert copied.schedule.start == date(2025, 12, 30)
    assert copied.model_copy(update={"schedule": original.schedule}) == original


def test_only_the_owner_looks_into_the_state_folders(tmp_path: Path) -> None:
    settings = prepare(Settings(home=tmp_path / "state"), 678)

    assert [folder.stat().st_mode & 0o066 for folder in (settings.home.parent, settings.home)] == [0, 0]


def test_what_is_prepared_stays_as_it_is_even_if_its_owner_edits_it(tmp_path: Path) -> None:
    settings = prepare(Settings(home=tmp_path), 678)
    edited = settings.project / "features" / "flight_delays.py"
    edited.write_text("mine", encoding="utf-8")

    assert prepare(Settings(home=tmp_path), 678) == settings
    assert edited.read_text(encoding="utf-8") == "mine"


def test_with_its_own_variables_set_the_live_demo_is_the_same_one(tmp_path: Path) -> None:
    settings = prepare(Settings(home=tmp_path), 678)

    assert prepare(settings, 678) == settings


def test_a_first_call_that_was_cut_off_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(live, "suite_file", _cut_off)
        with pytest.raises(OSError, match="cut off"):
            prepare(Settings(home=tmp_path), 678)

    settings = prepare(Settings(home=tmp_path), 678)

    assert load_job(settings.project, "flight_delays").declaration.schedule.end == date(2026, 12, 29)


def _cut_off(project: Path, job: str) -> Path:
    raise OSError("cut off")


def test_a_live_demo_of_another_year_says_how_to_make_it_anew(tmp_path: Path) -> None:
    prepare(Settings(home=tmp_path), 678)

    with pytest.raises(UsageError, match=f"by 730 weeks; got 678.* rm -r {tmp_path / 'live'}"):
        prepare(Settings(home=tmp_path), 730)


@pytest.mark.parametrize("name", ["warehouse_url", "source_url", "registry_url", "store"])
def test_somebodys_own_databases_and_store_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"NIGHTSHIFT_{name.upper()}", "postgresql://ours")

    with pytest.raises(UsageError, match=f"got NIGHTSHIFT_{name.upper()}"):
        prepare(Settings(home=tmp_path), 678)

    assert list(tmp_path.iterdir()) == []


def test_the_demo_of_2013_does_not_replace_the_flights_of_the_live_one(tmp_path: Path) -> None:
    settings = prepare(Settings(home=tmp_path), 678)

    with pytest.raises(UsageError, match="must have a state folder of its own"):
        run_demo(Environment(settings), as_json=True)

    assert not (settings.home / "postgres").exists()


# The moved tables


PAIRS = """create table kept.pairs as
select old.day as old_day, new.day as new_day,
    old.sched_dep_at as old_departure, new.sched_dep_at as new_departure,
    old.sched_arr_at as old_arrival, new.sched_arr_at as new_arrival,
    old.published_at as old_published, new.published_at as new_published,
    old_outcome.known_at as old_known, new_outcome.known_at as new_known,
    new_outcome.cancelled, coalesce(tzone, 'America/Puerto_Rico') as zone
from kept.flight_schedule old
    join kept.flight_outcomes old_outcome using (day, carrier, flight, origin)
    join source.flight_schedule new on (new.day, new.carrier, new.flight, new.origin)
        = (old.day + 7 * 417, old.carrier, old.flight, old.origin)
    join source.flight_outcomes new_outcome on (new_outcome.day, new_outcome.carrier, new_outcome.flight,
        new_outcome.origin) = (new.day, new.carrier, new.flight, new.origin)
    left join source.airports on faa = new.dest"""
"""Each flight of 2013 beside the same flight, moved."""


@pytest.fixture(scope="module")
def moved_url(server: EmbeddedServer) -> Iterator[str]:
    """A database with the flights of 2013 in `kept`, and in `source`, loaded over them, 417 weeks later.

    In 2021 spring's clocks change a week later, autumn's a week after the day that had hour 1 twice in 2013.
    """
    server.create_database("test_moved")
    url = server.url(database="test_moved")
    load_flights(url)
    with psycopg.connect(url) as connection:
        connection.execute("create schema kept")
        for table in TABLES:
            connection.execute(f"create table kept.{table.name} as table {table.target}".encode())
            connection.execute(f"analyze kept.{table.name}".encode())
    load_flights(url, 417)
    with psycopg.connect(url) as connection:
        connection.execute(PAIRS.encode())
    yield url
    server.drop_database("test_moved")


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.integration
def test_moved_tables_have_as_many_rows(moved_url: str) -> None:
    counts = [
        rows(
            moved_url, f"select (select count(*) from kept.{t.name}), (select count(*) from source.{t.name})"
        )
        for t in TABLES
    ]

    assert all(old == new > 0 for [(old, new)] in counts)


@pytest.mark.integration
def test_every_flight_is_found_again_on_the_same_weekday(moved_url: str) -> None:
    same = "extract(dow from new_day) = extract(dow from old_day)"

    assert rows(moved_url, f"select count(*), bool_and({same}) from kept.pairs") == [(336_776, True)]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("instant", "zone"),
    [("departure", "'America/New_York'"), ("published", "'America/New_York'"), ("arrival", "zone")],
)
def test_every_clock_shows_what_it_showed(moved_url: str, instant: str, zone: str) -> None:
    old = f"old_{instant} at time zone {zone} + interval '2919 days'"

    wrong = f"select count(*) from kept.pairs where new_{instant} at time zone {zone} <> {old}"

    assert rows(moved_url, wrong) == [(0,)]


@pytest.mark.integration
def test_every_outcome_keeps_its_distance_from_the_schedule(moved_url: str) -> None:
    old = "old_known - case when cancelled then old_departure else old_arrival end"
    new = "new_known - case when cancelled then new_departure else new_arrival end"

    assert rows(moved_url, f"select count(*) from kept.pairs where {new} <> {old}") == [(0,)]


@pytest.mark.integration
def test_weather_keeps_its_clock_in_new_york_as_zoneinfo_has_it(moved_url: str) -> None:
    old, new = (
        rows(moved_url, f"select origin, observed_at from {schema}.weather") for schema in ("kept", "source")
    )

    def clock(instant: datetime) -> datetime:
        return instant.astimezone(NEW_YORK).replace(tzinfo=None)

    def moved(instant: datetime) -> datetime:
        there = (clock(instant) + timedelta(weeks=417)).replace(tzinfo=NEW_YORK)
        return clock(there.astimezone(UTC))

    assert sorted((at, clock(seen)) for at, seen in new) == sorted((at, moved(seen)) for at, seen in old)


@pytest.mark.integration
def test_two_observations_share_an_instant_only_where_the_clocks_differ(moved_url: str) -> None:
    shared = "select origin, observed_at from source.weather group by 1, 2 having count(*) > 1 order by 2, 1"

    skipped, doubled = datetime(2021, 3, 14, 7, tzinfo=UTC), datetime(2021, 10, 31, 5, tzinfo=UTC)
    assert rows(moved_url, shared) == [
        (at, hour) for hour in (skipped, doubled) for at in ("EWR", "JFK", "LGA")
    ]


@pytest.mark.integration
def test_every_plane_stays_as_old_as_it_was(moved_url: str) -> None:
    planes = "kept.planes old join source.planes new using (tailnum)"

    assert rows(
        moved_url, f"select distinct new.year - old.year from {planes} where old.year is not null"
    ) == [(8,)]


@pytest.mark.integration
def test_a_second_load_of_the_same_shift_changes_nothing(moved_url: str) -> None:
    assert not load_flights(moved_url, 417).loaded
