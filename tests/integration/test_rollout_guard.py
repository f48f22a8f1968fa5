"""What stops a rollout by itself, before labels and after them, and what its owner is told."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
import structlog
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support.toy import NIGHT, YESTERDAY, Toy, quiet_mlflow
from typer.testing import CliRunner

from pipeline import guardrails, steps
from pipeline.adapters import ledger
from pipeline.adapters import outcomes as stored
from pipeline.cli.main import app
from pipeline.monitor import monitor
from pipeline.outcomes import evaluate
from pipeline.partition import EVER, Partition, between
from pipeline.planning import Request

pytestmark = pytest.mark.integration

NIGHTS = list(between(Partition.parse("2024-01-22"), Partition.parse("2024-01-27")))
OUTCOMES = """outcomes:
  label: sold
  slices: [kind]
  costs: {currency: EUR, false_alarm: 2, miss: 7}
"""


@pytest.fixture
def shop(toy: Toy) -> Toy:
    """The toy job with costs and slices, and few nights until a conclusion."""
    toy.edit("dags/toy.yaml", "outcomes:\n  label: sold\n", OUTCOMES)
    toy.edit("dags/toy.yaml", "train: {", "rollout: {min_nights: 5, max_decision_gap: 0.9}\n\ntrain: {")
    return toy


@pytest.fixture
def bold(shop: Toy) -> Toy:
    """The same, content with a weaker proof."""
    shop.edit("dags/toy.yaml", "rollout: {min_nights", "rollout: {error: 0.3, min_nights")
    return shop


def by_kind(toy: Toy, **sold: bool) -> int:
    """A version that looks at the kind alone and takes these to be sold; its number."""
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])])
    frame = pd.DataFrame({"kind": list(sold) * 20})
    model: Pipeline = make_pipeline(columns, LogisticRegression(C=100.0))
    return toy.register(model.fit(frame, list(sold.values()) * 20), like=2)


def never(toy: Toy) -> int:
    """A version that takes nothing to be sold; its number."""
    columns = ColumnTransformer([("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"])])
    model = make_pipeline(columns, LogisticRegression())
    model.fit(pd.DataFrame({"kind": ["ball", "doll", "kite"] * 2}), [False, True] * 3)
    model[-1].intercept_ -= 5.0
    return toy.register(model, like=2)


def history(toy: Toy) -> list[dict[str, Any]]:
    return toy.rows("select * from nightshift.rollouts order by rollout_no")


def alerts(toy: Toy) -> list[dict[str, Any]]:
    return toy.rows("select * from nightshift.alerts where kind = 'rollout'")


def command(toy: Toy, *words: str) -> Any:
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["rollout", "toy", *words, "--json"], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes the command's connections
    structlog.reset_defaults()  # the test itself goes on logging
    return json.loads(result.stdout)


def test_answers_of_another_kind_stop_a_canary_on_its_first_night(toy: Toy) -> None:
    toy.rollout("canary", by_kind(toy, ball=True, doll=True, kite=False), share=0.5)
    toy.edit("dags/toy.yaml", "train: {", "rollout: {max_decision_gap: 0.01}\n\ntrain: {")
    toy.execute("update source.toy set kind = 'ball', amount = 1 where day = %s", NIGHT.day)
    first = toy.night()
    started, stopped = history(toy)
    assert (stopped["kind"], stopped["stops"], stopped["actor"]) == (
        "stop",
        started["rollout_no"],
        "nightshift",
    )
    assert "On 2024-01-25, the challenger decides yes in 100.0% of its rows" in stopped["reason"]
    assert toy.night(NIGHT.next())["rollout_no"] is None
    assert first["status"] == "published"
    (alert,) = alerts(toy)
    assert alert["cause"] == f"canary of version 3 stopped, rollout {started['rollout_no']}"
    assert "The champion answers alone from the next night on." in alert["message"]
    assert "Toys, toys-oncall@example.com" in alert["message"]


def test_a_challenger_that_fails_is_stopped_at_once_and_told_once(toy: Toy) -> None:
    toy.rollout("canary", toy.register_like(2, model_sha256="0" * 64), share=0.3)
    toy.night(YESTERDAY)
    assert [row["kind"] for row in history(toy)] == ["canary", "stop"]
    assert "did not answer" in history(toy)[-1]["reason"]
    (night,) = command(toy, "status")["nights"]
    assert "did not answer" in night["faults"][0]
    toy.night()
    assert len(alerts(toy)) == 1


def failing(toy: Toy) -> int:
    """A version whose model file is not the approved one; its number."""
    return toy.register_like(2, model_sha256="0" * 64)


def test_a_stop_whose_teller_was_killed_is_told_when_it_is_tried_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.rollout("canary", failing(toy), share=0.3)
    with monkeypatch.context() as patched:
        patched.setattr(guardrails, "alert_findings", killed)
        with pytest.raises(KeyboardInterrupt):
            toy.night()
    assert [row["kind"] for row in history(toy)] == ["canary", "stop"]
    for _ in range(2):
        monitor(toy.env, ledger.as_run(toy.record(toy.last_run()["run_id"])))
    assert (len(history(toy)), len(alerts(toy))) == (2, 1)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_bad_challenger_is_stopped_on_a_night_whose_metrics_fail(toy: Toy) -> None:
    toy.promote(toy.register_like(1, profile_uri="/nowhere/profile.json.zst"))
    toy.rollout("canary", failing(toy), datetime(2024, 1, 22, tzinfo=UTC), share=0.3)
    record = toy.night()
    assert any(told.startswith("monitoring did not end: ModelError") for told in record["warnings"])
    assert [row["kind"] for row in history(toy)] == ["canary", "stop"]


def test_a_canary_that_became_a_shadow_is_not_stopped_for_a_night_that_it_answered(toy: Toy) -> None:
    toy.rollout("canary", failing(toy), share=0.3)
    run = steps.plan(toy.env, Request("toy", NIGHT))
    toy.rollout("shadow", None, datetime(2024, 1, 22, tzinfo=UTC))
    toy.night(run_id=run.run_id)
    assert [row["kind"] for row in history(toy)] == ["canary", "shadow"]


def test_outcomes_are_judged_where_an_earlier_attempt_was_killed_before_it(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.night()
    with monkeypatch.context() as patched:
        patched.setattr(guardrails, "judge", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(toy.env, "toy")
    judged: list[str] = []
    monkeypatch.setattr(guardrails, "judge", lambda _, job: judged.append(job))
    assert evaluate(toy.env, "toy").written == 0
    assert judged == ["toy"]


def test_a_shadow_that_does_not_answer_is_told_in_its_status(toy: Toy) -> None:
    toy.rollout("shadow", failing(toy))
    toy.night()
    found = guardrails.standing(toy.env, "toy")
    assert found is not None
    (night,) = found.nights
    assert (night.answered.champion_rows, night.answered.challenger_rows) == (0, 0)
    assert (night.answered.failed_rows, night.changed) == (200, 0)


@pytest.mark.soak
def test_a_slice_of_many_values_is_cut_to_the_most_frequent_ones(shop: Toy) -> None:
    shop.edit("dags/toy.yaml", "slices: [kind]", "slices: [kind, id]")
    shop.rollout("shadow", 2)
    shop.night()
    counted = "select count(*) from nightshift.rollout_nights where slice_column = 'id'"
    assert shop.query(counted) == [(51,)]


@pytest.mark.soak
def test_nobody_is_said_to_decide_where_the_job_does_not(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "  output: probability\n  threshold: 0.5\n", "  output: value\n")
    toy.promote(values(toy, 10.0))
    toy.rollout("shadow", values(toy, 12.0), datetime(2024, 1, 22, tzinfo=UTC))
    toy.night()
    found = guardrails.standing(toy.env, "toy")
    assert found is not None
    assert found.nights[0].answered.challenger_mean == pytest.approx(24.0, abs=0.2)
    assert not found.decides


def values(toy: Toy, ball: float) -> int:
    """A version that gives values by kind alone; its number."""
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])])
    frame = pd.DataFrame({"kind": ["ball", "doll", "kite"] * 2})
    return toy.register(make_pipeline(columns, LinearRegression()).fit(frame, [ball, 2 * ball, 3 * ball] * 2))


def test_a_rollout_to_come_has_not_ended(toy: Toy) -> None:
    begins = datetime(2100, 1, 1, tzinfo=UTC)
    toy.rollout("shadow", 2, begins)
    found = guardrails.standing(toy.env, "toy")
    assert found is not None
    assert (found.running, found.ended, found.begins) == (False, None, begins)


def test_a_shadow_is_never_stopped_and_its_changes_are_counted_by_slice(shop: Toy) -> None:
    shop.rollout("shadow", by_kind(shop, ball=True, doll=True, kite=False))
    shop.night()
    assert [row["kind"] for row in history(shop)] == ["shadow"]
    kept = shop.rows("select * from nightshift.rollout_nights")
    changed = {(row["slice_column"], row["slice_value"]): row["changed"] for row in kept}
    rows = shop.rows(
        "select kind, shadow.decision <> champion_decision as changed from predictions.toy_shadow shadow "
        "join source.toy on toy.day = shadow.day and toy.id = shadow.id"
    )
    expected = {("all", "all"): sum(row["changed"] for row in rows)}
    expected |= {
        ("kind", kind): sum(row["changed"] for row in rows if row["kind"] == kind)
        for kind in ("ball", "doll", "kite")
    }
    assert changed == expected
    assert 0 < changed["all", "all"] < 200
    (night,) = command(shop, "status")["nights"]
    assert night["changed"] == changed["all", "all"]


def test_a_canary_that_costs_more_is_stopped_by_its_outcomes_and_the_champion_restored(bold: Toy) -> None:
    opposite = never(bold)
    bold.rollout("canary", opposite, share=0.5)
    for day in NIGHTS[:4]:
        bold.night(day)
    evaluate(bold.env, "toy")
    assert len(history(bold)) == 1, "too few nights"
    for day in NIGHTS[4:]:
        bold.night(day)
    before = command(bold, "status")
    assert before["comparison"]["nights"] == 4
    evaluate(bold.env, "toy")
    told = command(bold, "status")
    assert told["running"] is False
    assert (told["comparison"]["conclusion"], told["comparison"]["nights"]) == ("worse", 6)
    assert 0 < told["comparison"]["lower"] < told["comparison"]["difference"]
    started, stopped = history(bold)
    assert (stopped["stops"], stopped["actor"]) == (started["rollout_no"], "nightshift")
    assert "Over 6 nights, cost_per_1000 of the challenger was" in stopped["reason"]
    evaluate(bold.env, "toy")
    assert (len(history(bold)), len(alerts(bold))) == (2, 1)
    assert bold.night(NIGHTS[-1].next())["rollout_no"] is None


@pytest.mark.soak
def test_an_equal_canary_goes_on(shop: Toy) -> None:
    shop.rollout("canary", shop.register_like(1), share=0.5)
    for day in NIGHTS:
        shop.night(day)
    evaluate(shop.env, "toy")
    found = guardrails.standing(shop.env, "toy")
    assert found is not None
    assert found.running
    assert found.comparison is not None
    assert found.comparison.conclusion == "not enough nights"
    assert [night.sample_ratio_p is not None for night in found.nights] == [True] * 6
    with shop.env.engine.connect() as connection:
        whole, own = (stored.realised(connection, "toy", *EVER, of_champion=each) for each in (False, True))
    assert [row["rows"] for row in whole] == [200] * 6
    assert [row["rows"] for row in own] == [night.answered.champion_rows for night in found.nights]


@pytest.mark.soak
def test_an_ab_test_concludes_and_changes_nothing_and_uneven_arms_block_it(bold: Toy) -> None:
    bold.rollout("ab", never(bold), share=0.5)
    for day in NIGHTS:
        bold.night(day)
    evaluate(bold.env, "toy")
    assert command(bold, "status")["comparison"]["conclusion"] == "worse"
    assert [row["kind"] for row in history(bold)] == ["ab"], "an A/B test concludes and changes nothing"
    bold.execute("update nightshift.rollout_nights set challenger_assigned = 20 where day = %s", NIGHT.day)
    assert command(bold, "status")["comparison"]["conclusion"] == "sample ratio broken"


@pytest.mark.soak
def test_the_command_starts_goes_on_and_stops(toy: Toy) -> None:
    started = command(toy, "shadow", "--version", "2", "--reason", "look")
    assert (started["kind"], started["version"], started["approved_by"]) == ("shadow", 2, None)
    grown = command(toy, "canary", "--approved-by", "ana", "--share", "0.2")
    assert (grown["salt"], grown["version"], grown["share"]) == (started["salt"], 2, 0.2)
    refused = command(toy, "ab")
    assert refused["error"] == "UsageError"
    assert "--approved-by must name an approver" in refused["message"]
    assert "takes no --share" in command(toy, "stop", "--share", "0.2")["message"]
    assert command(toy, "stop", "--reason", "enough")["stops"] == grown["rollout_no"]
    assert command(toy, "status")["running"] is False


@pytest.mark.soak
def test_a_rollout_of_old_nights_is_judged_too(bold: Toy) -> None:
    """2013 is scored today: every night is judged in hindsight, and a bad canary is stopped all the same."""
    since = datetime(2024, 1, 21, tzinfo=UTC)
    bold.rollout("canary", never(bold), since=since, share=0.5)
    for day in NIGHTS:
        bold.night(day, policy="as-of", trigger="backfill")
    evaluate(bold.env, "toy")
    assert [row["kind"] for row in history(bold)] == ["canary", "stop"]
