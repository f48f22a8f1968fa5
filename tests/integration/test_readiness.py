"""Readiness on the toy job: what is right passes, what is broken fails, each with evidence of a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures
from support.local_airflow import NIGHTSHIFT
from support.receiver import receiving
from support.toy import CHAMPION_SINCE, JOB, NIGHT, ROWS, Template, Toy, quiet_mlflow

from pipeline.adapters import registry, verdict_book, versions
from pipeline.errors import UsageError
from pipeline.lifecycle.fit import TrainingRows
from pipeline.lifecycle.gate import Verdict
from pipeline.partition import Partition
from pipeline.readiness import feature_items, model_items, nights, operation_items
from pipeline.readiness.assess import CHECKS, choose
from pipeline.readiness.recent import recent_rows
from pipeline.readiness.rubric import RUBRIC
from pipeline.readiness.scratch import Scratch, scratch
from pipeline.readiness.strange import strange_inputs
from pipeline.readiness.subject import Subject
from pipeline.scoring.feature_code import feeding_queries, load_feature_code

pytestmark = pytest.mark.integration


@contextmanager
def edited(toy: Toy, old: str, new: str) -> Iterator[None]:
    """The toy's declaration with one place changed."""
    toy.edit("dags/toy.yaml", old, new)
    try:
        yield
    finally:
        toy.edit("dags/toy.yaml", new, old)


@pytest.fixture(scope="module")
def toy(toy_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    with toy_template.copy(tmp_path_factory.mktemp("toy")) as copied:
        yield copied


@pytest.fixture(scope="module")
def subject(toy: Toy) -> Iterator[Subject]:
    chosen = choose(toy.env, JOB, NIGHT, None)
    with quiet_mlflow(), scratch(toy.env, chosen.job, chosen.version) as made:
        yield Subject(toy.env, chosen, made)


def test_every_item_of_the_rubric_has_a_check_and_a_title_of_its_own() -> None:
    assert {item.id for item in RUBRIC} == set(CHECKS)
    assert len({item.title for item in RUBRIC}) == len(RUBRIC) == 28 + 7


@pytest.mark.parametrize(
    "check",
    [
        nights.whole_night, nights.output_contract, nights.fallback,
        nights.changed_dependency, pytest.param(nights.robustness, marks=pytest.mark.soak),
        pytest.param(nights.rollback, marks=pytest.mark.soak), feature_items.as_of, feature_items.row_wise,
        feature_items.alone, feature_items.skew, feature_items.stable, model_items.reproducible,
        model_items.fits_and_loads, model_items.approved, operation_items.owned,
    ],
    ids=attrgetter("__name__"),
)  # fmt: skip
def test_a_job_that_is_right_passes(subject: Subject, check: nights.Check) -> None:
    answer = check(subject)
    assert (answer.status, answer.fix) == ("pass", None), answer.evidence


def test_nothing_of_an_assessment_is_written_to_the_jobs_own_warehouse(toy: Toy, subject: Subject) -> None:
    assert nights.whole_night(subject).status == "pass"
    assert toy.runs() == []


def test_a_column_that_no_rule_looks_at_is_told(subject: Subject) -> None:
    answer = feature_items.expectations(subject)
    assert answer.status == "fail"
    assert "none looks at id, note" in answer.evidence


def test_a_chain_without_an_answer_for_a_broken_model_is_told(toy: Toy, subject: Subject) -> None:
    chain = "model_failure: [previous_model, baseline, carried_forward, default]"
    with edited(toy, chain, "model_failure: []"):
        answer = nights.fallback(Subject(toy.env, choose(toy.env, JOB, NIGHT, None), subject.made))
    assert answer.status == "fail"


@pytest.fixture(scope="module")
def counting(toy: Toy, subject: Subject) -> Subject:
    """A version whose feature counts the rows beside it."""
    own = '"sold_share_7d": rows["kind"].map(share).astype("float64").fillna(0.5)'
    number = toy.own_features(own, '"sold_share_7d": pd.Series(len(rows) / 1e4, index=rows.index)')
    # Other tests number versions of the scratch target too.
    chosen = replace(subject.chosen, version=replace(toy.version(number), version=1000))
    with subject.made.env.engine.begin() as connection:
        versions.insert(connection, chosen.version)
    return Subject(toy.env, chosen, Scratch(subject.made.env, chosen.job, chosen.version))


def test_features_that_count_over_the_batch_are_told(counting: Subject) -> None:
    answers = [feature_items.row_wise(counting), feature_items.alone(counting)]
    assert [answer.status for answer in answers] == ["fail", "fail"]
    assert "halves of the rows have other features than the whole" in answers[0].evidence


def test_a_row_that_keeps_the_model_from_answering_all_others_fails_robustness(
    toy: Toy, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 'rows["amount"] if rows["kind"].ne("never seen").all() else None'
    number = toy.own_features('"amount": rows["amount"]', f'"amount": {refused}')
    chosen = replace(subject.chosen, version=replace(toy.version(number), version=1001))
    with subject.made.env.engine.begin() as connection:
        versions.insert(connection, chosen.version)
    only(subject, "unseen categories", monkeypatch)
    answer = nights.robustness(
        Subject(toy.env, chosen, Scratch(subject.made.env, chosen.job, chosen.version))
    )
    assert answer.status == "fail"
    assert "have another score or none of the model" in answer.evidence


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")  # how well it fits is of no matter
def test_labels_of_few_rows_are_no_skew(toy: Toy, subject: Subject) -> None:
    day, learned = Partition.parse("2024-01-30"), recent_rows(subject)
    toy.execute("delete from source.toy_sales where day = %s and id %% 29 > 0", day.day)
    assert isinstance(learned, TrainingRows)
    encode = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    # Products of many columns: their last bits depend on how many rows are multiplied at once.
    many = Pipeline([("encode", encode), ("cross", PolynomialFeatures(4)), ("fit", LogisticRegression())])
    number = toy.register(many.fit(learned.features, learned.label))
    chosen = replace(subject.chosen, version=replace(toy.version(number), version=1002), day=day)
    with subject.made.env.engine.begin() as connection:
        versions.insert(connection, chosen.version)
    made = Scratch(subject.made.env, chosen.job, chosen.version)
    answer = feature_items.skew(Subject(toy.env, chosen, made))
    assert (answer.status, answer.evidence[:6]) == ("pass", "6 rows"), answer.evidence


def test_a_version_is_probed_for_its_own_leaks_not_for_the_trees(toy: Toy, subject: Subject) -> None:
    queries = json.loads(json.dumps(toy.version(1).queries).replace("toy.day < :day", "toy.day <= :day"))
    leaky = replace(toy.version(1), queries=queries)
    code = load_feature_code(JOB, leaky.feature_source, feeding_queries(leaky.extract, leaky.history))
    number = toy.register_like(1, queries=queries, feature_version=code.version)
    known, overwritten = "toy_sales, known_at: known_at", "toy_sales, overwritten: true"
    with edited(toy, known, overwritten):
        answers = [
            feature_items.as_of(Subject(toy.env, choose(toy.env, JOB, NIGHT, version), subject.made))
            for version in (number, 1)
        ]
    assert [answer.status for answer in answers] == ["fail", "pass"], answers


def test_a_day_without_a_row_for_the_model_says_to_choose_another(toy: Toy, subject: Subject) -> None:
    day = Partition.parse("2024-01-31")
    toy.execute("update source.toy set amount = -1 where day = %s", day.day)
    with edited(toy, "max_quarantined_share: 0.3", "max_quarantined_share: 1.0"):
        asked = Subject(toy.env, choose(toy.env, JOB, day, None), on_day(subject, day).made)
        assert nights.whole_night(asked).status == "pass"
    for check in (feature_items.row_wise, feature_items.alone, feature_items.stable):
        with pytest.raises(UsageError, match="must have rows that a model may see"):
            check(asked)


def test_a_night_without_rows_is_passed_over_by_the_trial_fits(toy: Toy, subject: Subject) -> None:
    toy.execute("delete from source.toy where day = %s", date(2024, 1, 14))
    rows = recent_rows(on_day(subject, Partition.parse("2024-01-20")))
    assert isinstance(rows, TrainingRows)
    assert rows.nights() == [date(2024, 1, day) for day in (*range(10, 14), *range(15, 21))]


def test_rights_that_were_changed_in_the_jobs_own_warehouse_break_the_contract(
    toy: Toy, subject: Subject
) -> None:
    toy.execute("revoke select on predictions.toy from nightshift_analyst")
    answer = nights.output_contract(subject)
    toy.execute("grant select on predictions.toy to nightshift_analyst")
    assert answer.status == "fail"
    assert answer.evidence == 'the analyst cannot read predictions."toy"'


def test_a_night_is_late_only_where_a_time_is_declared(toy: Toy, subject: Subject) -> None:
    with edited(toy, "train: {", 'alerts: {publish_by: "06:00"}\n\ntrain: {'):
        chosen = choose(toy.env, JOB, NIGHT, None)
    assert nights.latency(subject).status == "not_applicable"
    assert nights.latency(Subject(toy.env, chosen, subject.made)).status == "pass"


def test_what_stands_behind_a_version_and_files_of_an_mlflow_server_come_to_the_scratch_target(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = toy.version(2).model_uri.removeprefix("file://")
    remote = toy.register_like(2, model_uri="mlflow-artifacts:/1/model.skops")

    def download(_: str, folder: Path, url: str | None) -> Path:
        assert url == toy.env.registry_url
        return Path(shutil.copy(here, folder))

    monkeypatch.setattr(registry, "_download", download)
    chain = "model_failure: [previous_model, baseline, carried_forward, default]"
    with edited(toy, chain, "model_failure: [previous_model]"):
        chosen = choose(toy.env, JOB, NIGHT, remote)
        with scratch(toy.env, chosen.job, chosen.version) as made:
            subject = Subject(toy.env, chosen, made)
            assert subject.base.record["score_sources"] == {"champion": ROWS}
            assert feature_items.alone(subject).status == "pass"
            answer = nights.fallback(subject)
    assert (answer.status, f"{ROWS} by previous_model" in answer.evidence) == ("pass", True), answer


def judged_nights(metrics: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Judged nights of version 1, one a day."""
    first = date(2024, 1, 12)
    return [
        {"day": first + timedelta(days=day), "model_version": 1, "metrics": measured}
        for day, measured in enumerate(metrics)
    ]


def test_judged_nights_without_labels_say_nothing_of_quality(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [{"coverage": 1.0, "auc": 0.7, "log_loss": 0.5}] * 60
    told = judged_nights([*measured, {"coverage": 0.0}])
    monkeypatch.setattr(model_items, "realised", lambda *_: told)
    assert "over 60 judged nights" in model_items.staleness(subject).evidence
    monkeypatch.setattr(model_items, "realised", lambda *_: judged_nights([{"coverage": 0.0}] * 60))
    assert model_items.staleness(subject).status == "not_applicable"
    assert model_items.foretold(subject).status == "not_applicable"


def test_one_held_out_night_foretells_nothing(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    held = subject.version.metrics["holdout"]
    by_night = dict(list(held["by_night"].items())[:1])
    metrics = {**subject.version.metrics, "holdout": {**held, "by_night": by_night}}
    chosen = replace(subject.chosen, version=replace(subject.version, metrics=metrics))
    monkeypatch.setattr(model_items, "realised", lambda *_: judged_nights([{"auc": 0.7}] * 10))
    assert model_items.foretold(Subject(subject.env, chosen, subject.made)).status == "not_applicable"


def on_day(subject: Subject, day: Partition) -> Subject:
    """The same version on the inputs of another day."""
    return Subject(subject.env, replace(subject.chosen, day=day), subject.made)


def only(subject: Subject, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one kind of strange input come alone: the others take as long each."""
    chosen = [each for each in strange_inputs(subject.job.declaration.extract) if each.name == name]
    monkeypatch.setattr(nights, "strange_inputs", lambda _: chosen)


def test_scores_that_move_with_other_rows_fail_robustness(
    counting: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(counting, "duplicated rows", monkeypatch)
    answer = nights.robustness(counting)
    assert answer.status == "fail"
    assert "untouched rows have another score" in answer.evidence


def test_personal_values_in_quarantine_are_told(
    toy: Toy, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(subject, "extremely small numbers", monkeypatch)
    query = "  sql: |\n    select * from toy where"
    with edited(toy, query, f"  pii: [amount]\n{query}"):
        chosen = choose(toy.env, JOB, NIGHT, None)
        asked = Subject(toy.env, chosen, Scratch(subject.made.env, chosen.job, chosen.version))
        masked = nights.privacy(asked)
    shown = nights.privacy(asked)  # by nights that mask nothing any more
    assert (masked.status, shown.status) == ("pass", "fail"), masked


def test_a_changed_column_that_nobody_is_told_of_fails(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nights, "alert_failed", lambda *_: False)
    assert nights.changed_dependency(subject).status == "fail"


def test_what_the_gate_said_of_a_version_counts_for_its_refit(toy: Toy, subject: Subject) -> None:
    accepted = toy.register_like(1)
    refit = toy.register_like(1, refit_of=accepted)
    with toy.env.engine.begin() as connection:
        verdict_book.append(
            connection, toy.version(accepted), toy.version(1), Verdict("accept", ()),
            span=(NIGHT.day, NIGHT.day), nights=1, labels_as_of=CHAMPION_SINCE, figures={}, settings={},
            actor="a test",
        )  # fmt: skip
    judged, unjudged = (
        model_items.gated(Subject(toy.env, choose(toy.env, JOB, NIGHT, number), subject.made))
        for number in (refit, toy.register_like(1))
    )
    assert (judged.status, unjudged.status) == ("pass", "fail")


def test_a_first_version_has_nothing_to_be_compared_with_even_after_a_rollback_to_it(
    toy: Toy, subject: Subject
) -> None:
    toy.promote(toy.register_like(1), datetime.now(UTC))
    toy.rollback()
    rolled_back = Subject(toy.env, choose(toy.env, JOB, NIGHT, None), subject.made)
    assert rolled_back.version.version == 1
    assert model_items.gated(rolled_back).status == "not_applicable"


def test_a_notice_must_arrive(toy: Toy, subject: Subject) -> None:
    with edited(toy, "train: {", "alerts: {channel: ops}\n\ntrain: {"):
        chosen = choose(toy.env, JOB, NIGHT, None)
    with receiving() as receiver, toy.with_settings(channels={"ops": receiver.url}) as reached:
        asked = Subject(reached.env, chosen, subject.made)
        arrived = operation_items.notice(asked)
        receiver.status = 500
        refused = operation_items.notice(asked)
    assert (arrived.status, refused.status) == ("pass", "fail")
    assert receiver.titles[0] == "toy: a trial notice"


@pytest.mark.soak
def test_a_command_that_is_told_to_end_leaves_no_server_behind(toy: Toy, tmp_path: Path) -> None:
    words = [str(NIGHTSHIFT), "readiness", JOB, "--day", NIGHT.key]
    variables = toy.variables | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        until = time.monotonic() + 60
        while not (started := list(tmp_path.glob("*/server/postgres/data/postmaster.pid"))):
            assert time.monotonic() < until
            time.sleep(0.1)
        postmaster = int(started[0].read_text().split()[0])
        command.terminate()
        command.wait(60)
    left = psutil.pid_exists(postmaster) and psutil.Process(postmaster).status() != psutil.STATUS_ZOMBIE
    if left:
        psutil.Process(postmaster).terminate()
    assert (left, list(tmp_path.glob("nightshift-readiness-*"))) == (False, [])


@pytest.mark.soak
def test_the_command_ends_with_1_where_a_required_item_fails_and_writes_a_page(toy: Toy) -> None:
    words = [str(NIGHTSHIFT), "readiness", JOB, "--day", NIGHT.key, "--json"]
    done = subprocess.run(words, env=toy.variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert [item["id"] for item in told["items"]] == [item.id for item in RUBRIC]
    assert all(item["fix"] for item in told["items"] if item["status"] == "fail")
    failed = {item["id"] for item in told["items"] if item["status"] == "fail" and item["required"]}
    assert failed == {"data-1", "alert-channel"}
    page = Path(told["page"]).read_text(encoding="utf-8")
    assert all(item.title in page for item in RUBRIC if "'" not in item.title)
    assert "<script" not in page
