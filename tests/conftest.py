"""Real parts for the tests: one PostgreSQL server a test process, a database a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, settings

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.migrate import migrate

# A busy machine is no fault of the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


_LONGEST = (
    "test_compose_local.py", "test_local_airflow.py", "test_demo.py", "test_dags.py", "test_live.py",
    "test_fence.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: no worker is left with one of them in the end."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that a test calls sets logging up for its own streams, which pytest then closes."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A PostgreSQL of this test process."""
    started = EmbeddedServer(tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.remove()


@pytest.fixture
def warehouse_url(server: EmbeddedServer) -> Iterator[str]:
    """An empty database, as its owner."""
    name = f"test_{uuid4().hex[:12]}"
    server.create_database(name)
    yield server.url(database=name)
    server.drop_database(name)


@pytest.fixture
def migrated_url(warehouse_url: str) -> str:
    """A database with the control tables and no job."""
    engine = sa.create_engine(warehouse_url.replace("postgresql:", "postgresql+psycopg:"))
    migrate(engine, [])
    engine.dispose()
    return warehouse_url


@pytest.fixture
def project() -> Path:
    """This repository."""
    return Path(__file__).resolve().parent.parent
