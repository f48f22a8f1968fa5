"""The outcomes DAG: judges what is mature, tells what it did, and fails with an alert of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.airflow_here import Airflow
from support.toy import NIGHT, YESTERDAY

pytestmark = pytest.mark.airflow


def judged(airflow: Airflow) -> list[tuple[Any, ...]]:
    """Day, hindsight, rows and labelled rows of each evaluation."""
    return airflow.toy.query(
        "select day, hindsight, rows, labelled from nightshift.outcomes "
        "where metric = 'auc' and slice_column = 'all' and arm = 'all' order by day, evaluated_at"
    )


def test_mature_days_are_judged_and_the_note_tells_it(airflow: Airflow) -> None:
    for day in (YESTERDAY, NIGHT):
        airflow.toy.night(day)
    told = airflow.run("test", "toy__outcomes", "{}")
    assert (told["state"], told["tasks"]) == ("success", {"evaluate[-1]": "success"})
    assert judged(airflow) == [(day.day, True, 200, 200) for day in (YESTERDAY, NIGHT)]
    (note,) = told["notes"]
    assert "toy: 2 mature days, 2 runs judged, 2 evaluations written" in note


def test_the_form_may_name_days_to_judge_again(airflow: Airflow) -> None:
    airflow.toy.night()
    airflow.run("test", "toy__outcomes", "{}")
    airflow.toy.execute("update source.toy_sales set sold = not sold where day = %s and id = 1", NIGHT.day)
    airflow.run("test", "toy__outcomes", json.dumps({"from": NIGHT.key, "to": NIGHT.key}))
    assert len(judged(airflow)) == 2


def test_a_fault_of_the_labels_fails_and_its_owner_is_told(airflow: Airflow) -> None:
    airflow.toy.night()
    airflow.toy.edit("dags/toy.yaml", "select id, sold from sales", "select id, day as sold from sales")
    told = airflow.run("test", "toy__outcomes", "{}")
    assert told["state"] == "failed"
    (alert,) = airflow.toy.rows("select job, day, kind, message from nightshift.alerts")
    assert (alert["job"], alert["day"], alert["kind"]) == ("toy", None, "failed")
    assert "FatalError: labels must be true or false" in alert["message"]
