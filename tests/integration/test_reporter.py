"""The API server's login nightshift_reporter: enough for every report page, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from pydantic import SecretStr
from support.toy import JOB, NIGHT, Template, Toy

from pipeline import reporting
from pipeline.adapters.migrate import migrate
from pipeline.gate import judge

pytestmark = pytest.mark.integration

ROLE = "nightshift_reporter"


@contextmanager
def superuser(template: Template, database: str) -> Iterator[psycopg.Connection]:
    url = template.server._url(database, "superuser")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def reporter_url(toy: Toy, toy_template: Template) -> Iterator[str]:
    """The toy's warehouse, as the reporter whose rights the migration gives."""
    owner = sa.make_url(toy.url)
    database = str(owner.database)
    toy_template.server.create_database(database)  # there already: only the rights to connect are set
    with superuser(toy_template, database) as connection:
        connection.execute(f"create role {ROLE} login password 'reads'".encode())
        connection.execute(f'grant connect on database "{database}" to {ROLE}'.encode())
    migrate(toy.env.engine, [toy.job()])
    yield owner.set(username=ROLE, password="reads").render_as_string(hide_password=False)
    with superuser(toy_template, database) as connection:
        connection.execute(f"drop owned by {ROLE}".encode())
        connection.execute(f"drop role {ROLE}".encode())


def test_the_reporter_reads_all_that_pages_show(toy: Toy, reporter_url: str) -> None:
    toy.execute("update source.toy set amount = 'NaN' where id = 7 and day = %s", NIGHT.day)
    run_id = toy.night()["run_id"]
    judged = judge(toy.env, JOB, 2, span=(NIGHT, NIGHT))
    with toy.with_settings(warehouse_url=SecretStr(reporter_url), registry_url=None) as reader:
        env = reader.env
        for html in (
            reporting.run_page(env, JOB, NIGHT),
            reporting.run_page_of(env, run_id, job=JOB),
            reporting.marked_run_page(env, JOB, f"-{NIGHT}-"),
            reporting.job_page(env, JOB),
            reporting.dictionary_page(env, JOB),
            reporting.jobs_page(env),
            reporting.verdict_page(env, JOB, judged.verdict_no),
        ):
            assert "<h1" in html
        assert JOB in reporting.jobs_page(env, only={JOB})
        assert JOB not in reporting.jobs_page(env, only={"another"})
    (refused,) = toy.quarantine()
    assert refused["rule"] in reporting.run_page(toy.env, JOB, NIGHT)


_FORBIDDEN = (
    "select value from nightshift.quarantine",
    "select key from nightshift.quarantine",
    "select * from nightshift.quarantine",
    "select id from nightshift.predictions_toy",
    "select * from predictions.toy",
    "select * from source.toy",
    "select * from nightshift.run_parts",
    "update nightshift.pointer set run_no = null",
    "insert into nightshift.jobs (job) values ('mine')",
    "delete from nightshift.runs",
    "create table nightshift.mine (a int)",
    "create temp table mine (a int)",
    "set role nightshift_owner",
)


def test_the_reporter_can_do_nothing_else(toy: Toy, reporter_url: str) -> None:
    toy.night()
    with psycopg.connect(reporter_url, autocommit=True) as connection:
        assert connection.execute("select count(score) from nightshift.predictions_toy").fetchone() == (200,)
        allowed = [statement for statement in _FORBIDDEN if not is_refused(connection, statement)]
    assert allowed == []


def is_refused(connection: psycopg.Connection, statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except errors.InsufficientPrivilege:
        return True
    return False
