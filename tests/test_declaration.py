from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline.declaration import job_names, json_schema, load_job, load_jobs
from pipeline.errors import DeclarationError, Fault, UsageError
from pipeline.partition import Partition

YAML_TEXT = """\
description: Probability that a delivery comes late.
owners:
  team: Deliveries
  on_call: deliveries@example.com
  approvers: [ana, ben]
schedule:
  grain: day
  timezone: America/New_York
  cutoff: "03:00"
  start: 2013-01-01
  end: 2013-12-31
sources:
  orders: {table: source.orders, known_at: placed_at}
  table: {table: source.fleet, overwritten: true}
extract:
  key: [parcel]
  columns:
    day: date
    parcel: integer
    weight: float?
  pii: [weight]
  sql: |
    select day, parcel, weight
    from orders
    where day = :day
history:
  sql:
    key: [depot]
    sql: select depot, count(*) as n from orders where day < :day group by depot
validate:
  max_quarantined_share: 0.2
  parameters: select count(*) as rows_min from orders where day < :day
model: {output: probability, threshold: 0.5}
fallback:
  bad_row: [rule, carried_forward, default]
  model_failure: [previous_model]
  carried_forward: {key: [parcel], max_age_days: 7}
  default: 0.1
publish: {sql: true, parquet: true}
outcomes:
  label: late
  sql: select parcel, late from orders where day = :day
train: {holdout_nights: 14, seed: 0}
alerts: {channel: ops, publish_by: "06:00"}
"""
SUITE: dict[str, Any] = {
    "name": "deliveries",
    "expectations": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
        {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["day", "parcel", "weight"]}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "parcel"}},
    ],
}


def write(folder: Path, text: str | bytes = YAML_TEXT, job: str = "deliveries", suite: Any = SUITE) -> Path:
    """A project with that declaration, a feature module and a suite; the declaration's path."""
    for name in ("dags", "features", "expectations"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "features" / f"{job}.py").write_text("FEATURES = {}\n")
    (folder / "expectations" / f"{job}.json").write_text(json.dumps(suite, indent=1))
    file = folder / "dags" / f"{job}.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def faults(folder: Path, *changes: tuple[str, str]) -> list[Fault]:
    """The faults of the declaration after each (old, new) replacement of text that must be there."""
    text = YAML_TEXT
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    write(folder, text)
    return found(folder)


def found(folder: Path, job: str = "deliveries") -> list[Fault]:
    try:
        load_job(folder, job)
    except DeclarationError as error:
        return list(error.faults)
    return []


def told(faults: list[Fault]) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in faults]


def test_a_sound_declaration_becomes_a_job(tmp_path: Path) -> None:
    write(tmp_path)
    job = load_job(tmp_path, "deliveries")
    assert job.name == "deliveries"
    assert job.output_columns()[:3] == ("parcel", "day", "score")
    assert job.declaration.schedule.cutoff.isoformat() == "03:00:00"
    assert job.declaration.fallback.bad_row == ("rule", "carried_forward", "default")


def test_the_declarations_of_this_repository_are_sound(project: Path) -> None:
    assert [job.name for job in load_jobs(project)] == list(job_names(project)) != []


def test_ten_faults_of_ten_kinds_come_in_one_error_each_with_its_line(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        ("  on_call:", "  oncall:"),
        ("approvers: [ana, ben]", "approvers: []"),
        ("America/New_York", "America/NewYork"),
        ("start: 2013-01-01", "start: 2013-02-30"),
        ("grain: day", "grain: days"),
        ("key: [parcel]\n  columns", "key: [parsel]\n  columns"),
        ("    where day = :day\nhistory", "history"),
        ("max_quarantined_share: 0.2", "max_quarantined_share: 2"),
        ("default: 0.1", "default: 1.1\n  default: 0.1"),
        ("select parcel, late from orders", "select parcel, late from order_lines"),
    )
    assert told(found) == [
        (2, "owners.on_call: key 'on_call' is missing"),
        (4, "owners.oncall: unknown key 'oncall'; did you mean 'on_call'?"),
        (5, "owners.approvers: must have at least one entry; got an empty list"),
        (7, "schedule.grain: must be one of day; got 'days'; did you mean 'day'?"),
        (8, "schedule.timezone: must be an IANA time zone such as America/New_York; got 'America/NewYork'; "
            "did you mean 'America/New_York'?"),
        (10, "schedule.start: must be a date, written YYYY-MM-DD without quotes; got '2013-02-30'"),
        (16, "extract.key.0: column 'parsel' must be among columns; did you mean 'parcel'?"),
        (22, "extract.sql: must be bounded by one of :day, :day_start, :day_end, :cutoff; got no bind"),
        (30, "validate.max_quarantined_share: must be less than or equal to 1; got 2"),
        (37, "fallback.default: must be from 0 to 1 where model.output is probability; got 1.1"),
        (38, "key 'default' stands twice; the first is in line 37"),
        (42, "outcomes.sql: table 'order_lines' must be a declared source; did you mean 'orders'?"),
    ]  # fmt: skip
    assert {fault.file for fault in found} == {tmp_path / "dags/deliveries.yaml"}


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("description:", "descripton:", 1, "unknown key 'descripton'; did you mean 'description'?"),
        ("known_at: placed_at", "know_at: placed_at", 13, "unknown key 'know_at'; did you mean 'known_at'?"),
        ("{table: source.fleet,", "{tabel: source.fleet,", 14, "unknown key 'tabel'; did you mean 'table'?"),
        ("columns:", "colums:", 17, "unknown key 'colums'; did you mean 'columns'?"),
        ("    key: [depot]", "    keys: [depot]", 28, "unknown key 'keys'; did you mean 'key'?"),
        ("max_age_days", "max_age", 37, "unknown key 'max_age'; did you mean 'max_age_days'?"),
        ("parquet:", "parket:", 39, "unknown key 'parket'; did you mean 'parquet'?"),
        ("outcomes:\n  label", "outcomes:\n  xyz", 41, "slices, sql, worse_for_nights"),
        (
            "train: {",
            "train: {1: 2, ",
            43,
            "unknown key '1'; accepted: calibrate, holdout_nights, nights, refit, rows_per_day, schedule, "
            "seed",
        ),
    ],
)
def test_a_typo_of_a_key_is_told_at_every_depth(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    (typo,) = [f for f in faults(tmp_path, (old, new)) if "unknown key" in f.message]
    assert typo.line == line
    assert typo.message.endswith(message)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("team: Deliveries", "team: 7", 3, "owners.team: must be text; got 7"),
        ("team: Deliveries", "team:", 3, "owners.team: must be text; got nothing"),
        ("team: Deliveries", "team: ' '", 3, "owners.team: must not be blank; got ' '"),
        ("approvers: [ana, ben]", "approvers: ana", 5, "owners.approvers: must be a list; got 'ana'"),
        ("approvers: [ana, ben]", "approvers: [ana, 7]", 5, "owners.approvers.1: must be text; got 7"),
        ("[ana, ben]", "[ana, ana]", 5, "owners.approvers: must name each entry once; got 'ana' twice"),
        ('cutoff: "03:00"', "cutoff: 3am", 9,
         'schedule.cutoff: must be a clock time such as "03:00", local to schedule.timezone; got \'3am\''),
        ('cutoff: "03:00"', 'cutoff: "03:00+02:00"', 9,
         'schedule.cutoff: must be a clock time such as "03:00", local to schedule.timezone; '
         "got '03:00+02:00'"),
        ('cutoff: "03:00"', 'cutoff: "03:00:00.5"', 9,
         'schedule.cutoff: must be a clock time such as "03:00", local to schedule.timezone; '
         "got '03:00:00.5'"),
        ("start: 2013-01-01", 'start: "2013-01-01"', 10,
         "schedule.start: must be a date, written YYYY-MM-DD without quotes; got '2013-01-01'"),
        ("start: 2013-01-01", "start: 2013-13-01", 10,
         "schedule.start: must be a date, written YYYY-MM-DD without quotes; got '2013-13-01'"),
        ("start: 2013-01-01", "start: 2013-01-01 00:00:00", 10,
         "schedule.start: must be a date, written YYYY-MM-DD without quotes; got 2013-01-01 00:00:00"),
        ("end: 2013-12-31", "end: 2012-12-31", 11,
         "schedule.end: must not lie before start; got 2013-01-01 to 2012-12-31"),
        ("table: source.orders,", "table: source..orders,", 13,
         "sources.orders.table: must be a table, or a schema and a table with a dot between them; "
         "got 'source..orders'"),
        ("columns:\n    day: date\n", "columns:\n", 17, "extract.columns.day: must have type date; got none"),
        ("day: date", "day: timestamp", 18, "extract.columns.day: must have type date; got timestamp"),
        ("parcel: integer", "parcel: integer?", 16,
         "extract.key.0: key column 'parcel' must not be nullable or a float; got integer?"),
        ("parcel: integer", "parcel: float", 16,
         "extract.key.0: key column 'parcel' must not be nullable or a float; got float"),
        ("weight: float?", "weight: flaot?", 20,
         "extract.columns.weight: must be one of text, integer, float, boolean, date, timestamp, text?, "
         "integer?, float?, boolean?, date?, timestamp?; got 'flaot?'; did you mean 'float?'?"),
        ("pii: [weight]", "pii: [wieght]", 21,
         "extract.pii.0: column 'wieght' must be among columns; did you mean 'weight'?"),
        ("share: 0.2", "share: yes", 31, "validate.max_quarantined_share: must be a number; got 'yes'"),
        ("share: 0.2", "share: .nan", 31,
         "validate.max_quarantined_share: must be less than or equal to 1; got nan"),
        ("threshold: 0.5", "threshold: .inf", 33, "model.threshold: must be a finite number; got inf"),
        ("threshold: 0.5", "threshold: 1.5", 33,
         "model.threshold: must be from 0 to 1 where model.output is probability; got 1.5"),
        (", threshold: 0.5", "", 33,
         "model.threshold: must be from 0 to 1 where model.output is probability; got None"),
        ("model_failure: [previous_model]", "model_failure: [rule, carried_forward, previous_model]", 36,
         "fallback.model_failure.2: previous_model must stand before rule: a model answers for all rows, "
         "or none"),
        ("model_failure: [previous_model]", "model_failure: [previous_modle]", 36,
         "fallback.model_failure.0: must be one of previous_model, baseline, rule, carried_forward, default; "
         "got 'previous_modle'; did you mean 'previous_model'?"),
        ("  default: 0.1", "  rule_sql: sum(weight)\n  default: 0.1", 38,
         "fallback.rule_sql: must look at one row alone; got SUM"),
        ("key: [parcel], max", "key: [depot], max", 37,
         "fallback.carried_forward.key: must be among extract.key; got depot"),
        ("max_age_days: 7", "max_age_days: 0", 37,
         "fallback.carried_forward.max_age_days: must be greater than or equal to 1; got 0"),
        ("  carried_forward: {key: [parcel], max_age_days: 7}\n", "", 34,
         "fallback.carried_forward: must be set, the step carried_forward stands in a chain; got nothing"),
        ("  default: 0.1\n", "", 34,
         "fallback.default: must be set, the step default stands in a chain; got nothing"),
        ("publish: {sql: true,", "publish: {sql: false,", 39,
         "publish.sql: must be true: the step carried_forward reads the published table"),
        ("publish: {sql: true, parquet: true}", "publish: {sql: false, parquet: false}", 39,
         "publish: at least one of sql and parquet must be true; got a mapping"),
        ("publish: {sql: true, parquet: true}", "publish: [sql]", 39,
         "publish: must be a mapping of keys; got a list"),
        ("train: {", "train: {schedule: 0 5 1 *, ", 43,
         "train.schedule: must be a cron text of 5 fields such as '0 5 1 * *'; got '0 5 1 *'"),
        ("train: {", "train: {schedule: 0 25 1 * mon-fri, ", 43,
         "train.schedule: its hour must be from 0 to 23, * or a list; got '25'"),
        ("train: {", "train: {calibrate: isotonic, ", 43,
         "train.calibrate: must be one of sigmoid, temperature; got 'isotonic'"),
        ("seed: 0", "seed: 3000000000", 43,
         "train.seed: must be less than or equal to 2147483647; got 3000000000"),
        ("train: {", "train: {nights: 14, ", 43,
         "train.nights: must be more than holdout_nights: 14; got 14"),
        ("train: {", "train: {calibrate: sigmoid, nights: 28, ", 43,
         "train.nights: must be more than twice holdout_nights, to calibrate on: 28; got 28"),
        (", parquet: true}", ", parquet: true}\nretrain: {cost_above: {per_1000: 5}}", 40,
         "retrain.cost_above: must be left out without outcomes.costs"),
        (", parquet: true}", ", parquet: true}\nretrain: {own_cool_down_days: {on_drift: 3}}", 40,
         "retrain.own_cool_down_days.on_drift: must be of a declared trigger; on_drift is none"),
        ("train: {", "gate: {gain: -0.1}\ntrain: {", 43,
         "gate.gain: must be -margin, -0.05, at least; got -0.1"),
        ("train: {", "gate: {behaviour: {rising: [a], invariant: [b, a]}}\ntrain: {", 43,
         "gate.behaviour.invariant.1: must stand in one of rising, falling and invariant; got 'a' twice"),
        ("label: late", "label: parcel", 41,
         "outcomes.label: must not be a column of extract.key; got 'parcel'"),
        ("select parcel, late from orders where day = :day", '""', 42,
         "outcomes.sql: must not be blank; got ''"),
        ("select parcel, late from orders where day = :day", "-- nothing", 42,
         "outcomes.sql: must be one SELECT statement; got nothing"),
        ("select count(*) as rows_min from orders where day < :day", "select now() as t, :day", 32,
         "validate.parameters: current_timestamp must not be used, or a replay reads other rows; "
         "use :cutoff or :day"),
        ("by depot", "by depot; drop table orders", 29,
         "history.sql.sql: must be one SELECT statement; got SELECT and DROP"),
        ('publish_by: "06:00"', 'publish_by: "03:00"', 44,
         "alerts.publish_by: must be later than schedule.cutoff, 03:00:00; got 03:00:00"),
        ("publish_by:", "publish_within:", 44,
         "alerts.publish_within: unknown key 'publish_within'; did you mean 'publish_by'?"),
        ("channel: ops", "channel: 'slack://token'", 44,
         "alerts.channel: must be a lower-case name of letters, digits and _, at most 40 long; "
         "got 'slack://token'"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line_what_must_hold_and_what_was_got(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert told(faults(tmp_path, (old, new))) == [(line, message)]


def test_a_source_says_when_its_rows_were_known_or_that_it_is_overwritten(tmp_path: Path) -> None:
    for changed in ("overwritten: false", "overwritten: true, known_at: t"):
        (fault,) = faults(tmp_path, ("overwritten: true", changed))
        assert fault.line == 14
        assert "must have either known_at" in fault.message


@pytest.mark.parametrize(("name", "kind"), [("day", "date"), ("run_no", "integer"), ("published_at", "date")])
def test_a_key_column_may_not_have_the_name_of_an_output_column(tmp_path: Path, name: str, kind: str) -> None:
    faulty = f"key: [parcel, {name}]\n  columns:" + f"\n    {name}: {kind}" * (name != "day")
    (fault,) = faults(tmp_path, ("key: [parcel]\n  columns:", faulty))
    assert fault.message.startswith(f"extract.key.1: key column {name!r} has the name of an output column; ")


def test_what_a_model_failure_carries_forward_must_be_published_to_sql_too(tmp_path: Path) -> None:
    (fault,) = faults(
        tmp_path,
        ("[rule, carried_forward, default]", "[rule, default]"),
        ("[previous_model]", "[previous_model, carried_forward]"),
        ("{sql: true,", "{sql: false,"),
    )
    assert fault.message.startswith("publish.sql: must be true")


@pytest.mark.parametrize("name", ["Orders", "orders-2", "2orders", "année", "o" * 41, "o.p"])
def test_a_name_that_databases_would_not_take_is_refused(tmp_path: Path, name: str) -> None:
    found = faults(tmp_path, ("  table: {table: source.fleet", f"  {name}: {{table: source.fleet"))
    rule = "must be a lower-case name of letters, digits and _, at most 40 long"
    assert told(found) == [(14, f"sources.{name}: {rule}; got {name!r}")]


def test_a_job_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    write(tmp_path)
    job = load_job(tmp_path, "deliveries")
    with pytest.raises(ValidationError, match="frozen"):
        job.declaration.extract.sql = "select 1"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("day", "due"),
    [
        ("2013-01-01", datetime(2013, 1, 1, 11, tzinfo=UTC)),
        ("2013-07-01", datetime(2013, 7, 1, 10, tzinfo=UTC)),
        ("2013-12-31", datetime(2013, 12, 31, 11, tzinfo=UTC)),
        ("2012-12-31", None),
        ("2014-01-01", None),
    ],
)
def test_a_day_of_the_schedule_is_due_at_its_local_clock_time(
    tmp_path: Path, day: str, due: datetime | None
) -> None:
    write(tmp_path)
    assert load_job(tmp_path, "deliveries").due(Partition.parse(day)) == due


def test_without_alerts_no_channel_is_used_and_no_day_is_late(tmp_path: Path) -> None:
    write(tmp_path, YAML_TEXT.replace('alerts: {channel: ops, publish_by: "06:00"}\n', ""))
    job = load_job(tmp_path, "deliveries")
    assert job.declaration.alerts.channel is None
    assert job.due(Partition.parse("2013-07-01")) is None


def test_values_in_messages_are_short(tmp_path: Path) -> None:
    for fault in faults(
        tmp_path,
        ("grain: day", f"grain: {'x' * 5000}"),
        ("label: late", f"label: {'y' * 5000}"),
        ("train: {", f"train: {{{'z' * 500}: 1, {'z' * 500}: 2, "),
        ("from orders where day < :day group by depot", f"from {'t' * 5000} where day < :day"),
    ):
        assert len(fault.message) < 250


def test_a_missing_part_is_told_and_hides_no_other_fault(tmp_path: Path) -> None:
    cut = YAML_TEXT[YAML_TEXT.index("sources:") : YAML_TEXT.index("extract:")]
    messages = [message for _, message in told(faults(tmp_path, (cut, ""), ("seed: 0", "seed: -1")))]
    assert "sources: key 'sources' is missing" in messages
    assert "train.seed: must be greater than or equal to 0; got -1" in messages
    assert "extract.sql: table 'orders' must be a declared source; accepted: " in messages


def test_a_faulty_source_is_still_known_to_its_queries(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, ("known_at: placed_at", "known_at: 7"))
    assert fault.message == "sources.orders.known_at: must be text; got 7"


# What is no declaration at all


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "must be a mapping of keys; got none"),
        (b"# only a comment\n", 1, "must be a mapping of keys; got none"),
        (b"- a\n- b\n", 1, "must be a mapping of keys; got none"),
        (b"just words", 1, "must be a mapping of keys; got none"),
        (b"owners:\n\tteam: x\n", 2, "must be YAML; got found character '\\t' that cannot start any token"),
        (b"owners: [ana\nmodel: x\n", 2, "must be YAML; got expected ',' or ']', but got ':'"),
        (b"a: 1\n---\nb: 2\n", 2, "must be YAML; got but found another document"),
        (b"a: 1\nb: caf\xe9\n", 2, "must be UTF-8 text; got invalid continuation byte"),
        (b"a: \x00\n", 1, "must be YAML; got characters that YAML does not allow"),
        (b"? [a, b]\n: 1\n", 1, "a key must be plain text; got a list or a mapping"),
        (b"a: 1\nb: &x {c: 1}\n", 2,
         "values must be written out; got an anchor, which hides what is declared"),
        (b"a: !!python/name:os.system x\n", 1,
         "values must be written out; got a tag, which hides what is declared"),
        (b"%YAML 1.1\n---\na: yes\n", 1,
         "values must be written out; got a directive, which hides what is declared"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plain_yaml_is_a_fault_and_no_crash(
    tmp_path: Path, text: bytes, line: int, message: str
) -> None:
    write(tmp_path, text)
    assert (line, message) in told(found(tmp_path))


def test_aliases_and_merge_keys_are_refused_where_they_stand(tmp_path: Path) -> None:
    write(tmp_path, "a: &a {b: *a}\nc:\n  <<: *a\n")
    assert told(found(tmp_path)) == [
        (1, "values must be written out; got an alias, which hides what is declared"),
        (1, "values must be written out; got an anchor, which hides what is declared"),
        (3, "values must be written out; got an alias, which hides what is declared"),
    ]


def test_a_merge_key_without_an_alias_is_an_unknown_key(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, ("train: {", "train: {<<: {seed: 3}, "))
    assert "unknown key '<<'" in fault.message


def test_nothing_in_the_text_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "filled")
    write(tmp_path, YAML_TEXT.replace("team: Deliveries", "team: '${TEAM} {{ team }} !include x'"))
    assert load_job(tmp_path, "deliveries").declaration.owners.team == "${TEAM} {{ team }} !include x"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, b"\xef\xbb\xbf" + YAML_TEXT.encode())
    assert found(tmp_path) == []


def test_a_folder_in_the_place_of_a_declaration_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path).unlink()
    (tmp_path / "dags/deliveries.yaml").mkdir()
    assert told(found(tmp_path)) == [(1, "must be a readable file; got Is a directory")]


# Its siblings and its neighbours


def test_missing_siblings_are_told_beside_the_declarations_own_faults(tmp_path: Path) -> None:
    write(tmp_path, YAML_TEXT.replace("seed: 0", "seed: x"))
    (tmp_path / "features/deliveries.py").unlink()
    (tmp_path / "expectations/deliveries.json").unlink()
    assert [(fault.file.name, fault.message) for fault in found(tmp_path)] == [
        ("deliveries.yaml", "train.seed: must be a whole number; got 'x'"),
        ("deliveries.json", "the job's suite is missing; write it there"),
        ("deliveries.py", "the job's feature module is missing; write it there"),
    ]


def test_faults_of_the_suite_come_with_its_file_and_line(tmp_path: Path) -> None:
    rule = {"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "weight"}}
    other = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "wight"}}
    write(tmp_path, suite=SUITE | {"expectations": [*SUITE["expectations"], rule, other]})
    typo, column = found(tmp_path)
    assert typo.file == column.file == tmp_path / "expectations/deliveries.json"
    assert "did you mean 'expect_column_values_to_be_between'?" in typo.message
    assert "column 'wight' is not declared; did you mean 'weight'?" in column.message
    assert 1 < typo.line < column.line


def parameter(name: str) -> dict[str, Any]:
    kwargs = {"column": "weight", "max_value": {"$PARAMETER": name}}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs}


def test_a_parameter_that_the_suite_needs_and_nothing_gives_is_a_fault(tmp_path: Path) -> None:
    rules = [parameter(name) for name in ("rows_min", "day_end", "heaviest")]
    write(tmp_path, suite=SUITE | {"expectations": [*SUITE["expectations"], *rules]})
    assert told(found(tmp_path)) == [
        (32, "validate.parameters: must give the parameter 'heaviest', which the suite needs; got rows_min")
    ]


def test_parameters_that_cannot_be_told_beforehand_are_left_to_the_night(tmp_path: Path) -> None:
    text = YAML_TEXT.replace("select count(*) as rows_min from orders", "select * from orders")
    write(tmp_path, text, suite=SUITE | {"expectations": [*SUITE["expectations"], parameter("heaviest")]})
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (b"x = 1\ndef f(:\n", 2, "must be Python; got invalid syntax"),
        (b"x = '\xff'\n", 1, "must be UTF-8 text; got "),
        (b"# coding: latin-1\nx = '\xff'\n", 2, "must be UTF-8 text; got "),
        (b"x = 1\x00\n", 1, "must be Python; got "),
    ],
)
def test_a_feature_module_that_is_no_python_is_a_fault(
    tmp_path: Path, source: bytes, line: int, message: str
) -> None:
    write(tmp_path)
    (tmp_path / "features/deliveries.py").write_bytes(source)
    (fault,) = found(tmp_path)
    assert fault.line == line
    assert fault.message.startswith(message)


def test_a_file_name_that_cannot_be_a_jobs_name_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, job="Late-Deliveries")
    assert told(found(tmp_path, "Late-Deliveries")) == [
        (1, "the job's name, the file's stem, must be a lower-case name of letters, digits and _, "
            "at most 40 long; got 'Late-Deliveries'"),
    ]  # fmt: skip


def test_a_broken_job_does_not_keep_another_from_loading(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "nothing: here", job="broken")
    assert load_job(tmp_path, "deliveries").name == "deliveries"
    with pytest.raises(DeclarationError) as caught:
        load_jobs(tmp_path)
    assert {fault.file.stem for fault in caught.value.faults} == {"broken"}


def test_unchanged_files_are_judged_once(tmp_path: Path) -> None:
    write(tmp_path, YAML_TEXT)
    assert load_job(tmp_path, "deliveries") is load_job(tmp_path, "deliveries")


@pytest.mark.parametrize(
    "changed", ["dags/deliveries.yaml", "features/deliveries.py", "expectations/deliveries.json"]
)
def test_a_changed_file_is_judged_again_also_when_its_size_and_time_are_the_same(
    tmp_path: Path, changed: str
) -> None:
    write(tmp_path, YAML_TEXT)
    load_job(tmp_path, "deliveries")
    file = tmp_path / changed
    before = file.stat()
    file.write_bytes(b"(" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DeclarationError):
        load_job(tmp_path, "deliveries")


def test_an_unknown_job_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'deliveries'"):
        load_job(tmp_path, "delivery")
    with pytest.raises(UsageError, match="there is none in dags/"):
        load_job(tmp_path / "features", "delivery")


# The schema for editors


def test_the_json_schema_takes_what_the_loader_takes(project: Path) -> None:
    validator = Draft202012Validator(json_schema())
    for name in job_names(project):
        text = (project / "dags" / f"{name}.yaml").read_text()
        plain = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text), default=str))
        assert list(validator.iter_errors(plain)) == []


def test_the_json_schema_refuses_what_the_loader_refuses() -> None:
    plain = json.loads(json.dumps(YAML(typ="safe", pure=True).load(YAML_TEXT), default=str))
    plain["owners"]["approvers"] = []
    plain["extract"]["colums"] = {}
    plain["model"]["output"] = "probable"
    errors = Draft202012Validator(json_schema()).iter_errors(plain)
    places = {".".join(map(str, error.path)) for error in errors}
    assert places == {"owners.approvers", "extract", "model.output"}
