"""Sixty SIGKILLs at random instants of real nights: readers see whole days, and a rerun mends everything."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import psycopg
import pytest
from support.toy import NIGHT
from support.wholeness import assert_whole

from pipeline.planning import new_run_id

if TYPE_CHECKING:
    from support.toy import Toy

    from pipeline.run import Stage

pytestmark = pytest.mark.soak

SEED = 20130501
ROWS = 200_000
KILLS = 60
AT_LEAST = 5
MOST_KILLS = 150
STAGES: tuple[Stage, ...] = ("planned", "extracted", "validated", "scored", "sealed")
AIMS: tuple[Stage, ...] = (*STAGES, "published")

_SEEN_IN_SQL = (
    "select run_id, count(*), count(distinct id) from predictions.toy where day = %s group by run_id"
)
_SEEN_BY_DUCKDB = (
    "select run_id, count(*), count(distinct id) from read_parquet($1, hive_partitioning = true) "
    "where day = '2024-01-25' group by run_id"
)
Poll = Callable[[], list[tuple[Any, ...]]]


@dataclass
class Readers:
    """What readers of each kind saw, poll by poll: (run, rows, distinct keys), and their loud errors."""

    seen: dict[str, list[list[tuple[Any, ...]]]] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def reading(self, name: str, poll: Poll) -> Iterator[None]:
        """Poll in a thread until the block ends."""
        thread = threading.Thread(target=self._read, args=(name, poll), daemon=True)
        thread.start()
        yield
        self._end.set()
        thread.join()

    def _read(self, name: str, poll: Poll) -> None:
        polls = self.seen.setdefault(name, [])
        errors = self.errors.setdefault(name, [])
        while not self._end.wait(0.3):
            try:
                polls.append(poll())
            except (psycopg.Error, duckdb.Error, OSError) as error:
                errors.append(f"{type(error).__name__}: {error}")


def _sql(connection: psycopg.Connection) -> Poll:
    return lambda: connection.execute(_SEEN_IN_SQL, [NIGHT.day]).fetchall()


def _pandas(file: Path) -> Poll:
    def poll() -> list[tuple[Any, ...]]:
        rows = pd.read_parquet(file, columns=["run_id", "id"]).groupby("run_id")["id"]
        return list(pd.DataFrame({"rows": rows.size(), "keys": rows.nunique()}).itertuples(name=None))

    return poll


def _duckdb(file: Path) -> Poll:
    dataset = str(file.parents[1] / "*" / "*.parquet")

    def poll() -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            return connection.execute(_SEEN_BY_DUCKDB, [dataset]).fetchall()

    return poll


@dataclass
class Killer:
    """Starts nights as the command line does and kills them; `stages` tells where each run had got to."""

    toy: Toy
    folder: Path
    random: random.Random
    lasts: dict[str, float] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    early: int = 0

    def start(self, run_id: str) -> subprocess.Popen[bytes]:
        """A night of that name in a process of its own, on unmodified code."""
        command = [str(Path(sys.executable).with_name("nightshift")), "score", "toy"]
        with (self.folder / "night.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--day", NIGHT.key, "--run-id", run_id, "--json"],
                env={**os.environ, **self.toy.variables},
                stdout=log,
                stderr=log,
            )

    def measure(self) -> None:
        """How long a night stays in each stage, from one that is left alone."""
        run_id = new_run_id("toy", NIGHT)
        process = self.start(run_id)
        entered: dict[str, float] = {}
        for stage in self._stages_of(run_id, process):
            entered.setdefault(stage, time.monotonic())
        assert process.wait() == 0, (self.folder / "night.log").read_text()
        ends = [*list(entered.values())[1:], time.monotonic()]
        self.lasts = {stage: end - entered[stage] for stage, end in zip(entered, ends, strict=True)}

    def kill(self, run_id: str, aim: Stage) -> str | None:
        """Kill a night a random while after it enters a stage; where it had got to, None if it had ended."""
        process = self.start(run_id)
        for stage in self._stages_of(run_id, process):
            if AIMS.index(stage) >= AIMS.index(aim):
                break
        time.sleep(self.random.random() * self.lasts.get(aim, 0.0))
        process.kill()
        if process.wait() == 0:
            self.early += 1
            return None
        assert process.returncode == -signal.SIGKILL, (self.folder / "night.log").read_text()
        # The server may still be at work on the last statement of the dead process.
        time.sleep(0.2)
        reached: Stage = self.toy.record(run_id)["stage"]
        self.killed[reached] += 1
        return reached

    def _stages_of(self, run_id: str, process: subprocess.Popen[bytes]) -> Iterator[Stage]:
        statement = "select stage from nightshift.runs where run_id = %s"
        with psycopg.connect(self.toy.url, autocommit=True) as connection:
            while process.poll() is None:
                for (stage,) in connection.execute(statement, [run_id]):
                    yield stage
                time.sleep(0.001)

    def next_aim(self) -> Stage | None:
        """A stage that is still short of kills, then any; None when there were enough."""
        short = [stage for stage in STAGES if self.killed[stage] < AT_LEAST]
        if not short and self.killed.total() >= KILLS:
            return None
        assert self.killed.total() < MOST_KILLS, f"no {AT_LEAST} kills in {short}: {self.killed}"
        left = KILLS - self.killed.total()
        return self.random.choice(short if short and left < 2 * AT_LEAST * len(short) else AIMS)


def _make_a_day(toy: Toy) -> None:
    toy.fill(NIGHT, rows=ROWS, first_id=1000)
    toy.execute("update source.toy set amount = -1 where day = %s and id %% 5000 = 0", NIGHT.day)
    toy.fill(NIGHT, rows=3, first_id=1000)
    toy.execute("insert into source.toy (day, kind, known_at) values (%s, 'ball', %s)", NIGHT.day, NIGHT.day)


def _check_readers(toy: Toy, readers: Readers) -> None:
    """Every poll saw one run, whole, and never an older run after a newer one."""
    runs = {run["run_id"]: run for run in toy.runs()}
    for name, polls in readers.seen.items():
        assert len(polls) > KILLS, name
        tokens = [_token_of_whole(poll, runs) for poll in polls]
        assert tokens == sorted(tokens), name


def _token_of_whole(poll: list[tuple[Any, ...]], runs: dict[str, dict[str, Any]]) -> int:
    ((run_id, rows, keys),) = poll
    run = runs[run_id]
    assert rows == keys == run["rows_in"] - run["rows_withheld"] == run["rows_scored"] + run["rows_fallback"]
    return int(run["token"])


@pytest.mark.timeout(7200)
def test_sixty_kills_at_random_instants_leave_every_day_whole(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make_a_day(toy)
    killer = Killer(toy, tmp_path, random.Random(SEED))
    killer.measure()
    assert_whole(toy, NIGHT)
    file = Path(toy.env.store.current_file("toy", NIGHT).path)
    readers, outcomes = Readers(), Counter[tuple[str, str]]()
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(toy.url, autocommit=True))
        for name, poll in {"sql": _sql(connection), "pandas": _pandas(file), "duckdb": _duckdb(file)}.items():
            stack.enter_context(readers.reading(name, poll))
        while aim := killer.next_aim():
            run_id = new_run_id("toy", NIGHT)
            stage = killer.kill(run_id, aim)
            if stage is None:
                continue
            toy.fill(NIGHT, rows=1, first_id=10_000_000 + killer.killed.total())
            outcomes[stage, _rerun(toy, killer, run_id)] += 1
            assert_no_run_left_at_work(toy)
    with capsys.disabled():
        print(_table(killer, outcomes, readers))
    _check_readers(toy, readers)
    assert readers.errors["sql"] == []


def _rerun(toy: Toy, killer: Killer, killed: str) -> str:
    """The killed run again under its name, or a new run; readers then see it whole."""
    again = killer.random.random() < 0.5
    run_id = killed if again else new_run_id("toy", NIGHT)
    toy.night(run_id=run_id)
    assert assert_whole(toy, NIGHT) == run_id
    ended = toy.record(killed)["status"]
    return f"{'same' if again else 'new'} run published, killed one {ended}"


def assert_no_run_left_at_work(toy: Toy) -> None:
    """What a newer publish has overtaken is not called running any more."""
    assert {run["status"] for run in toy.runs()} <= {"published", "superseded"}


def _table(killer: Killer, outcomes: Counter[tuple[str, str]], readers: Readers) -> str:
    lines = [f"\n{killer.killed.total()} kills, seed {SEED}; {killer.early} nights ended before theirs"]
    for stage in AIMS:
        lasts = f"{killer.lasts.get(stage, 0.0):.2f} s alone"
        ended = ", ".join(f"{what} {n}" for (where, what), n in sorted(outcomes.items()) if where == stage)
        lines.append(f"{stage:<10} {killer.killed[stage]:>3}  {lasts}  {ended}")
    for name, polls in readers.seen.items():
        lines.append(f"{name:<10} {len(polls)} polls, {len(readers.errors[name])} loud errors")
    return "\n".join(lines)
