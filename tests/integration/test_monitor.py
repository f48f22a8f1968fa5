"""A published night has its metrics; whatever goes wrong with them, it stays published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.toy import JOB, NIGHT, YESTERDAY, Toy

from pipeline import steps
from pipeline.adapters import ledger, run_files
from pipeline.errors import FatalError
from pipeline.monitor import LEAST_NIGHTS, monitor, training_profile
from pipeline.monitoring.profile import Profile
from pipeline.partition import Partition
from pipeline.planning import Request, plan
from pipeline.run import Run

pytestmark = pytest.mark.integration

Key = tuple[str, str, str, str]


def metrics(toy: Toy, run_id: str) -> dict[Key, float]:
    rows = toy.rows("select * from nightshift.metrics where run_id = %s", run_id)
    return {(row["part"], row["column_name"], row["metric"], row["baseline"]): row["value"] for row in rows}


def nights(toy: Toy, count: int, last: Partition = YESTERDAY) -> None:
    """Publish so many nights, up to and with the last one."""
    days = [Partition.parse(f"2024-01-{last.day.day - back:02}") for back in reversed(range(count))]
    for day in days:
        toy.night(day, trigger="backfill")


def as_run(record: Any) -> Run:
    return ledger.as_run(record)


def profile(toy: Toy, record: Any) -> Profile:
    found = run_files.load_profile(toy.env.store, as_run(record), record["parts"])
    assert found is not None
    return found


def published(toy: Toy, day: Partition = NIGHT, shards: int = 1) -> Run:
    """A night step by step as Airflow runs it, each shard by itself, and not monitored yet."""
    run = plan(toy.env, Request(JOB, day))
    steps.extract(toy.env, run, sharded=True)
    steps.validate(toy.env, run)
    numbers = steps.parts(toy.env, run)
    assert len(numbers) == shards
    for number in numbers:
        steps.score(toy.env, run, number)
    steps.publish(toy.env, run)
    return run


def test_a_night_tells_what_its_data_looked_like_and_how_far_it_is_from_training(toy: Toy) -> None:
    found = metrics(toy, toy.night()["run_id"])
    assert found["rows", "rows", "rows_in", "none"] == 200
    assert found["input", "note", "missing_share", "none"] == 0.2
    assert found["input", "known_at", "mean", "none"] == pytest.approx(-11)  # noon in UTC, the day before
    assert found["feature", "kind", "distinct", "none"] == 3
    assert (
        found["feature", "amount", "js", "training"]
        < found["feature", "amount", "wasserstein", "training"]
        < 0.1
    )
    assert found["feature", "kind", "unseen_share", "training"] == 0
    shown = [row["decision"] for row in toy.published()]
    assert found["score", "score", "share_over_threshold", "none"] == sum(shown) / len(shown)
    assert ("input", "id", "mean", "none") not in found
    assert {baseline for *_, baseline in found} == {"none", "training"}


def test_inputs_are_those_of_all_rows_and_scores_those_of_the_model(toy: Toy) -> None:
    toy.execute("update source.toy set amount = -1 where day = %s and id <= 20", NIGHT.day)
    toy.execute("update source.toy set id = 200 where day = %s and id = 199", NIGHT.day)
    record = toy.night()
    held = profile(toy, record)
    assert (record["rows_fallback"], record["rows_withheld"]) == (20, 2)
    assert {column.rows for column in held.input.values()} == {200}
    assert {column.rows for column in (*held.feature.values(), *held.score.values())} == {178}
    found = metrics(toy, record["run_id"])
    assert found["rows", "rows", "fallback_share", "none"] == 0.1
    assert found["rows", "rows", "withheld_share", "none"] == 0.01
    assert found["rows", "rows", "quarantined_share", "none"] == 0.11


@pytest.mark.soak
def test_the_nights_before_are_the_rolling_baseline_once_there_are_enough(toy: Toy) -> None:
    nights(toy, LEAST_NIGHTS - 1)
    assert "rolling" not in {key[3] for key in metrics(toy, toy.night()["run_id"])}
    nights(toy, 1, Partition.parse("2024-01-18"))
    first = metrics(toy, toy.night()["run_id"])
    assert first["input", "amount", "js", "rolling"] < 0.1
    toy.execute("update source.toy set kind = 'robot' where day = %s and id <= 100", NIGHT.day)
    second = metrics(toy, toy.night()["run_id"])
    assert second["input", "kind", "unseen_share", "rolling"] == 0.5
    assert second["input", "kind", "js", "rolling"] > first["input", "kind", "js", "rolling"] + 0.2


def test_a_night_in_shards_has_the_metrics_of_the_whole(toy: Toy) -> None:
    toy.fill(NIGHT, rows=130_000, first_id=201)
    toy.edit("dags/toy.yaml", "memory_mb: 1024", "memory_mb: 1024\n  rows_per_shard: 100000")
    expected = metrics(toy, toy.night()["run_id"])
    run = published(toy, shards=2)
    monitor(toy.env, run)
    found = metrics(toy, run.run_id)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
    distances = [
        key for key in expected if key[2] in ("js", "psi", "out_of_range_share", "q50", "unseen_share")
    ]
    assert {key: found[key] for key in distances} == {key: expected[key] for key in distances}


def test_a_rerun_and_metrics_computed_again_are_the_same_and_not_there_twice(toy: Toy) -> None:
    first = toy.night()
    before = metrics(toy, first["run_id"])
    monitor(toy.env, as_run(first))
    assert metrics(toy, first["run_id"]) == before
    again = metrics(toy, toy.night(trigger="backfill")["run_id"])
    assert again == pytest.approx(before, rel=1e-12, abs=1e-15)


@pytest.mark.soak
def test_a_rerun_of_an_old_day_changes_what_later_days_are_compared_with(toy: Toy) -> None:
    nights(toy, LEAST_NIGHTS)
    tonight = toy.night()
    before = metrics(toy, tonight["run_id"])
    toy.execute("update source.toy set amount = amount + 100 where day = %s", YESTERDAY.day)
    toy.night(YESTERDAY)
    after = metrics(toy, tonight["run_id"])
    changed = {key for key in before if before[key] != after[key]}
    assert ("input", "amount", "js", "rolling") in changed
    assert {baseline for *_, baseline in changed} == {"rolling"}


def test_a_superseded_run_has_no_metrics(toy: Toy) -> None:
    older = plan(toy.env, Request(JOB, NIGHT))
    toy.night()
    monitor(toy.env, older)
    assert toy.rows("select * from nightshift.metrics where run_no = %s", older.run_no) == []


def test_a_night_stays_published_with_a_warning_where_its_metrics_fail(toy: Toy) -> None:
    number = toy.register_like(1, profile_sha256="0" * 64)
    toy.promote(number)
    record = toy.night()
    assert (record["status"], len(toy.published())) == ("published", 200)
    (warning,) = toy.last_run()["warnings"]
    assert warning.startswith("monitoring did not end: FatalError: the training profile")
    with pytest.raises(FatalError, match="must be the registered one"):
        monitor(toy.env, as_run(record))


def test_a_version_from_before_profiles_were_kept_is_compared_with_the_nights_alone(toy: Toy) -> None:
    toy.promote(toy.register_like(1, profile_uri=None, profile_sha256=None))
    nights(toy, LEAST_NIGHTS)
    record = toy.night()
    assert record["warnings"] == []
    assert {key[3] for key in metrics(toy, record["run_id"])} == {"none", "rolling"}


@pytest.mark.soak
def test_nights_without_a_profile_do_not_count_as_baselines(toy: Toy) -> None:
    nights(toy, LEAST_NIGHTS - 1, YESTERDAY.previous())
    before = published(toy, YESTERDAY)
    run_files.profile_file(toy.env.store, before, 0).unlink()
    record = toy.night()
    assert record["warnings"] == []
    assert "rolling" not in {key[3] for key in metrics(toy, record["run_id"])}


def test_no_part_is_committed_whose_profile_is_not_sealed(toy: Toy) -> None:
    run = plan(toy.env, Request(JOB, NIGHT))
    run_files.profile_file(toy.env.store, run, 0).mkdir(parents=True)
    with pytest.raises(OSError, match="profile-00000"):
        toy.night(run_id=run.run_id)
    assert toy.query("select count(*) from nightshift.run_parts") == [(0,)]


def test_a_shard_that_the_baseline_answers_is_profiled_by_its_rows_once(toy: Toy) -> None:
    number = toy.own_artifacts()
    toy.promote(number)
    Path(toy.version(number).model_uri).write_bytes(b"broken")
    held = profile(toy, toy.night())
    assert {column.rows for part in ("input", "score") for column in getattr(held, part).values()} == {200}


def test_a_training_profile_holds_all_three_parts(toy: Toy) -> None:
    version = toy.version(1)
    held = training_profile(toy.env, version)
    assert held is not None
    assert {column.rows for column in held.input.values()} == {10 * 200}
    assert {column.rows for column in held.feature.values()} == {version.rows}
    assert {column.rows for column in held.score.values()} == {version.metrics["holdout"]["rows"]}
