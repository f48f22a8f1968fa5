"""Reports over a real warehouse: nights of every kind, the job's index, its dictionary, the command."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path

import pytest
from support.reports import PageReader
from support.toy import JOB, NIGHT, YESTERDAY, Toy, quiet_mlflow
from typer.testing import CliRunner

from pipeline import estimates, outcomes, reporting, steps
from pipeline.cli.main import app
from pipeline.errors import RunError, UsageError
from pipeline.monitoring.dictionary import PARTS
from pipeline.partition import Partition

pytestmark = pytest.mark.integration


def shown(html: str) -> str:
    """What people read on a page."""
    return PageReader(html).text


def command(toy: Toy, *words: str) -> tuple[int, str]:
    """Exit code and stdout of `nightshift report toy …` in this process."""
    with quiet_mlflow():
        result = CliRunner().invoke(app, ["report", JOB, *words], env=toy.variables)
        told = result.exit_code, result.stdout
        del result
        gc.collect()  # otherwise the end of its process closes a command's connections
    return told


def test_the_page_of_a_published_night_tells_of_all_its_rows(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.night(run_id="tonight")
    text = shown(reporting.run_page(toy.env, JOB, NIGHT))
    assert "200 of 200 rows were scored by version 1; no fallback was needed" in text
    assert "Readers see this run, published" in text
    assert "No row was quarantined" in text
    assert YESTERDAY.key in text
    assert "against training" in text
    assert "Realised quality: not measured yet" in text


def test_the_page_of_a_degraded_night_tells_who_answered_and_why(toy: Toy) -> None:
    toy.execute("update source.toy set amount = -1 where day = %s and id = 3", NIGHT.day)
    toy.night()
    text = shown(reporting.run_page(toy.env, JOB, NIGHT))
    assert "199 of 200 rows were scored by version 1; 1 answered by a fallback" in text
    assert "degraded: 1 rows by rule" in text
    assert "expect_column_values_to_be_between amount quarantined 1 0.5 %" in text


def test_a_failed_night_has_a_page_although_nothing_of_it_is_published(toy: Toy) -> None:
    toy.night(run_id="first")
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(RunError):
        toy.night(run_id="second")
    text = shown(reporting.run_page_of(toy.env, "second"))
    assert "The run failed" in text
    assert "EmptyPartition" in text
    assert "Readers see another run of the day: first" in text
    assert "Readers see this run" in shown(reporting.run_page(toy.env, JOB, NIGHT))
    assert "2024-01-25 Thu: published; newest attempt failed" in reporting.job_page(toy.env, JOB)


def test_the_page_of_a_day_that_never_succeeded_is_that_of_its_newest_run(toy: Toy) -> None:
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(RunError):
        toy.night(run_id="only")
    assert "Readers see nothing of this day." in shown(reporting.run_page(toy.env, JOB, NIGHT))


def test_a_night_that_was_judged_shows_its_quality_by_slice(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "outcomes:\n  label: sold\n", "outcomes:\n  label: sold\n  slices: [kind]\n")
    toy.night()
    outcomes.evaluate(toy.env, JOB)
    text = shown(reporting.run_page(toy.env, JOB, NIGHT))
    assert "200 of 200 predictions have their label" in text
    assert "Judged in hindsight" in text
    assert "By kind" in text


def test_a_run_is_shown_although_its_declaration_is_broken(toy: Toy) -> None:
    toy.night(run_id="good")
    toy.edit("dags/toy.yaml", "grain: day", "grain: fortnight")
    assert "declaration not readable" in shown(reporting.run_page_of(toy.env, "good"))
    assert "declaration cannot be read" in shown(reporting.dictionary_page(toy.env, JOB))


def test_the_index_shows_every_expected_day_and_links_to_its_run(toy: Toy) -> None:
    toy.night(YESTERDAY, run_id="before")
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(RunError):
        toy.night(run_id="tonight")
    path = reporting.write_report(toy.env, JOB)
    read = PageReader(path.read_text())
    hrefs = {value for name, value in read.attributes if name == "href"}
    assert {f"../toy/day={YESTERDAY}/report.html", f"../toy/day={NIGHT}/report.html"} <= hrefs
    assert "× failed 1" in read.text
    assert "○ missing 23" in read.text
    assert "first toys" not in read.text
    assert "version 1" in read.text


def test_a_promotion_is_marked_on_the_first_day_that_it_holds_for(toy: Toy) -> None:
    toy.night()
    html = reporting.job_page(toy.env, JOB)
    assert "2024-01-21 Sun: missing; missing: no run yet; champion v1" in html


def test_all_jobs_are_shown_in_one_line_each(toy: Toy) -> None:
    toy.night()
    text = shown(reporting.jobs_page(toy.env))
    assert "toy Probability that a toy is sold." in text
    assert "2024-01-25 ✓ published 1 0 Toys" in text


def test_the_dictionary_has_the_warehouses_comments_of_what_analysts_may_read(toy: Toy) -> None:
    text = shown(reporting.dictionary_page(toy.env, JOB))
    assert "predictions.toy Probability that a toy is sold. Current rows only." in text
    assert "score double precision Probability or value that the job predicts" in text
    assert "nightshift.day_status" in text
    assert "nightshift.quarantine" not in text
    assert "One row per id and day" in text
    assert "labelled bigint Predictions of this slice whose label was known" in text


def test_the_dictionary_explains_every_metric_that_a_night_leaves(toy: Toy) -> None:
    for day in ("2024-01-14", *(f"2024-01-{number}" for number in range(15, 26))):
        toy.night(Partition.parse(day))
    outcomes.evaluate(toy.env, JOB)
    estimates.estimate_days(toy.env, JOB, (YESTERDAY, NIGHT))
    rows = toy.query(
        "select distinct metric from nightshift.metrics union select metric from nightshift.quality"
    )
    explained = {meaning.metric for meanings in PARTS.values() for meaning in meanings}
    left = {re.sub("^share:.*", "share:VALUE", metric) for (metric,) in rows}
    assert left - explained == set()
    assert {"js", "rows_in", "auc", "calibration_nights"} <= left


def test_a_day_without_a_run_has_no_page(toy: Toy) -> None:
    with pytest.raises(UsageError, match=r"there is none\. Score it: nightshift score toy --day 2024-01-25"):
        reporting.run_page(toy.env, JOB, NIGHT)
    with pytest.raises(UsageError, match="there is none of that name"):
        reporting.run_page_of(toy.env, "nobody")
    with pytest.raises(UsageError, match="there are: toy"):
        reporting.job_page(toy.env, "other")


def test_pages_link_to_each_other_as_files(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.night()
    path = Path(str(reporting.write_report(toy.env, JOB, NIGHT)))
    read = PageReader(path.read_text(encoding="utf-8"))
    hrefs = [str(value) for name, value in read.attributes if name == "href"]
    files = [(path.parent / href).resolve() for href in hrefs if not href.startswith("#")]
    assert len(files) == 4
    assert [file for file in files if not file.is_file()] == []


def test_a_runs_note_says_where_its_page_is(toy: Toy) -> None:
    toy.night(run_id="tonight")
    note = steps.note(toy.env, steps.run_named(toy.env, "tonight"), "nightshift report toy --day 2024-01-25")
    assert note.splitlines()[3] == "report: nightshift report toy --day 2024-01-25"


def test_the_command_writes_pages_and_says_where(toy: Toy) -> None:
    toy.night()
    page = Path(json.loads(command(toy, "--day", NIGHT.key, "--json")[1])["path"])
    index = Path(json.loads(command(toy, "--json")[1])["path"])
    assert page == Path(toy.env.store.root.path) / "reports" / JOB / f"day={NIGHT}" / "report.html"
    assert index == page.parent.parent / "index.html"
    assert sorted(path.name for path in index.parent.glob("*.html")) == ["dictionary.html", "index.html"]
    assert command(toy, "--day", NIGHT.key) == (0, f"{page}\n")


def test_the_command_says_what_is_wrong_and_exits_2(toy: Toy) -> None:
    code, told = command(toy, "--day", NIGHT.key, "--json")
    assert (code, json.loads(told)["error"]) == (2, "UsageError")
