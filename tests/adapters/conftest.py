"""A migrated warehouse of one job for the adapters' tests."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from support.publishing import Warehouse, make_job

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.migrate import migrate
from pipeline.adapters.warehouse import warehouse_engine


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    """A database with the control tables and the job `toy`, to be copied."""
    name = f"template_{uuid4().hex[:12]}"
    server.create_database(name)
    engine = warehouse_engine(server.url(name))
    migrate(engine, [make_job()])
    engine.dispose()
    return name


@pytest.fixture
def warehouse(server: EmbeddedServer, template: str) -> Iterator[Warehouse]:
    """An empty warehouse with the control tables and the job `toy`, whose key is the integer `id`."""
    name = f"test_{uuid4().hex[:12]}"
    copy = SQL("create database {} template {}").format(Identifier(name), Identifier(template))
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(copy)
    server.create_database(name)  # there already: only the rights to connect are set
    engine = warehouse_engine(server.url(name))
    yield Warehouse(server.url(name), engine, make_job())
    engine.dispose()
    server.drop_database(name)
