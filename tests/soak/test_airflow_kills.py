"""Kill -9 of each part of Airflow in the middle of a night: its day is published once and whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from support.local_airflow import DAG, Local, kill_task, processes_named, running, until
from support.toy import NIGHT, Template
from support.wholeness import assert_whole

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

ROWS = 300_000


@pytest.fixture(scope="module")
def local(toy_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with toy_template.copy(tmp_path_factory.mktemp("kills")) as toy:
        toy.fill(NIGHT, rows=ROWS, first_id=1000)
        with running(toy) as started:
            started.until_parsed(DAG)
            yield started


def kill_component(words: str) -> object:
    def kill(local: Local) -> None:
        for process in processes_named(local, words):
            process.kill()

    return kill


def kill_database(local: Local) -> None:
    """The whole server, its postmaster first."""
    postmaster = local.toy.env.server.state / "postgres" / "data" / "postmaster.pid"
    os.kill(int(postmaster.resolve().read_text().splitlines()[0]), signal.SIGKILL)


KILLS = {
    "a task": kill_task,
    "the scheduler": kill_component("airflow scheduler"),
    "the API server": kill_component("api_server"),
    "PostgreSQL": kill_database,
}


@pytest.mark.parametrize("victim", KILLS)
def test_a_kill_in_the_middle_of_a_night_leaves_the_day_published_once(local: Local, victim: str) -> None:
    known = {run["run_id"] for run in local.toy.runs()}
    dag_run = local.trigger(NIGHT.key)
    until(lambda: local.tasks(dag_run)["score"]["state"] == "running", 240)
    kill = KILLS[victim]
    assert callable(kill)
    kill(local)
    ended = local.until_finished(dag_run, 900)
    tries = {name: task["try_number"] for name, task in local.tasks(dag_run).items()}
    print(f"\nkilled {victim}: {ended['state']}, tries {tries}")
    assert ended["state"] == "success"
    published = assert_whole(local.toy, NIGHT)
    assert published not in known
    assert {run["status"] for run in local.toy.runs()} == {"published"}
