"""Validation in a process of its own: the same verdicts and errors, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from datetime import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import TransientError, ValidationError
from pipeline.job import Extract, Validate
from pipeline.partition import Partition
from pipeline.run import Snapshot, Verdicts
from pipeline.scoring.boundary import arrow_schema
from pipeline.scoring.suite import load_suite
from pipeline.validator import Judge, Validator, judge_here

pytestmark = pytest.mark.integration

DAY = date(2013, 5, 1)
EXTRACT = Extract(key=("flight",), columns={"day": "date", "flight": "integer"}, sql="select")
SUITE = """{"name": "suite", "expectations": [
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 2}},
    {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["day", "flight"]}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "flight"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "flight", "min_value": 1}}
]}"""


@pytest.fixture(scope="module")
def validator() -> Iterator[Validator]:
    with Validator() as begun:
        yield begun


def judged(judge: Judge, folder: Path, *flights: int, **changed: Any) -> Verdicts:
    """The verdicts over flights of one day; every flight below 1 is bad, and half of them may be."""
    rows = [{"day": DAY, "flight": flight} for flight in flights]
    path = folder / "snapshot.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(EXTRACT.columns)), path)
    (folder / "suite.json").write_text(SUITE, encoding="utf-8")
    given = {
        "snapshot": Snapshot(path, len(rows), path.stat().st_size, "fingerprint"),
        "suite": load_suite(folder / "suite.json"),
        "extract": EXTRACT,
        "rules": Validate(max_quarantined_share=0.5),
        "partition": Partition(DAY),
        "binds": Partition(DAY).instants(ZoneInfo("UTC"), clock(3)),
        "target": folder / "verdicts.parquet",
    }
    return judge(*(given | changed).values(), memory_mb=2000, threads=1)


def children() -> list[psutil.Process]:
    """The processes of validators that this one began."""
    return [child for child in psutil.Process().children() if "serve(" in " ".join(child.cmdline())]


def gone(pid: int, patience: float = 10.0) -> bool:
    """Whether a process ends within these seconds; a zombie has ended."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_it_judges_as_this_process_would(validator: Validator, tmp_path: Path) -> None:
    there = judged(validator, tmp_path, 1, 2, 0)
    written = pq.read_table(there.path)
    assert (there.good, there.quarantined, there.withheld) == (2, 1, 0)
    assert there == judged(judge_here, tmp_path, 1, 2, 0)
    assert written == pq.read_table(there.path)


def test_one_process_judges_many_snapshots(validator: Validator, tmp_path: Path) -> None:
    before = children()
    assert [judged(validator, tmp_path, *range(1, end)).good for end in (4, 5, 6)] == [3, 4, 5]
    assert children() == before


@pytest.mark.parametrize(
    ("flights", "words"),
    [
        ((1,), "must meet every critical rule; got: expect_table_row_count_to_be_between"),
        ((1, 0, -1), "at most 50.0% of the rows may be bad; got 66.7% (2 of 3)"),
    ],
)
def test_a_refused_snapshot_is_told_in_the_same_words(
    validator: Validator, tmp_path: Path, flights: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValidationError) as there:
        judged(validator, tmp_path, *flights)
    with pytest.raises(ValidationError) as here:
        judged(judge_here, tmp_path, *flights)
    assert words in str(there.value) == str(here.value)


def test_rows_over_the_limit_are_written_all_the_same(validator: Validator, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        judged(validator, tmp_path, 1, 0, -1)
    assert pq.read_table(tmp_path / "verdicts.parquet").num_rows == 2


def test_an_error_of_no_kind_of_ours_is_raised_with_the_place_where_it_arose(
    validator: Validator, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        judged(validator, tmp_path, 1, 2, target=tmp_path / "absent" / "verdicts.parquet")
    assert "pipeline/scoring/verdicts.py" in "".join(raised.value.__notes__)


def test_a_killed_process_is_a_passing_fault_and_the_next_call_has_a_fresh_one(tmp_path: Path) -> None:
    before = children()
    with Validator() as validator:
        (killed,) = [child for child in children() if child not in before]
        killed.kill()
        with pytest.raises(TransientError, match="it ended with code -9"):
            judged(validator, tmp_path, 1, 2)
        assert judged(validator, tmp_path, 1, 2).good == 2
    assert children() == before


def test_one_that_serves_once_has_ended_with_its_answer_and_begins_again_when_asked(tmp_path: Path) -> None:
    before = children()
    with Validator(once=True) as validator:
        assert judged(validator, tmp_path, 1, 2).good == 2
        assert children() == before
        assert judged(validator, tmp_path, 1, 2, 3).good == 3


def test_what_the_process_used_is_told_once_and_its_memory_comes_on_top(tmp_path: Path) -> None:
    with Validator(once=True) as validator:
        judged(validator, tmp_path, 1, 2)
        cpu_seconds, peak_mb = validator.used()
        assert cpu_seconds > 1  # its imports
        assert peak_mb > 200 + psutil.Process().memory_info().rss / 2**21
        assert validator.used() == (0, peak_mb)


BEGUN = """
import time
from pipeline.validator import Validator
with Validator() as validator:
    print(validator._begun[0].pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def beginner() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has begun a validator, as a terminal's foreground group, and the validator's id."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


@pytest.mark.parametrize("seconds", [0.0, 0.5, 6.0])
def test_a_killed_night_leaves_no_validator_behind(
    beginner: tuple[subprocess.Popen[str], int], seconds: float
) -> None:
    process, validator = beginner
    time.sleep(seconds)
    assert psutil.pid_exists(validator)
    process.kill()
    assert gone(validator)


def test_ctrl_c_ends_both_and_shows_no_traceback_of_the_validator(
    beginner: tuple[subprocess.Popen[str], int],
) -> None:
    process, validator = beginner
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate()
    assert shown.count("Traceback") == 1
    assert shown.splitlines()[-1] == "KeyboardInterrupt"
    assert not psutil.pid_exists(validator)
