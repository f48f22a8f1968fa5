"""A night that is not published at its declared clock time: Airflow's deadline tells its owner, once."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from support.local_airflow import DAG, running, until
from support.toy import Toy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def test_a_night_that_has_not_published_by_its_deadline_raises_an_alert(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "  end: 2024-02-09\n", "")
    toy.edit("dags/toy.yaml", 'cutoff: "03:00"', 'cutoff: "00:00"')
    file = toy.project / "dags" / "toy.yaml"
    file.write_text(file.read_text() + '\nalerts: {publish_by: "00:01"}\n')
    today = datetime.now(ZoneInfo("Europe/Berlin")).date()
    with running(toy) as local:
        local.until_parsed(DAG)
        (scheduled,) = until(local.dag_runs)
        ended = local.until_finished(scheduled["dag_run_id"])
        late = until(lambda: toy.query("select day from nightshift.alerts where kind = 'late'"), 240)
    assert (scheduled["run_type"], scheduled["partition_key"]) == ("scheduled", today.isoformat())
    assert ended["state"] == "failed"  # there are no rows of today
    assert late == [(today,)]
    assert toy.query("select day from nightshift.alerts where kind = 'failed'") == [(today,)]
    assert {run["trigger"] for run in toy.runs()} == {"scheduled"}
