"""Training over nights that have run already: what they read is read again, and tells the same."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import crash
from support.toy import CHAMPION_SINCE, FIRST, JOB, NIGHT, Toy, quiet_mlflow

import pipeline.replay
from pipeline import training
from pipeline.adapters import ledger, models, run_files
from pipeline.adapters.registry import Registered, Registry, fetch
from pipeline.adapters.store import sha256_of
from pipeline.adapters.versions import ModelVersion
from pipeline.errors import UsageError
from pipeline.gate import judge
from pipeline.partition import Partition, between
from pipeline.replay import Replayed, replay, tree_code
from pipeline.unpublish import unpublish

pytestmark = pytest.mark.integration

DAYS = list(between(FIRST, Partition(FIRST.day + timedelta(days=5))))
SCORED = DAYS[2]
LATER = CHAMPION_SINCE + timedelta(days=1)
KEY = "manual__1 0 challenger"
FRAME = pd.DataFrame({"kind": ["ball", "doll", "kite"], "amount": [10.0, 50.0, 90.0], "sold_share_7d": 0.5})


def trained(
    toy: Toy, days: Sequence[Partition] = DAYS, as_of: datetime = CHAMPION_SINCE, **given: Any
) -> ModelVersion:
    with quiet_mlflow():
        return training.train(toy.env, JOB, days, as_of, None, lambda _: None, **given)


def predictions(toy: Toy, version: ModelVersion) -> Any:
    folder = toy.env.settings.home / f"fetched-{version.version}"
    folder.mkdir(parents=True)
    file = fetch(version.model_uri, folder)
    return models.load(file, version.model_sha256, version.sklearn_version).predict_proba(FRAME)


def test_equal_nights_give_equal_predictions_read_from_sealed_snapshots_or_from_the_source(toy: Toy) -> None:
    """Version 2 of the toy is made of these days, before any of them was scored."""
    before = toy.version(2)
    run = toy.night(SCORED)
    again = trained(toy)
    assert again.metrics["nights_reused"] == {SCORED.key: run["run_id"]}
    assert again.data_fingerprint == before.data_fingerprint
    np.testing.assert_array_equal(predictions(toy, again), predictions(toy, before))


def test_a_version_tells_what_made_it(toy: Toy) -> None:
    (toy.project / "requirements.lock").write_text("scikit-learn==1.9.1\n")
    cause = training.Cause("on_drift", "a feature moved", refit_of=2)
    made = toy.version(trained(toy, cause=cause).version)
    assert list(made.fingerprints) == [day.key for day in DAYS]
    assert len(set(made.fingerprints.values())) == len(DAYS)
    assert made.parameters["classify__C"] == "1.0"
    assert made.environment_sha256 == sha256_of(toy.project / "requirements.lock")
    assert (made.trigger, made.trigger_evidence) == ("on_drift", "a feature moved")
    assert (made.refit_of, made.challenger_of) == (2, 1)
    assert toy.version(1).environment_sha256 is None
    assert training.registry_of(toy.env).alias(JOB, "challenger") == made.version


def test_a_refit_of_what_the_gate_has_accepted_is_promoted_without_a_warning_of_the_gate(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 8, latency_ratio: 100}\ntrain: {")
    refit = toy.register_like(1, refit_of=1)

    def warned() -> list[str]:
        with quiet_mlflow():
            _, warnings = training.promote(toy.env, JOB, refit, approved_by="ana", reason="a test")
        return [warning for warning in warnings if "gate" in warning]

    assert warned() == ["the gate was never asked about version 1: nightshift gate toy 1"]
    known = datetime(2024, 1, 21, tzinfo=UTC)
    assert judge(toy.env, JOB, 1, champion=2, as_of=known).verdict.outcome == "accept"
    assert warned() == []


def test_rows_that_no_model_may_see_on_their_night_are_not_learned_from(toy: Toy) -> None:
    before = learned(toy)
    toy.execute("update source.toy set amount = -1 where day = %s and id <= 7", SCORED.day)
    after = learned(toy)
    assert len(after) == len(before) - 7
    assert float(after.min()) >= 0


def test_labels_that_were_not_known_yet_are_not_learned_from(toy: Toy) -> None:
    before = learned(toy)
    toy.execute("update source.toy_sales set known_at = %s where day = %s and id <= 7", LATER, SCORED.day)
    assert len(learned(toy)) == len(before) - 7
    assert len(learned(toy, as_of=LATER)) == len(before)


def registered(toy: Toy) -> list[tuple[int, str | None]]:
    """The versions after the toy's own two, and the trainings that made them."""
    return toy.query(
        "select version, training_key from nightshift.model_versions where version > 2 order by version"
    )


_PROCESSES = multiprocessing.get_context("forkserver")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("when", "place", "before"),
    [
        ("after", "pipeline.adapters.registry:Registry.register", 0),
        ("before", "pipeline.training:_challenge", 1),
    ],
)
def test_a_training_that_is_killed_and_tried_again_registers_one_version(
    toy: Toy, when: str, place: str, before: int
) -> None:
    """Killed while only MLflow has it, the retry registers; once the table has it, the retry finds it."""
    days = [day.key for day in DAYS]
    process = _PROCESSES.Process(
        target=crash.train, args=(toy.variables, days, CHAMPION_SINCE, KEY, when, place)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    there = registered(toy)
    assert len(there) == before
    made = trained(toy, cause=training.Cause(key=KEY))
    assert registered(toy) == [(made.version, KEY)] == (there or [(made.version, KEY)])
    assert training.registry_of(toy.env).alias(JOB, "challenger") == made.version
    assert trained(toy, cause=training.Cause(key=KEY)) == toy.version(made.version)
    assert registered(toy) == [(made.version, KEY)]


def test_a_training_that_fails_after_it_has_registered_tells_that_version_when_it_is_tried_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("the task is gone")

    with monkeypatch.context() as broken:
        broken.setattr(training, "_challenge", fail)
        with pytest.raises(ConnectionError):
            trained(toy, cause=training.Cause(key=KEY))
    (before,) = registered(toy)
    made = trained(toy, cause=training.Cause(key=KEY))
    assert registered(toy) == [before] == [(made.version, KEY)]
    assert training.registry_of(toy.env).alias(JOB, "challenger") == made.version


def test_of_two_attempts_at_once_one_registers_and_both_tell_its_version(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, first = Registry.register, []

    def overtaken(*arguments: Any) -> Registered:
        monkeypatch.setattr(Registry, "register", register)
        first.append(trained(toy, cause=training.Cause(key=KEY)))
        return register(*arguments)

    monkeypatch.setattr(Registry, "register", overtaken)
    second = trained(toy, cause=training.Cause(key=KEY))
    assert second == toy.version(first[0].version)
    assert registered(toy) == [(second.version, KEY)]
    assert training.registry_of(toy.env).alias(JOB, "challenger") == second.version


def test_a_key_stands_for_one_training_and_is_refused_to_any_other(toy: Toy) -> None:
    made = trained(toy, DAYS[:5], cause=training.Cause(key=KEY))
    told = rf"must name one training of toy; version {made.version} has it, made of 2024-01-01 to 2024-01-05"
    for days, cause in (
        (DAYS, training.Cause(key=KEY)),
        (DAYS[:5], training.Cause(key=KEY, refit_of=1)),
    ):
        with pytest.raises(UsageError, match=told):
            trained(toy, days, cause=cause)
    with quiet_mlflow(), pytest.raises(UsageError, match=told):
        training.train(toy.env, JOB, DAYS[:5], CHAMPION_SINCE, 9, lambda _: None, training.Cause(key=KEY))
    replayed_again: list[Replayed] = []
    with quiet_mlflow():
        again = training.train(
            toy.env, JOB, DAYS[:5], CHAMPION_SINCE, None, replayed_again.append, training.Cause(key=KEY)
        )
    assert (again.version, replayed_again) == (made.version, [])


def test_a_training_that_is_found_again_challenges_no_newer_version_and_not_itself_as_champion(
    toy: Toy,
) -> None:
    def challenger_then() -> int | None:
        assert trained(toy, cause=training.Cause(key=KEY)).version == number
        return registry.alias(JOB, "challenger")

    registry, number = training.registry_of(toy.env), trained(toy, cause=training.Cause(key=KEY)).version
    toy.promote(number)
    assert challenger_then() is None
    toy.promote(1)
    assert challenger_then() == number
    toy.register_like(1)
    registry.challenge(JOB, 2)
    assert challenger_then() == 2


def promoted(toy: Toy, number: int, since: datetime | None = None, reason: str = "a test") -> list[str]:
    """The warnings of a promotion but those of the gate."""
    with quiet_mlflow():
        _, told = training.promote(
            toy.env, JOB, number, approved_by="ana", reason=reason, effective_from=since
        )
    return [warning for warning in told if "gate" not in warning]


def test_the_alias_follows_by_the_warehouses_clock_where_that_of_the_machine_is_slow(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("pipeline.training.datetime", Slow)
    assert promoted(toy, 2) == []
    assert training.registry_of(toy.env).alias(JOB, "champion") == 2


def test_who_promotes_what_is_not_champion_now_is_told(toy: Toy) -> None:
    ahead = datetime(2999, 1, 1, tzinfo=UTC)
    assert promoted(toy, 2, ahead) == ["version 2 is champion from 2999-01-01T00:00:00+00:00 on: now it is 1"]
    behind = CHAMPION_SINCE - timedelta(days=1)
    assert promoted(toy, 2, behind) == [f"version 2 is champion from {behind.isoformat()} on: now it is 1"]
    assert promoted(toy, 2, LATER) == []


def test_who_gives_no_reason_changes_nothing(toy: Toy) -> None:
    for change in (
        lambda: training.promote(toy.env, JOB, 2, approved_by="ana", reason=" "),
        lambda: training.rollback(toy.env, JOB, approved_by="ana", reason=""),
        lambda: unpublish(toy.env, JOB, NIGHT, approved_by=None, reason=" "),
    ):
        with pytest.raises(UsageError, match=r"--reason must tell why"):
            change()


def test_what_a_table_held_on_the_night_is_learned_from_although_it_was_overwritten(toy: Toy) -> None:
    known = "{table: source.toy, known_at: known_at}"
    toy.edit("dags/toy.yaml", known, "{table: source.toy, overwritten: true}")
    before = replayed(toy)
    toy.night(SCORED)
    toy.execute("update source.toy set amount = 0 where day = %s", SCORED.day)
    assert replayed(toy).fingerprint == before.fingerprint
    toy.execute("update nightshift.runs set snapshot_fingerprint = null")
    assert replayed(toy).fingerprint != before.fingerprint


ASKED_OTHERWISE = [
    ("select * from toy where day = :day\n", "select * from toy where day = :day and id > 0\n"),
    ("where toy.day >= :day - 7 and", "where toy.day >= :day - 6 and"),
    ("select :day_start as day_start,", "select :day_start as day_start, 1 as one,"),
    ('cutoff: "03:00"', 'cutoff: "02:00"'),
    ("amount: float\n", "amount: float?\n"),
    ("{table: source.toy_sales, known_at: known_at}", "{table: source.toy_sales, overwritten: true}"),
]


def test_a_snapshot_that_was_asked_anything_else_is_not_reused(toy: Toy) -> None:
    run = toy.night(SCORED)
    for old, new in ASKED_OTHERWISE:
        toy.edit("dags/toy.yaml", old, new)
        assert reused(toy) == [], new
        toy.edit("dags/toy.yaml", new, old)
    assert reused(toy) == [run["run_id"]]


def test_the_run_that_read_its_day_in_time_goes_before_a_newer_one(toy: Toy) -> None:
    first, second = toy.night(SCORED), toy.night(SCORED)
    assert reused(toy) == [second["run_id"]]
    toy.execute("update nightshift.runs set as_of = false where run_id = %s", second["run_id"])
    assert reused(toy) == [first["run_id"]]


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_no_model_or_table_takes_is_refused_before_any_night_is_read(toy: Toy, seed: int) -> None:
    read: list[Replayed] = []
    with quiet_mlflow(), pytest.raises(UsageError, match=f"from 0 to 2147483647; got {seed}"):
        training.train(toy.env, JOB, DAYS, CHAMPION_SINCE, seed, read.append)
    assert read == []


def test_a_run_that_was_taken_back_goes_behind_the_one_that_readers_see(toy: Toy) -> None:
    first, second = toy.night(SCORED), toy.night(SCORED)
    unpublish(toy.env, JOB, SCORED, approved_by=None, reason="a test")
    assert reused(toy) == [first["run_id"]]
    unpublish(toy.env, JOB, SCORED, approved_by=None, reason="a test")
    assert reused(toy) == [second["run_id"]]


def test_a_replayed_night_leaves_no_files_while_others_are_replayed(toy: Toy) -> None:
    """A year of nights would fill the disk."""
    for night in replay(toy.env, toy.job(), tree_code(toy.env, toy.job()), DAYS, CHAMPION_SINCE):
        (folder,) = toy.env.store.scratch.iterdir()
        assert all(place.name > night.partition.key for place in folder.iterdir())


def without_labels(toy: Toy, day: Partition) -> None:
    """Nobody knew a label of the day's when the training asked."""
    toy.execute("update source.toy_sales set known_at = %s where day = %s", LATER, day.day)


def test_a_training_whose_first_night_has_no_labels_registers_a_version(toy: Toy) -> None:
    without_labels(toy, DAYS[0])
    made = trained(toy)
    assert (made.trained_from, made.metrics["nights"]) == (DAYS[1].day, len(DAYS) - 1)


def test_features_are_not_asked_about_a_night_without_labels(toy: Toy) -> None:
    """They may refuse a frame without rows."""
    toy.edit(
        "features/toy.py", 'kinds = history["kinds"]', 'rows["kind"].iloc[0]\n    kinds = history["kinds"]'
    )
    without_labels(toy, SCORED)
    assert replayed(toy).rows is None
    assert replayed(toy).refused is None


def taken_away(toy: Toy, run_id: str) -> None:
    """As `nightshift prune` does."""
    run = ledger.as_run(toy.record(run_id))
    for place in run_files.between_stages(toy.env.store, run):
        toy.env.store.remove(place)


def test_a_snapshot_that_is_pruned_before_it_is_read_is_read_from_the_source(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ask = toy.night(SCORED), run_files.questions_of
    before = replayed(toy)

    def overtaken(*arguments: Any) -> Any:
        held = ask(*arguments)
        taken_away(toy, run["run_id"])
        return held

    monkeypatch.setattr(run_files, "questions_of", overtaken)
    after = replayed(toy)
    assert (before.reused, after.reused) == (run["run_id"], None)
    assert after.fingerprint == before.fingerprint


def test_a_snapshot_that_is_pruned_while_it_is_learned_from_stays_until_then(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, learn = toy.night(SCORED), pipeline.replay._learn

    def overtaken(*arguments: Any) -> Replayed:
        taken_away(toy, run["run_id"])
        return learn(*arguments)

    monkeypatch.setattr(pipeline.replay, "_learn", overtaken)
    assert reused(toy) == [run["run_id"]]


def reused(toy: Toy) -> list[str]:
    """The run whose snapshot a replay of the scored day reads, if any."""
    run = replayed(toy).reused
    return [run] if run else []


def learned(toy: Toy, as_of: datetime = CHAMPION_SINCE) -> pd.Series[float]:
    """The amounts of the rows that a training learns from on the scored day."""
    rows = replayed(toy, as_of).rows
    assert rows is not None
    return rows.features["amount"]


def replayed(toy: Toy, as_of: datetime = CHAMPION_SINCE) -> Replayed:
    """The scored day as a training reads it."""
    job = toy.job()
    (night,) = replay(toy.env, job, tree_code(toy.env, job), [SCORED], as_of)
    return night


def test_of_two_promotions_at_once_the_alias_names_the_later(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one has read who is champion, and is slow to tell MLflow."""
    follow, reached, go_on = training._follow, threading.Event(), threading.Event()

    def slow(alias: str, mirror: Callable[[str, int], None], job: str, version: int) -> list[str]:
        if version == 2:
            reached.set()
            go_on.wait(2)
        return follow(alias, mirror, job, version)

    def promote(version: int) -> None:
        training.promote(toy.env, JOB, version, approved_by="ana", reason="a test")

    monkeypatch.setattr(training, "_follow", slow)
    with quiet_mlflow(), ThreadPoolExecutor(2) as pool:
        earlier = pool.submit(promote, 2)
        assert reached.wait(30)
        later = pool.submit(promote, 1)
        later.add_done_callback(lambda _: go_on.set())
        earlier.result()
        later.result()
    assert training.registry_of(toy.env).alias(JOB) == 1
