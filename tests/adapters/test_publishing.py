"""The pointer: readers see one whole run of a day, always the one with the highest token."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from support.publishing import DAY, Warehouse

from pipeline.adapters import ledger, publishing
from pipeline.adapters.publishing import Shown
from pipeline.errors import SealError, TransientError
from pipeline.run import Run

pytestmark = pytest.mark.integration


def publications(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    statement = (
        "select run_no, token, published_at, superseded_at from nightshift.publications order by token"
    )
    return warehouse.query(statement)


def test_rows_are_unseen_until_the_flip(warehouse: Warehouse) -> None:
    run = warehouse.sealed()
    assert warehouse.visible() == {}
    assert warehouse.flip(run) == "published"
    assert warehouse.visible() == {run.run_id: 3}
    assert warehouse.status(run) == ("published", "published")


def test_a_rerun_replaces_the_day_as_a_whole(warehouse: Warehouse) -> None:
    warehouse.published(ids=range(10))
    newer = warehouse.published(ids=range(5, 8))
    assert warehouse.visible() == {newer.run_id: 3}
    assert warehouse.visible(DAY.next()) == {}


def test_other_days_stay_as_they_are(warehouse: Warehouse) -> None:
    yesterday = warehouse.published(DAY.previous())
    warehouse.published()
    warehouse.published()
    assert warehouse.visible(DAY.previous()) == {yesterday.run_id: 3}


@pytest.mark.parametrize("unsealed", [Warehouse.planned, Warehouse.validated])
def test_a_run_that_is_not_sealed_is_refused(warehouse: Warehouse, unsealed: Any) -> None:
    good, run = warehouse.published(), unsealed(warehouse)
    with pytest.raises(SealError, match=f"run {run.run_id} must be at work and sealed .* running and"):
        warehouse.flip(run)
    assert warehouse.visible() == {good.run_id: 3}


def test_a_failed_publish_leaves_yesterday_readable(warehouse: Warehouse) -> None:
    good, run = warehouse.published(), warehouse.sealed()
    warehouse.fail(run)
    with pytest.raises(SealError, match="it is failed and sealed"):
        warehouse.flip(run)
    assert warehouse.visible() == {good.run_id: 3}


def test_a_failed_run_that_is_taken_up_again_is_published(warehouse: Warehouse) -> None:
    run = warehouse.sealed()
    warehouse.fail(run)
    with warehouse.engine.begin() as connection:
        ledger.resume(connection, run.run_no)
    assert warehouse.flip(run) == "published"


def test_an_older_token_that_finishes_last_ends_superseded(warehouse: Warehouse) -> None:
    older, newer = warehouse.sealed(ids=range(9)), warehouse.sealed()
    assert warehouse.flip(newer) == "published"
    assert warehouse.flip(older) == "superseded"
    assert warehouse.flip(older) == "superseded"
    assert warehouse.visible() == {newer.run_id: 3}
    assert warehouse.status(older) == ("superseded", "sealed")
    assert [run_no for run_no, *_ in publications(warehouse)] == [newer.run_no]


def test_publishing_a_published_run_again_changes_nothing(warehouse: Warehouse) -> None:
    run = warehouse.published()
    before = publications(warehouse)
    assert warehouse.flip(run) == "published"
    assert publications(warehouse) == before
    newer = warehouse.published()
    assert warehouse.flip(run) == "published"
    assert warehouse.visible() == {newer.run_id: 3}


def flip_and_lose_the_backend(warehouse: Warehouse, run: Run, *, after_commit: bool) -> None:
    with warehouse.engine.connect() as connection:
        assert publishing.flip(connection, run) == "published"
        pid = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
        if after_commit:
            connection.commit()
        warehouse.query("select pg_terminate_backend(%s, 5000)", pid)
        connection.exec_driver_sql("select 1")


def test_an_acknowledgement_that_is_lost_does_no_harm(warehouse: Warehouse) -> None:
    run = warehouse.sealed()
    with pytest.raises(TransientError, match="admin shutdown"):
        flip_and_lose_the_backend(warehouse, run, after_commit=True)
    assert warehouse.flip(run) == "published"
    assert len(publications(warehouse)) == 1


def test_a_backend_that_dies_in_a_flip_leaves_nothing_half_done(warehouse: Warehouse) -> None:
    good, run = warehouse.published(), warehouse.sealed()
    before = publications(warehouse)
    with pytest.raises(TransientError, match="admin shutdown"):
        flip_and_lose_the_backend(warehouse, run, after_commit=False)
    assert publications(warehouse) == before
    assert warehouse.visible() == {good.run_id: 3}
    assert warehouse.status(run) == ("running", "sealed")
    assert warehouse.flip(run) == "published"


def test_a_day_that_stays_locked_is_transient_and_nothing_changes(warehouse: Warehouse) -> None:
    run = warehouse.sealed()
    with psycopg.connect(warehouse.url) as busy:
        busy.execute("select * from nightshift.pointer for update")
        started = time.monotonic()
        with pytest.raises(TransientError, match="lock not available"):
            warehouse.flip(run)
        assert 4 < time.monotonic() - started < 20
    assert warehouse.visible() == {}
    assert warehouse.flip(run) == "published"


def test_instants_grow_even_where_the_clock_went_back(warehouse: Warehouse) -> None:
    warehouse.published()
    future = datetime.now(UTC) + timedelta(hours=1)
    for table in ("pointer", "publications"):
        warehouse.execute(f"update nightshift.{table} set published_at = %s", future)
    warehouse.published()
    (_, _, _, closed), (_, _, opened, _) = publications(warehouse)
    assert closed == opened == future + timedelta(microseconds=1)


def test_the_history_tells_what_was_known_at_any_instant(warehouse: Warehouse) -> None:
    first, second = warehouse.published(ids=range(4)), warehouse.published()
    (_, _, opened, closed), (_, _, reopened, still_open) = publications(warehouse)
    assert (closed, still_open) == (reopened, None)
    statement = (
        "select run_id, count(*) from predictions.toy_history where day = %(day)s and published_at <= %(at)s "
        "and (superseded_at is null or superseded_at > %(at)s) group by 1"
    )
    tick = timedelta(microseconds=1)
    for at, shown in (
        (opened - tick, {}),
        (opened, {first.run_id: 4}),
        (closed - tick, {first.run_id: 4}),
        (reopened, {second.run_id: 3}),
        (reopened + timedelta(days=999), {second.run_id: 3}),
    ):
        with psycopg.connect(warehouse.url) as connection:
            found = connection.execute(statement.encode(), {"day": DAY.day, "at": at}).fetchall()
        assert dict(found) == shown


def test_a_run_that_was_never_published_is_in_no_history(warehouse: Warehouse) -> None:
    older, newer = warehouse.sealed(), warehouse.published()
    warehouse.flip(older)
    warehouse.sealed()
    assert warehouse.query("select distinct run_id from predictions.toy_history") == [(newer.run_id,)]


def test_only_runs_that_can_never_publish_are_retired(warehouse: Warehouse) -> None:
    older, failed, other_day = warehouse.planned(), warehouse.planned(), warehouse.planned(DAY.next())
    warehouse.fail(failed)
    shown, newer = warehouse.published(), warehouse.planned()
    with warehouse.engine.begin() as connection:
        publishing.retire_older(connection, shown)
    runs = (older, failed, other_day, shown, newer)
    assert [warehouse.status(run)[0] for run in runs] == [
        "superseded", "failed", "running", "published", "running",
    ]  # fmt: skip


def test_a_run_that_is_not_shown_retires_nobody(warehouse: Warehouse) -> None:
    older, run = warehouse.planned(), warehouse.sealed()
    with warehouse.engine.begin() as connection:
        publishing.retire_older(connection, run)
    assert warehouse.status(older)[0] == "running"


@pytest.mark.parametrize("end", ["failed", "planned", "superseded"])
def test_a_run_that_is_not_at_work_cannot_be_sealed(warehouse: Warehouse, end: str) -> None:
    run = warehouse.planned() if end == "planned" else warehouse.validated()
    if end == "failed":
        warehouse.fail(run)
    if end == "superseded":
        newer = warehouse.published()
        with warehouse.engine.begin() as connection:
            publishing.retire_older(connection, newer)
    before = warehouse.status(run)
    with pytest.raises(SealError, match=f"run {run.run_id} must be at work and scored"):
        warehouse.seal(run)
    assert warehouse.status(run) == before


def test_sealing_again_after_a_lost_answer_is_allowed(warehouse: Warehouse) -> None:
    run = warehouse.sealed()
    warehouse.seal(run)
    assert warehouse.status(run) == ("running", "sealed")


def test_counts_that_do_not_add_up_cannot_be_sealed(warehouse: Warehouse) -> None:
    run = warehouse.validated()
    counts = {"rows_in": 4, "rows_scored": 3, "rows_fallback": 0, "rows_withheld": 0}
    with warehouse.engine.connect() as connection, pytest.raises(SealError, match=r"must add up; got .*4.*3"):
        publishing.seal(connection, run, counts)
    assert warehouse.status(run) == ("running", "validated")


def test_the_parquet_of_a_day_is_replaced_by_one_at_a_time(warehouse: Warehouse) -> None:
    run = warehouse.published()
    with warehouse.engine.begin() as first:
        assert publishing.lock_shown(first, "toy", DAY) == Shown(run.run_no, None)
        with warehouse.engine.connect() as second, ThreadPoolExecutor(1) as pool:
            other = pool.submit(publishing.lock_shown, second, "toy", DAY)
            publishing.lock_shown(first, "toy", DAY.next())
            assert not other.done()
            publishing.parquet_shown(first, "toy", DAY, run.run_no)
            first.commit()
            assert other.result(timeout=20) == Shown(run.run_no, run.run_no)


def test_days_whose_parquet_is_not_the_pointers_are_found(warehouse: Warehouse) -> None:
    shown, behind = warehouse.published(), warehouse.published(DAY.next())
    warehouse.planned(DAY.previous())
    with warehouse.engine.begin() as connection:
        publishing.parquet_shown(connection, "toy", DAY, shown.run_no)
        assert ledger.stale_parquet(connection, "toy") == [behind.partition]
    warehouse.published()
    with warehouse.engine.connect() as connection:
        assert sorted(ledger.stale_parquet(connection, "toy")) == [DAY, behind.partition]


@contextmanager
def polling(warehouse: Warehouse, threads: int) -> Iterator[list[list[tuple[str, int]]]]:
    """Readers of the day at work; what each poll saw: run ids and their numbers of rows."""
    done, seen = threading.Event(), list[list[tuple[str, int]]]()

    def read() -> None:
        with psycopg.connect(warehouse.url, autocommit=True) as connection:
            while not done.is_set():
                statement = "select run_id, count(*) from predictions.toy where day = %s group by 1"
                seen.append(connection.execute(statement, [DAY.day]).fetchall())

    with ThreadPoolExecutor(threads) as pool:
        readers = [pool.submit(read) for _ in range(threads)]
        try:
            yield seen
        finally:
            done.set()
        for reader in readers:
            reader.result(timeout=60)


def sealed_runs(warehouse: Warehouse, count: int) -> dict[Run, int]:
    """Runs that are ready to be published, and how many rows each has."""
    sizes = {warehouse.planned(): 5 + number % 7 for number in range(count)}
    with psycopg.connect(warehouse.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into nightshift.predictions_toy (day, run_no, id, score, score_source, scored_at) "
            "select %s, %s, id, 0.5, 'champion', now() from generate_series(1, %s) as ids(id)",
            [(DAY.day, run.run_no, size) for run, size in sizes.items()],
        )
        cursor.execute(
            "update nightshift.runs set stage = 'sealed', rows_in = 0, rows_scored = 0, rows_fallback = 0, "
            "rows_withheld = 0"
        )
    return sizes


def nearly_in_order(runs: Sequence[Run]) -> list[Run]:
    """Runs as they may come to their end: mostly in the order of their tokens, some long after."""
    chance = random.Random(7)
    return sorted(runs, key=lambda run: run.token + chance.choice([0, 0, 1, 3, 9]) * chance.random())


def test_racing_flips_end_on_the_highest_token_and_readers_see_only_whole_days(
    warehouse: Warehouse,
) -> None:
    sizes = sealed_runs(warehouse, 200)
    first, *others = sizes
    warehouse.flip(first)
    with polling(warehouse, 3) as seen, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(warehouse.flip, nearly_in_order(others)))
    highest = max(sizes, key=lambda run: run.token)
    assert warehouse.visible() == {highest.run_id: sizes[highest]}
    expected = {run.run_id: size for run, size in sizes.items()}
    assert len({poll[0][0] for poll in seen}) > 3
    assert all(len(poll) == 1 and expected[poll[0][0]] == poll[0][1] for poll in seen)
    assert_history_is_whole(warehouse, results.count("published") + 1)


def assert_history_is_whole(warehouse: Warehouse, publishes: int) -> None:
    """Publications follow each other without a gap or an overlap, in the order of their tokens."""
    history = publications(warehouse)
    assert len(history) == publishes > 20
    for (_, _, opened, closed), (_, _, reopened, _) in pairwise(history):
        assert opened < closed == reopened
    assert history[-1][3] is None
    statuses = dict(warehouse.query("select status, count(*) from nightshift.runs group by 1"))
    assert statuses == {"published": publishes, "superseded": 200 - publishes}
