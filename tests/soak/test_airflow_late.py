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
        run = local.trigger(today.isoformat())
        assert local.until_finished(run)["state"] == "failed"  # there are no rows of today
        alerts = until(lambda: toy.query("select kind, day from nightshift.alerts where kind = 'late'"), 240)
    assert alerts == [("late", today)]
    assert toy.query("select count(*) from nightshift.alerts where kind = 'failed'") == [(1,)]
