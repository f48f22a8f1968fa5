"""A year of real flights, night by night: it publishes whole, twice, and the model holds over the months."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from soak.alarms import alarms

from pipeline.adapters import metrics
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.job import Monitor
from pipeline.partition import Partition

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

NIGHTSHIFT = Path(sys.executable).with_name("nightshift")
YEAR = ("--from", "2013-01-01", "--to", "2013-12-31")
LATER = ("--from", "2013-05-01", "--to", "2013-12-31")
SEEDS = (1, 2)
BARS = {5: 0.72, 7: 0.735, 12: 0.64}
"""Least mean AUC over three seeds, by month."""

SCORES = """
select p.day, p.carrier, p.flight, p.origin, p.score, o.arr_delay > 15 as late
from predictions.flight_delays p join source.flight_outcomes o using (day, carrier, flight, origin)
"""


class Night:
    """The demo's state folder, and what its commands print."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: str) -> dict[str, object]:
        """The JSON line of a command, and how long it took on the terminal."""
        started = time.monotonic()
        done = subprocess.run(
            [str(NIGHTSHIFT), *arguments, "--json"], capture_output=True, text=True, check=False,
            env={"PATH": "/usr/bin:/bin", "NIGHTSHIFT_HOME": str(self.home), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        print(f"{' '.join(arguments)}: {time.monotonic() - started:.0f} s")
        report: dict[str, object] = json.loads(done.stdout)
        return report

    def scores(self) -> pd.DataFrame:
        """Every current prediction with what became of the flight."""
        return self.read(lambda connection: pd.read_sql(SCORES, connection))

    def metrics(self) -> pd.DataFrame:
        """The metrics of every published night."""
        first, last = Partition.parse(YEAR[1]), Partition.parse(YEAR[3])
        return self.read(lambda connection: metrics.of_visible_runs(connection, "flight_delays", first, last))

    def read(self, ask: Callable[[sa.Connection], pd.DataFrame]) -> pd.DataFrame:
        """What a query gives."""
        engine = sa.create_engine(
            EmbeddedServer(self.home).url().replace("postgresql:", "postgresql+psycopg:")
        )
        with engine.connect() as connection:
            frame = ask(connection)
        engine.dispose()
        return frame


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    home = tmp_path_factory.mktemp("year") / "state"
    made = Night(home)
    made.run("demo")
    yield made
    EmbeddedServer(home).remove()


def auc_by_month(scores: pd.DataFrame) -> pd.Series:
    from sklearn.metrics import roc_auc_score

    known = scores.dropna(subset=["late"])
    months = pd.to_datetime(known["day"]).dt.month
    later = known[months >= 5]
    return pd.Series(
        {
            month: roc_auc_score(rows["late"].astype(bool), rows["score"])
            for month, rows in later.groupby(months[months >= 5])
        }
    )


def test_every_night_of_a_year_publishes_and_a_rerun_gives_equal_scores(night: Night) -> None:
    first = night.run("backfill", "flight_delays", *YEAR)
    assert (first["published"], first["skipped"], first["failed"]) == (364, 1, [])
    before = night.scores()
    again = night.run("backfill", "flight_delays", *YEAR, "--reprocess", "completed")
    assert (again["published"], again["failed"]) == (365, [])
    after = night.scores()
    keys = ["day", "carrier", "flight", "origin"]
    assert not after.duplicated(keys).any()
    assert len(after) == 336_776
    assert (after["day"].astype(str) == "2013-11-28").sum() == 634
    pd.testing.assert_frame_equal(
        before.sort_values(keys, ignore_index=True), after.sort_values(keys, ignore_index=True)
    )


def test_alerts_of_the_year_keep_their_promise_on_clean_nights(night: Night) -> None:
    found = alarms(night.metrics(), Monitor())
    print("\nAlerts of the year\n" + found.table())
    assert found.false_alarms.low <= found.false_alarms.promised
    told = {alert.day: alert for alert in found.alerts}
    assert told[date(2013, 2, 9)].cause == "input tailnum: more values missing"  # a storm cancelled half
    assert told[date(2013, 12, 31)].kind == "structure"  # the weather feed is stale since the evening before


def test_concept_shifts_of_september_and_december_are_found_from_outcomes(night: Night) -> None:
    found = night.run("outcomes", "flight_delays", *YEAR)["concept_drift"]
    assert isinstance(found, list)
    for episode in found:
        print(f"{episode['first']} to {episode['last']}  {episode['cause']}. {episode['evidence']}")
    told = [(episode["cause"], date.fromisoformat(str(episode["first"]))) for episode in found]
    assert any("too high" in cause and day.month == 9 for cause, day in told)  # few flights are late then
    assert any("too low" in cause and day.month == 12 for cause, day in told)
    assert not any("lost their meaning" in cause for cause, _ in told)


def test_three_seeds_of_training_hold_over_the_months(night: Night) -> None:
    night.run("backfill", "flight_delays", *LATER)
    aucs = [auc_by_month(night.scores())]
    for seed in SEEDS:
        trained = night.run(
            "train", "flight_delays", "--from", "2013-01-08", "--to", "2013-04-30",
            "--as-of", "2013-05-01T07:00Z", "--seed", str(seed),
        )  # fmt: skip
        night.run(
            "backfill",
            "flight_delays",
            *LATER,
            "--reprocess",
            "completed",
            "--model",
            str(trained["version"]),
        )
        aucs.append(auc_by_month(night.scores()))
    table = pd.concat(aucs, axis=1, keys=[f"seed {seed}" for seed in (0, *SEEDS)])
    table["mean"] = table.mean(axis=1)
    print("\nAUC by month\n" + table.round(4).to_string())
    for month, least in BARS.items():
        assert table["mean"][month] >= least
