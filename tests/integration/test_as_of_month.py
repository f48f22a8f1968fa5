"""A backfill as of its days over promotions, a roll-back and a rollout; changes that happen at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from support.toy import JOB, NIGHT, Toy, quiet_mlflow

from pipeline import rollouts, steps, training
from pipeline.adapters import versions
from pipeline.lifecycle.promote import Promotion
from pipeline.partition import Partition, between
from pipeline.planning import Request

pytestmark = pytest.mark.integration

MONTH = list(between(Partition.parse("2024-01-10"), Partition.parse("2024-02-09")))
# Cut-offs are at 02:00 UTC: a change at noon is in force from the next day on.
SECOND, THIRD, BACK = (datetime(2024, 1, day, 12, tzinfo=UTC) for day in (20, 27, 31))
CANARY = (datetime(2024, 1, 23, 12, tzinfo=UTC), datetime(2024, 1, 25, 12, tzinfo=UTC))


def lived(toy: Toy) -> int:
    """A history of two promotions and one roll-back within the month; the number of the first champion.

    It is written down in another order than the one in which it came into force. The toy's own version 1 is
    champion from 21 January on.
    """
    first = toy.register_like(1)
    with toy.env.engine.begin() as connection:
        approved = {"actor": "ben", "approved_by": "ana", "reason": "a test"}
        for kind, number, since in (
            ("promote", 2, THIRD),
            ("promote", first, datetime(2024, 1, 1, tzinfo=UTC)),
            ("rollback", 1, BACK),
        ):
            version = versions.version(connection, JOB, number)
            versions.record_promotion(connection, version, kind=kind, effective_from=since, **approved)  # type: ignore[arg-type]
    return first


def champion(first: int, day: Partition) -> int:
    """Who was champion at a day's cut-off."""
    noon = datetime.combine(day.day - timedelta(days=1), THIRD.timetz())
    return first if noon < SECOND else 2 if THIRD <= noon < BACK else 1


def replayed(toy: Toy, days: Sequence[Partition]) -> dict[str, set[tuple[str, int]]]:
    """Each day backfilled as of itself: who answered, by source and version."""
    for day in days:
        toy.night(day, policy="as-of", trigger="backfill")
    rows = toy.rows("select distinct day, score_source, model_version from predictions.toy")
    found: dict[str, set[tuple[str, int]]] = {day.key: set() for day in days}
    for row in rows:
        found[row["day"].isoformat()].add((row["score_source"], row["model_version"]))
    return found


def expected(first: int, days: Sequence[Partition], canary: int | None) -> dict[str, set[tuple[str, int]]]:
    answered = {day.key: {("champion", champion(first, day))} for day in days}
    if canary is not None:
        for key in ("2024-01-24", "2024-01-25"):
            if key in answered:
                answered[key].add(("challenger", canary))
    return answered


def at_the_changes() -> list[Partition]:
    keys = ("01-20", "01-21", "01-24", "01-26", "01-28", "02-01")
    return [Partition.parse(f"2024-{key}") for key in keys]


def canaried(toy: Toy) -> int:
    """A canary of a version of its own from 24 to 25 January."""
    number = toy.register_like(2)
    toy.rollout("canary", number, since=CANARY[0], share=0.4)
    rollouts.stop(toy.env, JOB, reason="a test", effective_from=CANARY[1])
    return number


def test_each_day_carries_the_version_and_the_rollout_that_were_live_then(toy: Toy) -> None:
    first, days = lived(toy), at_the_changes()
    challenger = canaried(toy)
    assert replayed(toy, days) == expected(first, days, challenger)


@pytest.mark.soak
@pytest.mark.parametrize("with_canary", [False, True])
def test_a_whole_month_carries_what_was_live_then(toy: Toy, with_canary: bool) -> None:
    first = lived(toy)
    challenger = canaried(toy) if with_canary else None
    assert replayed(toy, MONTH) == expected(first, MONTH, challenger)


def test_a_canary_of_who_was_promoted_ends_with_the_promotion(toy: Toy) -> None:
    lived(toy)
    toy.rollout("canary", 2, since=THIRD - timedelta(days=2), share=0.4)
    found = replayed(toy, [Partition.parse("2024-01-27"), Partition.parse("2024-01-28")])
    assert found["2024-01-27"] == {("champion", 1), ("challenger", 2)}
    assert found["2024-01-28"] == {("champion", 2)}


# At once


def history(toy: Toy) -> list[Promotion]:
    with toy.env.engine.connect() as connection:
        return versions.promotion_history(connection, JOB)


def promoted(toy: Toy, number: int) -> None:
    training.promote(toy.env, JOB, number, approved_by="ana", reason="a test")


def test_promotions_at_once_have_one_order(toy: Toy) -> None:
    with quiet_mlflow(), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: promoted(toy, number), [2, 1, 2, 1, 2, 1, 2, 1]))
    rows = history(toy)
    assert len(rows) == 9
    assert [row.previous_version for row in rows] == [None, *(row.version for row in rows[:-1])]
    instants = [row.effective_from for row in rows]
    assert instants == sorted(set(instants))


def test_a_promotion_that_is_tried_again_stands_and_revives_nothing_that_was_rolled_back(toy: Toy) -> None:
    def approved() -> tuple[Promotion, list[str]]:
        return training.promote(
            toy.env, JOB, 2, approved_by="ana", reason="a test", actor="admin, manual__2024-02-01"
        )

    with quiet_mlflow():
        first, _ = approved()
        assert approved()[0] == first
        training.rollback(toy.env, JOB, approved_by="ana", reason="a test")
        again, warnings = approved()
    assert again == first
    assert warnings[-1].endswith("now it is 1")
    assert [row.version for row in history(toy)] == [1, 2, 1]


def test_a_roll_back_that_waited_undoes_what_it_waited_for(toy: Toy) -> None:
    asked = Event()

    def roll_back() -> Any:
        asked.set()
        return training.rollback(toy.env, JOB, approved_by="ana", reason="a test")[0]

    with quiet_mlflow(), ThreadPoolExecutor(1) as pool:
        with toy.env.engine.begin() as connection:
            versions.lock(connection, JOB)
            waiting = pool.submit(roll_back)
            asked.wait(10)
            while not toy.query("select 1 from pg_locks where locktype = 'advisory' and not granted"):
                pass
            versions.record_promotion(
                connection,
                versions.version(connection, JOB, 2),
                kind="promote",
                actor="ben",
                approved_by="ana",
                reason="a test",
                effective_from=versions.now(connection),
            )
        undone = waiting.result(timeout=20)
    assert (undone.previous_version, undone.version) == (2, 1)
    assert [row.version for row in history(toy)] == [1, 2, 1]


def test_a_promotion_during_a_night_changes_the_next_one_alone(toy: Toy) -> None:
    toy.rollout("canary", 2, share=0.4)
    run = steps.plan(toy.env, Request(JOB, NIGHT))
    steps.extract(toy.env, run)
    with quiet_mlflow():
        promoted(toy, 2)
    steps.validate(toy.env, run)
    steps.score(toy.env, run)
    with quiet_mlflow():
        training.rollback(toy.env, JOB, approved_by="ana", reason="a test")
    steps.publish(toy.env, run)
    answered = {(row["score_source"], row["model_version"], row["run_id"]) for row in toy.published()}
    assert answered == {("champion", 1, run.run_id), ("challenger", 2, run.run_id)}
    following = toy.night(NIGHT.next())
    assert (following["model_version"], following["rollout_no"]) == (1, None)


def test_a_night_that_is_planned_during_a_promotion_waits_for_one_answer(toy: Toy) -> None:
    """Version and rollout are of one instant: never the champion of before with the rollout of after."""
    toy.rollout("canary", 2, share=0.4)
    with ThreadPoolExecutor(1) as pool:
        with toy.env.engine.begin() as connection:
            versions.lock(connection, JOB)
            planned = pool.submit(steps.plan, toy.env, Request(JOB, NIGHT))
            while not toy.query("select 1 from pg_locks where locktype = 'advisory' and not granted"):
                pass
            versions.record_promotion(
                connection,
                versions.version(connection, JOB, 2),
                kind="promote",
                actor="ben",
                approved_by="ana",
                reason="a test",
                effective_from=versions.now(connection),
            )
        run = planned.result(timeout=20)
    assert (run.model_version, run.rollout_no) == (2, None)
