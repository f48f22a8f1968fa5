"""Triggers of retraining over whole nights, and the nights that a training replays which names none."""

from __future__ import annotations

import gc
import json
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
import structlog
from support.toy import CHAMPION_SINCE, JOB, NIGHT, YESTERDAY, Toy, quiet_mlflow
from typer.testing import CliRunner

from pipeline import outcomes
from pipeline.cli.main import app
from pipeline.errors import UsageError
from pipeline.partition import Partition, between
from pipeline.retraining import evaluate_triggers, training_span

pytestmark = pytest.mark.integration

NOW = datetime(2024, 1, 28, 12, tzinfo=UTC)
"""NIGHT is the newest mature night; version 1 learned up to 10 January."""
RETRAIN = """
retrain:
  every_days: 30
  new_labels: 300
  on_drift: 2
  on_concept: true
  cost_above: {per_1000: 100, nights: 2}
  cool_down_days: 7
"""


def declared(toy: Toy) -> Toy:
    """The toy with costs and all triggers."""
    costs = "  label: sold\n  costs: {currency: EUR, hit: 1, false_alarm: 2, miss: 7}\n"
    toy.edit("dags/toy.yaml", "  label: sold\n", costs)
    file = toy.project / "dags/toy.yaml"
    file.write_text(file.read_text() + RETRAIN)
    return toy


def rows(toy: Toy) -> list[tuple[object, ...]]:
    return toy.query(
        "select kind, day, champion_version, cool_down_until, dag_run_id from nightshift.retrain_triggers "
        "order by trigger_no"
    )


def open_alert(toy: Toy, kind: str, first: date, last: date) -> None:
    toy.execute(
        "insert into nightshift.alerts (job, day, kind, cause, owner, message, last_day) "
        "values ('toy', %s, %s, 'a cause', 'Toys', 'a message', %s)",
        first, kind, last,
    )  # fmt: skip


def test_what_holds_is_recorded_once_until_its_cool_down_has_passed(toy: Toy) -> None:
    declared(toy)
    for day in (YESTERDAY, NIGHT):
        toy.night(day)
    outcomes.evaluate(toy.env, JOB, as_of=NOW)
    open_alert(toy, "drift", YESTERDAY.day, NIGHT.day)
    before = CHAMPION_SINCE.date() - timedelta(days=1)
    open_alert(toy, "concept", before, before)
    found = evaluate_triggers(toy.env, JOB, NOW, "scheduled__1")
    assert [each.kind for each in found] == ["on_drift", "cost_above", "new_labels"]
    assert found[0].evidence == "a cause, 2024-01-24 to 2024-01-25"
    assert found[2].figures == {"rows": 400, "declared": 300}
    assert rows(toy)[0] == ("on_drift", NOW.date(), 1, date(2024, 2, 4), "scheduled__1")
    assert evaluate_triggers(toy.env, JOB, NOW + timedelta(days=7), "scheduled__2") == []
    again = evaluate_triggers(toy.env, JOB, NOW + timedelta(days=8))
    assert [each.kind for each in again] == ["on_drift", "cost_above", "new_labels"]
    assert len(rows(toy)) == 6
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        toy.execute("delete from nightshift.retrain_triggers")


def test_only_what_the_champion_answered_in_its_time_is_its_cost(toy: Toy) -> None:
    """Earlier nights it may have learned from, and a challenger's arm is not its own."""
    toy.edit("dags/toy.yaml", "  label: sold\n", "  label: sold\n  costs: {currency: EUR, miss: 700}\n")
    file = toy.project / "dags/toy.yaml"
    file.write_text(file.read_text() + "\nretrain: {cost_above: {per_1000: 1, nights: 2}}\n")
    toy.night(Partition(CHAMPION_SINCE.date() - timedelta(days=1)))
    toy.rollout("canary", share=0.5)
    toy.night(NIGHT)
    outcomes.evaluate(toy.env, JOB, as_of=NOW)
    assert evaluate_triggers(toy.env, JOB, NOW) == []
    toy.night(YESTERDAY)
    outcomes.evaluate(toy.env, JOB, as_of=NOW)
    (fired,) = evaluate_triggers(toy.env, JOB, NOW)
    costs = toy.query(
        "select arm, avg(value) from nightshift.outcomes where metric = 'cost_per_1000' "
        "and slice_column = 'all' and day >= %s group by arm",
        CHAMPION_SINCE.date(),
    )
    by_arm = dict(costs)
    assert by_arm["champion"] != by_arm["challenger"]
    assert fired.figures["mean"] == pytest.approx(by_arm["champion"])


def test_a_dag_run_that_is_retried_finds_again_what_it_has_found(toy: Toy) -> None:
    declared(toy)
    late = datetime(2024, 2, 9, 12, tzinfo=UTC)
    first = evaluate_triggers(toy.env, JOB, late, "scheduled__1")
    assert [each.kind for each in first] == ["every_days"]
    assert evaluate_triggers(toy.env, JOB, late, "scheduled__1") == first
    assert evaluate_triggers(toy.env, JOB, late, "scheduled__2") == []


def test_who_looks_by_hand_keeps_no_training_from_its_start(toy: Toy) -> None:
    declared(toy)
    late = datetime(2024, 2, 9, 12, tzinfo=UTC)
    assert [each.kind for each in evaluate_triggers(toy.env, JOB, late)] == ["every_days"]
    assert [each.kind for each in evaluate_triggers(toy.env, JOB, late, "scheduled__1")] == ["every_days"]
    assert evaluate_triggers(toy.env, JOB, late, "scheduled__2") == []
    assert evaluate_triggers(toy.env, JOB, late) == []


FAR = "\nretrain:\n  far_from_training: {nights: 7, seasonal: [sold_share_7d]}\n"
WEEK = list(between(Partition.parse("2024-01-21"), Partition.parse("2024-01-27")))


def test_a_feature_that_crept_away_from_the_training_rows_asks_for_a_new_version(toy: Toy) -> None:
    """The data-drift alerts look at recent nights, of which there are too few here to say anything."""
    file = toy.project / "dags/toy.yaml"
    file.write_text(file.read_text() + FAR)
    for number, day in enumerate(WEEK):
        toy.execute("update source.toy set amount = amount + %s where day = %s", 30 + 10 * number, day.day)
        assert evaluate_triggers(toy.env, JOB, NOW) == []
        toy.night(day)
    (fired,) = evaluate_triggers(toy.env, JOB, NOW, "scheduled__1")
    assert (fired.kind, fired.figures["features"], fired.figures["nights"]) == ("far_from_training", 1, 7)
    assert "over the last 7 nights and in training: amount" in fired.evidence
    assert fired.figures["bits"] > 0.2 + fired.figures["in_training"]
    assert toy.query("select count(*) from nightshift.alerts") == [(0,)]
    assert evaluate_triggers(toy.env, JOB, NOW, "scheduled__1") == [fired]


@pytest.mark.soak
def test_nights_like_those_of_the_training_ask_for_nothing_nor_do_versions_that_measured_none(
    toy: Toy,
) -> None:
    file = toy.project / "dags/toy.yaml"
    file.write_text(file.read_text() + FAR.replace("nights: 7", "bits: 0.02, nights: 7"))
    for day in WEEK:
        toy.night(day)
    assert evaluate_triggers(toy.env, JOB, NOW) == []
    assert set(toy.version(1).metrics["night_distance"]) >= {"amount", "kind"}
    toy.execute("update nightshift.metrics set value = 1 where metric = 'js' and baseline = 'training'")
    older = {name: held for name, held in toy.version(1).metrics.items() if name != "night_distance"}
    toy.promote(toy.register_like(1, metrics=older))
    toy.execute("update nightshift.runs set model_version = 3")
    assert evaluate_triggers(toy.env, JOB, NOW) == []


def command(toy: Toy, *words: str) -> str:
    """What `nightshift outcomes` prints, in this process."""
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["outcomes", JOB, *words], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes the command's connections
    structlog.reset_defaults()  # the test itself goes on logging
    assert result.exit_code == 0, result.output
    return result.stdout


def test_without_a_champion_nothing_is_asked_for(toy: Toy) -> None:
    declared(toy)
    assert evaluate_triggers(toy.env, JOB, CHAMPION_SINCE - timedelta(days=1)) == []


def test_the_command_tells_what_fired(toy: Toy) -> None:
    declared(toy)
    assert "retraining asked for, every_days: the champion learned up to 2024-01-10" in command(toy)
    assert json.loads(command(toy, "--json"))["retrain"] == []


def test_a_training_replays_the_newest_mature_nights_but_those_that_the_gate_judges_by(toy: Toy) -> None:
    days = training_span(toy.job(), NOW, 5)
    assert (days[0].key, days[-1].key) == ("2024-01-01", "2024-01-20")
    toy.edit("dags/toy.yaml", "holdout_nights: 3", "holdout_nights: 3, nights: 10")
    days = training_span(toy.job(), NOW, 5)
    assert (days[0].key, days[-1].key, len(days)) == ("2024-01-11", "2024-01-20", 10)


def test_a_training_without_a_mature_night_is_refused_with_days(toy: Toy) -> None:
    told = r"from 2024-01-01 on beside the 28 .* mature one is 2024-01-25"
    with pytest.raises(UsageError, match=told):
        training_span(toy.job(), NOW, 28)
