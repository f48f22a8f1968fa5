"""A small Airflow of the test process: its metadata in PostgreSQL, its DAGs from the toy project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from support.toy import Toy

from pipeline.adapters.embedded import EmbeddedServer

BUNDLE = [{"name": "nightshift", "classpath": "dags.bundle.DeclarationBundle", "kwargs": {}}]
RUNNER = Path(__file__).with_name("airflow_runner.py")


@dataclass(frozen=True)
class Airflow:
    """Airflow over one copy of the toy project; every call is a process of its own."""

    toy: Toy
    variables: dict[str, str]

    def parse(self) -> dict[str, Any]:
        """What parsing gives and costs."""
        return told_by_runner(self.variables, "parse")

    def runs(self, dag_id: str, *confs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Manual runs of a DAG, one after the other, and how they ended."""
        return dag_runs(self.variables, dag_id, *confs)


def told_by_runner(variables: dict[str, str], *words: str) -> dict[str, Any]:
    """What airflow_runner.py prints in a process with these variables."""
    done = subprocess.run(
        [sys.executable, str(RUNNER), *words],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def dag_runs(variables: dict[str, str], dag_id: str, *confs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Manual runs of a DAG in a process with these variables, and how they ended."""
    asked = [word for conf in confs for word in (dag_id, json.dumps(conf))]
    ended: list[dict[str, Any]] = told_by_runner(variables, "test", *asked)["runs"]
    return ended


def airflow_variables(home: Path, metadata_url: str) -> dict[str, str]:
    """What Airflow's processes are started with."""
    url = metadata_url.replace("postgresql:", "postgresql+psycopg:", 1)
    given = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLE),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(Path(__file__).resolve().parents[2] / "dags" / "plugins"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of tests, long enough for sixty-four bytes of a key ....",
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | given


@pytest.fixture(scope="session")
def airflow_template(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated metadata database, to be copied."""
    name = f"airflow_{uuid4().hex[:12]}"
    server.create_database(name)
    subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "db", "migrate"],
        env=airflow_variables(tmp_path_factory.mktemp("airflow"), server.url(name)),
        capture_output=True,
        check=True,
        timeout=200,
    )
    return name


@contextmanager
def metadata_copy(server: EmbeddedServer, template: str) -> Iterator[str]:
    """The URL of a fresh metadata database, dropped afterwards."""
    name = f"airflow_{uuid4().hex[:12]}"
    copy = SQL("create database {} template {}").format(Identifier(name), Identifier(template))
    with psycopg.connect(server.url("registry"), autocommit=True) as connection:
        connection.execute(copy)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def airflow_metadata(server: EmbeddedServer, airflow_template: str) -> Iterator[str]:
    """The URL of a fresh metadata database."""
    with metadata_copy(server, airflow_template) as url:
        yield url


@pytest.fixture
def airflow(toy: Toy, airflow_metadata: str, tmp_path: Path) -> Airflow:
    """Airflow over a fresh toy project."""
    return Airflow(toy, airflow_variables(tmp_path / "airflow", airflow_metadata) | toy.variables)
