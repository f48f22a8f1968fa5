"""One step of a run, or a training, in a process of its own that dies at an exact place."""

from __future__ import annotations

import os
import pkgutil
import signal
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pipeline import steps, training
from pipeline.adapters import ledger
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.partition import Partition
from pipeline.retention import prune
from pipeline.run import Run
from pipeline.settings import Settings
from pipeline.unpublish import unpublish


def dying(function: Callable[..., Any], when: str, word: str) -> Callable[..., Any]:
    """The function, with SIGKILL before or after its work where an argument holds the word."""

    def called(*args: Any, **kwargs: Any) -> Any:
        meant = any(word in str(argument) for argument in args)
        if meant and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if meant:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called


def plant(place: str, when: str, word: str) -> None:
    """Replace the function at `module:attribute` by the dying one."""
    owner, _, name = place.replace(":", ".").rpartition(".")
    holder = pkgutil.resolve_name(owner)
    setattr(holder, name, dying(getattr(holder, name), when, word))


def main(variables: dict[str, str], step: str, run_id: str, when: str, place: str, word: str) -> None:
    """Do one step of a run, `repair` or `prune` its job, or `unpublish` its day; death comes in between.

    With a word the process dies only in a call that has it in one of its arguments.
    """
    os.environ.update(variables)
    env = Environment(Settings())
    with env.engine.connect() as connection:
        found = ledger.find(connection, run_id)
    assert found is not None
    plant(place, when, word)
    if step == "repair":
        steps.repair(env, load_job(env.project, found["job"]))
    elif step == "unpublish":
        unpublish(env, found["job"], Partition(found["day"]), approved_by=None, reason="a crash")
    elif step == "prune":
        prune(env, load_job(env.project, found["job"]))
    else:
        work: Callable[[Environment, Run], object] = getattr(steps, step)
        work(env, ledger.as_run(found))


def train(
    variables: dict[str, str],
    days: Sequence[str],
    as_of: datetime,
    key: str,
    when: str,
    place: str,
) -> None:
    """Train the toy on these days under a key; death comes in between."""
    os.environ.update(variables)
    plant(place, when, "")
    nights = [Partition.parse(day) for day in days]
    training.train(
        Environment(Settings()), "toy", nights, as_of, None, lambda _: None, training.Cause(key=key)
    )
