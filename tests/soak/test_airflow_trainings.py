"""Trainings that start by the clock, by evidence and by hand; and nobody agrees to what they made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import expect
from support.browser import choose, logged_in, picture
from support.local_airflow import OUTCOMES, TRAIN, Local, Refused, kill_task, running, until
from support.toy import Template

from pipeline.adapters.versions import ModelVersion
from pipeline.cli.airflow import DATABASE, LocalAirflow

pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.timeout(900)]

DECLARED = """gate: {nights: 8, latency_ratio: 100, memory_ratio: 100}
retrain: {every_days: 30}
train: {schedule: "0 5 1 * *", """
"""By the clock and by evidence; the figures of the first are of a toy's few rows."""


@pytest.fixture(scope="module")
def local(toy_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with toy_template.copy(tmp_path_factory.mktemp("trainings")) as toy:
        toy.promote(2)  # six nights: more are better
        toy.edit("dags/toy.yaml", "train: {", DECLARED)
        with running(toy) as started:
            started.until_parsed(TRAIN)
            yield started


def waiting(local: Local, run_type: str) -> tuple[str, dict[str, Any]]:
    """The one training that was started like that: its DAG run, and its question once it waits."""

    def started() -> list[dict[str, Any]]:
        return [run for run in local.dag_runs(TRAIN) if run["run_type"] == run_type]

    (run,) = until(started)
    return run["dag_run_id"], local.question(run["dag_run_id"])


def newest(local: Local) -> tuple[ModelVersion, ModelVersion]:
    """The challenger that was trained last, and its refit."""
    ((number,),) = local.toy.query("select max(version) from nightshift.model_versions")
    refit = local.toy.version(number)
    assert refit.refit_of == number - 1
    return local.toy.version(number - 1), refit


def assert_nobody_is_promoted(local: Local, training: str, because: str) -> None:
    """It has ended green and says why; who is champion since when is as before."""
    ended = local.until_finished(training, dag_id=TRAIN)
    states = {name: task["state"] for name, task in local.tasks(training, TRAIN).items()}
    assert (ended["state"], states.pop("promote")) == ("success", "skipped")
    assert set(states.values()) == {"success"}
    assert ended["note"].splitlines()[0] == f"{because}; the champion stays"
    assert "page: /nightshift/jobs/toy/verdicts/" in ended["note"]
    rows = local.toy.query("select version from nightshift.promotions order by promotion_no")
    assert rows == [(1,), (2,)]


def answer(training: str) -> str:
    """Where a training's question is answered."""
    return f"/dags/{TRAIN}/dagRuns/{training}/taskInstances/approve/-1/hitlDetails"


def test_the_declared_clock_starts_a_training_and_the_owner_rejects_it_in_the_browser(local: Local) -> None:
    training, question = waiting(local, "scheduled")
    assert [(each.trigger, each.trigger_evidence) for each in newest(local)] == [("schedule", None)] * 2
    assert "asked for by the schedule" in question["body"]
    with logged_in(local) as page:
        page.goto(f"{local.url}/required_actions")
        page.get_by_role("link", name=question["subject"]).click()
        expect(page.get_by_text("better on average")).to_be_visible(timeout=30_000)
        picture(page, "training-question")
        choose(page, "Reject")
        assert_nobody_is_promoted(local, training, "Rejected by admin")
        page.goto(f"{local.url}/dags/{TRAIN}/runs/{training}")
        page.wait_for_timeout(3000)
        picture(page, "training-rejected")


def test_a_trigger_that_fires_starts_a_training_which_tells_its_evidence(local: Local) -> None:
    local.until_parsed(OUTCOMES)
    _, question = waiting(local, "asset_triggered")
    ((kind, evidence, judged_in),) = local.toy.query(
        "select kind, evidence, dag_run_id from nightshift.retrain_triggers"
    )
    assert judged_in == local.dag_runs(OUTCOMES)[-1]["dag_run_id"]
    told = f"{kind}: {evidence}"
    assert told.startswith("every_days: the champion learned up to 2024-01-06")
    assert [(each.trigger, each.trigger_evidence) for each in newest(local)] == [("every_days", told)] * 2
    assert f"asked for by every_days: {told}" in question["body"]


def test_an_owner_who_does_not_answer_for_seven_days_has_rejected(local: Local) -> None:
    training, _ = waiting(local, "asset_triggered")
    metadata = LocalAirflow(local.toy.env, local.port).env.server.url(DATABASE)
    of_it = "where dag_id = %s and run_id = %s and task_id = 'approve'"
    with psycopg.connect(metadata) as connection:
        patience = "select extract(day from trigger_timeout - start_date) from task_instance"
        assert connection.execute(f"{patience} {of_it}", (TRAIN, training)).fetchone() == (7,)
        passed = "update task_instance set trigger_timeout = now() - interval '1 second'"
        assert connection.execute(f"{passed} {of_it}", (TRAIN, training)).rowcount == 1
    assert_nobody_is_promoted(local, training, "Rejected: nobody has answered within 7 days")


def test_a_killed_training_is_tried_again_and_its_question_may_be_answered_by_the_api(local: Local) -> None:
    ((before,),) = local.toy.query("select max(version) from nightshift.model_versions")
    training = str(local.call("POST", f"/dags/{TRAIN}/dagRuns", {"logical_date": None})["dag_run_id"])
    until(lambda: local.tasks(training, TRAIN)["train"]["state"] == "running")
    kill_task(local)
    local.question(training)
    tried = local.tasks(training, TRAIN)["train"]
    assert (tried["state"], tried["try_number"]) == ("success", 2)
    challenger, _ = newest(local)
    assert (challenger.version, challenger.trigger) == (before + 1, "manual")
    rejects = {"chosen_options": ["Reject"], "params_input": {"approved_by": "ben"}}
    with pytest.raises(Refused) as refused:
        local.call("PATCH", answer(training), rejects, user="viewer")
    assert refused.value.code == 403
    local.call("PATCH", answer(training), rejects)
    assert_nobody_is_promoted(local, training, "Rejected by admin for ben")
