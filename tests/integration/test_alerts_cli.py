"""`nightshift alerts`: what was told, who took it on, who ended it, and what the limits can see."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from support.toy import JOB, NIGHT, Toy, quiet_mlflow
from typer.testing import CliRunner, Result

from pipeline.alerting import alert_findings
from pipeline.cli.main import app
from pipeline.monitoring.findings import Finding

pytestmark = pytest.mark.integration

FINDING = Finding(
    JOB, NIGHT.day, "drift", "input amount: another level", "5, usually 3 to 4.", "Look.", NIGHT.day
)


@pytest.fixture
def told(toy: Toy) -> Toy:
    """The toy project with one open alert."""
    assert alert_findings(toy.env, JOB, NIGHT.day, [FINDING], "scheduled") == 1
    return toy


def run(toy: Toy, *words: str) -> Result:
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["alerts", JOB, *words], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    return result


def report(toy: Toy, *words: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(run(toy, *words, "--json").stdout)
    return made


def test_alerts_are_shown_with_what_became_of_them(told: Toy) -> None:
    (alert,) = report(told)["alerts"]
    assert (alert["kind"], alert["cause"], alert["state"]) == ("drift", FINDING.cause, "open")
    shown = run(told).stdout
    assert FINDING.cause in shown
    assert NIGHT.key in shown


def test_an_alert_is_taken_on_and_ended_by_name(told: Toy) -> None:
    assert report(told, "--acknowledge", "1", "--by", "ana")["state"] == "acknowledged"
    assert [alert["acknowledged_by"] for alert in report(told, "--open")["alerts"]] == ["ana"]
    assert run(told, "--resolve", "1", "--by", "ben").stdout == "alert 1 is resolved by ben\n"
    assert report(told, "--open")["alerts"] == []
    assert [alert["resolved_by"] for alert in report(told)["alerts"]] == ["ben"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--acknowledge", "1"), "with --by WHO"),
        (("--by", "ana"), "one of --acknowledge and --resolve"),
        (("--acknowledge", "1", "--resolve", "1", "--by", "ana"), "one of --acknowledge and --resolve"),
        (("--acknowledge", "9", "--by", "ana"), "alert 9 of toy must be open"),
    ],
)
def test_wrong_use_says_what_must_be(told: Toy, words: tuple[str, ...], message: str) -> None:
    result = run(told, *words, "--json")
    assert result.exit_code == 2
    assert message in json.loads(result.stdout)["message"]


def test_limits_need_published_nights(toy: Toy) -> None:
    assert "must have published nights" in report(toy, "--limits")["message"]


def test_limits_say_that_they_need_three_weeks(toy: Toy) -> None:
    toy.night(NIGHT, trigger="backfill")
    assert report(toy, "--limits") == {"job": JOB, "rate": None, "smallest": []}
    assert "three weeks of nights" in run(toy, "--limits").stdout
