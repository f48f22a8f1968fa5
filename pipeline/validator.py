"""Validation in a process of its own, whose seconds of imports pass beside all that comes before it.

That process reads its end of the pipe all the time: it ends with the one that began it, however that ends.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from pipeline.errors import NightshiftError, TransientError
from pipeline.usage import Meter, resident_mb, spare_memory_mb

if TYPE_CHECKING:
    from pipeline.run import Verdicts

Judge: TypeAlias = "Callable[..., Verdicts]"
"""Takes what `scoring.validate.validate` takes; `memory_mb` includes what this process holds already."""


def judge_here(*given: Any, memory_mb: int, threads: int) -> Verdicts:
    """Judge in this process; the first time takes seconds of imports."""
    from pipeline.scoring.validate import validate, warm_up

    warm_up()
    return validate(*given, memory_mb=spare_memory_mb(memory_mb), threads=threads)


class Validator:
    """A judge in a process of its own, which begins on entry and ends on exit; raises what `validate` raises.

    `once` ends that process with its answer: the stages that follow have its memory. One that was killed is a
    TransientError; the next call begins another.
    """

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._begun: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._cpu_seconds = self._own_peak_mb = self._peak_mb = 0.0

    def __enter__(self) -> Self:
        self._pipe()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, *given: Any, memory_mb: int, threads: int) -> Verdicts:
        """See `Judge`."""
        pipe = self._pipe()
        try:
            pipe.send((given, memory_mb - int(resident_mb()), threads))
            answer, cpu_seconds, self._own_peak_mb = pipe.recv()
        except (EOFError, ConnectionError):
            raise TransientError(
                f"validation's process must live until it answers; it ended with code {self._end()}, "
                "-9 where the system ran out of memory"
            ) from None
        self._cpu_seconds += cpu_seconds
        if self._once:
            self._end()
        if isinstance(answer, Exception):
            raise answer
        return cast("Verdicts", answer)

    def used(self) -> tuple[float, float]:
        """CPU seconds of its process since they were told last, and what both processes held at most, MiB.

        The sum of their peaks, as of now or of when that process ended: never less than what was held.
        """
        if self._begun:
            self._peak_mb = Meter().peak_memory_mb + self._own_peak_mb
        told, self._cpu_seconds = self._cpu_seconds, 0.0
        return told, self._peak_mb

    def _pipe(self) -> Connection:
        if self._begun is None:
            ours, theirs = Pipe()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # a command's own is for its one line of JSON
                    process_group=0,  # Ctrl-C is for the process that began it
                )
            self._begun = process, ours
        return self._begun[1]

    def _end(self) -> int | None:
        if self._begun is None:
            return None
        self._peak_mb = Meter().peak_memory_mb + self._own_peak_mb
        (process, pipe), self._begun = self._begun, None
        pipe.close()
        process.kill()
        return process.wait()


def serve(descriptor: int) -> None:
    """Judge what comes through the pipe, until its other end is closed."""
    gc.set_threshold(100_000)  # as the commands do
    pipe = Connection(descriptor)
    asked: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, asked), daemon=True).start()
    with suppress(Exception):  # raised again, and told, with the first answer
        from pipeline.scoring.validate import warm_up

        warm_up()
    before = 0.0
    while True:
        answer = _answer(asked.get())
        now = time.process_time()
        pipe.send((answer, now - before, Meter().peak_memory_mb))
        before = now


def _receive(pipe: Connection, asked: SimpleQueue[bytes]) -> None:
    with suppress(EOFError, ConnectionError):
        while True:
            asked.put(pipe.recv_bytes())
    os._exit(0)


def _answer(request: bytes) -> Verdicts | Exception:
    try:
        given, memory_mb, threads = pickle.loads(request)  # noqa: S301  from the process that began this one
        return judge_here(*given, memory_mb=memory_mb, threads=threads)
    except NightshiftError as error:
        return error
    except Exception as error:  # noqa: BLE001  raised where it was asked, with the place where it arose
        error.add_note(traceback.format_exc())
        return error
