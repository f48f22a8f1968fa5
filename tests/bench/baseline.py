"""The plain script that a night is measured against: read_sql, predict_proba, to_parquet and to_sql.

No check, no snapshot, no quarantine, no conservation; readers meet a half-written table.
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import joblib
import pandas as pd
import sqlalchemy as sa
import typer

FEATURES = [
    "carrier", "region", "product", "price", "weight", "discount", "distance", "basket", "humidity", "items",
    "visits", "age_days", "hour", "width", "height", "rating", "delay",
]  # fmt: skip


def main(
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Day to score.")],
    model: Annotated[Path, typer.Option(help="The fitted pipeline, as joblib keeps it.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
) -> None:
    """Score one day of source.parcels of the database BENCH_URL."""
    engine = sa.create_engine(sa.make_url(os.environ["BENCH_URL"]).set(drivername="postgresql+psycopg"))
    rows = pd.read_sql(
        sa.text("select * from source.parcels where day = :day"), engine, params={"day": day.date()}
    )
    predictions = scored(rows, day.date(), model)
    predictions.to_parquet(out)
    predictions.to_sql("plain_predictions", engine, if_exists="replace", index=False, chunksize=10_000)


def scored(rows: pd.DataFrame, day: date, model: Path) -> pd.DataFrame:
    """One prediction a row, with the columns that Nightshift publishes."""
    score = joblib.load(model).predict_proba(rows[FEATURES])[:, 1]
    return pd.DataFrame(
        {
            "parcel": rows["parcel"],
            "day": day,
            "score": score,
            "decision": score >= 0.5,
            "score_source": "champion",
            "model_version": 1,
            "run_id": f"plain-{day}",
            "scored_at": datetime.now(UTC),
        }
    )


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)  # its tracebacks show local variables: the URL
    app.command()(main)
    app()
