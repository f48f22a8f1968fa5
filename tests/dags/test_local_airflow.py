"""`make airflow` as its operator sees it: a browser, a viewer, a consumer, and nothing left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from support.browser import choose, logged_in, picture
from support.local_airflow import DAG, TRAIN, Local, Refused, running, until
from support.toy import NIGHT, Template

from pipeline.cli.airflow import LocalAirflow
from pipeline.gate import judge

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

DAYS = ["2024-01-22", "2024-01-23", "2024-01-24"]


@pytest.fixture(scope="module")
def local(toy_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with toy_template.copy(tmp_path_factory.mktemp("local")) as toy:
        toy.edit(
            "dags/toy.yaml", "train: {", "gate: {nights: 8, latency_ratio: 100, memory_ratio: 100}\ntrain: {"
        )
        with running(toy) as started:
            started.until_parsed(DAG, "consumer", TRAIN)
            yield started


@pytest.fixture(scope="module")
def page(local: Local) -> Iterator[Page]:
    with logged_in(local) as page:
        yield page


def test_a_backfill_of_three_days_from_the_dialog_publishes_them(local: Local, page: Page) -> None:
    page.goto(f"{local.url}/dags/{DAG}")
    page.get_by_test_id("trigger-dag-button").click()
    page.get_by_role("dialog").get_by_text("Backfill", exact=True).click()
    for number, day in enumerate((DAYS[0], DAYS[-1])):
        page.get_by_test_id("datetime-input").nth(number).click()
        date = page.locator("input[placeholder='YYYY/MM/DD']:visible")
        date.fill(day.replace("-", "/"))
        page.locator("input[placeholder='HH:mm']:visible").fill("00:00")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(date).to_have_count(0)
    expect(page.get_by_text("3 runs will be triggered")).to_be_visible(timeout=30_000)
    picture(page, "backfill-dialog")
    with page.expect_response("**/api/v2/backfills") as answer:
        page.get_by_role("button", name="Run Backfill").click()
    assert answer.value.status == 200
    until(lambda: [run["state"] for run in local.dag_runs()] == ["success"] * 3, 400)
    page.goto(f"{local.url}/dags/{DAG}")
    page.wait_for_timeout(3000)
    picture(page, "backfill-done")
    assert [run["partition_key"] for run in local.dag_runs()] == DAYS
    assert all("published, model version 1" in run["note"] for run in local.dag_runs())
    seen = local.toy.query("select day::text, count(*) from predictions.toy group by day order by day")
    assert seen == [(day, 200) for day in DAYS]
    assert {run["trigger"] for run in local.toy.runs()} == {"backfill"}


def test_each_published_day_starts_its_consumer(local: Local) -> None:
    until(lambda: [run["state"] for run in local.dag_runs("consumer")] == ["success"] * 3, 120)
    assert sorted(run["partition_key"] for run in local.dag_runs("consumer")) == DAYS


@pytest.mark.soak
def test_a_completed_backfill_again_leaves_one_published_run_a_day(local: Local) -> None:
    asked = {
        "dag_id": DAG, "from_date": f"{DAYS[0]}T00:00:00Z", "to_date": f"{DAYS[0]}T00:00:00Z",
        "reprocess_behavior": "completed", "max_active_runs": 2, "dag_run_conf": {"version": 2},
    }  # fmt: skip
    before = len(local.toy.runs())
    # Airflow takes one backfill of a DAG at a time, and marks the one before as over a little late.
    until(lambda: all(made["completed_at"] for made in local.backfills()))
    local.call("POST", "/backfills", asked)
    until(lambda: len(local.toy.runs()) > before and local.toy.last_run()["status"] == "published", 240)
    assert (local.toy.last_run()["model_version"], local.toy.last_run()["trigger"]) == (2, "backfill")
    shown = "select count(*) from nightshift.publications where day = %s and superseded_at is null"
    assert local.toy.query(shown, DAYS[0]) == [(1,)]
    assert local.toy.query("select count(*) from predictions.toy where day = %s", DAYS[0]) == [(200,)]


@pytest.mark.soak
def test_a_run_that_a_newer_one_overtakes_ends_green_and_clearing_plan_makes_a_new_run(local: Local) -> None:
    local.toy.night(NIGHT.next())  # the imports are done: the newer run is the quicker one
    dag_run = local.trigger(NIGHT.key)
    until(lambda: local.tasks(dag_run)["plan"]["state"] == "success")
    newer = local.toy.night()
    ended = local.until_finished(dag_run)
    assert (ended["state"], local.tasks(dag_run)["publish"]["state"]) == ("success", "skipped")
    assert "superseded" in ended["note"]
    assert {row["run_id"] for row in local.toy.published()} == {newer["run_id"]}
    again = {"task_ids": ["plan"], "dag_run_id": dag_run, "include_downstream": True, "dry_run": False}
    local.call("POST", f"/dags/{DAG}/clearTaskInstances", {**again, "only_failed": False})
    until(
        lambda: (
            local.toy.last_run()["token"] > newer["token"] and local.toy.last_run()["status"] == "published"
        )
    )
    assert {row["run_id"] for row in local.toy.published()} == {local.toy.last_run()["run_id"]}
    assert [run["status"] for run in local.toy.runs() if run["day"] == NIGHT.day] == [
        "superseded", "published", "published",
    ]  # fmt: skip


def test_a_viewer_may_look_and_not_start(local: Local) -> None:
    assert local.call("GET", f"/dags/{DAG}", user="viewer")["dag_id"] == DAG
    asked = {"logical_date": None, "partition_key": DAYS[0]}
    with pytest.raises(Refused) as refused:
        local.call("POST", f"/dags/{DAG}/dagRuns", asked, user="viewer")
    assert refused.value.code == 403


def pages(local: Local) -> list[str]:
    """The path of every kind of report page."""
    run = local.toy.last_run()
    dag_run = quote(local.dag_runs()[0]["dag_run_id"], safe="")
    verdict = judge(local.toy.env, "toy", 2, span=(NIGHT, NIGHT))
    job = "/nightshift/jobs/toy"
    return [
        "/nightshift/jobs", job, f"{job}/dictionary", f"{job}/days/{DAYS[0]}", f"{job}/runs/{run['run_id']}",
        f"/nightshift/dags/{DAG}/runs/{dag_run}", f"{job}/verdicts/{verdict.verdict_no}",
    ]  # fmt: skip


def test_report_pages_are_for_those_who_may_look_at_the_dag(local: Local) -> None:
    for path in pages(local):
        assert local.page(path).code == 401, path
        shown = local.page(path, "viewer")
        assert (shown.code, "toy" in shown.text) == (200, True), path
        assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
        assert shown.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in shown.headers["Content-Security-Policy"]


def test_no_page_describes_the_report_pages_to_everybody(local: Local) -> None:
    for path in ("docs", "redoc", "openapi.json"):
        assert local.page(f"/nightshift/{path}").code == 404


def test_a_report_of_what_is_not_there_is_not_found(local: Local) -> None:
    run_id = local.toy.last_run()["run_id"]
    for path in (
        "jobs/Toy", "jobs/to%20y", "jobs/another", f"jobs/another/runs/{run_id}", "jobs/toy/runs/none",
        "jobs/toy/runs/%3Cscript%3E", "jobs/toy/days/2024-13-01", "jobs/toy/days/2023-06-01",
        "dags/consumer/runs/manual__1", f"dags/{DAG}/runs/manual__1",
    ):  # fmt: skip
        found = local.page(f"/nightshift/{path}", "admin")
        assert (found.code, "script" in found.text.lower()) == (404, False), path
        assert local.page(f"/nightshift/{path}").code == 401, path


def test_the_tab_of_a_dag_run_shows_its_report(local: Local, page: Page) -> None:
    dag_run = next(run for run in local.dag_runs() if run["partition_key"] == DAYS[1])
    page.goto(f"{local.url}/dags/{DAG}/runs/{quote(dag_run['dag_run_id'], safe='')}")
    page.get_by_role("link", name="Report", exact=True).click()
    report = page.frame_locator("iframe[title=Report]")
    expect(report.get_by_role("heading", level=1)).to_contain_text(DAYS[1], timeout=30_000)
    page.wait_for_timeout(1000)
    picture(page, "report-tab")
    report.get_by_role("link", name="toy", exact=True).first.click()
    expect(report.get_by_role("heading", level=1)).to_contain_text("toy")
    picture(page, "report-job")


def test_the_menu_has_a_page_of_all_jobs(local: Local, page: Page) -> None:
    page.goto(local.url)
    page.get_by_role("button", name="Browse").click()
    picture(page, "report-menu")
    page.get_by_role("menuitem", name="Nightshift").click()
    jobs = page.frame_locator("iframe[title=Nightshift]")
    expect(jobs.get_by_role("link", name="toy")).to_be_visible(timeout=30_000)
    page.wait_for_timeout(1000)
    picture(page, "report-jobs")


def test_the_note_of_a_run_tells_where_its_report_is(local: Local) -> None:
    dag_run = next(run for run in local.dag_runs() if run["partition_key"] == DAYS[1])
    (path,) = re.findall(r"/nightshift/jobs/\S+", dag_run["note"])
    assert local.page(path, "viewer").code == 200


@pytest.mark.soak
def test_a_training_waits_for_its_approver_and_then_the_next_night_uses_the_new_champion(
    local: Local, page: Page
) -> None:
    local.toy.promote(2)  # six nights: ten are better
    asked = {"logical_date": None, "conf": {"from": "2024-01-01", "to": "2024-01-10"}}
    dag_run = local.call("POST", f"/dags/{TRAIN}/dagRuns", asked)["dag_run_id"]
    asks = local.question(dag_run)
    page.goto(f"{local.url}/required_actions")
    page.get_by_role("link", name=asks["subject"]).click()
    expect(page.get_by_text("better on average")).to_be_visible(timeout=30_000)
    page.locator("#element_approved_by").click()
    page.get_by_role("option", name="ana").click()
    picture(page, "approval")
    choose(page, "Approve")
    ended = local.until_finished(dag_run, dag_id=TRAIN)
    states = {name: task["state"] for name, task in local.tasks(dag_run, TRAIN).items()}
    assert (ended["state"], set(states.values())) == ("success", {"success"})
    champion = local.toy.rows("select * from nightshift.promotions order by promotion_no desc")[0]
    assert (champion["approved_by"], champion["actor"]) == ("ana", f"admin, {dag_run}")
    assert f"version {champion['version']} is champion, approved by ana" in ended["note"]
    assert local.toy.night(NIGHT)["model_version"] == champion["version"]
    assert local.toy.version(champion["version"]).refit_of == champion["version"] - 1
    verdict = "/nightshift/jobs/toy/verdicts/1"
    assert (local.page(verdict).code, local.page(verdict, "viewer").code) == (401, 200)
    assert local.page("/nightshift/jobs/toy/verdicts/99", "viewer").code == 404


def test_the_stop_from_elsewhere_ends_it_well_and_leaves_no_process_behind(local: Local) -> None:
    here = LocalAirflow(local.toy.env, local.port)
    count = len(here.sessions.processes())
    assert count
    assert local.stop()["stopped"] >= count
    assert local.process.wait(10) == 0
    assert here.sessions.processes() == []
    assert not here.supervisor.file.exists()
