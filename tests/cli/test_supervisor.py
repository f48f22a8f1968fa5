"""The supervisor of the local Airflow: found by a file that may be stale, ended by every signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.cli.supervisor import Supervisor

_SUPERVISES = """
import sys, time
from pathlib import Path
from pipeline.cli.supervisor import Supervisor, ended_by_signals, undisturbed

with ended_by_signals(), Supervisor(Path(sys.argv[1])).recorded():
    try:
        print("up", flush=True)
        time.sleep(60)
    finally:
        with undisturbed():
            print("ending", flush=True)
            time.sleep(0.5)
            print("ended", flush=True)
"""


@contextmanager
def supervising(file: Path) -> Iterator[subprocess.Popen[str]]:
    """One as a background shell starts it: with SIGINT ignored."""
    ignoring = ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-c", _SUPERVISES, str(file)]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(tmp_path / "supervisor.json")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_every_signal_to_end_ends_it_well_and_a_second_one_cuts_nothing_short(
    supervisor: Supervisor, number: signal.Signals
) -> None:
    with supervising(supervisor.file) as process:
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(number)
        assert process.stdout.read() == "ended\n"
        assert process.wait(10) == 0
    assert not supervisor.file.exists()


def test_a_stop_from_elsewhere_waits_until_it_has_ended_well(supervisor: Supervisor) -> None:
    with supervising(supervisor.file) as process:
        supervisor.stop()
        assert process.wait(0.1) == 0
    assert not supervisor.file.exists()


def test_a_number_that_another_process_has_got_since_is_left_alone(supervisor: Supervisor) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        started = psutil.Process(other.pid).create_time()
        supervisor.file.write_text(json.dumps([other.pid, started - 3600]))
        supervisor.stop()
        assert other.poll() is None
        other.kill()
    assert not supervisor.file.exists()


def test_a_number_that_nobody_has_any_more_is_forgotten(supervisor: Supervisor) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        started = psutil.Process(ended.pid).create_time()
    supervisor.file.write_text(json.dumps([ended.pid, started]))
    supervisor.stop()
    assert not supervisor.file.exists()


def test_a_stop_without_one_does_nothing(supervisor: Supervisor) -> None:
    supervisor.stop()
    assert list(supervisor.file.parent.iterdir()) == []
