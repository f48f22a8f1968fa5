"""The DAGs that declarations make: parsed lightly, apart from each other, and run whole."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from support.airflow_here import Airflow
from support.toy import NIGHT, YESTERDAY

pytestmark = pytest.mark.airflow

TASKS = ["extract", "plan", "publish", "report", "resolve_day", "score", "validate", "wait_for_source"]


def night(airflow: Airflow, **conf: Any) -> dict[str, Any]:
    """One manual run of the toy's night."""
    return airflow.run("test", "toy__score", json.dumps({"day": NIGHT.key, **conf}))


def test_a_declaration_makes_its_dag_without_heavy_imports(airflow: Airflow) -> None:
    told = airflow.run("parse")
    assert told["dags"] == {"toy__score": TASKS, "toy__outcomes": ["evaluate"]}
    assert (told["errors"], told["heavy"]) == ({}, [])
    assert float(str(told["cpu_seconds"])) < 2


def test_a_broken_declaration_is_an_import_error_of_its_own_and_takes_no_other_job_with_it(
    airflow: Airflow,
) -> None:
    for folder, suffix in (("dags", "yaml"), ("features", "py"), ("expectations", "json")):
        file = airflow.toy.project / folder / f"toy.{suffix}"
        shutil.copyfile(file, file.with_name(f"broken.{suffix}"))
    airflow.toy.edit("dags/broken.yaml", "max_quarantined_share: 0.3", "max_quarantined_shar: 0.3")
    told: dict[str, Any] = airflow.run("parse")
    assert sorted(told["dags"]) == ["toy__outcomes", "toy__score"]
    (message,) = told["errors"].values()
    assert list(told["errors"]) == ["broken.py"]
    assert "did you mean 'max_quarantined_share'" in message


def test_a_night_runs_whole(airflow: Airflow) -> None:
    told = night(airflow)
    assert told["state"] == "success"
    assert set(told["tasks"].values()) == {"success"}
    (run,) = airflow.toy.runs()
    assert (run["status"], run["trigger"], run["rows_scored"]) == ("published", "manual", 200)
    assert len(airflow.toy.published()) == 200
    (event,) = told["events"]
    assert event == {
        "asset": "predictions.toy", "partition": NIGHT.key, "day": NIGHT.key, "run_id": run["run_id"],
        "status": "published", "degraded": False, "rows_in": 200, "rows_scored": 200, "rows_fallback": 0,
        "model_version": 1,
    }  # fmt: skip
    (note,) = told["notes"]
    assert f"toy {NIGHT.key}: published, model version 1 (current)" in note


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


def test_a_dry_run_tells_and_does_nothing(airflow: Airflow) -> None:
    told = night(airflow, dry_run=True)
    assert told["state"] == "success"
    assert airflow.toy.runs() == []
    assert told["events"] == []
    (note,) = told["notes"]
    assert f"Dry run: toy {NIGHT.key} would be scored by version 1 (current)" in note


def test_a_fault_of_the_data_fails_at_once_and_its_owner_is_told_once(airflow: Airflow) -> None:
    airflow.toy.execute("delete from source.toy where day = %s", NIGHT.day)
    told = night(airflow)
    assert told["state"] == "failed"
    assert told["tasks"]["extract[-1]"] == "failed"
    (alert,) = airflow.toy.rows("select * from nightshift.alerts")
    assert (alert["job"], alert["day"], alert["kind"]) == ("toy", NIGHT.day, "failed")
    assert "EmptyPartition" in alert["message"]


def test_a_model_policy_may_be_chosen(airflow: Airflow) -> None:
    night(airflow, version=2)
    (run,) = airflow.toy.runs()
    assert (run["model_version"], run["model_policy"]) == (2, "2")


def test_a_day_that_is_not_there_fails_where_it_waits_for_the_source(airflow: Airflow) -> None:
    ready = "ready:\n  sql: select count(*) > 500 as ready from toy where day = :day\n  until: '05:00'\n\n"
    airflow.toy.edit("dags/toy.yaml", "extract:", f"{ready}extract:")
    told = night(airflow, day=YESTERDAY.key)
    assert told["tasks"]["wait_for_source[-1]"] == "failed"
    assert airflow.toy.runs() == []
