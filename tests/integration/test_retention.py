"""Old runs pruned: whatever goes, every published day stays whole in SQL and in Parquet."""

from __future__ import annotations

import gc
import json
import multiprocessing
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from support import crash
from support.toy import CHAMPION_SINCE, NIGHT, YESTERDAY, Toy, quiet_mlflow
from support.wholeness import assert_whole
from typer.testing import CliRunner
from upath import UPath

from pipeline import outcomes, rollouts, steps
from pipeline.adapters import retention as stored
from pipeline.adapters.store import Store
from pipeline.cli.main import app
from pipeline.errors import FatalError, ModelError, UsageError
from pipeline.partition import Partition
from pipeline.planning import Request, plan
from pipeline.retention import prune
from pipeline.unpublish import unpublish

pytestmark = pytest.mark.integration

_PROCESSES = multiprocessing.get_context("forkserver")


def declare(toy: Toy, retention: str = "{replaced_days: 10, unpublished_days: 3}") -> None:
    toy.edit("dags/toy.yaml", "publish: {sql: true, parquet: true}", f"publish: {{}}\nretention: {retention}")


def age(toy: Toy, days: int = 30) -> None:
    """Let so many days pass since every run, and since readers saw another one."""
    passed = f"interval '{days} days'"
    toy.execute(
        f"update nightshift.runs set finished_at = finished_at - {passed}, started_at = started_at - {passed}"
    )
    toy.execute(f"update nightshift.publications set superseded_at = superseded_at - {passed}")


def files(toy: Toy, run_id: str) -> list[str]:
    folder = Path(toy.env.store.root.path) / "runs" / "toy"
    return sorted(path.name for path in folder.glob(f"*/{run_id}/**/*") if path.is_file())


def rows(toy: Toy, run_id: str) -> int:
    table = "nightshift.predictions_toy join nightshift.runs using (run_no)"
    return int(toy.query(f"select count(*) from {table} where run_id = %s", run_id)[0][0])


def judged(toy: Toy, day: Partition = NIGHT) -> None:
    outcomes.evaluate(toy.env, "toy", (day, day))


def runs_of_one_day(toy: Toy) -> list[str]:
    """Three runs of the night: replaced, behind what readers see, seen."""
    return [str(toy.night()["run_id"]) for _ in range(3)]


def test_only_what_no_reader_sees_and_no_unpublish_restores_goes(toy: Toy) -> None:
    declare(toy)
    first, second, third = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    told = prune(toy.env, toy.job(), dry_run=True)
    assert [(each.run_id, each.part) for each in told] == [(first, "run")]
    assert len(files(toy, first)) > 5
    assert prune(toy.env, toy.job()) == told
    assert (files(toy, first), rows(toy, first)) == ([], 0)
    assert toy.record(first)["pruned_bytes"] == told[0].bytes > 1000
    assert assert_whole(toy, NIGHT) == third
    assert prune(toy.env, toy.job()) == []
    unpublish(toy.env, "toy", NIGHT, approved_by=None, reason="a test")
    assert {row["run_id"] for row in toy.published()} == set(toy.parquet()["run_id"]) == {second}


def test_runs_of_a_rollout_stay_until_it_ends_and_then_take_their_shadow_rows_along(toy: Toy) -> None:
    declare(toy)
    toy.rollout("shadow", since=CHAMPION_SINCE)
    first, *_ = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    assert prune(toy.env, toy.job()) == []
    # Its nights go on being compared where another kind or share goes on with the version.
    toy.rollout("canary", None, CHAMPION_SINCE + timedelta(days=1), share=0.1)
    assert prune(toy.env, toy.job()) == []
    rollouts.stop(toy.env, "toy", reason="a test")
    assert [each.run_id for each in prune(toy.env, toy.job())] == [first]
    kept = toy.query("select count(distinct run_no) from nightshift.shadow_toy")
    assert kept == [(2,)]


def test_young_runs_and_runs_at_work_stay(toy: Toy) -> None:
    declare(toy)
    runs_of_one_day(toy)
    judged(toy)
    plan(toy.env, Request("toy", YESTERDAY))
    assert prune(toy.env, toy.job()) == []
    age(toy, 5)
    assert prune(toy.env, toy.job()) == []


def test_what_readers_saw_until_now_is_kept_from_now_on(toy: Toy) -> None:
    """However long ago it was made: why a run was taken back must be looked into."""
    declare(toy, "{replaced_days: 10, snapshots_days: 2}")
    _, _, third = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    unpublish(toy.env, "toy", NIGHT, approved_by=None, reason="a test")
    assert third not in {each.run_id for each in prune(toy.env, toy.job())}
    age(toy, 5)
    assert [(each.run_id, each.part) for each in prune(toy.env, toy.job())] == [(third, "snapshot")]
    age(toy, 5)
    assert [(each.run_id, each.part) for each in prune(toy.env, toy.job())] == [(third, "run")]


def test_a_failed_run_that_is_taken_up_meanwhile_keeps_its_snapshot(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(toy, "{snapshots_days: 2}")
    broken(toy)
    age(toy)
    ask = stored.candidates

    def overtaken(*arguments: object) -> object:
        found = ask(*arguments)  # type: ignore[arg-type]
        plan(toy.env, Request("toy", NIGHT, run_id="broken"))
        return found

    monkeypatch.setattr(stored, "candidates", overtaken)
    assert prune(toy.env, toy.job()) == []
    assert "snapshot.json" in files(toy, "broken")


def test_a_failed_run_without_its_snapshot_tells_what_to_do(toy: Toy) -> None:
    declare(toy, "{snapshots_days: 2}")
    broken(toy)
    age(toy)
    assert [each.part for each in prune(toy.env, toy.job())] == ["snapshot"]
    with pytest.raises(FatalError, match=r"gone from the store.*nightshift score toy --day 2024-01-25"):
        toy.night(run_id="broken")


def test_a_run_that_is_not_judged_yet_stays(toy: Toy) -> None:
    """The first of three was seen at the decision; of the others, one is seen and one is behind it."""
    declare(toy)
    first, _, _ = runs_of_one_day(toy)
    decided = "timestamptz '2024-01-25 12:00+00'"
    toy.execute("update nightshift.publications set superseded_at = now() where superseded_at is not null")
    toy.execute(f"update nightshift.publications set published_at = {decided} where token = 1")
    age(toy)
    assert prune(toy.env, toy.job()) == []
    judged(toy)
    assert [each.run_id for each in prune(toy.env, toy.job())] == [first]
    again = outcomes.evaluate(toy.env, "toy", (NIGHT, NIGHT))
    assert (again.runs, again.pruned) == (1, 1)
    assert "1 pruned runs keep what was said of them" in outcomes.summary("toy", again)


def broken(toy: Toy) -> None:
    """A failed run that has sealed its snapshot."""
    chain = "[previous_model, baseline, carried_forward, default]"
    toy.edit("dags/toy.yaml", f"model_failure: {chain}", "model_failure: []")
    toy.promote(toy.register_like(model_uri="/nowhere/model.skops"))
    with pytest.raises(ModelError):
        toy.night(run_id="broken")


def test_failed_runs_go_and_cannot_be_taken_up_again(toy: Toy) -> None:
    declare(toy)
    broken(toy)
    age(toy)
    assert [each.run_id for each in prune(toy.env, toy.job())] == ["broken"]
    for again in (lambda: toy.night(run_id="broken"), lambda: steps.run_named(toy.env, "broken")):
        with pytest.raises(
            UsageError, match=r"retention pruned them on .*nightshift score toy --day 2024-01-25"
        ):
            again()
    assert toy.record("broken")["status"] == "failed"


def test_a_snapshot_may_go_earlier_than_its_run(toy: Toy) -> None:
    declare(toy, "{snapshots_days: 2}")
    first, _, third = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    assert [(each.run_id, each.part) for each in prune(toy.env, toy.job())] == [(first, "snapshot")]
    assert set(files(toy, first)) == {"predictions.parquet", "profile-00000.json.zst"}
    assert (rows(toy, first), toy.record(first)["snapshot_uri"]) == (200, None)
    assert assert_whole(toy, NIGHT) == third
    assert prune(toy.env, toy.job()) == []


@pytest.mark.parametrize(
    ("when", "place"),
    [
        pytest.param("before", "pipeline.adapters.retention:mark_pruned", marks=pytest.mark.soak),
        ("after", "pipeline.adapters.retention:mark_pruned"),
        pytest.param("before", "pipeline.adapters.store:Store.remove", marks=pytest.mark.soak),
        pytest.param("after", "pipeline.adapters.store:Store.remove", marks=pytest.mark.soak),
        pytest.param("before", "pipeline.adapters.retention:files_pruned", marks=pytest.mark.soak),
    ],
)
def test_a_prune_that_crashes_is_finished_by_the_next(toy: Toy, when: str, place: str) -> None:
    declare(toy)
    first, _, third = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    process = _PROCESSES.Process(target=crash.main, args=(toy.variables, "prune", first, when, place, ""))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert assert_whole(toy, NIGHT) == third
    assert [each.run_id for each in prune(toy.env, toy.job())] == [first]
    assert (files(toy, first), rows(toy, first)) == ([], 0)
    assert toy.record(first)["pruned_bytes"] is not None


def test_a_run_that_became_needed_since_the_look_is_kept(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(toy)
    first, _, _ = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    mark = stored.mark_pruned

    def overtaken(*arguments: object) -> bool:
        monkeypatch.setattr(stored, "mark_pruned", mark)
        unpublish(toy.env, "toy", NIGHT, approved_by=None, reason="a test")
        return bool(mark(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(stored, "mark_pruned", overtaken)
    assert prune(toy.env, toy.job()) == []
    unpublish(toy.env, "toy", NIGHT, approved_by=None, reason="a test")
    assert {row["run_id"] for row in toy.published()} == set(toy.parquet()["run_id"]) == {first}


def test_of_two_prunes_at_once_one_removes_a_run_and_tells_its_bytes(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(toy)
    first, _, _ = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    size, others = Store.size, []

    def overtaken(store: Store, place: UPath) -> int:
        monkeypatch.setattr(Store, "size", size)
        others.append(prune(toy.env, toy.job()))
        return size(store, place)

    monkeypatch.setattr(Store, "size", overtaken)
    (done,) = prune(toy.env, toy.job())
    assert (done.run_id, others) == (first, [[]])
    assert toy.record(first)["pruned_bytes"] == done.bytes > 1000


def test_the_command_lists_what_would_go_and_its_bytes(toy: Toy) -> None:
    declare(toy)
    first, _, _ = runs_of_one_day(toy)
    judged(toy)
    age(toy)
    with quiet_mlflow():
        done = CliRunner().invoke(app, ["prune", "toy", "--dry-run", "--json"], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    told = json.loads(done.stdout)
    (line,) = told["pruned"]
    assert (line["run_id"], line["part"], line["day"], told["dry_run"]) == (first, "run", NIGHT.key, True)
    assert told["bytes"] == line["bytes"] > 1000
    assert rows(toy, first) == 200
