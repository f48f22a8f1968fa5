"""The command line's contract: exit codes, one JSON line, logs, and what it says when it is used wrongly."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.toy import NIGHT, YESTERDAY, Toy, quiet_mlflow
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.settings import Settings

pytestmark = pytest.mark.integration

COLOUR = re.compile(r"\x1b\[(\d+;)*(3|4|9|10)[0-7][;m]")
SCORE_KEYS = {
    "job", "day", "run_id", "token", "status", "degraded", "rows_in", "rows_scored", "rows_fallback",
    "rows_withheld", "rows_quarantined", "model_version", "feature_version", "snapshot_fingerprint",
    "started_at", "finished_at", "cpu_seconds", "peak_memory_mb",
}  # fmt: skip


def run(toy: Toy, *words: str) -> Result:
    """A `nightshift` command on the toy project, in this process."""
    return invoked(toy.variables, *words)


def invoked(variables: dict[str, str], *words: str) -> Result:
    """A `nightshift` command in this process with these environment variables."""
    with quiet_mlflow():
        result = CliRunner().invoke(app, words, env=variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    return result


def report(result: Result) -> dict[str, Any]:
    """What a command reported: its stdout must be exactly one line of JSON."""
    assert result.stdout.count("\n") == 1, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


# Nights


def test_score_reports_the_run_in_one_line_and_exits_0(toy: Toy) -> None:
    result = run(toy, "score", "toy", "--day", NIGHT.key, "--json")
    told = report(result)
    assert result.exit_code == 0
    assert SCORE_KEYS - set(told) == set()
    assert (told["job"], told["day"], told["status"], told["rows_in"]) == ("toy", NIGHT.key, "published", 200)
    assert toy.last_run()["run_id"] == told["run_id"]


def test_a_degraded_night_exits_0(toy: Toy) -> None:
    toy.execute("update source.toy set amount = -1 where day = %s and id = 3", NIGHT.day)
    result = run(toy, "score", "toy", "--day", NIGHT.key, "--json")
    assert (result.exit_code, report(result)["degraded"]) == (0, True)


def test_a_failed_night_is_reported_and_exits_1(toy: Toy) -> None:
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    result = run(toy, "score", "toy", "--day", NIGHT.key, "--run-id", "mine", "--json")
    told = report(result)
    assert (result.exit_code, told["run_id"], told["status"]) == (1, "mine", "failed")
    assert told["error_type"] == "EmptyPartition"
    assert "EmptyPartition" in result.stderr
    assert "Traceback" not in result.output


def test_every_log_line_names_the_run_the_job_and_the_day(toy: Toy) -> None:
    result = run(toy, "-v", "score", "toy", "--day", NIGHT.key, "--run-id", "mine", "--json")
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert {(line["run_id"], line["job"], line["day"]) for line in lines} == {("mine", "toy", NIGHT.key)}
    events = ["planned", "extracted", "validated", "scored", "published"]
    assert [line["event"] for line in lines if line["event"] in events] == events
    assert report(result)["run_id"] == "mine"


def test_a_backfill_with_a_failure_lists_it_and_exits_1(toy: Toy) -> None:
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    days = ("--from", YESTERDAY.key, "--to", NIGHT.key)
    result = run(toy, "backfill", "toy", *days, "--json")
    told = report(result)
    assert (result.exit_code, told["published"], told["days"]) == (1, 1, 2)
    assert [(failed["day"], failed["error"]) for failed in told["failed"]] == [(NIGHT.key, "EmptyPartition")]
    told = report(run(toy, "status", "toy", *days, "--json"))
    assert [(day["day"], day["quality"], day["last_status"]) for day in told["days"]] == [
        (YESTERDAY.key, "ok", "published"),
        (NIGHT.key, "missing", "failed"),
    ]


# Models


def test_train_promote_and_rollback_report_in_one_line(toy: Toy) -> None:
    nights = ("--from", "2024-01-02", "--to", "2024-01-06")
    trained = report(run(toy, "train", "toy", *nights, "--key", "monday", "--json"))
    assert report(run(toy, "train", "toy", *nights, "--key", "monday", "--json")) == trained
    assert {"version", "feature_version", "rows", "metrics", "data_fingerprint"} <= set(trained)
    number = str(trained["version"])
    promoted = report(
        run(toy, "promote", "toy", number, "--approved-by", "ben", "--reason", "better", "--json")
    )
    assert (promoted["version"], promoted["previous_version"]) == (trained["version"], 1)
    assert (promoted["approved_by"], promoted["reason"], promoted["kind"]) == ("ben", "better", "promote")
    back = report(run(toy, "rollback", "toy", "--json"))
    assert (back["version"], back["kind"], back["approved_by"]) == (1, "rollback", "ana")


def test_only_a_declared_approver_may_promote(toy: Toy) -> None:
    result = run(toy, "promote", "toy", "2", "--approved-by", "anna", "--reason", "x", "--json")
    assert (result.exit_code, report(result)["error"]) == (2, "UsageError")
    assert "did you mean 'ana'?" in result.stderr
    assert toy.query("select count(*) from nightshift.promotions") == [(1,)]


def test_a_version_that_is_not_there_exits_1(toy: Toy) -> None:
    result = run(toy, "promote", "toy", "9", "--approved-by", "ana", "--reason", "x", "--json")
    assert (result.exit_code, report(result)["error"]) == (1, "RegistryError")
    assert "there are: 1, 2" in result.stderr


# Wrong use


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("score", "toi", "--day", "2024-01-25"), "did you mean 'toy'?"),
        (("backfill", "toi", "--from", "2024-01-25", "--to", "2024-01-25"), "did you mean 'toy'?"),
        (("status", "toi"), "did you mean 'toy'?"),
        (("score", "toy", "--day", "25.1.2024"), "YYYY-MM-DD"),
        (("score", "toy", "--day", "2024-03-01"), "2024-01-01 to 2024-02-09"),
        (("score", "toy", "--day", "2024-01-25", "--model", "newest"), "current, as-of or a version number"),
        (("backfill", "toy", "--from", "2024-01-25", "--to", "2024-01-24"), "must not end before it starts"),
        (("train", "toy", "--from", "2024-01-02", "--to", "2024-01-06", "--as-of", "now"), "--as-of must be"),
        (
            ("train", "toy", "--from", "2024-01-02", "--to", "2024-01-06", "--as-of", "2999-01-01"),
            "must not lie in the future; got 2999-01-01",
        ),
        (("train", "toy", "--from", "2998-12-31", "--to", "2999-01-01"), "must have passed their cut-off"),
        (("score", "toy", "--day", "2024-01-25", "--run-id", ".."), "a run's name must be"),
        (("score", "toy", "--day", "2024-01-25", "--run-id", "../../x"), "a run's name must be"),
        (("status", "toy", "--from", "2024-01-26", "--to", "2024-01-25"), "must not end before it starts"),
        (("outcomes", "toy", "--from", "2024-01-26", "--to", "2024-01-25"), "must not end before it starts"),
        (("alerts", "toy", "--limits", "--acknowledge", "1", "--by", "ana"), "--limits must stand alone"),
        (("check", "toy", "--day", "2024-01-25"), "--day must stand beside --leaks"),
    ],
)
def test_wrong_use_exits_2_and_says_what_is_accepted(toy: Toy, words: tuple[str, ...], told: str) -> None:
    result = run(toy, *words, "--json")
    assert (result.exit_code, report(result)["error"]) == (2, "UsageError")
    assert told in result.stderr
    assert toy.runs() == []


def test_an_unknown_option_exits_2(toy: Toy) -> None:
    assert run(toy, "score", "toy", "--dya", NIGHT.key).exit_code == 2


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        ("check", {"CHANNELS": '{"ops": slack://hidden}'}, "NIGHTSHIFT_CHANNELS='{"),
        ("check", {"CHANNELS": '["hidden"]'}, "NIGHTSHIFT_CHANNELS must be right"),
        ("status", {"WAREHOUSE_URL": "hidden"}, "NIGHTSHIFT_WAREHOUSE_URL must be a PostgreSQL URL"),
        ("report toy", {"STORE": "ftpx://hidden"}, "NIGHTSHIFT_STORE must be a folder or a URL"),
        ("check", {"PROJECT": "/nowhere"}, "/nowhere/dags must hold a declaration"),
        ("report toy --open", {"STORE": "memory://hidden"}, "--open must have the pages in a local folder"),
    ],
)
def test_wrong_settings_exit_2_with_a_sentence(
    toy: Toy, words: str, variables: dict[str, str], told: str
) -> None:
    given = toy.variables | {f"NIGHTSHIFT_{name}": value for name, value in variables.items()}
    result = invoked(given, *words.split(), "--json")
    assert (result.exit_code, report(result)["error"]) == (2, "UsageError")
    assert told in report(result)["message"]
    assert "slack://hidden" not in result.output


def test_an_empty_setting_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.setenv("NIGHTSHIFT_STORE", "")
    assert Settings().store_url == str(tmp_path / "store")


@pytest.mark.parametrize(
    "words", ["train toy --from 2024-01-01 --to 2024-01-06 --seed -1", "airflow --port 99999"]
)
def test_a_number_out_of_its_range_exits_2(toy: Toy, words: str) -> None:
    assert run(toy, *words.split()).exit_code == 2


def test_a_score_before_migrate_says_what_to_run(toy: Toy) -> None:
    toy.execute("drop schema nightshift cascade")
    result = run(toy, "score", "toy", "--day", NIGHT.key, "--json")
    assert result.exit_code == 1
    assert "nightshift migrate" in report(result)["message"]
    assert "Traceback" not in result.output


# The rest


def test_check_and_migrate_report_in_one_line_and_change_nothing(toy: Toy) -> None:
    assert report(run(toy, "migrate", "--json")) == {"jobs": ["toy"]}
    result = run(toy, "check", "--json")
    assert (result.exit_code, report(result)["ok"]) == (0, True)
    assert report(result)["jobs"][0]["notes"] == []


def test_check_names_file_and_line_of_every_fault_and_exits_2(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "max_quarantined_share: 0.3", "max_quarantined_shar: 0.3")
    toy.edit("features/toy.py", "def make_baseline", "def make_basline")
    result = run(toy, "check", "--json")
    faults = report(result)["jobs"][0]["faults"]
    assert result.exit_code == 2
    assert any(re.search(r"toy\.yaml:\d+: .*did you mean 'max_quarantined_share'", fault) for fault in faults)
    assert any(re.search(r"toy\.py:\d+: .*make_baseline", fault) for fault in faults)


def test_check_names_a_feature_module_that_is_no_utf_8(toy: Toy) -> None:
    features = toy.project / "features/toy.py"
    features.write_bytes(b"# coding: latin-1\n# gr\xfcn\n" + features.read_bytes())
    result = run(toy, "check", "--json")
    assert result.exit_code == 2
    (fault,) = report(result)["jobs"][0]["faults"]
    assert re.search(r"toy\.py:2: must be UTF-8 text", fault)


def test_check_without_mlflow_still_judges_the_declaration(toy: Toy) -> None:
    result = invoked(toy.variables | {"NIGHTSHIFT_REGISTRY_URL": "away://here"}, "check", "--json")
    (job,) = report(result)["jobs"]
    assert (result.exit_code, job["faults"]) == (0, [])
    assert "MLflow's alias could not be looked at" in job["notes"][0]


def test_check_probes_a_schedule_without_an_end_where_days_lie_on_both_sides(toy: Toy) -> None:
    toy.edit("dags/toy.yaml", "  end: 2024-02-09\n", "")
    toy.execute("update source.toy set day = current_date - (date '2024-01-21' - day)")
    toy.edit("dags/toy.yaml", "start: 2024-01-01", f"start: {date.today() - timedelta(days=40)}")
    toy.execute("update source.toy_sales set day = current_date - (date '2024-01-21' - day)")
    toy.edit("dags/toy.yaml", "toy_sales, known_at: known_at", "toy_sales, overwritten: true")
    toy.edit("dags/toy.yaml", "toy.day < :day", "toy.day <= :day")
    result = run(toy, "check", "--leaks", "--json")
    assert result.exit_code == 2
    assert "'sold_share_7d' changed" in report(result)["jobs"][0]["leaks"][0]


def test_a_job_that_cannot_be_probed_hides_no_leak_of_another(toy: Toy) -> None:
    for path in ("dags/toy.yaml", "features/toy.py", "expectations/toy.json"):
        copied = toy.project / path.replace("toy", "aaa")
        copied.write_text((toy.project / path).read_text())
    toy.edit("dags/aaa.yaml", "from toy where day = :day", "from toy where day = :day and id < 0")
    result = run(toy, "check", "--leaks", "--json")
    empty, probed = report(result)["jobs"]
    assert (result.exit_code, report(result)["ok"]) == (2, False)
    assert (empty["leaks_probed"], probed["leaks_probed"]) == (False, True)
    assert "must have rows for leaks to show; got none" in empty["leaks_error"]["message"]
    assert "aaa: not probed for leaks: " in run(toy, "check", "--leaks").stderr


def test_check_names_declared_features_that_the_module_does_not_make(toy: Toy) -> None:
    far = "retrain: {far_from_training: {seasonal: [amont, amount]}}"
    toy.edit("dags/toy.yaml", "train: {", f"{far}\ngate: {{behaviour: {{rising: [colour]}}}}\ntrain: {{")
    result = run(toy, "check", "--json")
    assert result.exit_code == 2
    (job,) = report(result)["jobs"]
    known = "accepted: amount, kind, sold_share_7d"
    lines = (toy.project / "dags/toy.yaml").read_text().splitlines()
    told = {fault.partition("toy.yaml:")[2] for fault in job["faults"]}
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("retrain:"))
    assert told == {
        f"{line}: retrain.far_from_training.seasonal: must name features of features/toy.py; "
        "got 'amont'; did you mean 'amount'?",
        f"{line + 1}: gate.behaviour.rising: must name features of features/toy.py; got 'colour'; {known}",
    }


def test_check_says_when_the_champions_features_differ_from_the_trees(toy: Toy) -> None:
    toy.edit("features/toy.py", '"amount": rows["amount"],', '"amount": rows["amount"] * 2,')
    result = run(toy, "check", "--json")
    (job,) = report(result)["jobs"]
    assert (result.exit_code, job["faults"]) == (0, [])
    assert "the tree has" in job["notes"][0]


def test_check_says_when_the_training_profile_is_not_the_registered_one(toy: Toy) -> None:
    toy.promote(toy.register_like(profile_sha256="0" * 64))
    result = run(toy, "check", "--json")
    (job,) = report(result)["jobs"]
    assert (result.exit_code, job["faults"]) == (0, [])
    assert any("cannot be compared with its training" in note and "sha256" in note for note in job["notes"])


def test_a_given_warehouses_url_is_one_line_and_has_no_analyst(toy: Toy) -> None:
    assert run(toy, "url").stdout == toy.url + "\n"
    assert run(toy, "url", "--role", "analyst").exit_code == 2


def test_up_url_and_down_work_on_the_embedded_server(tmp_path: Path) -> None:
    env = {"NIGHTSHIFT_HOME": str(tmp_path / ("long" * 20))}
    told = [invoked(env, word, "--json") for word in ("up", "up")]
    assert [(one.exit_code, report(one)) for one in told] == [(0, {"running": True})] * 2
    urls = [invoked(env, "url", "--role", role).stdout for role in ("owner", "analyst")]
    assert all(re.fullmatch(r"postgresql://\S+@127\.0\.0\.1:\d+/warehouse\n", url) for url in urls)
    assert urls[0] != urls[1]
    told = [invoked(env, word, "--json") for word in ("down", "down")]
    assert [report(one)["stopped"] for one in told] == [True, False]


@pytest.mark.parametrize("no_colour", [True, False])
def test_no_colour_is_honoured(toy: Toy, no_colour: bool) -> None:
    wanted = {"FORCE_COLOR": "1", "TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_colour else {})
    outer = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pipeline.cli.main import app; app()",
            "score",
            "toi",
            "--day",
            NIGHT.key,
        ],
        env={**outer, **toy.variables, **wanted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert bool(COLOUR.search(done.stderr)) is not no_colour
