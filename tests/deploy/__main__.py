"""`python -m deploy`: installs as the image does, starts the stack, and takes nights through it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from deploy import nights
from deploy.api import Api
from deploy.processes import listening
from deploy.services import read_env, read_services
from deploy.stack import Stack, running

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parent.parent.parent
QUICK = {
    "TASK_HEARTBEAT_TIMEOUT": "20",  # seconds; a worker is killed here and the night waits for its retry
    "PARALLELISM": "4",
    "WORKER_CONCURRENCY": "2",
    "POOL_SLOTS": "4",
}
"""Settings of .env for a small machine."""

err = Console(stderr=True, highlight=False)


def main() -> int:
    """Run it all; exit code 0 when every night was published once and whole."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line on stdout")
    parser.add_argument("--up", action="store_true", help="start the stack and keep it up until Ctrl-C")
    parser.add_argument("--image", type=Path, help="what .ci/image has installed; else it is installed anew")
    arguments = parser.parse_args()
    # SIGINT by name too: a background shell starts its children with it ignored, and Python leaves it so.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with workplace() as folder:
            stack, variables = make_stack(folder, arguments.image)
            report = keep_up(stack, variables) if arguments.up else show(stack, variables)
    except KeyboardInterrupt:
        err.print("stopped; no process is left")
        return 130
    if arguments.json:
        sys.stdout.write(json.dumps(report) + "\n")
    return 0 if all(report.get("published", {}).values()) else 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for everything that the stack writes; kept, with its logs, only when something fails."""
    folder = Path(tempfile.mkdtemp(prefix="nightshift-compose-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through
    try:
        yield folder
    except Exception:
        err.print(f"the logs are kept in {folder}")
        raise
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def make_stack(folder: Path, image: Path | None) -> tuple[Stack, dict[str, str]]:
    """Install the image and write fresh secrets; the stack with two workers, and its variables."""
    if image is None:
        image = folder / "image"
        _seconds("installing what the image holds", lambda: _script(".ci/image", image))
    _script(".ci/env", folder / ".env")
    variables = {**read_env(folder / ".env"), **QUICK}
    services = read_services(PROJECT / "docker-compose.yml", variables, profiles={"demo"})
    return Stack(services, PROJECT, folder, image, scale={"worker": 2}), variables


def _script(script: str, target: Path) -> None:
    subprocess.run([PROJECT / script, target], check=True, stdout=subprocess.DEVNULL)


def keep_up(stack: Stack, variables: dict[str, str]) -> dict[str, Any]:
    """Start the stack and wait for Ctrl-C."""
    with running(stack):
        err.print(_table(stack))
        err.print(f"http://127.0.0.1:{stack.port('api-server')}, admin, {variables['ADMIN_PASSWORD']}")
        signal.pause()
    return {}


def show(stack: Stack, variables: dict[str, str]) -> dict[str, Any]:
    """Start the stack and take a night, a backfill and a night with a killed worker through it."""
    with running(stack):
        err.print(_table(stack))
        services = {container.place.name: container.seconds for container in stack.containers}
        addresses = sorted(listening(os.getpid()))
        return {"services": services, "listening": addresses, **_nights(stack, variables)}


def _nights(stack: Stack, variables: dict[str, str]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{stack.port('api-server')}"
    api = Api.login(url, "admin", variables["ADMIN_PASSWORD"])
    _seconds("waiting for the DAG", lambda: nights.wait_for_dag(api))
    states = [
        _seconds("one night", lambda: nights.wait_for_run(api, nights.trigger(api, nights.NIGHT))),
        *_seconds("a backfill of three days", lambda: nights.backfill(api, *nights.BACKFILL)),
    ]
    run_id = nights.trigger(api, nights.KILLED)
    kill = _seconds(
        "kill -9 of a worker, and the retry", lambda: nights.kill_at_work(api, run_id, stack.of("worker"))
    )
    err.print(f"  {kill.worker} in the middle of {kill.task}; tried again after {kill.retried_after:.0f} s")
    states.append(_seconds("the rest of that night", lambda: nights.wait_for_run(api, run_id)))
    return {
        "states": states,
        "kill": asdict(kill),
        "viewer_refused": _viewer_refused(url, variables["VIEWER_PASSWORD"]),
        "reports": _reports(url, variables["VIEWER_PASSWORD"]),
        "published": _published(stack.of("worker")[0].environment["NIGHTSHIFT_WAREHOUSE_URL"]),
    }


def _published(warehouse_url: str) -> dict[str, bool]:
    count = (nights.KILLED - nights.NIGHT).days + 1
    days = [nights.NIGHT + timedelta(days=number) for number in range(count)]
    found = {day.isoformat(): nights.published(warehouse_url, day) for day in days}
    for day, counts in found.items():
        err.print(f"  {day}: {counts.rows} rows, {counts.runs} published run")
    return {day: counts.once_and_whole for day, counts in found.items()}


def _viewer_refused(url: str, password: str) -> bool:
    viewer = Api.login(url, "viewer", password)
    body = {"logical_date": None, "partition_key": nights.NIGHT.isoformat()}
    return viewer.refused(f"/dags/{nights.DAG}/dagRuns", body)


def _reports(url: str, password: str) -> dict[str, list[int]]:
    """What the report pages answer to the viewer and to somebody without a login, as HTTP's codes."""
    job = f"{url}/nightshift/jobs/{nights.JOB}"
    pages = [f"{url}/nightshift/jobs", job, f"{job}/dictionary", f"{job}/days/{nights.NIGHT}"]
    viewer = Api.login(url, "viewer", password)
    return {
        "viewer": [viewer.client.get(page).status_code for page in pages],
        "nobody": [httpx.get(page, timeout=60).status_code for page in pages],
    }


def _seconds(what: str, work: Callable[[], T]) -> T:
    begun = time.monotonic()
    result = work()
    err.print(f"{what}: {time.monotonic() - begun:.1f} s")
    return result


def _table(stack: Stack) -> Table:
    table = Table("service", "seconds", box=None, header_style="bold", pad_edge=False)
    for container in stack.containers:
        table.add_row(container.place.name, f"{container.seconds:.1f}")
    return table


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
