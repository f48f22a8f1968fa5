"""The DAGs that declarations make: parsed lightly, apart from each other, and run whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.airflow_here import Airflow, airflow_variables, metadata_copy
from support.toy import NIGHT, YESTERDAY, Template, Toy

from pipeline import outcomes
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.partition import Partition

pytestmark = pytest.mark.airflow

TASKS = ["extract", "plan", "publish", "report", "resolve_day", "score", "validate", "wait_for_source"]


TRAINING = ["approve", "gate", "promote", "refit", "resolve", "train"]


def night(airflow: Airflow, **conf: Any) -> dict[str, Any]:
    """One manual run of the toy's night."""
    (ended,) = airflow.runs("toy__score", {"day": NIGHT.key, **conf})
    return ended


@dataclass(frozen=True)
class Played:
    """Three runs of one process, and the toy they were over."""

    toy: Toy
    dry: dict[str, Any]
    whole: dict[str, Any]
    chosen: dict[str, Any]


@pytest.fixture(scope="module")
def played(
    server: EmbeddedServer,
    airflow_template: str,
    toy_template: Template,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Played]:
    """A dry run, a night, and the night before by another version."""
    folder = tmp_path_factory.mktemp("played")
    with toy_template.copy(folder) as toy, metadata_copy(server, airflow_template) as metadata:
        airflow = Airflow(toy, airflow_variables(folder / "airflow", metadata) | toy.variables)
        dry, whole = {"day": NIGHT.next().key, "dry_run": True}, {"day": NIGHT.key}
        chosen = {"day": YESTERDAY.key, "version": 2}
        yield Played(toy, *airflow.runs("toy__score", dry, whole, chosen))


def run_of(toy: Toy, day: Partition) -> dict[str, Any]:
    """The one run of a day."""
    (run,) = [run for run in toy.runs() if run["day"] == day.day]
    return run


def test_a_declaration_makes_its_dag_without_heavy_imports(airflow: Airflow) -> None:
    told = airflow.parse()
    assert told["dags"] == {
        "toy__score": TASKS,
        "toy__outcomes": ["evaluate"],
        "toy__rollout": ["roll_out"],
        "toy__train": TRAINING,
    }
    assert (told["errors"], told["heavy"]) == ({}, [])
    assert float(str(told["cpu_seconds"])) < 2


@pytest.mark.soak
def test_a_job_that_declares_requests_answers_them_by_a_dag_of_its_own(airflow: Airflow) -> None:
    airflow.toy.edit("dags/toy.yaml", "publish: {sql: true, parquet: true}", "publish: {}\nrequests: {}")
    told = airflow.parse()
    assert (told["errors"], told["dags"]["toy__requests"]) == ({}, ["answer"])
    airflow.toy.execute(
        "insert into nightshift.scoring_requests (job, key, requested_at) "
        "values ('toy', '{\"id\": 1}', now() - interval '25 hours')"
    )
    (ended,) = airflow.runs("toy__requests", {})
    assert (ended["state"], ended["tasks"]) == ("success", {"answer[-1]": "success"})
    assert ended["note"] == "0 requests answered, 0 failed, 1 expired"
    assert airflow.toy.query("select status from nightshift.scoring_requests") == [("expired",)]


def test_a_broken_declaration_is_an_import_error_of_its_own_and_takes_no_other_job_with_it(
    airflow: Airflow,
) -> None:
    for folder, suffix in (("dags", "yaml"), ("features", "py"), ("expectations", "json")):
        file = airflow.toy.project / folder / f"toy.{suffix}"
        shutil.copyfile(file, file.with_name(f"broken.{suffix}"))
    airflow.toy.edit("dags/broken.yaml", "max_quarantined_share: 0.3", "max_quarantined_shar: 0.3")
    told: dict[str, Any] = airflow.parse()
    assert sorted(told["dags"]) == ["toy__outcomes", "toy__rollout", "toy__score", "toy__train"]
    (message,) = told["errors"].values()
    assert list(told["errors"]) == ["broken.py"]
    assert "did you mean 'max_quarantined_share'" in message


def test_a_night_runs_whole(played: Played) -> None:
    told, run = played.whole, run_of(played.toy, NIGHT)
    assert told["state"] == "success"
    assert set(told["tasks"].values()) == {"success"}
    assert (run["status"], run["trigger"], run["rows_scored"]) == ("published", "manual", 200)
    assert played.toy.query("select count(*) from predictions.toy where day = %s", NIGHT.day) == [(200,)]
    assert told["events"] == [{
        "asset": "predictions.toy", "partition": NIGHT.key, "day": NIGHT.key, "run_id": run["run_id"],
        "status": "published", "degraded": False, "rows_in": 200, "rows_scored": 200, "rows_fallback": 0,
        "model_version": 1,
    }]  # fmt: skip
    (note,) = told["notes"]
    assert f"toy {NIGHT.key}: published, model version 1 (current)" in note


def test_a_dry_run_tells_and_does_nothing(played: Played) -> None:
    told, day = played.dry, NIGHT.next()
    assert told["state"] == "success"
    assert [run for run in played.toy.runs() if run["day"] == day.day] == []
    assert told["events"] == []
    (note,) = told["notes"]
    assert f"Dry run: toy {day.key} would be scored by version 1 (current)" in note


def test_a_model_policy_may_be_chosen(played: Played) -> None:
    run = run_of(played.toy, YESTERDAY)
    assert (run["model_version"], run["model_policy"]) == (2, "2")


@pytest.mark.soak
def test_a_large_night_is_shared_among_shards_that_say_which_they_are(airflow: Airflow) -> None:
    airflow.toy.fill(NIGHT, rows=150_000, first_id=1000)
    airflow.toy.edit("dags/toy.yaml", "memory_mb: 1024", "memory_mb: 1024\n  rows_per_shard: 60000")
    told = night(airflow)
    assert told["state"] == "success"
    assert sorted(told["titles"]) == ["shard 1", "shard 2", "shard 3"]
    (run,) = airflow.toy.runs()
    assert (run["parts"], run["rows_in"], run["rows_scored"]) == (3, 150_200, 150_200)
    (seen,) = airflow.toy.query("select count(*), count(distinct id) from predictions.toy")
    assert seen == (150_200, 150_200)
    assert airflow.toy.parquet()["id"].is_unique


@pytest.mark.soak
def test_a_fault_of_the_data_fails_at_once_and_its_owner_is_told_once(airflow: Airflow) -> None:
    airflow.toy.execute("delete from source.toy where day = %s", NIGHT.day)
    told = night(airflow)
    assert told["state"] == "failed"
    assert told["tasks"]["extract[-1]"] == "failed"
    (alert,) = airflow.toy.rows("select * from nightshift.alerts")
    assert (alert["job"], alert["day"], alert["kind"]) == ("toy", NIGHT.day, "failed")
    assert "EmptyPartition" in alert["message"]


@pytest.mark.soak
def test_a_day_that_is_not_there_fails_where_it_waits_for_the_source(airflow: Airflow) -> None:
    ready = "ready:\n  sql: select count(*) > 500 as ready from toy where day = :day\n  until: '05:00'\n\n"
    airflow.toy.edit("dags/toy.yaml", "extract:", f"{ready}extract:")
    told = night(airflow, day=YESTERDAY.key)
    assert told["tasks"]["wait_for_source[-1]"] == "failed"
    assert airflow.toy.runs() == []


def judged(airflow: Airflow) -> list[tuple[Any, ...]]:
    """Day, hindsight, rows and labelled rows of each evaluation."""
    return airflow.toy.query(
        "select day, hindsight, rows, labelled from nightshift.outcomes "
        "where metric = 'auc' and slice_column = 'all' and arm = 'all' order by day, evaluated_at"
    )


def test_mature_days_are_judged_and_what_asks_for_a_training_is_announced(airflow: Airflow) -> None:
    airflow.toy.edit("dags/toy.yaml", "train: {", "retrain: {every_days: 30, new_labels: 400}\ntrain: {")
    for day in (YESTERDAY, NIGHT):
        airflow.toy.night(day)
    (told,) = airflow.runs("toy__outcomes", {})
    assert (told["state"], told["tasks"]) == (
        "success",
        {"evaluate[-1]": "success", "retrain[-1]": "success"},
    )
    (event,) = told["events"]
    assert (event["asset"], event["kind"], event["triggers"]) == ("retrain.toy", "every_days", [1, 2])
    assert event["evidence"].endswith("new_labels: 400 labelled rows since 2024-01-10; declared are 400")
    assert judged(airflow) == [(day.day, True, 200, 200) for day in (YESTERDAY, NIGHT)]
    (note,) = told["notes"]
    assert "toy: 2 mature days, 2 runs judged, 2 evaluations written" in note
    assert "retraining asked for, every_days: the champion learned up to 2024-01-10" in note


@pytest.mark.soak
def test_a_rollout_is_started_from_a_form_by_who_is_logged_in(airflow: Airflow) -> None:
    form = {"action": "canary", "version": 2, "share": 0.3, "approved_by": "ana", "reason": "try it"}
    started, refused = airflow.runs("toy__rollout", form, form | {"approved_by": None})
    assert (started["state"], refused["state"]) == ("success", "failed")
    (row,) = airflow.toy.rows("select * from nightshift.rollouts")
    assert (row["kind"], row["version"], row["share"], row["approved_by"]) == ("canary", 2, 0.3, "ana")
    assert "toy: version 2 as canary for 30.0% of the keys, approved by ana" in started["note"]


@pytest.mark.soak
def test_the_form_may_name_days_to_judge_again(airflow: Airflow) -> None:
    airflow.toy.night()
    outcomes.evaluate(airflow.toy.env, "toy")
    airflow.toy.execute("update source.toy_sales set sold = not sold where day = %s and id = 1", NIGHT.day)
    airflow.runs("toy__outcomes", {"from": NIGHT.key, "to": NIGHT.key})
    assert len(judged(airflow)) == 2


@pytest.mark.soak
def test_a_fault_of_the_labels_fails_and_its_owner_is_told(airflow: Airflow) -> None:
    airflow.toy.night()
    airflow.toy.edit("dags/toy.yaml", "select id, sold from sales", "select id, day as sold from sales")
    (told,) = airflow.runs("toy__outcomes", {})
    assert told["state"] == "failed"
    (alert,) = airflow.toy.rows("select job, day, kind, message from nightshift.alerts")
    assert (alert["job"], alert["day"], alert["kind"]) == ("toy", None, "failed")
    assert "FatalError: labels must be true or false" in alert["message"]


def test_a_challenger_that_the_gate_does_not_accept_ends_green_and_asks_nobody(airflow: Airflow) -> None:
    airflow.toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 8}\ntrain: {")
    asked = {"from": "2024-01-01", "to": "2024-01-05", "as_of": "2024-01-21T00:00:00+00:00"}
    (told,) = airflow.runs("toy__train", asked)
    assert told["state"] == "success"
    done = {"resolve[-1]", "train[-1]", "gate[-1]"}
    assert {name for name, state in told["tasks"].items() if state == "success"} == done
    assert {told["tasks"][f"{name}[-1]"] for name in ("refit", "approve", "promote")} == {"skipped"}
    assert "**refuse**, verdict 1" in told["note"]
    assert "page: /nightshift/jobs/toy/verdicts/1" in told["note"]
    assert airflow.toy.query("select max(version) from nightshift.promotions") == [(1,)]
    assert airflow.toy.version(3).trigger == "manual"
