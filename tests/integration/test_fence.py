"""Runs of one day at once, answers that get lost, servers that go away: one run is published, the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import SecretStr
from support.faulty_line import faulty_line
from support.toy import NIGHT, YESTERDAY, Toy
from support.wholeness import assert_whole, parquet_rows

from pipeline import steps
from pipeline.errors import TransientError
from pipeline.planning import Request, plan

if TYPE_CHECKING:
    from pipeline.adapters.embedded import EmbeddedServer
    from pipeline.run import Run

pytestmark = pytest.mark.integration

_NIGHTSHIFT = [str(Path(sys.executable).with_name("nightshift"))]
_FLIP = b"UPDATE nightshift.pointer"
_MOMENTS = {
    "plan": [b"INSERT INTO nightshift.runs"],
    "planned": [b"INSERT INTO nightshift.runs", b"COMMIT"],
    "extract": [b"count(*)"],
    "validate": [b"nightshift.quarantine"],
    "load": [b"COPY "],
    "loaded": [b"COPY ", b"COMMIT"],
    "seal": [b"rows_withheld="],
    "sealed": [b"rows_withheld=", b"COMMIT"],
    "flip": [_FLIP],
    "flipped": [_FLIP, b"COMMIT"],
    "parquet": [b"nightshift parquet"],
    "shown": [b"nightshift parquet", b"COMMIT"],
}
"""What a night sends at its turning points."""


def _score(toy: Toy, run_id: str) -> subprocess.Popen[str]:
    """The command line's night, in a process of its own."""
    return subprocess.Popen(
        [*_NIGHTSHIFT, "score", "toy", "--day", NIGHT.key, "--run-id", run_id, "--json"],
        env={**os.environ, **toy.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    report: dict[str, Any] = json.loads(shown)
    return report


def _planned(toy: Toy) -> Run:
    return plan(toy.env, Request("toy", NIGHT))


def _finish(toy: Toy, run: Run, *names: str) -> None:
    for name in names:
        step: Callable[..., object] = getattr(steps, name)
        step(toy.env, run)


@contextmanager
def _over(toy: Toy, moment: str, fault: Callable[[], bool | None]) -> Iterator[Toy]:
    """The toy as a process sees it whose line to the warehouse breaks at a moment of the night."""
    with faulty_line(toy.url, _MOMENTS[moment], fault) as (url, line):
        with toy.with_settings(warehouse_url=SecretStr(url)) as distant:
            yield distant
        assert line.happened


def _cut() -> bool:
    return False


def _answer_lost() -> bool:
    return True


@pytest.mark.parametrize("done", [0, 1, 2, 3], ids=["planned", "extracted", "validated", "scored"])
def test_an_older_token_that_finishes_last_ends_superseded(toy: Toy, done: int) -> None:
    names = ("extract", "validate", "score", "publish")
    older = _planned(toy)
    _finish(toy, older, *names[:done])
    newer = toy.night()
    assert newer["token"] > older.token
    _finish(toy, older, *names[done:])
    assert toy.record(older.run_id)["status"] == "superseded"
    assert assert_whole(toy, NIGHT) == newer["run_id"]


def test_an_older_token_that_nobody_retired_is_held_back_by_the_pointer(toy: Toy) -> None:
    older = _planned(toy)
    _finish(toy, older, "extract", "validate", "score")
    with psycopg.connect(toy.url) as busy:
        busy.execute("select 1 from nightshift.runs where run_no = %s for share", [older.run_no])
        newer = toy.night()
    assert toy.record(older.run_id)["status"] == "running"
    _finish(toy, older, "publish")
    assert toy.record(older.run_id)["status"] == "superseded"
    assert assert_whole(toy, NIGHT) == newer["run_id"]


@pytest.mark.parametrize("place", ["judge", "score_part", "prove"])
def test_a_run_overtaken_in_the_middle_of_a_step_ends_superseded(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    older = _planned(toy)
    where = "pipeline.scoring.validate.validate" if place == "judge" else f"pipeline.steps.{place}"
    _before(monkeypatch, where, toy.night)
    ended = toy.night(run_id=older.run_id)
    assert (ended["status"], ended["error_type"]) == ("superseded", None)
    assert assert_whole(toy, NIGHT) == toy.last_run()["run_id"] != older.run_id


def _before(monkeypatch: pytest.MonkeyPatch, where: str, happens: Callable[[], object]) -> None:
    """Let something happen once, just before a function of the pipeline."""
    module, _, name = where.rpartition(".")
    function = getattr(sys.modules[module], name)

    def first(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(where, function)
        happens()
        return function(*args, **kwargs)

    monkeypatch.setattr(where, first)


@pytest.mark.soak
def test_a_superseded_night_exits_0(toy: Toy) -> None:
    older = _planned(toy)
    newer = toy.night()
    assert _ended(_score(toy, older.run_id))["status"] == "superseded"
    assert assert_whole(toy, NIGHT) == newer["run_id"]


def test_two_processes_at_once_publish_the_newer_token(toy: Toy) -> None:
    reports = [_ended(process) for process in [_score(toy, "first"), _score(toy, "second")]]
    newest = max(reports, key=lambda report: report["token"])
    assert newest["status"] == "published"
    assert {report["status"] for report in reports} <= {"published", "superseded"}
    assert assert_whole(toy, NIGHT) == newest["run_id"]


def test_threads_at_once_publish_the_newest_token(toy: Toy) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        toys = [stack.enter_context(toy.with_settings()) for _ in range(4)]
        records = list(pool.map(Toy.night, toys))
    newest = max(records, key=lambda record: record["token"])
    assert sorted(record["token"] for record in records) == [1, 2, 3, 4]
    assert (newest["status"], assert_whole(toy, NIGHT)) == ("published", newest["run_id"])


def _assert_published_once(toy: Toy, record: Mapping[str, Any]) -> None:
    assert (record["status"], record["error_type"]) == ("published", None)
    assert len(toy.runs()) == 1
    assert assert_whole(toy, NIGHT) == record["run_id"]


@pytest.mark.parametrize("moment", _MOMENTS)
def test_a_night_whose_line_is_cut_is_retried_and_published_once(toy: Toy, moment: str) -> None:
    with _over(toy, moment, _cut) as distant:
        record = distant.night()
    _assert_published_once(toy, record)


@pytest.mark.parametrize("moment", [name for name, sent in _MOMENTS.items() if sent[-1] == b"COMMIT"])
def test_a_commit_whose_answer_is_lost_counts(toy: Toy, moment: str) -> None:
    with _over(toy, moment, _answer_lost) as distant:
        record = distant.night()
    _assert_published_once(toy, record)


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["plan", "extract", "validate", "load", "seal", "flip", "parquet"])
def test_a_night_whose_backends_are_terminated_is_retried_and_published_once(toy: Toy, moment: str) -> None:
    with _over(toy, moment, lambda: _terminate_backends(toy)) as distant:
        record = distant.night()
    _assert_published_once(toy, record)


def _terminate_backends(toy: Toy) -> None:
    toy.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("moment", ["extract", "load", "flip"])
def test_a_night_survives_a_restart_of_postgresql(toy: Toy, server: EmbeddedServer, moment: str) -> None:
    def restart() -> None:
        server.stop()
        server.start()

    with _over(toy, moment, restart) as distant:
        record = distant.night()
    _assert_published_once(toy, record)


def test_every_failure_of_the_control_tables_is_transient_when_the_server_is_away(toy: Toy) -> None:
    with _over(toy, "plan", _cut) as distant, pytest.raises(TransientError, match="must answer"):
        plan(distant.env, Request("toy", NIGHT))
    assert toy.runs() == []


def _left_behind(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> str:
    """A published run whose process ended before it replaced the Parquet file."""
    toy.night()
    with monkeypatch.context() as patched:
        patched.setattr(steps, "show_parquet", lambda *_: None)
        return str(toy.night()["run_id"])


@pytest.mark.parametrize("command", [["status", "toy"], ["score", "toy", "--day", YESTERDAY.key]])
def test_a_parquet_file_left_behind_is_mended_by_the_next_command(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    newest = _left_behind(toy, monkeypatch)
    assert set(parquet_rows(toy, NIGHT)["run_id"]) != {newest}
    environment = {**os.environ, **toy.variables}
    subprocess.run([*_NIGHTSHIFT, *command], env=environment, check=True, capture_output=True)
    assert assert_whole(toy, NIGHT) == newest


def test_a_parquet_file_that_cannot_be_mended_stops_no_other_night(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = _left_behind(toy, monkeypatch)
    Path(toy.record(newest)["parquet_uri"]).unlink()
    assert toy.night(YESTERDAY)["status"] == "published"


def test_what_killed_processes_left_in_staging_is_removed_by_a_later_night(toy: Toy) -> None:
    left = toy.env.store.scratch / "left"
    left.mkdir(parents=True)
    (left / "part.parquet").write_bytes(b"half")
    os.utime(left, (0, 0))
    toy.night()
    assert list(toy.env.store.scratch.iterdir()) == []
