"""The runs table: tokens that grow, stages that only go on, ends that stay, and what each day shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.publishing import DAY, Warehouse, make_job, make_plan

from pipeline.adapters import ledger
from pipeline.adapters.migrate import migrate
from pipeline.errors import TransientError
from pipeline.partition import Partition, between
from pipeline.run import Run, Stage

pytestmark = pytest.mark.integration

YESTERDAY = DAY.previous()


def record(warehouse: Warehouse, run: Run) -> dict[str, Any]:
    with warehouse.engine.connect() as connection:
        return dict(ledger.record(connection, run.run_no))


def test_tokens_grow_by_one_whoever_asks_at_the_same_time(warehouse: Warehouse) -> None:
    def token(_: int) -> int:
        with warehouse.engine.begin() as connection:
            return ledger.next_token(connection, "toy", DAY)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(token, range(80))) == list(range(1, 81))


def test_each_day_has_tokens_of_its_own(warehouse: Warehouse) -> None:
    assert [warehouse.planned(day).token for day in (DAY, YESTERDAY, DAY)] == [1, 1, 2]


def test_a_token_of_a_plan_that_was_rolled_back_is_given_again(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection:
        assert ledger.next_token(connection, "toy", DAY) == 1
    assert warehouse.planned().token == 1


def test_a_planned_run_is_found_by_its_name(warehouse: Warehouse) -> None:
    run = warehouse.planned(run_id="one")
    with warehouse.engine.connect() as connection:
        found = ledger.find(connection, "one")
        assert ledger.find(connection, "other") is None
    assert found is not None
    assert ledger.as_run(found) == run
    assert (run.status, run.stage, run.partition) == ("running", "planned", DAY)


def test_a_name_is_planned_once_and_a_retry_takes_it_up(warehouse: Warehouse) -> None:
    warehouse.planned(run_id="one")
    with pytest.raises(TransientError, match="planned once"), warehouse.engine.begin() as connection:
        ledger.plan_run(connection, make_plan(run_id="one"))
    assert warehouse.planned().token == 2


def test_stages_only_go_forward(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    with warehouse.engine.begin() as connection:
        assert not ledger.advance(connection, run.run_no, "extracted", snapshot_fingerprint="late")
        assert not ledger.advance(connection, run.run_no, "validated")
        assert ledger.advance(connection, run.run_no, "scored")
    assert record(warehouse, run)["snapshot_fingerprint"] is None
    assert warehouse.status(run) == ("running", "scored")


@pytest.mark.parametrize("stage", ["extracted", "scored"])
def test_a_late_attempt_cannot_move_a_run_that_has_ended(warehouse: Warehouse, stage: Stage) -> None:
    run = warehouse.published()
    with warehouse.engine.begin() as connection:
        assert not ledger.advance(connection, run.run_no, stage)
    assert warehouse.status(run) == ("published", "published")


def test_a_published_or_superseded_run_cannot_fail_any_more(warehouse: Warehouse) -> None:
    older, newer = warehouse.sealed(), warehouse.published()
    assert warehouse.flip(older) == "superseded"
    for run, status in ((older, "superseded"), (newer, "published")):
        warehouse.fail(run)
        assert warehouse.status(run)[0] == status
        assert record(warehouse, run)["error_type"] is None


def test_a_failed_run_tells_why_until_it_is_taken_up_again(warehouse: Warehouse) -> None:
    run = warehouse.planned()
    with warehouse.engine.begin() as connection:
        ledger.finish(connection, run.run_no, "failed", ValueError("a zero \0 byte" + "x" * 9000))
    failed = record(warehouse, run)
    assert (failed["status"], failed["error_type"]) == ("failed", "ValueError")
    assert failed["error_message"].startswith("a zero \ufffd byte")
    assert failed["finished_at"] is not None
    with warehouse.engine.begin() as connection:
        ledger.resume(connection, run.run_no)
    resumed = record(warehouse, run)
    assert [resumed[name] for name in ("status", "error_type", "error_message", "finished_at")] == [
        "running", None, None, None,
    ]  # fmt: skip


def test_a_run_that_did_not_fail_is_not_resumed(warehouse: Warehouse) -> None:
    run = warehouse.published()
    with warehouse.engine.begin() as connection:
        ledger.resume(connection, run.run_no)
    assert warehouse.status(run)[0] == "published"


def test_warnings_are_kept_once_and_in_order(warehouse: Warehouse) -> None:
    run = warehouse.planned()
    with warehouse.engine.begin() as connection:
        ledger.add_warnings(connection, run.run_no, ["b", "a", "b"])
        ledger.add_warnings(connection, run.run_no, ["a", "c"])
    assert record(warehouse, run)["warnings"] == ["b", "a", "c"]


def test_usage_adds_up_and_the_highest_memory_stays(warehouse: Warehouse) -> None:
    run = warehouse.planned()
    with warehouse.engine.begin() as connection:
        for cpu, memory in ((1.5, 300.0), (2.0, 100.0)):
            ledger.add_usage(connection, run.run_no, cpu, memory)
    assert (record(warehouse, run)["cpu_seconds"], record(warehouse, run)["peak_memory_mb"]) == (3.5, 300.0)


def test_attempts_and_visible_days_tell_what_a_backfill_may_skip(warehouse: Warehouse) -> None:
    warehouse.published()
    warehouse.fail(warehouse.planned())
    warehouse.fail(warehouse.planned(YESTERDAY))
    with warehouse.engine.connect() as connection:
        tried = ledger.attempts(connection, "toy", YESTERDAY, DAY)
        assert ledger.visible_days(connection, "toy", YESTERDAY, DAY) == {DAY.day}
        assert ledger.visible_days(connection, "toy", YESTERDAY, YESTERDAY) == set()
    assert tried == {DAY.day: {"published", "failed"}, YESTERDAY.day: {"failed"}}


def test_the_visible_run_is_the_pointers_not_the_newest(warehouse: Warehouse) -> None:
    run = warehouse.published()
    warehouse.planned()
    with warehouse.engine.connect() as connection:
        visible = ledger.visible_run(connection, "toy", DAY)
        assert ledger.visible_run(connection, "toy", YESTERDAY) is None
    assert visible is not None
    assert (visible["run_id"], visible["pointer_token"], visible["parquet_run_no"]) == (run.run_id, 1, None)


def day_status(warehouse: Warehouse, day: Partition = DAY, job: str = "toy") -> dict[str, Any]:
    with warehouse.engine.connect() as connection:
        statement = sa.text("select * from nightshift.day_status where job = :job and day = :day")
        return dict(connection.execute(statement, {"job": job, "day": day.day}).mappings().one())


def test_an_expected_day_without_a_run_is_missing_since_its_cutoff(warehouse: Warehouse) -> None:
    status = day_status(warehouse)
    assert status.pop("missing_since") == datetime(2024, 1, 25, 3, tzinfo=UTC)
    assert (status.pop("job"), status.pop("day"), status.pop("restatements")) == ("toy", DAY.day, 0)
    assert (status.pop("trust"), status.pop("reasons")) == ("missing", ["missing: no run yet"])
    assert set(status.values()) == {None}


def test_a_failed_rerun_does_not_hide_a_good_publish(warehouse: Warehouse) -> None:
    good = warehouse.published()
    warehouse.fail(bad := warehouse.planned())
    status = day_status(warehouse)
    assert (status["published_run_id"], status["quality"]) == (good.run_id, "ok")
    assert (status["last_run_id"], status["last_status"]) == (bad.run_id, "failed")
    assert status["missing_since"] is None


def test_a_day_that_only_failed_is_still_missing(warehouse: Warehouse) -> None:
    warehouse.fail(warehouse.planned())
    status = day_status(warehouse)
    assert (status["published_run_id"], status["quality"], status["last_status"]) == (None, None, "failed")
    assert status["reasons"] == ["missing: the last run is failed, ValueError"]
    assert status["missing_since"] is not None


def test_a_degraded_publish_and_its_restatements_are_told(warehouse: Warehouse) -> None:
    for _ in range(3):
        run = warehouse.published()
    warehouse.execute("update nightshift.runs set degraded = true where run_no = %s", run.run_no)
    status = day_status(warehouse)
    assert (status["quality"], status["restatements"]) == ("degraded", 2)


def test_trust_is_ok_without_a_reason(warehouse: Warehouse) -> None:
    warehouse.published()
    status = day_status(warehouse)
    assert (status["trust"], status["reasons"]) == ("ok", [])


def test_a_degraded_day_tells_by_what_it_was_answered(warehouse: Warehouse) -> None:
    run = warehouse.published()
    warehouse.execute(
        "update nightshift.runs set degraded = true, as_of = false, score_sources = %s where run_no = %s",
        '{"champion": 1, "rule": 2, "default": 3}',
        run.run_no,
    )
    status = day_status(warehouse)
    assert status["trust"] == "degraded"
    assert status["reasons"] == [
        "degraded: 3 rows by default, 2 rows by rule",
        "not as of its day: a source is overwritten",
    ]


@pytest.mark.parametrize(
    ("state", "kind", "trust"),
    [
        ("open", "drift", "warned"),
        ("acknowledged", "structure", "warned"),
        ("resolved", "drift", "ok"),
        ("open", "late", "ok"),
    ],
)
def test_a_day_of_an_alert_that_lasts_is_warned(
    warehouse: Warehouse, state: str, kind: str, trust: str
) -> None:
    warehouse.published()
    insert = (
        "insert into nightshift.alerts (job, day, last_day, kind, cause, owner, message, state)"
        " values ('toy', %s, %s, %s, 'amount', 'Toys', 'a message for owners', %s)"
    )
    warehouse.execute(insert, YESTERDAY.day, DAY.day, kind, state)
    status = day_status(warehouse)
    assert status["trust"] == trust
    assert status["reasons"] == ([f"{state} alert {kind}: amount"] if trust == "warned" else [])
    assert day_status(warehouse, DAY.next())["trust"] == "missing"


def expected_days(warehouse: Warehouse, job: str) -> list[date]:
    statement = "select day from nightshift.day_status where job = %s order by day"
    return [day for (day,) in warehouse.query(statement, job)]


def test_a_day_is_expected_from_start_to_end_once_each(warehouse: Warehouse) -> None:
    schedule = between(Partition.parse("2024-01-01"), Partition.parse("2024-02-29"))
    assert expected_days(warehouse, "toy") == [partition.day for partition in schedule]


def test_a_day_is_expected_once_its_cutoff_has_passed(warehouse: Warehouse) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    for name, cutoff in (("passed", "00:00"), ("coming", "23:59")):
        migrate(warehouse.engine, [make_job(name, cutoff=cutoff, start=str(yesterday), end=None)])
    assert expected_days(warehouse, "passed") == [yesterday, today]
    assert expected_days(warehouse, "coming") == [yesterday]


@pytest.mark.parametrize(
    ("zone", "cutoff", "day"),
    [
        ("America/New_York", "03:00", "2013-03-10"),
        ("America/New_York", "02:30", "2013-03-10"),
        ("America/New_York", "01:30", "2013-11-03"),
        ("America/New_York", "03:00", "2013-11-03"),
        ("Australia/Lord_Howe", "01:45", "2013-04-07"),
        ("Europe/Berlin", "02:30", "2024-10-27"),
        ("Asia/Kathmandu", "23:59", "2024-10-27"),
    ],
)
def test_the_cutoff_of_a_day_is_the_one_that_runs_use(
    warehouse: Warehouse, zone: str, cutoff: str, day: str
) -> None:
    job = make_job("odd", timezone=zone, cutoff=cutoff, start=day, end=day)
    migrate(warehouse.engine, [job])
    partition = Partition.parse(day)
    assert day_status(warehouse, partition, "odd")["missing_since"] == job.instants(partition).cutoff
