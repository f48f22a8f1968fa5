"""Make what the benchmark measures: a server, a champion, and one day with that many synthetic rows.

Everything is made once and kept; prints `{"day", "model"}` as one JSON line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import joblib
import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import typer
from adbc_driver_postgresql import dbapi

from pipeline import training
from pipeline.adapters import models, registry, versions
from pipeline.adapters.migrate import migrate
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.partition import Partition
from pipeline.settings import Settings

PROJECT = Path(__file__).parent / "project"
TRAINED = [date(2024, 1, 1) + timedelta(days=at) for at in range(20)]
TRAINING_ROWS = 5_000
CHUNK = 250_000
BAD_SHARE = 0.001

_TABLES = """
create schema if not exists source;
create table if not exists source.parcels (
    parcel bigint not null, day date not null, ordered_at timestamptz not null, known_at timestamptz not null,
    carrier text, region text, product text,
    price double precision, weight double precision, width double precision, height double precision,
    rating double precision, discount double precision, distance double precision, basket double precision,
    humidity double precision, delay double precision,
    items integer, visits integer, age_days integer, hour integer
);
create index if not exists parcels_day on source.parcels (day);
create table if not exists source.returns (
    parcel bigint not null, day date not null, returned boolean not null, known_at timestamptz not null
);
create index if not exists returns_day on source.returns (day);
create table if not exists source.days (day date primary key, rows bigint not null);
"""


def parcels(day: date, first: int, count: int, seed: int) -> pa.Table:
    """`count` synthetic rows of one day, numbered from `first`; one in a thousand has a negative price."""
    random = np.random.default_rng([seed, first])
    midnight = np.datetime64(day, "us")
    hour = random.integers(0, 24, count)
    price = np.round(random.lognormal(3.2, 0.8, count), 2)
    price[random.random(count) < BAD_SHARE] *= -1
    numbers = {
        "price": price,
        "weight": np.round(random.gamma(2, 1.5, count), 3),
        "width": _with_gaps(random, np.round(random.gamma(9, 4, count), 1), 0.03),
        "height": _with_gaps(random, np.round(random.gamma(6, 3, count), 1), 0.03),
        "rating": _with_gaps(random, np.round(5 * random.beta(6, 2, count), 2), 0.1),
        "discount": np.round(random.beta(1, 5, count), 3),
        "distance": np.round(random.gamma(2, 180, count), 1),
        "basket": np.round(random.lognormal(4, 0.7, count), 2),
        "humidity": np.round(100 * random.beta(4, 3, count), 1),
        "delay": _with_gaps(random, np.round(random.gamma(1, 9, count) - 4, 2), 0.05),
    }
    whole = {
        "items": random.integers(1, 12, count),
        "visits": random.integers(0, 200, count),
        "age_days": random.integers(0, 4000, count),
        "hour": hour,
    }
    ordered = midnight - (24 - hour) * np.timedelta64(3_600_000_000, "us")
    return pa.table(
        {
            "parcel": np.arange(first, first + count),
            "day": pa.array(np.full(count, day), pa.date32()),
            "ordered_at": pa.array(ordered, pa.timestamp("us", "UTC")),
            "known_at": pa.array(ordered + np.timedelta64(1, "s"), pa.timestamp("us", "UTC")),
            "carrier": _names(random, "C", 8, count),
            "region": _names(random, "R", 50, count),
            "product": _names(random, "P", 200, count),
            **{name: pa.array(values) for name, values in numbers.items()},
            **{name: pa.array(values, pa.int32()) for name, values in whole.items()},
        }
    )


def _with_gaps(random: np.random.Generator, values: np.ndarray, share: float) -> pa.Array:
    return pa.array(values, mask=random.random(len(values)) < share)


def _names(random: np.random.Generator, letter: str, kinds: int, count: int) -> pa.Array:
    return pa.array([f"{letter}{kind:02}" for kind in range(kinds)]).take(
        pa.array(random.integers(0, kinds, count))
    )


def returns(rows: pa.Table, seed: int) -> pa.Table:
    """Which parcels came back: noisy in delay, discount, rating and product."""
    delay, rating = (np.nan_to_num(rows[name].to_numpy(), nan=4.0) for name in ("delay", "rating"))
    product = np.array([int(name[1:]) for name in rows["product"].to_pylist()])
    lean = -1.2 + 0.06 * delay + 2 * rows["discount"].to_numpy() - 0.3 * (rating - 3) + np.sin(product)
    returned = np.random.default_rng(seed).random(len(lean)) < 1 / (1 + np.exp(-lean))
    return pa.table(
        {
            "parcel": rows["parcel"],
            "day": rows["day"],
            "returned": pa.array(returned),
            "known_at": rows["known_at"],
        }
    )


def fill(url: str, day: date, count: int, *, labelled: bool = False) -> None:
    """Load one day's rows in one transaction."""
    seed = day.toordinal()

    def chunks() -> Iterator[pa.RecordBatch]:
        for first in range(0, count, CHUNK):
            yield from parcels(day, first, min(CHUNK, count - first), seed).combine_chunks().to_batches()

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        schema = parcels(day, 0, 1, seed).schema
        reader = pa.RecordBatchReader.from_batches(schema, chunks())
        cursor.adbc_ingest("parcels", reader, mode="append", db_schema_name="source")
        if labelled:
            labels = returns(parcels(day, 0, count, seed), seed)
            cursor.adbc_ingest("returns", labels, mode="append", db_schema_name="source")
        cursor.execute("insert into source.days values ($1, $2)", (day, count))
        connection.commit()


def day_of(env: Environment, count: int) -> date:
    """The day that has so many rows, loaded now if there is none yet."""
    with env.engine.connect() as connection:
        loaded = connection.exec_driver_sql("select day, rows from source.days").all()
    big: dict[int, date] = {row.rows: row.day for row in loaded if row.day not in TRAINED}
    if count not in big:
        big[count] = max(row.day for row in loaded) + timedelta(days=1)
        fill(env.warehouse_url, big[count], count)
        with env.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze source.parcels")
    return big[count]


def champion(env: Environment) -> ModelVersion:
    """The promoted version; trained on the replayed small nights if there is none yet."""
    with env.engine.connect() as connection:
        there = versions.promotion_history(connection, "bench")
    if not there:
        nights = [Partition(day) for day in TRAINED]
        made = training.train(env, "bench", nights, datetime.now(UTC), None, lambda _: None)
        training.promote(env, "bench", made.version, approved_by="bench", reason="to be measured")
    with env.engine.connect() as connection:
        return versions.version(connection, "bench", 1)


def plain_model(env: Environment, version: ModelVersion) -> Path:
    """The champion as a plain script would keep it."""
    file = env.settings.state / f"model-{version.model_sha256[:12]}.joblib"
    if not file.exists():
        fetched = registry.fetch(version.model_uri, env.settings.state)
        joblib.dump(models.load(fetched, version.model_sha256, version.sklearn_version), file)
    return file


def main(
    rows: Annotated[int, typer.Option(help="Rows of the day.")],
    home: Annotated[Path, typer.Option(help="State folder of the benchmark.")],
) -> None:
    """Make the server, the champion and the day."""
    env = Environment(Settings(home=home, project=PROJECT))
    job = load_job(PROJECT, "bench")
    migrate(env.engine, [job])
    with env.engine.begin() as connection:
        connection.execute(sa.text(_TABLES))
        filled = set(connection.exec_driver_sql("select day from source.days").scalars())
    for day in TRAINED:
        if day not in filled:
            fill(env.warehouse_url, day, TRAINING_ROWS, labelled=True)
    model = plain_model(env, champion(env))
    day = day_of(env, rows)
    typer.echo(json.dumps({"day": day.isoformat(), "model": str(model)}))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)  # its tracebacks show local variables: the URL
    app.command()(main)
    app()
