"""Processes that end with us: whatever they start, and however we stop."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from pipeline.adapters.embedded.programs import OsUser

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every orphan below us, so that none gets out of sight (Linux only)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def below(pid: int) -> list[psutil.Process]:
    """The living processes below one, however deep."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children(recursive=True) if _lives(child)]
    return []


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def listening(pid: int) -> set[str]:
    """The addresses on which the processes below one listen."""
    return {
        line.laddr.ip
        for process in below(pid)
        for line in process.net_connections("inet")
        if line.status == psutil.CONN_LISTEN
    }


@dataclass(frozen=True)
class Running:
    """A started command: the root of a tree of processes, in a session of its own, with a log."""

    root: subprocess.Popen[bytes]
    log: Path

    @property
    def ended(self) -> int | None:
        """The exit code; None while it runs."""
        return self.root.poll()

    def processes(self) -> list[psutil.Process]:
        """The command's living processes, the root first."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.root.pid)
            return [process for process in (root, *below(root.pid)) if _lives(process)]
        return []

    def kill(self) -> None:
        """As kill -9 of a container: the root and all below it, at once."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.root.wait()

    def stop(self, number: signal.Signals) -> None:
        """Ask the root to end, as a container is asked to."""
        if self.ended is None:
            self.root.send_signal(number)

    def last_lines(self, count: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def start(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    folder: Path,
    log: Path,
    user: OsUser | None = None,
) -> Running:
    """Start a command with exactly this environment."""
    with log.open("ab") as output:
        root = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    return Running(root, log)


def end_all(patience: float) -> None:
    """End every process below us: after these seconds by force. Raises RuntimeError if one survives."""
    deadline = time.monotonic() + patience
    while (left := below(os.getpid())) and time.monotonic() < deadline + 10:
        if time.monotonic() > deadline:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        _reap()
        time.sleep(0.1)
    if left:
        raise RuntimeError(f"every process must have ended; got {left}")


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
