"""The note of a DAG run: what Airflow has no room for would end its scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.airflow_here import airflow_variables

pytestmark = pytest.mark.airflow

_FITTED = """
import json, sys
from airflow.models.dagrun import DagRunNote
from dags.plugins.notes import fitting
fitted = [fitting(note) for note in json.load(sys.stdin)]
print(json.dumps([DagRunNote.__table__.c.content.type.length, *fitted]))
"""


def test_a_note_that_airflow_has_no_room_for_is_cut_after_a_line(tmp_path: Path) -> None:
    short, lines, line = "x" * 1000, "\n".join(f"- rule {number}" for number in range(200)), "x" * 1001
    done = subprocess.run(
        [sys.executable, "-c", _FITTED],
        env=airflow_variables(tmp_path, "postgresql://nobody@127.0.0.1/nowhere"),
        input=json.dumps([short, lines, line]),
        capture_output=True,
        text=True,
        check=True,
    )
    room, whole, first, start = json.loads(done.stdout.splitlines()[-1])
    assert (room, whole) == (1000, short)
    *kept, told = first.splitlines()
    assert kept == lines.splitlines()[: len(kept)]
    assert told == "… the rest is in the task's XCom `note`"
    assert room - 12 < len(first) <= room
    assert (start[:900], len(start)) == (line[:900], room)
