"""Both fallback chains, step by step: each step answers when everything above it is broken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support.toy import JOB, NIGHT, YESTERDAY, Toy

from pipeline import shard, steps
from pipeline.adapters.versions import ModelVersion
from pipeline.errors import ModelError, ValidationError
from pipeline.partition import Partition
from pipeline.planning import Request, plan
from pipeline.scoring.feature_code import feeding_queries, load_feature_code

pytestmark = pytest.mark.integration

BROKEN_ID = 4
"""A doll: the rule has no answer for it."""


def answered_by(toy: Toy, day: Partition = NIGHT) -> dict[str, int]:
    """How many rows each score source has in SQL, which must be what the Parquet file has."""
    counts = dict(Counter(row["score_source"] for row in toy.published(day)))
    assert counts == toy.parquet(day)["score_source"].value_counts().to_dict()
    return counts


def unanswered(toy: Toy) -> set[int]:
    """The ids that the last run withheld for want of an answer, as the quarantine keeps them."""
    lines = [line for line in toy.quarantine() if line["rule"] == "engine:answered"]
    assert {line["verdict"] for line in lines} <= {"withheld"}
    return {json.loads(line["key"])["id"] for line in lines}


def champion_of_its_own(toy: Toy) -> tuple[int, Path, Path]:
    """A champion after version 1 with files that a test may break: number, model file, baseline file."""
    number = toy.own_artifacts()
    toy.promote(number)
    version = toy.version(number)
    return number, Path(version.model_uri), Path(version.baseline_uri)


def only_row_steps(toy: Toy, steps: str) -> None:
    """Let these steps alone follow the champion."""
    toy.edit("dags/toy.yaml", "model_failure: [previous_model, baseline, carried_forward, default]", steps)


def model_of(encoder: OneHotEncoder) -> Pipeline:
    """A model that looks at the kind alone, fitted on the three known ones."""
    columns = ColumnTransformer([("kind", encoder, ["kind"])])
    frame = pd.DataFrame({"kind": ["ball", "doll", "kite"] * 2})
    return make_pipeline(columns, LogisticRegression()).fit(frame, [False, True] * 3)


# When the champion cannot answer


def test_a_missing_artifact_lets_the_previous_model_answer(toy: Toy) -> None:
    number, model, _ = champion_of_its_own(toy)
    model.unlink()
    record = toy.night()
    assert (record["status"], record["degraded"], record["model_version"]) == ("published", True, number)
    assert (record["rows_scored"], record["rows_fallback"]) == (0, 200)
    assert answered_by(toy) == {"previous_model": 200}
    assert {row["model_version"] for row in toy.published()} == {1}
    assert any("champion did not answer" in warning for warning in record["warnings"])


def test_an_artifact_of_another_sha256_is_not_loaded(toy: Toy) -> None:
    _, model, _ = champion_of_its_own(toy)
    model.write_bytes(model.read_bytes() + b"\0")
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("sha256" in warning for warning in record["warnings"])


def test_a_model_that_answers_otherwise_than_when_it_was_trained_is_not_asked(toy: Toy) -> None:
    metrics = toy.version(1).metrics
    known = metrics["known_answers"]
    moved = known | {"scores": [score / 2 for score in known["scores"]]}
    toy.promote(toy.register_like(metrics=dict(metrics) | {"known_answers": moved}))
    record = toy.night()
    assert (record["status"], record["degraded"]) == ("published", True)
    assert answered_by(toy) == {"previous_model": 200}
    assert any("must answer 16 known rows as when it was trained" in each for each in record["warnings"])


def test_a_backfill_as_of_its_day_falls_back_to_the_champion_before_that_day(toy: Toy) -> None:
    number, model, _ = champion_of_its_own(toy)
    toy.promote(2, datetime(2024, 2, 1, tzinfo=UTC))
    toy.promote(number, datetime(2024, 2, 2, tzinfo=UTC))
    model.unlink()
    toy.night(policy="as-of")
    assert {(row["score_source"], row["model_version"]) for row in toy.published()} == {("previous_model", 1)}


def test_promotions_during_a_night_do_not_change_whom_it_falls_back_to(toy: Toy) -> None:
    number, model, _ = champion_of_its_own(toy)
    other = toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] * 0,')
    run = plan(toy.env, Request(JOB, NIGHT))
    steps.extract(toy.env, run)
    toy.promote(other, datetime.now(UTC))
    toy.promote(number, datetime.now(UTC))
    model.unlink()
    toy.night(run_id=run.run_id)
    assert {(row["score_source"], row["model_version"]) for row in toy.published()} == {("previous_model", 1)}


def test_a_model_that_raises_lets_the_previous_model_answer(toy: Toy) -> None:
    toy.promote(toy.register(model_of(OneHotEncoder(handle_unknown="error"))))
    toy.execute("update source.toy set kind = 'yoyo' where day = %s and id = 1", NIGHT.day)
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("champion did not answer" in warning for warning in record["warnings"])
    assert not any("yoyo" in warning for warning in record["warnings"])


def test_a_score_that_is_no_number_fails_the_model_and_is_no_result(toy: Toy) -> None:
    model = model_of(OneHotEncoder(handle_unknown="ignore"))
    model[-1].coef_ = np.full_like(model[-1].coef_, np.nan)
    toy.promote(toy.register(model))
    toy.night()
    assert answered_by(toy) == {"previous_model": 200}


def test_features_that_break_their_contract_let_the_previous_model_answer(toy: Toy) -> None:
    toy.promote(toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] / 0,'))
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("infinite" in warning for warning in record["warnings"])


def test_feature_source_of_another_sha256_is_not_run(toy: Toy) -> None:
    toy.promote(toy.register_like(feature_source_sha256="0" * 64))
    toy.night()
    assert answered_by(toy) == {"previous_model": 200}


def test_the_baseline_answers_when_no_model_before_can(toy: Toy) -> None:
    first, model, _ = champion_of_its_own(toy)
    model.unlink()
    number, model, _ = champion_of_its_own(toy)
    model.unlink()
    record = toy.night()
    assert answered_by(toy) == {"baseline": 200}
    assert {row["model_version"] for row in toy.published()} == {number}
    assert [warning.split(" ")[0] for warning in record["warnings"]] == ["champion", "previous_model"]
    assert first != number


def test_earlier_scores_are_carried_forward_when_no_model_answers(toy: Toy) -> None:
    """Scores of a model only: a carried score keeps its age instead of being carried again."""
    only_row_steps(toy, "model_failure: [carried_forward, default]")
    _, model, _ = champion_of_its_own(toy)
    toy.execute("delete from source.toy where day = %s and id = 50", YESTERDAY.previous().day)
    toy.night(YESTERDAY.previous())
    model.unlink()
    toy.night(YESTERDAY)
    toy.night()
    assert answered_by(toy) == {"carried_forward": 199, "default": 1}
    rows, scores = toy.by_id(), toy.by_id(YESTERDAY.previous())
    assert {row["score_age_days"] for row in rows.values()} == {2, None}
    assert [rows[i]["score"] for i in scores] == [row["score"] for row in scores.values()]
    assert (rows[50]["score_source"], rows[50]["score"], rows[50]["score_age_days"]) == (
        "default",
        0.25,
        None,
    )


def test_scores_older_than_declared_are_not_carried(toy: Toy) -> None:
    only_row_steps(toy, "model_failure: [carried_forward, default]")
    _, model, _ = champion_of_its_own(toy)
    toy.night(Partition.parse("2024-01-17"), policy=1)
    model.unlink()
    toy.night()
    assert answered_by(toy) == {"default": 200}


def test_rows_that_no_step_answers_are_withheld(toy: Toy) -> None:
    only_row_steps(toy, "model_failure: [carried_forward]")
    _, model, _ = champion_of_its_own(toy)
    toy.execute("delete from source.toy where day = %s and id > 150", YESTERDAY.day)
    toy.night(YESTERDAY)
    model.unlink()
    record = toy.night()
    assert (record["status"], record["rows_in"], record["rows_withheld"]) == ("published", 200, 50)
    assert answered_by(toy) == {"carried_forward": 150}
    assert list(toy.by_id()) == list(range(1, 151)) == toy.parquet()["id"].tolist()
    assert unanswered(toy) == set(range(151, 201))


def test_a_night_that_nobody_may_answer_fails_with_the_champions_error(toy: Toy) -> None:
    only_row_steps(toy, "model_failure: []")
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    with pytest.raises(ModelError):
        toy.night()
    assert (toy.last_run()["status"], toy.published()) == ("failed", [])


# Rows that no model sees


def test_a_quarantined_row_never_reaches_a_model(toy: Toy) -> None:
    """Champion and all models behind it would raise on a negative amount, if they saw one."""
    refusing = 'assert (rows["amount"] >= 0).all()\n    kinds = history["kinds"]'
    toy.promote(toy.own_features('kinds = history["kinds"]', refusing))
    toy.execute("update source.toy set amount = -1 where day = %s and id = %s", NIGHT.day, BROKEN_ID)
    toy.night()
    assert answered_by(toy) == {"champion": 199, "default": 1}


@pytest.mark.parametrize(
    ("chain", "sources"),
    [
        ("[rule, carried_forward, default]", {3: "rule", 4: "carried_forward", 50: "default"}),
        ("[default, rule]", {3: "default", 4: "default", 50: "default"}),
        ("[rule]", {3: "rule"}),
        ("[]", {}),
    ],
)
def test_bad_rows_take_the_first_step_of_their_own_chain_that_answers(
    toy: Toy, chain: str, sources: dict[int, str]
) -> None:
    toy.edit("dags/toy.yaml", "bad_row: [rule, carried_forward, default]", f"bad_row: {chain}")
    toy.execute("delete from source.toy where day = %s and id = 50", YESTERDAY.day)
    if "carried_forward" in chain:
        toy.night(YESTERDAY)
    toy.execute("update source.toy set amount = -1 where day = %s and id in (3, 4, 50)", NIGHT.day)
    record = toy.night()
    rows = toy.by_id()
    assert {i: rows[i]["score_source"] for i in (3, 4, 50) if i in rows} == sources
    assert (record["rows_quarantined"], record["rows_withheld"]) == (3, 3 - len(sources))
    assert record["degraded"] is bool(sources)
    assert unanswered(toy) == {3, 4, 50} - set(sources)


def test_bad_rows_and_a_failed_champion_have_a_chain_each(toy: Toy) -> None:
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    toy.execute("update source.toy set amount = 'NaN' where day = %s and id in (3, 4)", NIGHT.day)
    toy.fill(NIGHT, rows=1, first_id=9)
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 197, "rule": 1, "default": 1}
    assert record["rows_in"] == 201 == record["rows_fallback"] + record["rows_withheld"]
    assert record["score_sources"] == answered_by(toy)


def test_every_row_tells_its_origin(toy: Toy) -> None:
    record = toy.night()
    for row in toy.published():
        assert (row["run_id"], row["model_version"], row["score_source"]) == (record["run_id"], 1, "champion")
        assert record["started_at"] <= row["scored_at"] <= record["finished_at"]
        assert row["decision"] is (row["score"] >= 0.5)
        assert (row["score_age_days"], row["arm"]) == (None, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("RULE_SCORE = 0.75", "RULE_SCORE = 7.5", "rule_scores of toy must give NaN or a probability"),
        (
            'return (rows["kind"]',
            'raise ValueError(rows["kind"].iloc[0])\n    return (rows["kind"]',
            "must not raise",
        ),
        ("def rule_scores", "def no_rule", "must define rule_scores"),
    ],
    ids=["unusable scores", "raises", "none defined"],
)
def test_a_rule_that_breaks_its_contract_lets_the_next_step_answer_and_no_model_is_blamed(
    toy: Toy, old: str, new: str, told: str
) -> None:
    toy.promote(toy.own_features(old, new))
    toy.execute("update source.toy set amount = -1 where day = %s and id = 3", NIGHT.day)
    record = toy.night()
    assert answered_by(toy) == {"champion": 199, "default": 1}
    (warning,) = [each for each in record["warnings"] if "did not answer" in each]
    assert warning.startswith("rule did not answer: ")
    assert told in warning
    assert "ball" not in warning


def test_a_rule_whose_code_is_refused_lets_the_next_step_answer_and_no_model_is_blamed(toy: Toy) -> None:
    """The rule is in the champion's feature code: every other step answered for nothing."""
    toy.promote(toy.register_like(feature_version="f-000000000000"))
    toy.execute("update source.toy set amount = -1 where day = %s and id in (3, 4)", NIGHT.day)
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 198, "default": 2}
    assert [told.split(" ")[0] for told in record["warnings"]] == ["champion", "rule"]


def test_a_declared_sql_rule_answers_bad_rows_before_the_versions_own(toy: Toy) -> None:
    rule = "  rule_sql: case when kind = 'doll' then 0.625 end\n  default: 0.25"
    toy.edit("dags/toy.yaml", "  default: 0.25", rule)
    toy.execute("update source.toy set amount = -1 where day = %s and id in (3, 4)", NIGHT.day)
    toy.night()
    assert {i: toy.by_id()[i]["score_source"] for i in (3, 4)} == {3: "default", 4: "rule"}
    assert toy.by_id()[4]["score"] == 0.625


def test_a_rule_may_answer_for_a_champion_that_cannot(toy: Toy) -> None:
    only_row_steps(toy, "model_failure: [rule, default]")
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    toy.night()
    assert answered_by(toy) == {"rule": 66, "default": 134}


def test_bad_rows_and_a_failed_champion_may_both_be_answered_by_one_broken_rule(toy: Toy) -> None:
    only_row_steps(toy, "model_failure: [rule]")
    toy.edit("dags/toy.yaml", "bad_row: [rule, carried_forward, default]", "bad_row: [rule]")
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    toy.edit("dags/toy.yaml", "  default: 0.25", "  default: 0.25\n  rule_sql: 1 / (id - id)")
    toy.execute("update source.toy set amount = -1 where day = %s and id in (3, 4)", NIGHT.day)
    with pytest.raises(ModelError, match=r"one good row at least must have an answer; got none for 198"):
        toy.night()
    assert toy.last_run()["status"] == "failed"
    assert unanswered(toy) == set(range(1, 201))


@pytest.mark.soak
def test_a_night_that_nobody_answered_leaves_the_last_good_one_readable(toy: Toy) -> None:
    """Nothing to carry forward: an empty day would be published, and told to be ok."""
    only_row_steps(toy, "model_failure: [carried_forward]")
    toy.night()
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    with pytest.raises(ModelError, match="Nothing was published"):
        toy.night()
    assert answered_by(toy) == {"champion": 200}


# What is missing altogether


def test_a_night_whose_inputs_are_all_missing_is_answered_by_the_chain_where_that_is_allowed(
    toy: Toy,
) -> None:
    toy.edit("dags/toy.yaml", "max_quarantined_share: 0.3", "max_quarantined_share: 1.0")
    toy.execute("update source.toy set kind = null, amount = null, note = null where day = %s", NIGHT.day)
    record = toy.night()
    assert answered_by(toy) == {"default": 200}
    assert (record["status"], record["degraded"], record["rows_quarantined"]) == ("published", True, 200)


def test_a_night_whose_inputs_are_all_missing_fails_over_the_budget_and_the_last_good_one_stays(
    toy: Toy,
) -> None:
    toy.night()
    toy.execute("update source.toy set kind = null, amount = null, note = null where day = %s", NIGHT.day)
    with pytest.raises(ValidationError):
        toy.night()
    assert answered_by(toy) == {"champion": 200}


def test_without_any_history_features_do_without_it(toy: Toy) -> None:
    toy.execute("delete from source.toy_sales where day < %s", NIGHT.day)
    toy.execute("delete from source.toy where day < %s", NIGHT.day)
    toy.night()
    assert answered_by(toy) == {"champion": 200}


def test_a_registry_that_is_down_stops_no_night(toy: Toy) -> None:
    with toy.with_settings(registry_url=SecretStr("http://127.0.0.1:9")) as distant:
        assert distant.night()["status"] == "published"
        assert answered_by(distant) == {"champion": 200}


def test_artifacts_that_only_a_registry_that_is_down_has_let_the_next_step_answer(toy: Toy) -> None:
    gone = "mlflow-artifacts:/1/model.skops"
    toy.promote(toy.register_like(model_uri=gone, baseline_uri=gone))
    with toy.with_settings(registry_url=SecretStr("http://127.0.0.1:9")) as distant:
        record = distant.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("champion did not answer: artifact mlflow-artifacts:" in each for each in record["warnings"])


def test_a_model_file_that_cannot_be_parsed_lets_the_previous_model_answer(toy: Toy, tmp_path: Path) -> None:
    broken = tmp_path / "model.skops"
    broken.write_bytes(b"no model")
    sha256 = hashlib.sha256(b"no model").hexdigest()
    toy.promote(toy.register_like(model_uri=str(broken), model_sha256=sha256))
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("must be a skops file" in each for each in record["warnings"])


def test_a_batch_of_rows_that_are_all_withheld_asks_no_model(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "BATCH_ROWS", 40)
    toy.promote(
        toy.own_features('kinds = history["kinds"]', 'assert len(rows)\n    kinds = history["kinds"]')
    )
    toy.execute("update source.toy set id = null where day = %s and id <= 50", NIGHT.day)
    record = toy.night()
    assert answered_by(toy) == {"champion": 150}
    assert (record["rows_withheld"], record["degraded"]) == (50, False)


def test_features_of_another_version_than_registered_are_not_used(toy: Toy) -> None:
    toy.promote(toy.register_like(feature_version="f-000000000000"))
    record = toy.night()
    assert answered_by(toy) == {"previous_model": 200}
    assert any("must be the registered ones, f-000000000000" in each for each in record["warnings"])


# Versions of another time


def of_another_extract(toy: Toy) -> int:
    """A version that reads a column which today's champion does not extract."""
    queries: Any = toy.version(1).queries
    columns = {**queries["extract"]["columns"], "colour": "text"}
    extract = queries["extract"] | {"columns": columns, "sql": "select *, 'red' as colour from toy"}
    changed = dataclasses.replace(toy.version(1), queries=queries | {"extract": extract})
    return registered(toy, changed)


def of_another_history(toy: Toy) -> int:
    """A version whose history has a query of its own, which fails by now."""
    queries: Any = toy.version(1).queries
    gone = {"key": ["kind"], "sql": "select toy.kind, toy.gone from toy"}
    changed = dataclasses.replace(
        toy.version(1), queries=queries | {"history": queries["history"] | {"gone": gone}}
    )
    return registered(toy, changed)


def registered(toy: Toy, version: ModelVersion) -> int:
    queries = feeding_queries(version.extract, version.history)
    code = load_feature_code("toy", version.feature_source, queries)
    return toy.register_like(queries=version.queries, feature_version=code.version)


@pytest.mark.parametrize(
    ("previous", "told"),
    [
        (of_another_extract, "got none of colour text"),
        pytest.param(
            of_another_history,
            "previous_model did not answer: the snapshot must hold",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_a_previous_model_that_lacks_columns_or_history_lets_the_baseline_answer(
    toy: Toy, previous: Callable[[Toy], int], told: str
) -> None:
    toy.promote(previous(toy))
    _, model, _ = champion_of_its_own(toy)
    model.unlink()
    record = toy.night()
    assert answered_by(toy) == {"baseline": 200}
    assert any(told in each for each in record["warnings"])


def test_a_previous_models_query_that_fails_stops_no_night(toy: Toy) -> None:
    toy.promote(of_another_history(toy))
    toy.promote(2)
    record = toy.night()
    assert answered_by(toy) == {"champion": 200}
    (warning,) = record["warnings"]
    assert warning.startswith("not read, as queries failed: history/f-")
    assert warning.endswith("/gone; the version that needs them cannot answer")


@pytest.mark.soak
def test_a_previous_models_fault_is_not_the_challengers(toy: Toy) -> None:
    toy.promote(of_another_history(toy))
    toy.promote(toy.register_like(1))
    toy.rollout("canary", 2, share=0.3)
    assert set(toy.night()["score_sources"]) == {"champion", "challenger"}
    assert toy.query("select kind from nightshift.rollouts") == [("canary",)]
