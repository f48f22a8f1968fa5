"""Which processes are the server's: told by a mark on their command lines, never by a number alone.

A process id in `postmaster.pid` may be stale after a kill or a reboot, and may be another program's by
now. The server is started with a `cluster_name` that holds its data folder's device and inode; PostgreSQL
shows it in the title of every process of that server, and titles are readable where /proc is guarded.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from pipeline.adapters.embedded.ports import answers

_POLL = 0.05  # seconds


@dataclass(frozen=True)
class ServerProcesses:
    """The processes at work on one data folder, which must exist."""

    data: Path

    @property
    def mark(self) -> str:
        """The `cluster_name` that the server is started with; unique on this machine, of fixed width."""
        status = self.data.stat()
        return f"nightshift-{status.st_dev:016x}-{status.st_ino:016x}"

    def postmaster(self) -> int | None:
        """The living server's process id; None when `postmaster.pid` is missing or stale."""
        first = "".join(self._pid_file()[:1])
        return int(first) if first.isdigit() and self._is_ours(int(first)) else None

    def ready(self) -> bool:
        """Whether the server lives and answers."""
        lines = self._pid_file()
        return lines[7:8] == ["ready"] and self.postmaster() is not None and answers(int(lines[3]))

    def settled(self, patience: float) -> bool:
        """Wait while the server is on its way up or down; False when it still is after these seconds."""
        return _reached(lambda: self.ready() or self.postmaster() is None, patience)

    def gone(self, patience: float) -> bool:
        """Wait for the server and its backends to end; False when some live after these seconds."""
        return _reached(lambda: not self.all(), patience)

    def all(self) -> list[int]:
        """Process ids of the server and its backends, orphans of a killed server included."""
        return [pid for pid in psutil.pids() if self._is_ours(pid)]

    def clear(self) -> None:
        """End what a dead server left behind, and forget its process id; the next start recovers."""
        self._signal_all(signal.SIGQUIT)
        if not self.gone(patience=10):
            self._signal_all(signal.SIGKILL)
            self.gone(patience=10)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.all():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).send_signal(number)

    def _is_ours(self, pid: int) -> bool:
        # A zombie has no command line: it is gone, though its number is still taken.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            return process.name() == "postgres" and self._is_marked(process)
        return False

    def _is_marked(self, process: psutil.Process) -> bool:
        # Anybody can write the mark on a command line of their own; only the data's owner counts.
        owned = process.uids().effective == self.data.stat().st_uid
        return owned and self.mark in " ".join(process.cmdline())

    def _pid_file(self) -> list[str]:
        file = self.data / "postmaster.pid"
        with suppress(FileNotFoundError):
            return [line.strip() for line in file.read_text().splitlines()]
        return []


def _reached(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
