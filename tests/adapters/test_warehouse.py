"""What fails in the control tables is one of our errors, and a lost connection is made again."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from support.publishing import Warehouse

from pipeline.adapters import tables
from pipeline.adapters.warehouse import warehouse_engine
from pipeline.errors import FatalError, TransientError

pytestmark = pytest.mark.integration


def terminate(warehouse: Warehouse, pid: int) -> None:
    warehouse.query("select pg_terminate_backend(%s, 5000)", pid)


def backend(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("select pg_backend_pid()").scalar_one())


def test_a_connection_lost_in_the_middle_is_transient(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection:
        terminate(warehouse, backend(connection))
        with pytest.raises(TransientError, match="57P01, admin shutdown"):
            connection.exec_driver_sql("select 1")


def test_a_connection_lost_before_the_commit_is_transient(warehouse: Warehouse) -> None:
    with pytest.raises(TransientError), warehouse.engine.begin() as connection:
        terminate(warehouse, backend(connection))


def test_a_connection_lost_in_the_pool_is_made_again(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection:
        pid = backend(connection)
    terminate(warehouse, pid)
    with warehouse.engine.connect() as connection:
        assert backend(connection) != pid


def test_a_server_that_is_away_is_transient_and_its_password_stays_unsaid() -> None:
    engine = warehouse_engine("postgresql://me:hush@127.0.0.1:1/nowhere")
    with pytest.raises(TransientError, match="Connection refused") as caught:
        engine.connect()
    assert "hush" not in str(caught.value)


def test_a_lock_that_is_not_given_in_time_is_transient(warehouse: Warehouse) -> None:
    with psycopg.connect(warehouse.url) as busy, warehouse.engine.connect() as connection:
        busy.execute("lock table nightshift.jobs in access exclusive mode")
        connection.exec_driver_sql("set lock_timeout = '50ms'")
        with pytest.raises(TransientError, match="55P03, lock not available"):
            connection.execute(sa.select(tables.jobs))


def test_a_wrong_statement_is_fatal_and_neither_it_nor_its_values_are_told(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection, pytest.raises(FatalError) as caught:
        connection.execute(sa.text("select cast(:told as integer) as hidden"), {"told": "secret"})
    assert str(caught.value).endswith("SQLSTATE 22P02, invalid text representation")


def test_a_constraints_refusal_stays_what_it_is(warehouse: Warehouse) -> None:
    with warehouse.engine.connect() as connection, pytest.raises(sa.exc.IntegrityError) as caught:
        connection.execute(sa.insert(tables.pointer).values(job="x", day="2024-01-01"))
    assert "2024-01-01" not in str(caught.value).split("DETAIL")[0]
