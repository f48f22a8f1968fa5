"""Nights run again: retries, backfills, versions pinned through roll-backs, what a run records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from support.toy import JOB, NIGHT, YESTERDAY, Toy

from pipeline import steps
from pipeline.adapters import ledger
from pipeline.cli.nights import run_backfill
from pipeline.errors import ModelError, RegistryError, RunError, UsageError
from pipeline.partition import Partition
from pipeline.planning import ModelPolicy, Reprocess, Request, plan

pytestmark = pytest.mark.integration

Summary = dict[str, Any]


def scores(toy: Toy, day: Partition = NIGHT) -> dict[int, float]:
    """What readers see: id to score."""
    return {key: row["score"] for key, row in toy.by_id(day).items()}


def no_model_may_help(toy: Toy) -> None:
    """Let nobody answer for the champion."""
    toy.edit(
        "dags/toy.yaml",
        "model_failure: [previous_model, baseline, carried_forward, default]",
        "model_failure: []",
    )


def backfill(toy: Toy, capsys: pytest.CaptureFixture[str], reprocess: Reprocess) -> tuple[int, Summary]:
    """Exit code and summary of a backfill of 23 to 25 January."""
    capsys.readouterr()
    code = 0
    try:
        run_backfill(toy.env, JOB, ("2024-01-23", NIGHT.key), reprocess, "current", as_json=True)
    except typer.Exit as ended:
        code = ended.exit_code
    line = [text for text in capsys.readouterr().out.splitlines() if text.startswith("{")][-1]
    summary: Summary = json.loads(line)
    return code, summary


# The same run again


def test_a_retry_of_a_run_reuses_its_sealed_snapshot_and_its_token(toy: Toy) -> None:
    no_model_may_help(toy)
    number = toy.own_artifacts()
    toy.promote(number)
    model = Path(toy.version(number).model_uri)
    data = model.read_bytes()
    model.write_bytes(b"broken")
    with pytest.raises(ModelError):
        toy.night(run_id="again")
    failed = toy.record("again")
    toy.execute("update source.toy set amount = 99 - amount where day = %s", NIGHT.day)
    model.write_bytes(data)
    record = toy.night(run_id="again")
    assert (failed["status"], failed["stage"], record["status"]) == ("failed", "validated", "published")
    assert len(toy.runs()) == 1
    same = ("token", "snapshot_fingerprint", "model_version", "started_at", "snapshot_uri")
    assert [record[name] for name in same] == [failed[name] for name in same]
    assert (record["error_type"], record["error_message"]) == (None, None)
    seen = scores(toy)
    assert toy.night()["snapshot_fingerprint"] != record["snapshot_fingerprint"]
    assert scores(toy) != seen


def test_publishing_a_published_run_changes_nothing(toy: Toy) -> None:
    record = toy.night(run_id="once")
    before = toy.published(), toy.rows("select * from nightshift.publications"), toy.parquet()
    again = toy.night(run_id="once")
    with toy.env.engine.connect() as connection:
        run = ledger.as_run(ledger.record(connection, record["run_no"]))
    steps.publish(toy.env, run)
    assert again["finished_at"] == record["finished_at"]
    assert toy.published() == before[0]
    assert toy.rows("select * from nightshift.publications") == before[1]
    assert toy.parquet().equals(before[2])


def test_a_run_id_of_another_day_is_refused(toy: Toy) -> None:
    toy.night(run_id="mine")
    with pytest.raises(UsageError, match="run mine must be of toy 2024-01-24"):
        toy.night(YESTERDAY, run_id="mine")


def test_a_failed_rerun_keeps_what_was_published(toy: Toy) -> None:
    first = toy.night()
    seen = toy.published(), toy.parquet()
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(RunError):
        toy.night()
    assert toy.published() == seen[0]
    assert toy.parquet().equals(seen[1])
    (day,) = toy.rows("select * from nightshift.day_status where day = %s", NIGHT.day)
    assert (day["published_run_id"], day["quality"], day["last_status"]) == (first["run_id"], "ok", "failed")


def test_a_rerun_replaces_the_day_and_keeps_the_history(toy: Toy) -> None:
    first = toy.night()
    second = toy.night()
    assert {row["run_id"] for row in toy.published()} == {second["run_id"]}
    assert set(toy.parquet()["run_id"]) == {second["run_id"]}
    (count,) = toy.query("select count(*), count(distinct run_id) from predictions.toy_history")
    assert count == (400, 2)
    assert second["token"] == first["token"] + 1
    (day,) = toy.rows("select * from nightshift.day_status where day = %s", NIGHT.day)
    assert day["restatements"] == 1


# Many nights


def test_a_backfill_goes_on_after_a_failed_night_and_later_runs_only_what_failed(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.execute("update source.toy set amount = -1 where day = %s and id <= 80", YESTERDAY.day)
    code, first = backfill(toy, capsys, "failed")
    assert (code, first["published"], [f["day"] for f in first["failed"]]) == (1, 2, [YESTERDAY.key])
    assert first["failed"][0]["error"] == "ValidationError"
    toy.execute("delete from source.toy where day = %s", YESTERDAY.day)
    toy.execute("delete from source.toy_sales where day = %s", YESTERDAY.day)
    toy.fill(YESTERDAY)
    assert [backfill(toy, capsys, "none")[1][name] for name in ("published", "skipped")] == [0, 3]
    code, second = backfill(toy, capsys, "failed")
    assert (code, second["published"], second["skipped"]) == (0, 1, 2)
    seen = {
        day: scores(toy, Partition(day)) for (day,) in toy.query("select distinct day from predictions.toy")
    }
    code, third = backfill(toy, capsys, "completed")
    assert (code, third["published"], third["rows_in"], len(seen)) == (0, 3, 600, 3)
    assert {day: scores(toy, Partition(day)) for day in seen} == seen
    assert toy.query("select count(*), count(distinct (day, id)) from predictions.toy") == [(600, 600)]
    assert {run["trigger"] for run in toy.runs()} == {"backfill"}


def test_the_declared_days_alone_can_be_scored(toy: Toy) -> None:
    with pytest.raises(UsageError, match="2024-01-01 to 2024-02-09"):
        toy.night(Partition.parse("2024-02-10"))
    assert toy.runs() == []


# Versions


def test_as_of_refuses_a_night_before_the_first_champion(toy: Toy) -> None:
    before = Partition.parse("2024-01-20")
    with pytest.raises(
        RegistryError, match=r"a champion of toy must be in force at 2024-01-20.*--effective-from"
    ):
        toy.night(before, policy="as-of")
    assert toy.runs() == []
    assert toy.night(before)["model_version"] == 1


def test_as_of_takes_the_version_that_was_in_force_at_the_cut_off(toy: Toy) -> None:
    """Cut-offs are at 02:00 UTC; version 2 comes at that very instant, version 3 a moment too late."""
    third = toy.register_like(2)
    toy.promote(2, datetime(2024, 1, 23, 2, tzinfo=UTC))
    toy.promote(third, datetime(2024, 1, 24, 2, 0, 1, tzinfo=UTC))
    toy.rollback()
    days = [Partition.parse(f"2024-01-{day}") for day in (22, 23, 24, 25)]
    versions = [plan(toy.env, Request(JOB, day, policy="as-of")).model_version for day in days]
    assert versions == [1, 2, 2, third]
    policies: tuple[ModelPolicy, ...] = ("current", 1)
    others = [plan(toy.env, Request(JOB, NIGHT, policy=policy)) for policy in policies]
    assert [run.model_version for run in others] == [2, 1]
    assert [run["model_policy"] for run in toy.runs()] == ["as-of"] * 4 + ["current", "1"]


def test_a_roll_back_runs_the_old_versions_own_feature_code(toy: Toy) -> None:
    first = toy.night()
    before = scores(toy)
    newer = toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] * 0,')
    toy.edit("features/toy.py", '"amount": rows["amount"],', '"amount": rows["renamed"],')
    toy.promote(newer, datetime.now(UTC))
    assert toy.night()["model_version"] == newer
    assert scores(toy) != before
    toy.rollback()
    last = toy.night()
    assert (last["model_version"], last["feature_version"]) == (1, first["feature_version"])
    assert scores(toy) == before


def test_an_unregistered_version_is_refused_before_anything_is_read(toy: Toy) -> None:
    with pytest.raises(RegistryError, match="there are: 1, 2"):
        toy.night(policy=9)
    assert toy.runs() == []


# What a run records


def test_every_run_tells_what_law_8_names(toy: Toy) -> None:
    """Only what a sound night has nothing to say about is null."""
    run = toy.rows("select * from nightshift.runs where run_id = %s", toy.night()["run_id"])[0]
    silent = {"error_type", "error_message", "rollout_no", "pruned_at", "pruned_bytes"}
    assert {name for name, value in run.items() if value is None} == silent
    assert run["owners"] == {
        "team": "Toys",
        "on_call": "toys-oncall@example.com",
        "approvers": ["ana", "ben"],
    }
    assert (run["as_of"], run["proved"], run["trigger"], run["model_policy"]) == (
        True,
        True,
        "manual",
        "current",
    )
    assert run["cutoff"] == datetime(2024, 1, 25, 2, tzinfo=UTC)
    assert run["feature_version"] == toy.version(1).feature_version
    assert all(run[name] > 0 for name in ("cpu_seconds", "peak_memory_mb", "bytes_read"))
    rules = {result["rule"]: result["success"] for result in run["suite_results"]}
    assert rules["engine:key_unique"]
    assert rules["expect_column_values_to_be_between"]
    assert len(run["snapshot_fingerprint"]) == len(run["parquet_sha256"]) == len(run["suite_sha256"]) == 64


def test_a_run_over_an_overwritten_source_is_marked(toy: Toy) -> None:
    toy.edit(
        "dags/toy.yaml",
        "sales: {table: source.toy_sales, known_at: known_at}",
        "sales: {table: source.toy_sales, overwritten: true}",
    )
    assert toy.night()["as_of"] is False


def test_a_failed_run_tells_why_and_what_it_used(toy: Toy) -> None:
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(RunError):
        toy.night()
    run = toy.last_run()
    assert (run["status"], run["stage"], run["error_type"]) == ("failed", "planned", "EmptyPartition")
    assert run["finished_at"] is not None
    assert run["cpu_seconds"] > 0
