"""Long-running commands, each in a session of its own, by which all that it starts is found and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_GRACE = 20  # seconds between asking processes to end and ending them


@dataclass(frozen=True)
class Sessions:
    """The sessions that one owner has started, remembered in a file: it outlives the owner.

    A session is what processes cannot shake off by renaming themselves or losing their parents.
    """

    file: Path

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command with exactly these variables; what it says goes to the log."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        known = [*self._known(), (process.pid, psutil.Process(process.pid).create_time())]
        self.file.write_text(json.dumps(known), encoding="utf-8")
        return process

    def processes(self) -> list[psutil.Process]:
        """Every living process of the sessions."""
        since = dict(self._known())
        return [process for process in psutil.process_iter() if _belongs(process, since)]

    def stop(self) -> int:
        """Ask all of them to end, end what is left by force; how many there were."""
        found = self.processes()
        _signal(found, signal.SIGTERM)
        psutil.wait_procs(found, timeout=_GRACE)
        while left := self.processes():
            _signal(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=_GRACE)
        self.file.unlink(missing_ok=True)
        return len(found)

    def _known(self) -> list[tuple[int, float]]:
        if not self.file.exists():
            return []
        return [(int(number), float(started)) for number, started in json.loads(self.file.read_text())]


def _belongs(process: psutil.Process, since: Mapping[int, float]) -> bool:
    try:
        started = since.get(os.getsid(process.pid))
        # Older than its session: the number was given to somebody else.
        return started is not None and process.create_time() >= started and _lives(process)
    except (psutil.Error, ProcessLookupError):
        return False  # ended meanwhile


def _lives(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
