"""A published day taken back by the command: SQL, Parquet and the record of the run tell the same."""

from __future__ import annotations

import gc
import json
import multiprocessing
import signal
from pathlib import Path

import duckdb
import pytest
from support import crash
from support.toy import NIGHT, YESTERDAY, Toy, quiet_mlflow
from support.wholeness import assert_whole, parquet_rows, sql_rows
from typer.testing import CliRunner

from pipeline import steps
from pipeline.adapters import publishing
from pipeline.cli.main import app
from pipeline.errors import UsageError
from pipeline.planning import Request, plan
from pipeline.unpublish import Unpublished, unpublish

pytestmark = pytest.mark.integration

_PROCESSES = multiprocessing.get_context("forkserver")


def take_back(toy: Toy, reason: str = "wrong prices") -> Unpublished:
    return unpublish(toy.env, "toy", NIGHT, approved_by=None, reason=reason)


def readers_see(toy: Toy) -> str | None:
    """The run that SQL and Parquet readers see of the night, which must be the same and whole."""
    rows = sql_rows(toy, NIGHT)
    if rows.empty:
        assert not Path(toy.env.store.current_file("toy", NIGHT).path).exists()
        return None
    assert len(rows) == 200
    assert set(rows["run_id"]) == set(parquet_rows(toy, NIGHT)["run_id"])
    return str(rows["run_id"][0])


def test_twice_in_a_row_goes_back_step_by_step_to_nothing_and_a_later_run_is_seen(toy: Toy) -> None:
    first, second = toy.night()["run_id"], toy.night(policy=2)["run_id"]
    yesterday = toy.night(YESTERDAY)["run_id"]
    assert take_back(toy) == Unpublished(second, first, parquet=True)
    assert readers_see(toy) == first
    assert take_back(toy) == Unpublished(first, None, parquet=True)
    assert readers_see(toy) is None
    with pytest.raises(UsageError, match="readers see none"):
        take_back(toy)
    assert assert_whole(toy, YESTERDAY) == yesterday
    assert toy.record(second)["status"] == "withdrawn"
    later = toy.night()["run_id"]
    assert assert_whole(toy, NIGHT) == later


def test_duckdb_and_sql_read_the_same_dataset_afterwards(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.night()
    take_back(toy)
    dataset = Path(toy.env.store.root.path) / "predictions" / "toy" / "*" / "*.parquet"
    with duckdb.connect() as connection:
        days = connection.execute(
            "select day, count(*) from read_parquet($1, hive_partitioning = true) group by day",
            [str(dataset)],
        ).fetchall()
    assert days == [(YESTERDAY.day, 200)]
    assert toy.query("select day, count(*) from predictions.toy group by day") == days


def test_a_run_at_work_ends_superseded_and_is_no_failure(toy: Toy) -> None:
    toy.night()
    at_work = plan(toy.env, Request("toy", NIGHT))
    take_back(toy)
    assert toy.night(run_id=at_work.run_id)["status"] == "superseded"
    assert readers_see(toy) is None


@pytest.mark.parametrize(
    "earlier",
    [
        pytest.param(True, marks=pytest.mark.soak, id="to the run before"),
        pytest.param(False, id="to nothing"),
    ],
)
@pytest.mark.parametrize(
    ("when", "place"),
    [
        pytest.param("before", "pipeline.adapters.publishing:withdraw", marks=pytest.mark.soak),
        ("after", "pipeline.adapters.publishing:withdraw"),
        ("before", "pipeline.unpublish:mended"),
        pytest.param("before", "pipeline.adapters.publishing:parquet_shown", marks=pytest.mark.soak),
    ],
)
def test_a_crash_leaves_the_old_day_or_the_new_and_the_next_command_mends_it(
    toy: Toy, when: str, place: str, earlier: bool
) -> None:
    before = toy.night()["run_id"] if earlier else None
    run = toy.night()["run_id"]
    arguments = (toy.variables, "unpublish", run, when, place, "")
    process = _PROCESSES.Process(target=crash.main, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    committed = not place.endswith("withdraw")
    seen = set(sql_rows(toy, NIGHT)["run_id"])
    assert seen == ({before} if before else set()) if committed else {run}
    assert steps.repair(toy.env, toy.job()) == int(committed)
    assert readers_see(toy) == (before if committed else run)


def test_a_file_that_cannot_follow_is_told_and_mended_later(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = toy.night()["run_id"]
    toy.night()

    def away(*_: object) -> None:
        raise PermissionError("store away")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.adapters.store.Store.copy", away)
        assert take_back(toy).parquet is False
    assert steps.repair(toy.env, toy.job()) == 1
    assert assert_whole_restored(toy) == first


def assert_whole_restored(toy: Toy) -> str | None:
    (pointer,) = toy.rows("select * from nightshift.pointer where day = %s", NIGHT.day)
    assert pointer["parquet_run_no"] == pointer["run_no"]
    return readers_see(toy)


def test_the_command_reports_in_one_line_and_refuses_who_is_no_approver(toy: Toy) -> None:
    first, second = toy.night()["run_id"], toy.night()["run_id"]
    words = ["unpublish", "toy", "--day", NIGHT.key, "--reason", "wrong prices", "--json"]
    with quiet_mlflow():
        refused = CliRunner().invoke(app, [*words, "--approved-by", "anna"], env=toy.variables)
        done = CliRunner().invoke(app, [*words, "--approved-by", "ana"], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    assert (refused.exit_code, "did you mean 'ana'?" in refused.stderr) == (2, True)
    assert json.loads(done.stdout) == {
        "job": "toy", "day": NIGHT.key, "run_id": second, "restored_run_id": first, "parquet": True,
    }  # fmt: skip
    (kept,) = toy.rows("select * from nightshift.withdrawals")
    assert (kept["approved_by"], kept["reason"]) == ("ana", "wrong prices")
    assert kept["actor"]


def test_a_withdrawn_score_is_not_carried_forward(toy: Toy) -> None:
    toy.night(YESTERDAY)
    unpublish(toy.env, "toy", YESTERDAY, approved_by=None, reason="a test")
    toy.execute("update source.toy set amount = -1 where day = %s and id = 4", NIGHT.day)
    toy.night()
    assert toy.by_id()[4]["score_source"] == "default"


def test_a_run_that_nobody_meant_is_not_taken_back(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer run that is published between the look and the change is not taken back."""
    toy.night()
    withdraw = publishing.withdraw

    def overtaken(*arguments: object) -> int | None:
        monkeypatch.setattr(publishing, "withdraw", withdraw)
        toy.night()
        return withdraw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "withdraw", overtaken)
    with pytest.raises(UsageError, match="unpublish again"):
        take_back(toy)
    assert readers_see(toy) == toy.last_run()["run_id"]
