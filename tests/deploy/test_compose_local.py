"""docker-compose.yml as local processes: real PostgreSQL, Redis, Airflow and Celery workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]

_MARK = "nightshift-compose-"
"""Begins the name of the folder in which everything of a stack runs."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What .ci/image installs."""
    target = tmp_path_factory.mktemp("image")
    subprocess.run([Path(__file__).parents[2] / ".ci/image", target], check=True, stdout=subprocess.DEVNULL)
    return target


def test_nights_through_the_compose_file_are_published_once(project: Path, image: Path) -> None:
    with compose_local(project, image) as program:
        output, _ = program.communicate(timeout=1400)
    report = json.loads(output)
    assert program.returncode == 0
    assert report["states"] == ["success"] * 5
    assert set(report["published"].values()) == {True}
    assert report["viewer_refused"]
    assert report["reports"] == {"viewer": [200] * 4, "nobody": [401] * 4}
    assert report["listening"] == ["127.0.0.1"]
    assert report["kill"]["task"] in ("extract", "validate", "score")
    assert report["kill"]["retried_after"] < 180
    assert left() == []


def test_ctrl_c_leaves_no_process_behind(project: Path, image: Path) -> None:
    with compose_local(project, image, "--up") as program:
        while not any("redis-server" in " ".join(process.info["cmdline"] or ()) for process in left()):
            time.sleep(0.2)
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=90)
    assert program.returncode == 130
    assert left() == []


@contextmanager
def compose_local(project: Path, image: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program of `make compose-local`; ended, with all that it started, if the test fails."""
    command = [sys.executable, "-m", "deploy", "--json", "--image", str(image), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(project / "tests")}
    program = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE)
    try:
        yield program
    finally:
        program.terminate()
        program.wait(timeout=90)


def left() -> list[Any]:
    """Living processes that work in a stack's folder."""
    return [process for process in psutil.process_iter(["cmdline", "cwd"]) if _works_in_a_stack(process)]


def _works_in_a_stack(process: Any) -> bool:
    return any(_MARK in text for text in (process.info["cwd"] or "", *(process.info["cmdline"] or ())))
