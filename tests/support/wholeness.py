"""What holds for a day that readers see, whatever crashed before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import psycopg

from pipeline.partition import Partition

if TYPE_CHECKING:
    from support.toy import Toy

_COLUMNS = ["id", "score", "score_source", "model_version", "run_id", "scored_at"]


def sql_rows(toy: Toy, day: Partition) -> pd.DataFrame:
    """What SQL readers see of a day, by key."""
    with psycopg.connect(toy.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"select {', '.join(_COLUMNS)} from predictions.toy where day = %s order by id".encode(),
            [day.day],
        )
        return pd.DataFrame(cursor.fetchall(), columns=_COLUMNS)


def parquet_rows(toy: Toy, day: Partition) -> pd.DataFrame:
    """What readers of the dataset see of a day, by key."""
    file = Path(toy.env.store.current_file("toy", day).path)
    return pd.read_parquet(file, columns=_COLUMNS).sort_values("id", ignore_index=True)


def assert_whole(toy: Toy, day: Partition) -> str:
    """One published run, its rows conserved by key, Parquet equal to SQL; the run's name."""
    run = _published_run(toy, day)
    rows = sql_rows(toy, day)
    assert set(rows["run_id"]) == {run["run_id"]}
    assert rows["id"].is_unique
    assert len(rows) == run["rows_in"] - run["rows_withheld"] == run["rows_scored"] + run["rows_fallback"]
    pd.testing.assert_frame_equal(rows, parquet_rows(toy, day), check_dtype=False)
    assert_nothing_else_in_dataset(toy)
    return str(run["run_id"])


def _published_run(toy: Toy, day: Partition) -> dict[str, Any]:
    statement = (
        "select runs.* from nightshift.publications join nightshift.runs using (run_no) "
        "where publications.job = 'toy' and publications.day = %s and superseded_at is null"
    )
    run: dict[str, Any]
    (run,) = toy.rows(statement, day.day)
    assert run["status"] == "published"
    (pointer,) = toy.rows("select * from nightshift.pointer where job = 'toy' and day = %s", day.day)
    assert (pointer["run_no"], pointer["token"]) == (run["run_no"], run["token"])
    assert pointer["parquet_run_no"] == run["run_no"]
    return run


def assert_nothing_else_in_dataset(toy: Toy) -> None:
    """The dataset holds one file a day, as every reader takes it."""
    folder = Path(toy.env.store.root.path) / "predictions" / "toy"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"predictions.parquet"}
    with duckdb.connect() as connection:
        doubled = connection.execute(
            "select count(*) from (select day, id from read_parquet($1, hive_partitioning = true) "
            "group by all having count(*) > 1)",
            [str(folder / "*" / "*.parquet")],
        ).fetchall()
    assert doubled == [(0,)]
