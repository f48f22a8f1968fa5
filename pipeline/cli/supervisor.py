"""The process that keeps the local Airflow up: how Ctrl-C ends it, and how it is ended from elsewhere."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 60  # seconds: more than ending all components takes
_POLL = 0.1  # seconds
_CLOCK = 2.0  # seconds that a process's time of start seems to move when the system's clock is set


@dataclass(frozen=True)
class Supervisor:
    """Which process it is, remembered in a file that a kill leaves behind."""

    file: Path

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """While inside, it is the process that asks."""
        own = psutil.Process()
        written = self.file.with_suffix(".new")  # nobody reads half of it
        written.write_text(json.dumps([own.pid, own.create_time()]), encoding="utf-8")
        written.replace(self.file)
        try:
            yield
        finally:
            self.file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask it to end and wait for that; one that does not is ended by force."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            with suppress(psutil.NoSuchProcess):  # by itself, meanwhile
                if process := self._process():
                    process.send_signal(end)
                    self._wait()
        self.file.unlink(missing_ok=True)

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self._process() and time.monotonic() < until:
            time.sleep(_POLL)

    def _process(self) -> psutil.Process | None:
        """The living process of the file; None for a number that somebody else has got since."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            number, started = json.loads(self.file.read_text(encoding="utf-8"))
            process = psutil.Process(number)
            ours = abs(process.create_time() - started) <= _CLOCK
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        return None


def _end(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt what is inside as Ctrl-C does, so that it cleans up behind itself."""
    # SIGINT by name too: a background shell starts its children with it ignored, and Python leaves it so.
    with _handled(_end):
        yield


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end what is inside, which is no failure."""
    with suppress(KeyboardInterrupt), interrupted_by_signals():
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is inside goes on to its end: an impatient second Ctrl-C would leave processes behind."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _ENDS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
