from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from threading import Event, Thread

import pytest
import sqlalchemy as sa

from pipeline.adapters import versions
from pipeline.adapters.versions import ModelVersion
from pipeline.errors import RegistryError
from pipeline.job import Extract, HistoryQuery
from pipeline.lifecycle.promote import Kind, Promotion

pytestmark = pytest.mark.integration

START = datetime(2013, 5, 1, tzinfo=UTC)
EXTRACT = Extract(
    key=("shop", "item"),
    columns={"day": "date", "shop": "text", "item": "integer", "price": "float?"},
    pii=("shop",),
    sql="select * from sales where day = :day",
)
HISTORY = {"shops": HistoryQuery(key=("shop",), sql="select shop, 1 as n from sales where day < :day")}


@pytest.fixture
def engine(migrated_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(migrated_url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.begin() as connection:
        yield connection


def model_version(number: int, job: str = "toy") -> ModelVersion:
    return ModelVersion(
        job=job,
        version=number,
        feature_version="f-000000000000",
        feature_source="FEATURES = {}",
        feature_source_sha256="1" * 64,
        queries=versions.queries_json(EXTRACT, HISTORY),
        model_uri="models/model.skops",
        model_sha256=str(number) * 64,
        baseline_uri="models/baseline.skops",
        baseline_sha256="b" * 64,
        sklearn_version="1.9.1",
        trained_from=date(2013, 1, 8),
        trained_to=date(2013, 4, 30),
        labels_as_of=START,
        rows=100,
        data_fingerprint="f" * 64,
        code_version="abc",
        seed=0,
        metrics={"holdout": {"model": {"auc": 0.7}}},
        owners={"team": "toys"},
        registry_run_id="run",
    )


def promoted(
    connection: sa.Connection, number: int, since: datetime = START, kind: Kind = "promote"
) -> Promotion:
    return versions.record_promotion(
        connection,
        versions.version(connection, "toy", number),
        kind=kind,
        actor="ben",
        approved_by="ana",
        reason="better",
        effective_from=since,
    )


def registered(connection: sa.Connection, *numbers: int) -> None:
    for number in numbers:
        versions.insert(connection, model_version(number))


def test_a_version_comes_back_as_it_was_registered(connection: sa.Connection) -> None:
    registered(connection, 1)
    found = versions.version(connection, "toy", 1)
    assert found == model_version(1)
    assert list(found.extract.columns) == list(EXTRACT.columns)
    assert (found.extract, found.history) == (EXTRACT, HISTORY)


def test_an_unknown_version_is_told_with_those_there_are(connection: sa.Connection) -> None:
    registered(connection, 1, 2)
    versions.insert(connection, model_version(3, job="other"))
    with pytest.raises(RegistryError, match=r"version 3 of toy must be registered; there are: 1, 2"):
        versions.version(connection, "toy", 3)


def test_a_number_that_is_taken_is_refused_and_the_transaction_goes_on(connection: sa.Connection) -> None:
    registered(connection, 1)
    with pytest.raises(RegistryError, match="version 1 of toy must be new"):
        versions.insert(connection, dataclasses.replace(model_version(1), seed=9))
    assert versions.version(connection, "toy", 1).seed == 0


def keyed(number: int, key: str | None, job: str = "toy") -> ModelVersion:
    return dataclasses.replace(model_version(number, job), training_key=key)


def test_of_the_attempts_at_a_training_the_first_ones_version_stands(connection: sa.Connection) -> None:
    first = versions.insert(connection, keyed(1, "monday"))
    assert versions.insert(connection, keyed(2, "monday")) == first == keyed(1, "monday")
    assert versions.numbers(connection, "toy") == [1]
    assert versions.of_training(connection, "toy", "monday") == first
    assert versions.of_training(connection, "toy", "tuesday") is None


def test_trainings_of_another_name_of_none_and_of_other_jobs_register_their_own(
    connection: sa.Connection,
) -> None:
    for number, key in enumerate(("monday", "tuesday", None, None), start=1):
        assert versions.insert(connection, keyed(number, key)).version == number
    assert versions.insert(connection, keyed(1, "monday", "other")).job == "other"
    assert versions.numbers(connection, "toy") == [1, 2, 3, 4]


def test_an_attempt_waits_for_another_that_registers_and_takes_its_version(engine: sa.Engine) -> None:
    found: list[int] = []

    def second() -> None:
        with engine.begin() as connection:
            found.append(versions.insert(connection, keyed(2, "monday")).version)

    with engine.begin() as first:
        versions.insert(first, keyed(1, "monday"))
        thread = Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(10)
    assert found == [1]


@pytest.mark.parametrize("table", ["promotions", "model_versions"])
@pytest.mark.parametrize("change", ["update {} set job = 'x'", "delete from {}", "truncate {}"])
def test_history_can_only_be_appended_to(engine: sa.Engine, table: str, change: str) -> None:
    with engine.begin() as connection:
        registered(connection, 1)
        promoted(connection, 1)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        connection.exec_driver_sql(change.format(f"nightshift.{table}"))


def test_a_promotion_tells_whom_it_replaces_who_did_it_and_which_file(connection: sa.Connection) -> None:
    registered(connection, 1, 2)
    promoted(connection, 1)
    row = promoted(connection, 2, START + timedelta(days=1))
    assert (row.version, row.previous_version, row.kind) == (2, 1, "promote")
    assert (row.actor, row.approved_by, row.reason) == ("ben", "ana", "better")
    assert row.model_sha256 == "2" * 64
    assert row.recorded_at > row.effective_from
    assert versions.promotion_history(connection, "toy")[-1] == row


def test_the_row_in_force_is_read_as_of_an_instant(connection: sa.Connection) -> None:
    registered(connection, 1, 2)
    promoted(connection, 1)
    promoted(connection, 2, START + timedelta(days=10))
    found = [versions.in_force(connection, "toy", START + timedelta(days=day)).version for day in (0, 9, 10)]
    assert found == [1, 1, 2]
    assert versions.in_force(connection, "toy").version == 2


def test_a_back_dated_promotion_replaces_whom_it_met_then(connection: sa.Connection) -> None:
    registered(connection, 1, 2, 3)
    promoted(connection, 1)
    promoted(connection, 2, START + timedelta(days=10))
    assert promoted(connection, 3, START + timedelta(days=5)).previous_version == 1


def test_without_a_champion_at_the_cut_off_it_says_what_to_do(connection: sa.Connection) -> None:
    registered(connection, 1)
    promoted(connection, 1)
    early = START - timedelta(seconds=1)
    with pytest.raises(RegistryError, match=r"at 2013-04-30T23:59:59.*--effective-from.*--model current"):
        versions.in_force(connection, "toy", early)
    with pytest.raises(RegistryError, match="a champion of other must be in force now"):
        versions.in_force(connection, "other")


def test_behind_a_version_comes_the_champion_before_it(connection: sa.Connection) -> None:
    def behind(number: int, at: datetime, known: datetime) -> list[ModelVersion]:
        return versions.with_predecessor(connection, "toy", number, at=at, known=known)

    registered(connection, 1, 2)
    before, then = promoted(connection, 1).recorded_at, START + timedelta(days=1)
    assert behind(1, then, before) == [model_version(1)]
    after = promoted(connection, 2, then).recorded_at
    assert behind(2, then, after) == [model_version(2), model_version(1)]
    assert behind(2, START, after) == behind(2, then, before) == [model_version(2)]


def test_a_second_change_of_a_job_waits_for_the_first(engine: sa.Engine) -> None:
    got = Event()

    def second() -> None:
        with engine.begin() as connection:
            versions.lock(connection, "toy")
            got.set()

    with engine.begin() as first:
        versions.lock(first, "toy")
        thread = Thread(target=second)
        thread.start()
        with engine.begin() as other:
            versions.lock(other, "other")
        assert not got.wait(0.3)
    assert got.wait(10)
    thread.join()


def test_an_alias_that_differs_from_the_history_is_told() -> None:
    assert versions.alias_faults("toy", 1, 1) == []
    assert versions.alias_faults("toy", 1, None) == [
        "MLflow's alias champion of toy must be version 1; it is None"
    ]
