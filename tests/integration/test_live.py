"""`nightshift demo --live`, whole, on a day that is fixed: what it scores, its second call, its next day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.adapters.embedded import EmbeddedServer

pytestmark = [pytest.mark.soak, pytest.mark.integration, pytest.mark.timeout(600)]

TODAY, TOMORROW, LAST_YEAR = date(2025, 2, 4), date(2025, 2, 5), date(2024, 3, 1)
LIVE = """
from datetime import date
from pipeline.cli.console import configure_logging, guarded
from pipeline.cli.live import run_live
from pipeline.environment import Environment
from pipeline.settings import Settings
configure_logging(verbose=False)
guarded(run_live)(Environment(Settings()), date({0.year}, {0.month}, {0.day}), as_json=True)
"""


def ran(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A command with these settings."""
    return subprocess.run(
        list(words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip


def lived(home: Path, today: date) -> dict[str, Any]:
    """What `demo --live --json` reports on that day."""
    done = ran({"NIGHTSHIFT_HOME": str(home)}, sys.executable, "-c", LIVE.format(today))
    assert done.stdout.count("\n") == 1, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("live") / "state"
    yield folder
    EmbeddedServer(folder / "live").remove()


@pytest.fixture(scope="module")
def first(home: Path) -> dict[str, Any]:
    """What the first call reports, on the first day that has 28 nights to learn from."""
    return lived(home, TODAY)


@pytest.fixture
def url(home: Path, first: dict[str, Any]) -> str:
    """The live demo's warehouse, as its owner."""
    return EmbeddedServer(home / "live").url()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_today_is_scored_whole_by_a_model_of_the_nights_before(first: dict[str, Any], url: str) -> None:
    assert (first["day"], first["status"], first["moved_weeks"]) == ("2025-02-04", "published", 626)
    assert first["score_sources"] == {"champion": first["rows_in"]}
    known = """select trained_from::text, trained_to::text, labels_as_of = effective_from,
        (labels_as_of at time zone 'America/New_York')::text
        from nightshift.model_versions join nightshift.promotions using (job, version)"""
    assert rows(url, known) == [("2025-01-07", "2025-02-03", True, "2025-02-04 03:00:00")]


def test_a_second_call_on_the_same_day_changes_nothing(home: Path, first: dict[str, Any], url: str) -> None:
    loaded = "select min(xmin::text), max(xmin::text), count(*) from source.flight_outcomes"
    before = rows(url, loaded)

    assert lived(home, TODAY) == first

    assert rows(url, loaded) == before
    assert rows(url, "select count(*) from nightshift.runs") == [(1,)]


def test_with_its_two_variables_the_scheduled_night_is_a_real_one(first: dict[str, Any], url: str) -> None:
    command = str(Path(sys.executable).with_name("nightshift"))

    done = ran(first["environment"], command, "score", "flight_delays", "--day", TODAY.isoformat(), "--json")

    told = json.loads(done.stdout)
    assert (told["status"], told["rows_scored"], told["token"]) == ("published", first["rows_in"], 2)
    assert told["snapshot_fingerprint"] == first["snapshot_fingerprint"]


def test_the_next_day_is_scored_by_the_same_version(home: Path, first: dict[str, Any]) -> None:
    told = lived(home, TOMORROW)

    assert (told["day"], told["status"], told["model_version"]) == ("2025-02-05", "published", 1)


def test_in_another_year_it_refuses_and_leaves_what_is_there(home: Path, first: dict[str, Any]) -> None:
    told = lived(home, LAST_YEAR)

    assert told["error"] == "UsageError"
    assert "moved by 574 weeks; got 626" in told["message"]
    assert lived(home, TODAY)["moved_weeks"] == 626


def test_the_analyst_sees_predictions_and_no_outcome(home: Path, first: dict[str, Any]) -> None:
    analyst = EmbeddedServer(home / "live").url(role="analyst")

    predicted = "select count(*) from predictions.flight_delays where day = '2025-02-04'"
    assert rows(analyst, predicted) == [(first["rows_in"],)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(analyst, "select * from source.flight_outcomes")
