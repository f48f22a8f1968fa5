"""A process killed at an exact place leaves readers the old day or the new one; a plain rerun mends it."""

from __future__ import annotations

import multiprocessing
import signal
from typing import TYPE_CHECKING

import pytest
from support import crash
from support.toy import NIGHT
from support.wholeness import assert_whole, parquet_rows, sql_rows

from pipeline import steps
from pipeline.planning import Request, plan

if TYPE_CHECKING:
    from support.toy import Toy

    from pipeline.run import Run

pytestmark = pytest.mark.integration

_PROCESSES = multiprocessing.get_context("forkserver")
# Imported once: each process would take seconds for them.
_PROCESSES.set_forkserver_preload(["support.crash", "pipeline.scoring.validate", "pipeline.adapters.models"])


def _die(toy: Toy, run: Run, step: str, when: str, place: str, word: str = "") -> None:
    """Do one step of the run in a process that is killed there."""
    process = _PROCESSES.Process(target=crash.main, args=(toy.variables, step, run.run_id, when, place, word))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _planned(toy: Toy) -> tuple[str, Run]:
    """The run that readers see, and a newer one of the same day, planned."""
    old = toy.night()["run_id"]
    return old, plan(toy.env, Request("toy", NIGHT))


def _scored(toy: Toy) -> tuple[str, Run]:
    old, run = _planned(toy)
    for step in (steps.extract, steps.validate, steps.score):
        step(toy.env, run)
    return old, run


def _seen(toy: Toy) -> tuple[set[str], set[str]]:
    """Which runs SQL and Parquet readers see; every day of either is whole."""
    sql, parquet = sql_rows(toy, NIGHT), parquet_rows(toy, NIGHT)
    assert len(sql) == len(parquet) == 200
    return set(sql["run_id"]), set(parquet["run_id"])


def _rerun(toy: Toy, run: Run) -> None:
    """The same run again, as a retry does it; readers see it whole afterwards."""
    toy.night(run_id=run.run_id)
    assert assert_whole(toy, NIGHT) == run.run_id


@pytest.mark.soak
@pytest.mark.parametrize(("when", "rows"), [("before", 201), ("after", 200)])
def test_a_snapshot_counts_once_its_manifest_is_there(toy: Toy, when: str, rows: int) -> None:
    old, run = _planned(toy)
    _die(toy, run, "extract", when, "pipeline.adapters.store:Store.seal_once", "snapshot.json")
    assert toy.record(run.run_id)["stage"] == "planned"
    assert _seen(toy) == ({old}, {old})
    toy.fill(NIGHT, rows=1, first_id=900)
    _rerun(toy, run)
    assert toy.record(run.run_id)["rows_in"] == rows


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_commit_of_a_load_leaves_each_row_once(toy: Toy, when: str) -> None:
    old, run = _planned(toy)
    steps.extract(toy.env, run)
    steps.validate(toy.env, run)
    _die(toy, run, "score", when, "pipeline.adapters.publishing:PartLoad.commit")
    loaded = toy.query("select count(*) from nightshift.run_parts where run_no = %s", run.run_no)
    assert loaded == [(int(when == "after"),)]
    assert _seen(toy) == ({old}, {old})
    _rerun(toy, run)


@pytest.mark.parametrize(
    ("when", "place", "stage"),
    [
        ("before", "pipeline.steps:_seal", "scored"),
        ("before", "pipeline.adapters.publishing:seal", "scored"),
        ("after", "pipeline.adapters.publishing:seal", "scored"),
        ("after", "pipeline.steps:_seal", "sealed"),
        ("before", "pipeline.adapters.publishing:flip", "sealed"),
        ("after", "pipeline.adapters.publishing:flip", "sealed"),
    ],
)
def test_before_the_commit_of_the_flip_readers_see_the_old_run(
    toy: Toy, when: str, place: str, stage: str
) -> None:
    old, run = _scored(toy)
    _die(toy, run, "publish", when, place)
    assert toy.record(run.run_id)["stage"] == stage
    assert _seen(toy) == ({old}, {old})
    _rerun(toy, run)


def test_after_the_commit_of_the_flip_sql_has_the_new_run_and_the_next_command_brings_parquet(
    toy: Toy,
) -> None:
    old, run = _scored(toy)
    _die(toy, run, "publish", "before", "pipeline.steps:show_parquet")
    assert _seen(toy) == ({run.run_id}, {old})
    assert steps.repair(toy.env, toy.job()) == 1
    assert assert_whole(toy, NIGHT) == run.run_id


@pytest.mark.parametrize(("when", "shown"), [("before", "old"), ("after", "new")])
def test_a_crash_around_the_rename_of_the_parquet_file_leaves_one_whole_file(
    toy: Toy, when: str, shown: str
) -> None:
    old, run = _scored(toy)
    _die(toy, run, "publish", when, "pipeline.adapters.store:Store.seal", "/predictions/toy/")
    assert _seen(toy) == ({run.run_id}, {old if shown == "old" else run.run_id})
    _rerun(toy, run)


@pytest.mark.soak
def test_a_repair_that_crashes_is_repaired_by_the_next(toy: Toy) -> None:
    _, run = _scored(toy)
    _die(toy, run, "publish", "before", "pipeline.steps:show_parquet")
    _die(toy, run, "repair", "after", "pipeline.adapters.store:Store.seal", "/predictions/toy/")
    assert steps.repair(toy.env, toy.job()) == 1
    assert assert_whole(toy, NIGHT) == run.run_id
    assert steps.repair(toy.env, toy.job()) == 0
