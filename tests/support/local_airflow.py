"""`nightshift airflow` as an operator starts it, over a copy of the toy project, and how to talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from support.toy import Toy

from pipeline.cli.airflow import LocalAirflow

DAG, OUTCOMES, TRAIN = "toy__score", "toy__outcomes", "toy__train"
NIGHTSHIFT = Path(sys.executable).with_name("nightshift")
CONSUMER = Path(__file__).with_name("consumer")
FINISHED = ("success", "failed")


class Refused(OSError):
    """The API said no; `code` is HTTP's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@dataclass(frozen=True)
class Shown:
    """A page, or its refusal."""

    code: int
    headers: Message
    text: str


@dataclass(frozen=True)
class Local:
    """A running local Airflow."""

    toy: Toy
    process: subprocess.Popen[str]
    port: int
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: object = None, user: str = "admin") -> Any:
        """What the public API answers; raises Refused where it says no."""
        return self._open(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token(user)}"})

    def page(self, path: str, user: str | None = None) -> Shown:
        """A page below the address as a browser with that user's cookie gets it, or without any login."""
        cookie = {"Cookie": f"_token={self._token(user)}"} if user else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, headers=cookie), timeout=60
            ) as answer:
                return Shown(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Shown(error.code, error.headers, error.read().decode())

    def stop(self) -> dict[str, int]:
        """What `make airflow-stop` runs, and tells."""
        words = [str(NIGHTSHIFT), "airflow", "--stop", "--json"]
        told = subprocess.run(words, env=variables(self.toy), capture_output=True, check=True, timeout=120)
        stopped: dict[str, int] = json.loads(told.stdout)
        return stopped

    def _token(self, user: str) -> str:
        login = {"username": user, "password": self.passwords[user]}
        return str(self._open("POST", "/auth/token", login, {})["access_token"])

    def _open(self, method: str, path: str, body: object, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise Refused(error.code) from None

    def until_parsed(self, *dag_ids: str) -> None:
        """Wait for the DAG processor, then let the DAGs run."""
        until(lambda: {dag["dag_id"] for dag in self.call("GET", "/dags")["dags"]} >= set(dag_ids))
        for dag_id in dag_ids:
            self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, day: str) -> str:
        """Start one night; the DAG run's name."""
        asked = {"logical_date": None, "partition_key": day}
        return str(self.call("POST", f"/dags/{DAG}/dagRuns", asked)["dag_run_id"])

    def dag_runs(self, dag_id: str = DAG) -> list[dict[str, Any]]:
        """All DAG runs, the oldest first."""
        runs: list[dict[str, Any]] = self.call("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after")[
            "dag_runs"
        ]
        return runs

    def backfills(self) -> list[dict[str, Any]]:
        """All backfills of the DAG."""
        return list(self.call("GET", f"/backfills?dag_id={DAG}")["backfills"])

    def tasks(self, run: str, dag_id: str = DAG) -> dict[str, dict[str, Any]]:
        """The task instances of a DAG run by name; a shard's is the last one."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run)}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def until_finished(self, run: str, seconds: float = 240, dag_id: str = DAG) -> dict[str, Any]:
        """The DAG run once it has ended; calls that a restart interrupts are made again."""

        def ended() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run)}")
            except OSError:
                return None
            return found if found["state"] in FINISHED else None

        try:
            return dict(until(ended, seconds))
        except AssertionError as error:
            states = {name: task["state"] for name, task in self.tasks(run, dag_id).items()}
            error.add_note(f"tasks of {run}: {states}")
            raise

    def question(self, training: str) -> dict[str, Any]:
        """What the DAG run of a training asks its approver, once it may be answered.

        An answer before the scheduler has seen the end of the process that asks fails the task, which then
        asks again.
        """
        scheduler = LocalAirflow(self.toy.env, self.port).home / "logs" / "components" / "scheduler.log"
        ended = re.compile(
            rf"TaskInstance Finished: .*task_id=approve, run_id={re.escape(training)},.* state=awaiting_input"
        )

        def asked() -> dict[str, Any] | None:
            run = self.call("GET", f"/dags/{TRAIN}/dagRuns/{quote(training)}")
            assert run["state"] not in FINISHED, run["note"]
            found = self.call("GET", "/dags/~/dagRuns/~/hitlDetails?response_received=false")["hitl_details"]
            return found[0] if found and ended.search(scheduler.read_text()) else None

        return dict(until(asked, 240))


def processes_named(local: Local, words: str) -> list[psutil.Process]:
    """The processes of the local Airflow whose command holds the words."""
    found = LocalAirflow(local.toy.env, local.port).sessions.processes()
    return [process for process in found if words in " ".join(process.cmdline())]


def kill_task(local: Local) -> None:
    """The process that runs a task: a child of the scheduler's worker, the youngest of all."""
    scheduler = min(processes_named(local, "scheduler"), key=lambda process: process.create_time())
    youngest = max(scheduler.children(recursive=True), key=lambda process: process.create_time())
    youngest.kill()


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What the condition gives once that is true; AssertionError when it takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {condition}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def variables(toy: Toy) -> dict[str, str]:
    """What commands over the toy project are started with."""
    return {**os.environ, **toy.variables, "NIGHTSHIFT_DAGS": str(CONSUMER)}


@contextmanager
def running(toy: Toy) -> Iterator[Local]:
    """Start it, and end it as Ctrl-C does."""
    port = free_port()
    process = subprocess.Popen(
        [str(NIGHTSHIFT), "airflow", "--port", str(port), "--json"],
        env=variables(toy),
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "it ended before it was up"
            yield Local(toy, process, port, json.loads(line)["passwords"])
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(90)
            toy.env.server.remove()
