"""A challenger beside the champion, over whole nights: who answers whom, and what readers see."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.toy import CHAMPION_SINCE, NIGHT, YESTERDAY, Toy
from support.wholeness import assert_whole

from pipeline import rollouts, steps
from pipeline.errors import UsageError
from pipeline.lifecycle.rollout import Kind, in_challenger_arm
from pipeline.partition import Partition
from pipeline.planning import Request

pytestmark = pytest.mark.integration

LATER = CHAMPION_SINCE + timedelta(days=2)


def drawn(salt: str | None, share: float, ids: range = range(1, 201)) -> set[int]:
    """The ids of the challenger's arm."""
    assert salt
    found = in_challenger_arm(pa.table({"id": pa.array(ids, pa.int64())}), ["id"], salt, share)
    return {number for number, is_in in zip(ids, found, strict=True) if is_in}


def in_arm(toy: Toy, arm: str, day: Partition = NIGHT) -> set[int]:
    return {row["id"] for row in toy.published(day) if row["arm"] == arm}


def scores_of(toy: Toy, version: int, day: Partition = NIGHT) -> dict[int, float]:
    """What a version alone says of a day."""
    toy.night(day, policy=version)
    return {number: row["score"] for number, row in toy.by_id(day).items()}


def test_a_canary_answers_its_share_of_the_keys_and_every_row_says_so(toy: Toy) -> None:
    alone = {version: scores_of(toy, version) for version in (1, 2)}
    running = toy.rollout("canary", share=0.3)
    record = toy.night()
    theirs = drawn(running.salt, 0.3)
    assert in_arm(toy, "challenger") == theirs
    assert 30 < len(theirs) < 90
    for number, row in toy.by_id().items():
        who, version = ("challenger", 2) if number in theirs else ("champion", 1)
        assert (row["arm"], row["score_source"], row["model_version"]) == (who, who, version)
        assert row["score"] == pytest.approx(alone[version][number])
        assert row["decision"] is (row["score"] >= 0.5)
    assert record["rollout_no"] == running.rollout_no
    assert (record["rows_scored"], record["rows_fallback"], record["degraded"]) == (200, 0, False)
    assert record["score_sources"] == {"champion": 200 - len(theirs), "challenger": len(theirs)}
    assert record["warnings"] == []
    assert_whole(toy, NIGHT)
    assert toy.parquet()["arm"].value_counts().to_dict() == dict(
        Counter(row["arm"] for row in toy.published())
    )


def test_a_key_keeps_its_arm_from_night_to_night(toy: Toy) -> None:
    toy.rollout("canary", share=0.3)
    for day in (YESTERDAY, NIGHT):
        toy.night(day)
    assert in_arm(toy, "challenger", YESTERDAY) == in_arm(toy, "challenger")


def test_a_growing_share_takes_keys_and_gives_none_back(toy: Toy) -> None:
    small = toy.rollout("canary", share=0.1)
    large = toy.rollout("ab", None, LATER, share=0.5)
    assert small.salt == large.salt
    assert small.version == large.version == 2
    assert drawn(small.salt, 0.1) < drawn(large.salt, 0.5)
    toy.night()
    assert in_arm(toy, "challenger") == drawn(large.salt, 0.5)


def test_another_version_draws_its_keys_anew(toy: Toy) -> None:
    third = toy.register_like(2)
    assert toy.rollout("canary").salt != toy.rollout("canary", third, LATER).salt


def test_without_a_rollout_and_for_a_version_asked_for_there_is_no_arm(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.rollout("canary", share=0.3)
    record = toy.night(policy=2)
    assert record["rollout_no"] is None
    assert {row["arm"] for day in (YESTERDAY, NIGHT) for row in toy.published(day)} == {None}


def test_a_stop_restores_the_champion_for_the_next_night(toy: Toy) -> None:
    toy.rollout("canary", share=0.3)
    toy.night(YESTERDAY)
    stopped = rollouts.stop(toy.env, "toy", reason="enough")
    assert (stopped.kind, stopped.version, stopped.approved_by) == ("stop", None, None)
    toy.night()
    assert len(in_arm(toy, "challenger", YESTERDAY)) > 0
    assert {row["score_source"] for row in toy.published()} == {"champion"}
    with pytest.raises(UsageError, match="must run to be stopped; there is none"):
        rollouts.stop(toy.env, "toy", reason="again")


def test_a_stop_that_is_tried_again_stands(toy: Toy) -> None:
    """A task of Airflow is killed after its commit; its next attempt must not fail and page."""
    toy.rollout("canary", share=0.3)
    by = "ben, manual__2024-01-25"
    first, again = (rollouts.stop(toy.env, "toy", reason="enough", actor=by) for _ in range(2))
    assert first == again
    with pytest.raises(UsageError, match="there is none"):
        rollouts.stop(toy.env, "toy", reason="enough", actor="ben, manual__2024-01-26")


def test_a_rollout_to_come_can_be_stopped_as_the_refusal_says(toy: Toy) -> None:
    begins = datetime(2100, 1, 1, tzinfo=UTC)
    toy.rollout("canary", since=begins)
    with pytest.raises(UsageError, match=r"none yet: rollout 1 begins at 2100-01-01T00:00:00\+00:00"):
        rollouts.stop(toy.env, "toy", reason="no")
    assert rollouts.stop(toy.env, "toy", reason="no", effective_from=begins).stops == 1


def test_bad_rows_have_their_arm_and_are_never_given_to_a_challenger(toy: Toy) -> None:
    refusing = 'assert (rows["amount"] >= 0).all()\n    kinds = history["kinds"]'
    running = toy.rollout("canary", toy.own_features('kinds = history["kinds"]', refusing), share=0.5)
    toy.execute("update source.toy set amount = -1 where day = %s and id <= 20", NIGHT.day)
    toy.execute("update source.toy set id = null where day = %s and id = 30", NIGHT.day)
    record = toy.night()
    assert record["warnings"] == [] or all("challenger" not in told for told in record["warnings"])
    theirs = drawn(running.salt, 0.5) - {30}
    assert in_arm(toy, "challenger") == theirs
    assert record["score_sources"]["challenger"] == len(theirs - set(range(1, 21)))
    assert (record["rows_fallback"], record["rows_withheld"]) == (20, 1)
    assert_whole(toy, NIGHT)


# A challenger that fails


def broken(toy: Toy, how: str) -> int:
    """A version that registers well and fails at night."""
    if how == "artifact":
        number = toy.own_artifacts(2)
        Path(toy.version(number).model_uri).unlink()
        return number
    if how == "sha256":
        return toy.register_like(2, model_sha256="0" * 64)
    if how == "answers":
        metrics: Any = toy.version(2).metrics
        known = metrics["known_answers"]
        moved = known | {"scores": [score / 2 for score in known["scores"]]}
        return toy.register_like(2, metrics=metrics | {"known_answers": moved})
    if how == "predict":
        return toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] / 0,', like=2)
    queries: Any = toy.version(2).queries
    sql = queries["history"]["kinds"]["sql"].replace("toy.kind, count", "toy.nothing, count")
    history = {"kinds": queries["history"]["kinds"] | {"sql": sql}}
    return toy.register_like(2, queries=queries | {"history": history}, feature_version="f-other")


def faults(*often: str) -> list[Any]:
    """All ways to fail; those that are not tried `often` are for make soak."""
    names = ("artifact", "sha256", "answers", "predict", "history")
    return [name if name in often else pytest.param(name, marks=pytest.mark.soak) for name in names]


@pytest.mark.parametrize("how", faults("artifact", "answers", "history"))
def test_where_the_challenger_fails_the_champion_answers_its_rows_too(toy: Toy, how: str) -> None:
    toy.rollout("canary", broken(toy, how), share=0.3)
    record = toy.night()
    assert record["status"] == "published"
    assert (record["score_sources"], record["degraded"]) == ({"champion": 200}, False)
    assert any(told.startswith("challenger") for told in record["warnings"])
    assert len(in_arm(toy, "challenger")) > 0
    assert_whole(toy, NIGHT)


@pytest.mark.parametrize("kind", ["shadow", pytest.param("canary", marks=pytest.mark.soak)])
def test_a_challengers_query_that_meets_the_sources_time_limit_fails_no_night(toy: Toy, kind: Kind) -> None:
    toy.execute(
        "create function public.slow(bigint) returns bigint language plpgsql volatile as "
        "$$ begin raise exception using errcode = 'query_canceled'; end $$"
    )
    queries: Any = toy.version(2).queries
    sql = queries["history"]["kinds"]["sql"].replace("count(*) as toys", "public.slow(count(*)) as toys")
    history = {"kinds": queries["history"]["kinds"] | {"sql": sql}}
    toy.rollout(kind, toy.register_like(2, queries=queries | {"history": history}, feature_version="f-slow"))
    record = toy.night()
    assert (record["status"], record["score_sources"]) == ("published", {"champion": 200})
    assert any("not read, as queries failed" in told for told in record["warnings"])


def test_where_both_fail_the_declared_chain_answers(toy: Toy) -> None:
    number = toy.own_artifacts()
    toy.promote(number)
    toy.rollout("canary", 2, LATER, share=0.3)
    Path(toy.version(number).model_uri).unlink()
    record = toy.night()
    assert (record["score_sources"], record["degraded"]) == ({"previous_model": 200}, True)
    assert toy.query("select count(*) from nightshift.rollouts") == [(1,)], (
        "it was not the challenger's fault"
    )
    assert [told.split(" ")[0] for told in record["warnings"]] == ["champion"]


# A shadow


def shadow_rows(toy: Toy, day: Partition = NIGHT) -> dict[int, dict[str, Any]]:
    rows = toy.rows("select * from predictions.toy_shadow where day = %s", day.day)
    return {row["id"]: row for row in rows}


def test_a_shadow_scores_the_same_inputs_and_readers_see_nothing_of_it(toy: Toy) -> None:
    alone = {version: scores_of(toy, version) for version in (1, 2)}
    running = toy.rollout("shadow")
    record = toy.night()
    shown, shadowed = toy.by_id(), shadow_rows(toy)
    assert {row["score_source"] for row in shown.values()} == {"champion"}
    assert {(row["arm"], row["model_version"]) for row in shown.values()} == {(None, 1)}
    assert {number: row["score"] for number, row in shown.items()} == pytest.approx(alone[1])
    assert {number: row["score"] for number, row in shadowed.items()} == pytest.approx(alone[2])
    for number, row in shadowed.items():
        assert (row["champion_score"], row["champion_decision"]) == (
            shown[number]["score"], shown[number]["decision"],
        )  # fmt: skip
        assert row["decision"] is (row["score"] >= 0.5)
        assert (row["model_version"], row["run_id"]) == (2, record["run_id"])
    assert (record["rollout_no"], record["warnings"]) == (running.rollout_no, [])
    assert_whole(toy, NIGHT)


def test_the_shadow_view_shows_the_current_run_alone(toy: Toy) -> None:
    toy.rollout("shadow")
    toy.night()
    last = toy.night()
    assert {row["run_id"] for row in shadow_rows(toy).values()} == {last["run_id"]}
    assert len(shadow_rows(toy)) == 200
    rollouts.stop(toy.env, "toy", reason="enough")
    toy.night()
    assert shadow_rows(toy) == {}


@pytest.mark.parametrize("how", faults("predict"))
def test_a_shadow_that_fails_is_a_warning_and_no_failed_night(toy: Toy, how: str) -> None:
    toy.rollout("shadow", broken(toy, how))
    record = toy.night()
    assert (record["status"], record["score_sources"]) == ("published", {"champion": 200})
    assert any(told.startswith(("shadow", "challenger")) for told in record["warnings"])
    assert shadow_rows(toy) == {}


def test_a_shadow_has_answered_before_its_rows_count_as_scored(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed in its shard: where others end the run, nobody comes back for its shadow."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    toy.rollout("shadow")
    run = steps.plan(toy.env, Request("toy", NIGHT))
    with monkeypatch.context() as patched:
        patched.setattr(steps, "score_part", killed)
        with pytest.raises(KeyboardInterrupt):
            toy.night(run_id=run.run_id)
    assert toy.query("select count(*) from nightshift.shadow_toy") == [(200,)]
    assert toy.night(run_id=run.run_id)["warnings"] == []
    assert len(shadow_rows(toy)) == 200


def test_a_shadow_sees_no_bad_row(toy: Toy) -> None:
    toy.execute("update source.toy set amount = -1 where day = %s and id <= 20", NIGHT.day)
    toy.rollout("shadow")
    toy.night()
    assert set(shadow_rows(toy)) == set(range(21, 201))


# What cannot be rolled out


def test_a_rollout_that_readers_see_needs_an_approver_and_a_shadow_none(toy: Toy) -> None:
    assert rollouts.start(toy.env, "toy", "shadow", version=2, reason="look").approved_by is None
    for kind in ("canary", "ab"):
        with pytest.raises(UsageError, match="--approved-by must name an approver"):
            rollouts.start(toy.env, "toy", kind, version=2, reason="try")
    with pytest.raises(UsageError, match="declared approvers; got 'eve'"):
        rollouts.start(toy.env, "toy", "canary", version=2, approved_by="eve", reason="try")


def test_what_cannot_run_beside_the_champion_is_refused_with_what_to_do(toy: Toy) -> None:
    other = toy.own_extract("select *", "select /* other */ *", like=2)
    with pytest.raises(UsageError, match=r"both score one snapshot; they differ in sql\. Promote it"):
        toy.rollout("canary", other)
    with pytest.raises(UsageError, match="must be another one than the champion of toy; got 1"):
        toy.rollout("canary", 1)
    with pytest.raises(UsageError, match="--version must name a registered version"):
        toy.rollout("canary", None)
    with pytest.raises(UsageError, match="--share must lie between 0 and 1"):
        toy.rollout("canary", share=1.0)
    with pytest.raises(UsageError, match="--share must be left out for a shadow"):
        toy.rollout("shadow", share=0.1)


def test_the_history_of_rollouts_can_only_be_appended_to(toy: Toy) -> None:
    toy.rollout("canary")
    for change in ("update nightshift.rollouts set share = 0.9", "delete from nightshift.rollouts"):
        with pytest.raises(Exception, match="rollouts is append-only"):
            toy.execute(change)


# What is fixed when


def test_a_rollout_is_fixed_when_the_night_is_planned(toy: Toy) -> None:
    running = toy.rollout("canary", share=0.3)
    run = steps.plan(toy.env, Request("toy", NIGHT))
    steps.extract(toy.env, run)
    rollouts.stop(toy.env, "toy", reason="enough")
    steps.validate(toy.env, run)
    steps.score(toy.env, run)
    steps.publish(toy.env, run)
    assert in_arm(toy, "challenger") == drawn(running.salt, 0.3)


def test_as_of_a_day_it_is_the_rollout_of_that_day(toy: Toy) -> None:
    since = datetime(2024, 1, 24, 12, tzinfo=UTC)
    running = toy.rollout("canary", since=since, share=0.3)
    rollouts.stop(toy.env, "toy", reason="enough", effective_from=since + timedelta(days=1))
    toy.night(YESTERDAY, policy="as-of")
    toy.night(NIGHT, policy="as-of")
    toy.night(NIGHT.next(), policy="as-of")
    arms = [in_arm(toy, "challenger", day) for day in (YESTERDAY, NIGHT, NIGHT.next())]
    assert arms == [set(), drawn(running.salt, 0.3), set()]
