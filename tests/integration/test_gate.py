"""The gate over real replayed nights of the toy job: good, shuffled and barely tried challengers."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from support.reports import PageReader
from support.toy import JOB, quiet_mlflow
from typer.testing import CliRunner

from pipeline import reporting, training
from pipeline.adapters import verdict_book
from pipeline.cli.main import app
from pipeline.errors import FatalError, UsageError
from pipeline.gate import Judged, judge
from pipeline.lifecycle.gate import Verdict
from pipeline.monitoring.quality import UNKNOWN
from pipeline.partition import Partition
from pipeline.scoring.feature_code import feeding_queries, load_feature_code

if TYPE_CHECKING:
    from support.toy import Toy

pytestmark = pytest.mark.integration

MATURE = datetime(2024, 2, 20, tzinfo=UTC)
"""When all of the source's nights have their labels."""
EIGHT_NIGHTS = datetime(2024, 1, 21, tzinfo=UTC)
"""When eight nights after the training of version 1 have theirs."""
SHORT = (Partition.parse("2024-01-26"), Partition.parse("2024-01-28"))


def judged(toy: Toy, challenger: int, champion: int | None = None, **asked: Any) -> Judged:
    with quiet_mlflow():
        return judge(toy.env, JOB, challenger, champion, **({"as_of": MATURE} | asked))


def outcomes(made: Judged) -> dict[str, str]:
    return {reason.check: reason.outcome for reason in made.verdict.reasons}


def shuffled(toy: Toy) -> int:
    """A version that learned from labels of other rows."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "kind": pd.Series(random.choice(["ball", "doll", "kite"], 400), dtype="str"),
            "amount": random.uniform(0, 100, 400),
            "sold_share_7d": random.uniform(0, 1, 400),
        }
    )
    from pipeline.scorers import feature_code

    model = feature_code(toy.version(1)).module.make_model()
    return toy.register(model.fit(frame, random.random(400) < 0.5))


def test_a_good_challenger_is_accepted_and_the_verdict_is_kept_with_its_evidence(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 8}\ntrain: {")
    made = judged(toy, 1, champion=2, as_of=EIGHT_NIGHTS)
    assert made.verdict.outcome == "accept"
    assert set(outcomes(made).values()) == {"accept"}
    with toy.env.engine.connect() as connection:
        kept = verdict_book.newest(connection, JOB, 1)
    assert kept is not None
    assert (kept.verdict_no, kept.outcome, kept.reasons) == (made.verdict_no, "accept", made.verdict.reasons)
    assert (kept.nights, kept.first_day, kept.last_day) == (8, date(2024, 1, 11), date(2024, 1, 18))
    assert (kept.challenger_sha256, kept.champion_sha256) == tuple(
        toy.version(number).model_sha256 for number in (1, 2)
    )
    assert kept.settings["nights"] == 8


def test_a_challenger_with_shuffled_labels_is_refused_with_reasons(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "  label: sold\n", "  label: sold\n  slices: [kind]\n")
    toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 8, slice_rows: 100}\ntrain: {")
    made = judged(toy, shuffled(toy), as_of=EIGHT_NIGHTS)
    assert made.verdict.outcome == "refuse"
    assert outcomes(made) | {"calibration": "any"} == {
        "quality": "refuse", "slices": "refuse", "calibration": "any", "behaviour": "accept",
        "robustness": "accept", "golden_rows": "accept", "latency": "accept", "memory": "accept",
    }  # fmt: skip
    page = PageReader(Path(made.page.path).read_text(encoding="utf-8")).text
    assert "Refused: version 3 against champion 1, on 8 nights, by quality and cost, slices" in page
    assert page.startswith("toy version 3")


def test_a_challenger_with_few_nights_gets_not_enough_evidence(toy: Toy) -> None:
    made = judged(toy, 1, champion=2, as_of=datetime(2024, 1, 18, tzinfo=UTC))
    assert (made.first.key, made.last.key) == ("2024-01-11", "2024-01-15")
    assert made.verdict.outcome == "not_enough_evidence"


def test_only_nights_that_the_challenger_has_not_seen_judge_it(toy: Toy) -> None:
    seen = Partition(toy.version(1).trained_to)
    with pytest.raises(
        UsageError, match=r"must lie after 2024-01-10, as it has seen the labels up to that one"
    ):
        judged(toy, 1, champion=2, span=(seen, SHORT[1]))
    with pytest.raises(FatalError, match="and have mature labels, 2 days later; got none at"):
        judged(toy, 1, champion=2, as_of=datetime(2024, 1, 12, tzinfo=UTC))


def test_a_champion_that_has_seen_the_nights_is_told(toy: Toy) -> None:
    made = judged(toy, 2, span=(Partition.parse("2024-01-08"), Partition.parse("2024-01-12")))
    page = PageReader(Path(made.page.path).read_text(encoding="utf-8")).text
    assert "The champion was trained on 3 of these nights, to 2024-01-10: that favours it." in page


def test_a_version_cannot_challenge_itself_nor_the_future(toy: Toy) -> None:
    with pytest.raises(UsageError, match="must be another version than the champion"):
        judged(toy, 1)
    with pytest.raises(UsageError, match="must not lie in the future"):
        judged(toy, 2, as_of=datetime(2999, 1, 1, tzinfo=UTC))


def test_labels_not_known_yet_are_absent(toy: Toy) -> None:
    late = datetime(2024, 2, 25, tzinfo=UTC)
    toy.execute("update source.toy_sales set known_at = %s where day = %s", late, SHORT[1].day)
    assert {one["day"]: one["rows"] for one in figures(toy, judged(toy, 2, span=SHORT))} == {
        "2024-01-26": 200, "2024-01-27": 200,
    }  # fmt: skip


def figures(toy: Toy, made: Judged) -> list[dict[str, Any]]:
    ((nights,),) = toy.query(
        "select figures -> 'nights' from nightshift.gate_verdicts where verdict_no = %s", made.verdict_no
    )
    return list(nights)


def test_a_night_that_would_not_have_been_published_is_left_out_and_told(toy: Toy) -> None:
    toy.execute("delete from source.toy where day = %s", SHORT[0].day)
    made = judged(toy, 2, span=SHORT)
    assert [one["day"] for one in figures(toy, made)] == ["2024-01-27", "2024-01-28"]
    assert "EmptyPartition" in Path(made.page.path).read_text(encoding="utf-8")


def test_each_version_answers_with_its_own_features_and_queries(toy: Toy) -> None:
    halved = toy.own_extract(
        "select * from toy where day = :day", "select * from toy where day = :day and id > 100"
    )
    assert {one["rows"] for one in figures(toy, judged(toy, halved, span=SHORT))} == {100}
    whole = figures(toy, judged(toy, toy.register_like(1), champion=halved, span=SHORT))
    assert all(one["loss"]["champion"] == one["loss"]["challenger"] for one in whole)
    other = toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] * 0,')
    (first, *_) = figures(toy, judged(toy, other, span=SHORT))
    assert first["loss"]["challenger"] > 1.5 * first["loss"]["champion"]


def test_the_same_version_under_another_number_loses_the_same(toy: Toy) -> None:
    made = judged(toy, toy.register_like(1), span=SHORT)
    assert all(one["loss"]["champion"] == one["loss"]["challenger"] for one in figures(toy, made))
    assert outcomes(made)["golden_rows"] == "accept"


def test_money_is_told_per_1000_rows_and_rows_without_a_value_are_a_slice_too(toy: Toy) -> None:
    costs = "costs: {currency: EUR, false_alarm: 2, miss: 5}"
    toy.edit("dags/toy.yaml", "  label: sold\n", f"  label: sold\n  slices: [note]\n  {costs}\n")
    toy.edit("dags/toy.yaml", "train: {", "gate: {slice_rows: 1}\ntrain: {")
    toy.execute("update source.toy set note = null where id % 3 = 0")
    made = judged(toy, 2, span=SHORT)
    for one in figures(toy, made):
        assert one["loss"] == pytest.approx(one["metrics"]["cost_per_1000"])
    page = PageReader(Path(made.page.path).read_text(encoding="utf-8")).text
    assert UNKNOWN in page


def test_a_challenger_whose_features_fail_on_real_rows_is_refused(toy: Toy) -> None:
    broken = toy.own_features('"amount": rows["amount"],', '"amount": rows["amount"] / 0,')
    made = judged(toy, broken, span=SHORT)
    assert made.verdict.outcome == "refuse"
    assert (
        "scores of 2024-01-26 (200 of 200 rows)"
        in {r.check: r.evidence for r in made.verdict.reasons}["robustness"]
    )


def of_one_night(toy: Toy, text: str) -> int:
    """A version whose extract has another amount on 27 January only."""
    other = f"case when day = date '2024-01-27' then {text} else amount end"
    return toy.own_extract(
        "select * from toy where day = :day",
        f"select day, id, kind, {other} as amount, note, known_at from toy where day = :day",
    )


def with_history_failing_on_one_night(toy: Toy) -> int:
    """A version of the champion's extract, whose history query divides by zero on 27 January only."""
    history = deepcopy(dict(toy.version(1).queries["history"]))
    old = "count(*) as toys"
    failing = f"{old}, 1 / (:day - date '2024-01-27') as never"
    history["kinds"]["sql"] = history["kinds"]["sql"].replace(old, failing)
    return registered_with(toy, history=history)


def registered_with(toy: Toy, **queries: Any) -> int:
    """The champion under another number, with other queries."""
    version = toy.version(1)
    changed = replace(version, queries={**version.queries, **queries})
    feeding = feeding_queries(changed.extract, changed.history)
    code = load_feature_code(JOB, version.feature_source, feeding)
    return toy.register_like(1, queries=changed.queries, feature_version=code.version)


def test_a_night_that_the_champion_fails_on_is_left_out_and_told(toy: Toy) -> None:
    champion = toy.own_features(
        '"amount": rows["amount"],', '"amount": rows["amount"] / (rows["day"].astype(str) != "2024-01-27"),'
    )
    made = judged(toy, 2, champion=champion, span=SHORT)
    assert [one["day"] for one in figures(toy, made)] == ["2024-01-26", "2024-01-28"]
    assert "the champion: make_features" in Path(made.page.path).read_text(encoding="utf-8")


def with_extract_failing_on_one_night(toy: Toy) -> int:
    """A version whose extract divides by zero on 27 January only."""
    return of_one_night(toy, "amount / (id - id)")


def with_bad_rows_on_one_night(toy: Toy) -> int:
    """A version whose extract makes rows that the suite refuses on 27 January only."""
    return of_one_night(toy, "-1")


@pytest.mark.parametrize(
    "register",
    [
        with_history_failing_on_one_night,
        pytest.param(with_extract_failing_on_one_night, marks=pytest.mark.soak),
        with_bad_rows_on_one_night,
    ],
)
def test_a_night_that_only_the_challengers_queries_fail_on_speaks_against_it(
    toy: Toy, register: Callable[[Toy], int]
) -> None:
    made = judged(toy, register(toy), span=SHORT)
    told = {reason.check: reason.evidence for reason in made.verdict.reasons}["robustness"]
    assert "scores of 2024-01-27 (200 of 200 rows)" in told
    assert made.verdict.outcome == "refuse"
    assert [one["day"] for one in figures(toy, made)] == ["2024-01-26", "2024-01-28"]


def test_a_challenger_that_cannot_be_served_is_refused(toy: Toy) -> None:
    known = toy.version(1).metrics["known_answers"]
    other = {**known, "scores": [1 - score for score in known["scores"]]}
    made = judged(
        toy, toy.register_like(1, metrics={**toy.version(1).metrics, "known_answers": other}), span=SHORT
    )
    told = {reason.check: reason for reason in made.verdict.reasons}["golden_rows"]
    assert told.outcome == "refuse"
    assert "the model must answer 16 known rows as when it was trained" in told.evidence


def test_a_slice_that_only_the_challengers_rows_have_is_judged(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "  label: sold\n", "  label: sold\n  slices: [shop]\n")
    toy.edit("dags/toy.yaml", "    note: text?\n", "    note: text?\n    shop: text\n")
    toy.edit("expectations/toy.json", '"exact_match": true', '"exact_match": false')
    toy.execute("alter table source.toy add shop text default 'here'")
    extract = toy.version(1).queries["extract"]
    newer = {**extract, "columns": {**extract["columns"], "shop": "text"}}
    made = judged(toy, registered_with(toy, extract=newer), span=SHORT)
    assert "None of 1 slices" in {reason.check: reason.evidence for reason in made.verdict.reasons}["slices"]


def test_nights_begin_with_the_first_unseen_one_however_many_more_there_are_than_asked_for(toy: Toy) -> None:
    """Bounds that hold on all nights at once hold of a sequence that grows, not of a window that moves."""
    toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 2}\ntrain: {")
    made = judged(toy, 1, champion=2, as_of=datetime(2024, 1, 16, tzinfo=UTC))
    assert [one["day"] for one in figures(toy, made)] == ["2024-01-11", "2024-01-12", "2024-01-13"]


def test_features_that_depend_on_the_other_rows_break_the_golden_rows(toy: Toy) -> None:
    amount = '"amount": rows["amount"],'
    leaning = toy.own_features(amount, '"amount": rows["amount"] - rows["amount"].mean(),')
    made = judged(toy, leaning, span=SHORT)
    told = {reason.check: reason for reason in made.verdict.reasons}["golden_rows"]
    assert told.outcome == "refuse"
    assert "one row alone and all together (20 of 20 rows)" in told.evidence


def test_declared_behaviour_is_tested_on_real_rows(toy: Toy) -> None:
    toy.edit(
        "dags/toy.yaml",
        "train: {",
        "gate: {behaviour: {rising: [amount], falling: [sold_share_7d], invariant: [kind]}}\ntrain: {",
    )
    told = {reason.check: reason.evidence for reason in judged(toy, 2, span=SHORT).verdict.reasons}[
        "behaviour"
    ]
    assert "sold_share_7d falling (200 of 200 rows)" in told
    assert "kind invariant" in told
    assert "amount rising" not in told


def test_behaviour_of_a_column_that_is_no_feature_cannot_be_judged(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "train: {", "gate: {behaviour: {rising: [amont, kind]}}\ntrain: {")
    with pytest.raises(
        FatalError, match=r"'amont' must be a number; did you mean 'amount'\?; 'kind' must be"
    ):
        judged(toy, 2, span=SHORT)


def command(toy: Toy, *words: str) -> tuple[int, str]:
    """Exit code and stdout of `nightshift gate toy …` in this process."""
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["gate", JOB, *words], env=toy.variables)
        told = result.exit_code, result.stdout
        del result
        gc.collect()  # otherwise the end of its process closes a command's connections
    return told


def test_the_command_ends_well_whatever_the_outcome_and_says_where_the_page_is(toy: Toy) -> None:
    span = ["--from", SHORT[0].key, "--to", SHORT[1].key]
    code, told = command(toy, "2", *span, "--as-of", "2024-02-20", "--json")
    assert code == 0
    report = json.loads(told)
    assert report["outcome"] == "not_enough_evidence"
    assert (report["challenger"], report["champion"]) == (2, 1)
    assert Path(report["page"]).is_file()
    assert command(toy, "2", "--from", SHORT[0].key)[0] == 2
    assert command(toy, "2", "--as-of", "2024-01-02")[0] == 1


def test_the_page_of_another_jobs_verdict_is_not_shown(toy: Toy) -> None:
    made = judged(toy, 2, span=SHORT)
    assert "toy version 2" in PageReader(reporting.verdict_page(toy.env, JOB, made.verdict_no)).text
    with pytest.raises(UsageError, match="there is none of that number"):
        reporting.verdict_page(toy.env, "other", made.verdict_no)


def promoted(toy: Toy, number: int) -> list[str]:
    """The warnings of a promotion."""
    with quiet_mlflow():
        return training.promote(toy.env, JOB, number, approved_by="ana", reason="a test")[1]


@pytest.mark.soak
def test_whoever_promotes_what_the_gate_has_not_accepted_is_warned(toy: Toy) -> None:
    assert promoted(toy, 2) == ["the gate was never asked about version 2: nightshift gate toy 2"]
    made = judged(toy, 2, champion=1, span=SHORT)
    (warning,) = promoted(toy, 2)
    assert warning.startswith(
        f"the gate's newest verdict on version 2, number {made.verdict_no}, had not enough"
    )
    toy.edit("dags/toy.yaml", "train: {", "gate: {nights: 3, gain: 0.01}\ntrain: {")
    judged(toy, 2, champion=1, span=SHORT)
    (warning,) = promoted(toy, 2)
    assert "refused it: quality" in warning
    toy.edit("dags/toy.yaml", "gate: {nights: 3, gain: 0.01}", "gate: {nights: 8}")
    judged(toy, 1, champion=2, as_of=EIGHT_NIGHTS)
    assert promoted(toy, 1) == []


def test_whoever_promotes_what_was_accepted_against_another_champion_is_warned(toy: Toy) -> None:
    with toy.env.engine.begin() as connection:
        number = verdict_book.append(
            connection, toy.version(2), toy.version(1), Verdict("accept", ()), span=(date.min, date.max),
            nights=8, labels_as_of=MATURE, figures={}, settings={}, actor="ana",
        )  # fmt: skip
    toy.promote(toy.register_like(1), datetime.now(UTC))
    assert promoted(toy, 2) == [
        f"the gate's newest verdict on version 2, number {number}, accepted it against version 1, not "
        "against the champion, 3"
    ]
    assert promoted(toy, 2) == []


def test_the_index_of_the_job_links_to_the_page_of_a_verdict(toy: Toy) -> None:
    made = judged(toy, 2, span=SHORT)
    index = Path(reporting.write_report(toy.env, JOB).path)
    assert f'href="../toy/verdict-{made.verdict_no}.html"' in index.read_text(encoding="utf-8")
    assert (index.parent / f"verdict-{made.verdict_no}.html").is_file()
