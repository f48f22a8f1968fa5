"""Parts of a run: their rows and their record together or not at all, and only while the run takes them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.publishing import AT, DAY, Warehouse, loaded_part, make_job, make_run, sql_rows

from pipeline.adapters import ledger, publishing
from pipeline.adapters.loading import PartLoad, check_sql_counts, load_quarantine
from pipeline.adapters.migrate import migrate
from pipeline.adapters.warehouse import warehouse_engine
from pipeline.errors import FatalError, ModelError, SealError, TransientError
from pipeline.run import Run
from pipeline.scoring.output import sql_schema

pytestmark = pytest.mark.integration


def loaded(warehouse: Warehouse) -> tuple[int, int]:
    """Prediction rows and parts in the warehouse, of all runs, published or not."""
    tables = ("nightshift.predictions_toy", "nightshift.run_parts")
    rows, parts = (warehouse.query(f"select count(*) from {table}")[0][0] for table in tables)
    return rows, parts


@contextmanager
def open_load(warehouse: Warehouse, run: Run, ids: range = range(3), part: int = 0) -> Iterator[PartLoad]:
    """A load whose rows are sent, but not committed."""
    with PartLoad(warehouse.url, run, part) as load:
        load.rows(sql_schema(warehouse.job), [sql_rows(warehouse.job, run, ids)])
        yield load


def test_rows_and_the_record_of_a_part_come_together(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with open_load(warehouse, run) as load:
        assert loaded(warehouse) == (0, 0)
        load.commit(loaded_part(3))
    assert loaded(warehouse) == (3, 1)
    with warehouse.engine.connect() as connection:
        (part,) = ledger.parts(connection, run.run_no)
        assert ledger.part_loaded(connection, run.run_no, 0) == part
        assert ledger.part_loaded(connection, run.run_no, 1) is None
    assert (part["part"], part["rows"], part["score_sources"]) == (0, 3, {"champion": 3})


def test_a_load_that_is_not_committed_leaves_nothing(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with open_load(warehouse, run):
        pass
    with pytest.raises(KeyError), open_load(warehouse, run):
        raise KeyError
    assert loaded(warehouse) == (0, 0)
    warehouse.load(run)


def test_rows_that_break_the_key_leave_nothing_and_are_not_told(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with PartLoad(warehouse.url, run, 0) as load, pytest.raises(FatalError) as caught:
        load.rows(sql_schema(warehouse.job), [sql_rows(warehouse.job, run, [777, 777])])
    assert "23505, unique violation" in str(caught.value)
    assert "777" not in str(caught.value)
    assert loaded(warehouse) == (0, 0)


@pytest.mark.parametrize(
    "error", [ModelError("no score"), KeyboardInterrupt(), ValueError("other")], ids=repr
)
def test_an_error_of_the_stream_arrives_as_it_was_raised(warehouse: Warehouse, error: BaseException) -> None:
    run = warehouse.validated()

    def batches() -> Iterator[pa.RecordBatch]:
        yield sql_rows(warehouse.job, run, [1])
        raise error

    with PartLoad(warehouse.url, run, 0) as load, pytest.raises(type(error)) as caught:
        load.rows(sql_schema(warehouse.job), batches())
    assert caught.value is error
    assert loaded(warehouse) == (0, 0)


def test_a_stream_is_closed_when_the_warehouse_goes_away_under_it(warehouse: Warehouse) -> None:
    run, closed = warehouse.validated(), threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield sql_rows(warehouse.job, run, [1])
            terminate_others(warehouse)
            yield from itertools.repeat(sql_rows(warehouse.job, run, range(1000)))
        finally:
            closed.set()

    with PartLoad(warehouse.url, run, 0) as load, pytest.raises(TransientError):
        load.rows(sql_schema(warehouse.job), batches())
    assert closed.is_set()


def terminate_others(warehouse: Warehouse) -> None:
    others = "where datname = current_database() and pid <> pg_backend_pid()"
    warehouse.query(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity {others}")


def test_a_part_is_loaded_once_and_a_second_attempt_is_told(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    warehouse.load(run)
    with pytest.raises(TransientError, match="must be loaded once"):
        warehouse.load(run, [4, 5])
    assert loaded(warehouse) == (3, 1)


def test_of_two_attempts_at_one_part_the_second_waits_and_finds_it_loaded(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with ThreadPoolExecutor(1) as pool:
        with open_load(warehouse, run) as load:
            second = pool.submit(warehouse.load, run, [7, 8])
            assert_waits(warehouse, second)
            load.commit(loaded_part(3))
        with pytest.raises(TransientError, match="must be loaded once"):
            second.result(timeout=20)
    assert loaded(warehouse) == (3, 1)


def test_where_the_first_attempt_dies_the_waiting_one_loads_the_part(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with ThreadPoolExecutor(1) as pool:
        with open_load(warehouse, run):
            second = pool.submit(warehouse.load, run, [7, 8])
            assert_waits(warehouse, second)
        second.result(timeout=20)
    assert loaded(warehouse) == (2, 1)


def test_two_parts_are_loaded_side_by_side(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with open_load(warehouse, run) as first, open_load(warehouse, run, range(10, 20), part=1) as second:
        second.commit(loaded_part(10))
        first.commit(loaded_part(3))
    assert loaded(warehouse) == (13, 2)


def assert_waits(warehouse: Warehouse, work: Future[Any]) -> None:
    """The work is at a lock in the database."""
    waiting = "select 1 from pg_locks where not granted limit 1"
    for _ in range(200):
        if warehouse.query(waiting):
            break
        threading.Event().wait(0.05)
    assert warehouse.query(waiting)
    assert not work.done()


_ENDS: dict[str, Callable[[Warehouse], Run]] = {
    "planned": Warehouse.planned,
    "sealed": Warehouse.sealed,
    "published": Warehouse.published,
}


@pytest.mark.parametrize("end", [*_ENDS, "failed", "superseded", "unknown"])
def test_a_run_that_is_not_at_this_stage_takes_no_rows(warehouse: Warehouse, end: str) -> None:
    run = _ENDS[end](warehouse) if end in _ENDS else warehouse.validated()
    if end == "failed":
        warehouse.fail(run)
    if end == "superseded":
        retire_by_a_newer(warehouse)
    if end == "unknown":
        run = make_run(run_no=999)
    before = loaded(warehouse)
    with pytest.raises(FatalError, match="must be at work and validated"):
        warehouse.load(run, [50], part=1)
    assert loaded(warehouse) == before


def retire_by_a_newer(warehouse: Warehouse) -> None:
    newer = warehouse.published()
    with warehouse.engine.begin() as connection:
        publishing.retire_older(connection, newer)


def test_sealing_waits_for_a_load_in_flight_and_counts_it(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with ThreadPoolExecutor(1) as pool:
        with open_load(warehouse, run) as load:
            sealing = pool.submit(warehouse.seal, run)
            assert_waits(warehouse, sealing)
            load.commit(loaded_part(3))
        sealing.result(timeout=20)
    assert warehouse.status(run) == ("running", "sealed")
    assert loaded(warehouse) == (3, 1)
    with pytest.raises(FatalError):
        warehouse.load(run, [9], part=1)


def test_an_older_run_that_is_loading_keeps_nobody_waiting(warehouse: Warehouse) -> None:
    busy, idle = warehouse.validated(), warehouse.validated()
    with open_load(warehouse, busy), ThreadPoolExecutor(1) as pool:
        pool.submit(retire_by_a_newer, warehouse).result(timeout=20)
    assert warehouse.status(idle)[0] == "superseded"
    assert warehouse.status(busy)[0] == "running"
    warehouse.load(busy)
    warehouse.seal(busy)
    assert warehouse.flip(busy) == "superseded"


def test_a_backend_that_dies_under_a_load_is_transient_and_leaves_nothing(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with open_load(warehouse, run) as load:
        terminate_others(warehouse)
        with pytest.raises(TransientError):
            load.commit(loaded_part(3))
    assert loaded(warehouse) == (0, 0)
    warehouse.load(run)


def test_a_warehouse_that_is_away_is_transient() -> None:
    with pytest.raises(TransientError), PartLoad("postgresql://a:b@127.0.0.1:1/c", make_run(), 0):
        raise AssertionError


def verdicts_file(folder: Path, rows: list[dict[str, object]]) -> Path:
    schema = pa.schema(
        [
            ("row", pa.int64()),
            *((name, pa.string()) for name in ("verdict", "rule", "column", "value", "key")),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path := folder / "verdicts.parquet")
    return path


def reason(row: int, rule: str = "r", verdict: str = "quarantined") -> dict[str, object]:
    return {"row": row, "verdict": verdict, "rule": rule, "column": "c", "value": None, "key": '{"id": 1}'}


def extracted(warehouse: Warehouse) -> Run:
    run = warehouse.planned()
    with warehouse.engine.begin() as connection:
        ledger.advance(connection, run.run_no, "extracted")
    return run


def test_the_quarantine_joins_its_run_by_name(warehouse: Warehouse, tmp_path: Path) -> None:
    run = extracted(warehouse)
    load_quarantine(warehouse.url, run, verdicts_file(tmp_path, [reason(5)]))
    statement = "select run_id, row, verdict, rule, column_name, value, key from nightshift.quarantine "
    assert warehouse.query(statement + "join nightshift.runs using (run_id)") == [
        (run.run_id, 5, "quarantined", "r", "c", None, json.dumps({"id": 1}))
    ]


def test_a_second_validation_replaces_the_quarantine_and_leaves_other_runs_alone(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    other, run = extracted(warehouse), extracted(warehouse)
    load_quarantine(warehouse.url, other, verdicts_file(tmp_path, [reason(1)]))
    load_quarantine(warehouse.url, run, verdicts_file(tmp_path, [reason(1), reason(1, "s"), reason(2)]))
    load_quarantine(warehouse.url, run, verdicts_file(tmp_path, [reason(3, "s", "withheld"), reason(4, "s")]))
    with warehouse.engine.connect() as connection:
        reasons = ledger.quarantine_reasons(connection, run.run_no)
        assert ledger.quarantine_reasons(connection, other.run_no) == [("quarantined", "r", 1)]
    assert sorted(reasons) == [("quarantined", "s", 1), ("withheld", "s", 1)]


def test_rows_are_counted_once_for_each_rule(warehouse: Warehouse, tmp_path: Path) -> None:
    run = extracted(warehouse)
    reasons = [reason(1), reason(1), reason(2), reason(2, "a")]
    load_quarantine(warehouse.url, run, verdicts_file(tmp_path, reasons))
    with warehouse.engine.connect() as connection:
        counted = ledger.quarantine_reasons(connection, run.run_no)
    assert counted == [("quarantined", "r", 2), ("quarantined", "a", 1)]


def test_a_validation_without_bad_rows_empties_the_quarantine(warehouse: Warehouse, tmp_path: Path) -> None:
    run = extracted(warehouse)
    for rows in ([reason(1)], []):
        load_quarantine(warehouse.url, run, verdicts_file(tmp_path, rows))
    assert warehouse.query("select count(*) from nightshift.quarantine") == [(0,)]


def test_a_late_validation_cannot_touch_the_quarantine_of_a_run_further_on(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    run = warehouse.published()
    with pytest.raises(FatalError, match="must be at work and extracted"):
        load_quarantine(warehouse.url, run, verdicts_file(tmp_path, [reason(1)]))


def test_rows_of_the_warehouse_are_counted_by_source_before_the_seal(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    warehouse.load(run, range(5))
    with warehouse.engine.connect() as connection:
        check_sql_counts(connection, run, {"champion": 5})
        for wrong in ({"champion": 4}, {"champion": 5, "rule": 1}, {"rule": 5}, {}):
            with pytest.raises(SealError, match=r"got {'champion': 5}\. Nothing was published"):
                check_sql_counts(connection, run, wrong)


def test_keys_of_every_type_arrive_as_they_are(warehouse_url: str) -> None:
    types = {"t": "text", "i": "integer", "b": "boolean", "d": "date", "s": "timestamp"}
    values = ("a'\"\\\t\n,é", -(2**63), True, date(1, 1, 1), datetime(2024, 1, 1, 1, 2, 3, 456789, UTC))
    engine = warehouse_engine(warehouse_url)
    migrate(engine, [job := make_job("all_types", types)])
    warehouse = Warehouse(warehouse_url, engine, job)
    run = warehouse.validated()
    given = dict(zip(types, values, strict=True)) | {"day": DAY.day, "run_no": run.run_no}
    row = given | {"score": 0.5, "score_source": "champion", "scored_at": AT}
    with PartLoad(warehouse_url, run, 0) as load:
        load.rows(sql_schema(job), [pa.RecordBatch.from_pylist([row], schema=sql_schema(job))])
        load.commit(loaded_part(1))
    assert warehouse.query("select t, i, b, d, s from nightshift.predictions_all_types") == [values]
    engine.dispose()
