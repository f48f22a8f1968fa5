"""Realised quality of whole nights: what was acted upon, what a backfill put there, labels that come late."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import structlog
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression
from support.toy import NIGHT, YESTERDAY, quiet_mlflow
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.errors import FatalError, UsageError
from pipeline.estimates import estimate
from pipeline.outcomes import Evaluated, evaluate, weeks
from pipeline.partition import Partition, between

if TYPE_CHECKING:
    from support.toy import Toy

pytestmark = pytest.mark.integration

MORNING = datetime(2024, 1, 25, 5, tzinfo=UTC)
"""After the cut-off of NIGHT and before its decision."""
MATURE = datetime(2024, 1, 28, tzinfo=UTC)
DECLARED = """outcomes:
  label: sold
  decided_at: "08:00"
  slices: [kind]
  costs: {currency: EUR, hit: 1, false_alarm: 2, miss: 7}
"""


@pytest.fixture
def shop(toy: Toy) -> Toy:
    """The toy job with slices, costs and a time of decision."""
    toy.edit("dags/toy.yaml", "outcomes:\n  label: sold\n", DECLARED)
    return toy


def published_at(toy: Toy, run_no: int, instant: datetime) -> None:
    """Let the run have been published at another instant."""
    statement = "update nightshift.publications set published_at = %s where run_no = %s"
    toy.execute(statement, instant, run_no)


def nightly(toy: Toy) -> int:
    """Publish NIGHT in the morning before its decision; the run's number."""
    run_no: int = toy.night()["run_no"]
    published_at(toy, run_no, MORNING)
    return run_no


def quality(toy: Toy, run_no: int, column: str = "all", value: str = "all") -> dict[str, float]:
    """The newest evaluation of a run or of one of its slices."""
    statement = (
        "select metric, value from nightshift.quality "
        "where run_no = %s and slice_column = %s and slice_value = %s and arm = 'all'"
    )
    return dict(toy.query(statement, run_no, column, value))


def evaluations(toy: Toy) -> list[tuple[Any, ...]]:
    """Each evaluation: run, hindsight, rows, labelled, labels_as_of; in order."""
    return toy.query(
        "select run_no, hindsight, rows, labelled, labels_as_of from nightshift.outcomes "
        "where metric = 'coverage' and slice_column = 'all' and arm = 'all' order by evaluated_at, run_no"
    )


def judged_rows(toy: Toy) -> pd.DataFrame:
    """The published rows of NIGHT with what was sold."""
    sold = toy.rows("select id, sold from source.toy_sales where day = %s", NIGHT.day)
    return toy.parquet().merge(pd.DataFrame(sold), on="id")


def test_a_published_night_is_judged_by_what_became_true(shop: Toy) -> None:
    run_no = nightly(shop)
    assert evaluate(shop.env, "toy", as_of=MATURE) == Evaluated(days=1, runs=1, written=1, immature=0)
    rows, got = judged_rows(shop), quality(shop, run_no)
    assert got["auc"] == pytest.approx(metrics.roc_auc_score(rows["sold"], rows["score"]))
    assert got["brier"] == pytest.approx(metrics.brier_score_loss(rows["sold"], rows["score"]))
    assert got["precision"] == pytest.approx(metrics.precision_score(rows["sold"], rows["decision"]))
    hits = int((rows["decision"] & rows["sold"]).sum())
    false_alarms = int((rows["decision"] & ~rows["sold"]).sum())
    misses = int((~rows["decision"] & rows["sold"]).sum())
    assert got["cost"] == 1 * hits + 2 * false_alarms + 7 * misses
    assert evaluations(shop) == [(run_no, False, 200, 200, MATURE)]


def test_a_column_that_is_no_key_is_a_slice_from_the_runs_own_snapshot(shop: Toy) -> None:
    run_no = nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    kinds = dict(shop.query("select id, kind from source.toy where day = %s", NIGHT.day))
    shop.execute("update source.toy set kind = 'ball' where day = %s", NIGHT.day)
    rows = judged_rows(shop)
    for kind in ("ball", "doll", "kite"):
        cut = rows[rows["id"].map(kinds) == kind]
        assert quality(shop, run_no, "kind", kind)["brier"] == pytest.approx(
            metrics.brier_score_loss(cut["sold"], cut["score"])
        )


def test_a_backfill_is_judged_apart_and_does_not_rewrite_the_quality_of_what_was_acted_upon(
    shop: Toy,
) -> None:
    first = nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    before = quality(shop, first)
    shop.promote(2)
    second = shop.night(trigger="backfill", policy=2)["run_no"]
    assert evaluate(shop.env, "toy", as_of=MATURE).written == 1
    assert quality(shop, first) == before != quality(shop, second)
    assert [row[:2] for row in evaluations(shop)] == [(first, False), (second, True)]
    versions = "select run_no, model_version from nightshift.quality where metric = 'auc' and arm = 'all'"
    assert set(shop.query(versions)) == {(first, 1), (second, 2)}
    assert [(week.hindsight, week.nights) for week in weeks(shop.env, "toy")] == [(False, 1), (True, 1)]


def test_a_day_is_not_judged_before_its_labels_are_mature(shop: Toy) -> None:
    nightly(shop)
    done = evaluate(shop.env, "toy", as_of=MATURE - timedelta(hours=2))
    assert (done.written, done.immature) == (0, 1)
    assert evaluations(shop) == []


def test_late_labels_are_absent_then_counted_in_a_new_evaluation(shop: Toy) -> None:
    run_no = nightly(shop)
    late = MATURE + timedelta(days=5)
    shop.execute("update source.toy_sales set known_at = %s where day = %s and id > 150", late, NIGHT.day)
    evaluate(shop.env, "toy", as_of=MATURE)
    assert quality(shop, run_no)["coverage"] == 0.75
    evaluate(shop.env, "toy", as_of=late)
    assert quality(shop, run_no)["coverage"] == 1.0
    assert evaluations(shop) == [(run_no, False, 200, 150, MATURE), (run_no, False, 200, 200, late)]


def test_a_corrected_label_makes_a_new_evaluation_and_the_old_one_stays(shop: Toy) -> None:
    run_no = nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    before = quality(shop, run_no)
    shop.execute("update source.toy_sales set sold = not sold where day = %s and id = 1", NIGHT.day)
    assert evaluate(shop.env, "toy", as_of=MATURE).written == 1
    assert quality(shop, run_no) != before
    old = "select value from nightshift.outcomes where metric = 'brier' and slice_column = 'all'"
    assert (before["brier"],) in shop.query(old)


def test_nothing_new_is_not_written_again(shop: Toy) -> None:
    nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    done = evaluate(shop.env, "toy", as_of=MATURE + timedelta(days=1))
    assert (done.runs, done.written) == (1, 0)


def test_an_evaluation_with_fewer_labels_does_not_hide_a_later_one(shop: Toy) -> None:
    nightly(shop)
    late = MATURE + timedelta(days=5)
    shop.execute("update source.toy_sales set known_at = %s where day = %s and id > 150", late, NIGHT.day)
    evaluate(shop.env, "toy", as_of=late)
    assert evaluate(shop.env, "toy", as_of=MATURE).written == 0


def test_an_old_day_is_looked_at_again_only_when_it_is_asked_for(shop: Toy) -> None:
    nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    assert evaluate(shop.env, "toy").runs == 0
    assert evaluate(shop.env, "toy", (NIGHT, NIGHT)).runs == 1


def test_a_day_without_a_label_says_so_and_claims_nothing_else(shop: Toy) -> None:
    run_no = nightly(shop)
    shop.execute("delete from source.toy_sales where day = %s", NIGHT.day)
    evaluate(shop.env, "toy", as_of=MATURE)
    assert quality(shop, run_no) == {"coverage": 0.0}


def test_where_a_fallback_answered_the_sources_are_told_apart(shop: Toy) -> None:
    shop.execute("update source.toy set amount = -1 where day = %s and id <= 20", NIGHT.day)
    run_no = nightly(shop)
    evaluate(shop.env, "toy", as_of=MATURE)
    found = shop.query(
        "select distinct slice_value, rows from nightshift.quality "
        "where run_no = %s and slice_column = 'score_source'",
        run_no,
    )
    assert dict(found)["champion"] == 180
    assert sum(rows for _, rows in found) == 200


def test_a_label_that_is_none_is_refused_without_telling_a_row(shop: Toy) -> None:
    nightly(shop)
    shop.edit("dags/toy.yaml", "select id, sold from sales", "select id, 'secret' as sold from sales")
    with pytest.raises(FatalError, match="got type string") as refused:
        evaluate(shop.env, "toy", as_of=MATURE)
    assert "secret" not in str(refused.value)


def test_labels_of_the_future_are_refused(shop: Toy) -> None:
    with pytest.raises(UsageError, match="must not lie in the future"):
        evaluate(shop.env, "toy", as_of=datetime.now(UTC) + timedelta(days=1))


def command(toy: Toy, *words: str) -> Result:
    """The command on the toy project, in this process."""
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["outcomes", "toy", *words], env=toy.variables)
        gc.collect()  # otherwise the end of its process closes the command's connections
    structlog.reset_defaults()  # the test itself goes on logging
    return result


def test_the_command_tells_the_weeks(shop: Toy) -> None:
    for day in (YESTERDAY, NIGHT):
        shop.night(day)
    told = json.loads(command(shop, "--json").stdout)
    assert (told["days"], told["written"]) == (2, 2)
    (week,) = told["weeks"]
    assert (week["monday"], week["hindsight"], week["nights"]) == ("2024-01-22", True, 2)
    assert week["rows"] == week["labelled"] == 400
    assert 0.5 < week["realised"]["auc"] < 1
    assert "2024-01-22" in command(shop, "--from", NIGHT.key, "--to", NIGHT.key).stdout


@pytest.mark.soak
def test_a_night_is_estimated_from_the_labels_that_were_known_then(shop: Toy) -> None:
    for day in between(Partition.parse("2024-01-08"), NIGHT):
        last = shop.night(day)
    made = estimate(shop.env, "toy", NIGHT)
    assert made["calibration_nights"] == 15  # 8 to 22 January
    kept = "select metric, value from nightshift.metrics where run_no = %s and part = 'estimate'"
    assert dict(shop.query(kept, last["run_no"])) == made
    shop.execute("update source.toy_sales set sold = not sold where day > '2024-01-22'")
    assert estimate(shop.env, "toy", NIGHT) == made
    assert abs(made["auc"] - 0.8) < 0.2


def test_where_two_versions_answer_the_champions_arm_alone_is_estimated_and_calibrated_by(
    shop: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.monitoring.estimate.LEAST_NIGHTS", 1)
    first = Partition.parse("2024-01-21")
    shop.rollout("canary", share=0.4)
    for day in (first, NIGHT):
        shop.night(day)
    made = estimate(shop.env, "toy", NIGHT)

    def of_arm(arm: str, day: Partition) -> pd.DataFrame:
        frame = pd.DataFrame(shop.published(day))
        return frame[frame["arm"] == arm]

    sold = {
        row["id"]: row["sold"]
        for row in shop.rows("select * from source.toy_sales where day = %s", first.day)
    }
    known, now = of_arm("champion", first), of_arm("champion", NIGHT)
    cell = np.rint(known["score"] * 1000) / 1000
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    p = isotonic.fit(cell, known["id"].map(sold).astype(float)).predict(now["score"])
    assert made["base_rate"] == pytest.approx(p.mean())
    assert made["cost"] == pytest.approx(made["cost_per_1000"] * len(now) / 1000)
    for arm, same in (("challenger", True), ("champion", False)):
        ids = of_arm(arm, first)["id"].tolist()
        turn = "update source.toy_sales set sold = not sold where day = %s and id = any(%s)"
        shop.execute(turn, first.day, ids)
        assert (estimate(shop.env, "toy", NIGHT) == made) is same


def test_a_job_without_outcomes_is_told_what_to_declare(toy: Toy) -> None:
    text = (toy.project / "dags/toy.yaml").read_text()
    declared = text[text.index("outcomes:") : text.index("train:")]
    toy.edit("dags/toy.yaml", declared, "")
    with pytest.raises(UsageError, match="toy must declare outcomes to be judged"):
        evaluate(toy.env, "toy")
