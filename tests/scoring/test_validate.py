"""Validation as a whole: planted faults, the suite's severities, conservation, what messages may say."""

from __future__ import annotations

import json
import logging
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ValidationError
from pipeline.job import Extract, Validate
from pipeline.partition import Partition
from pipeline.run import QUARANTINED, WITHHELD, RuleResult, Snapshot, Verdicts
from pipeline.scoring.boundary import REPLACEMENT, arrow_schema
from pipeline.scoring.rules import Reason
from pipeline.scoring.suite import Suite, load_suite
from pipeline.scoring.validate import validate, warm_up
from pipeline.scoring.verdicts import Staged, Written, write_verdicts

pytestmark = pytest.mark.integration

Row = dict[str, Any]
Rule = dict[str, Any]
Judge = Callable[..., Verdicts]

DAY = date(2013, 5, 1)
PARTITION = Partition(DAY)
INSTANTS = PARTITION.instants(ZoneInfo("America/New_York"), time(3))
EXTRACT = Extract(
    key=("carrier", "flight"),
    columns={
        "day": "date",
        "carrier": "text",
        "flight": "integer",
        "origin": "text",
        "name": "text?",
        "distance": "float",
        "departs": "timestamp",
        "arrives": "timestamp?",
    },
    pii=("name",),
    sql="select",
)
GUARDS: list[Rule] = [
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": {"$PARAMETER": "rows_min"}}},
    {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": list(EXTRACT.columns)}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "departs"}},
]


def between(column: str = "distance", severity: str = "critical", **kwargs: Any) -> Rule:
    kwargs = {"column": column, **kwargs}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs, "severity": severity}


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> Rule:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity}


def rows(*changes: Row) -> list[Row]:
    noon = datetime(2013, 5, 1, 16, tzinfo=UTC)
    sound = {
        "day": DAY,
        "carrier": "UA",
        "origin": "EWR",
        "name": "Ann",
        "distance": 100.0,
        "departs": noon,
        "arrives": noon + timedelta(hours=2),
    }
    return [{**sound, "flight": number, **change} for number, change in enumerate(changes)]


def snapshot(folder: Path, given: Sequence[Row], extract: Extract, parameters: dict[str, Any]) -> Snapshot:
    path = folder / "snapshot.parquet"
    pq.write_table(pa.Table.from_pylist(list(given), schema=arrow_schema(extract.columns)), path)
    return Snapshot(path, len(given), path.stat().st_size, "fingerprint", parameters=parameters)


def suite(folder: Path, *rules: Rule) -> Suite:
    path = folder / "suite.json"
    path.write_text(json.dumps({"name": "suite", "expectations": [*GUARDS, *rules]}), encoding="utf-8")
    return load_suite(path)


def judged(
    folder: Path,
    given: Sequence[Row],
    *rules: Rule,
    share: float = 1.0,
    extract: Extract = EXTRACT,
    **parameters: Any,
) -> Verdicts:
    """Validate rows against the guards and these rules; the share of bad rows is free unless given."""
    return validate(
        snapshot(folder, given, extract, {"rows_min": 1, **parameters}),
        suite(folder, *rules),
        extract,
        Validate(max_quarantined_share=share),
        PARTITION,
        INSTANTS,
        folder / "verdicts.parquet",
        memory_mb=256,
    )


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return lambda *args, **kwargs: judged(tmp_path, *args, **kwargs)


def lines(verdicts: Verdicts) -> list[Row]:
    read: list[Row] = pq.read_table(verdicts.path).to_pylist()
    return read


def short(verdicts: Verdicts) -> list[tuple[int, str, str]]:
    return [(line["row"], line["verdict"], line["rule"]) for line in lines(verdicts)]


def result(verdicts: Verdicts, rule: str) -> RuleResult:
    return next(result for result in verdicts.results if result.rule == rule)


def test_a_clean_snapshot_is_all_good(judge: Judge) -> None:
    verdicts = judge(rows({}, {}, {}), between(min_value=0))
    assert (verdicts.rows, verdicts.good, verdicts.quarantined, verdicts.withheld) == (3, 3, 0, 0)
    assert lines(verdicts) == []
    assert all(result.success for result in verdicts.results)
    assert len(verdicts.results) == 6 + 4


def test_a_row_out_of_range_is_quarantined_with_its_value_and_key(judge: Judge) -> None:
    verdicts = judge(rows({}, {"distance": -5.0}), between(min_value=0))
    assert lines(verdicts) == [
        {
            "row": 1,
            "verdict": QUARANTINED,
            "rule": "expect_column_values_to_be_between",
            "column": "distance",
            "value": "-5.0",
            "key": '{"carrier":"UA","flight":1}',
        }
    ]
    assert (verdicts.good, verdicts.quarantined) == (1, 1)


PLANTED: list[tuple[Row, Rule]] = [
    ({"origin": "XXX"}, expect("column_values_to_be_in_set", column="origin", value_set=["EWR"])),
    ({"carrier": "U\\A"}, expect("column_values_to_match_regex", column="carrier", regex=r"^\w+$")),
    ({"carrier": "U'A%"}, expect("column_values_to_not_match_regex", column="carrier", regex=r"'|%")),
    (
        {"arrives": datetime(2013, 5, 1, 15, tzinfo=UTC)},
        expect("column_pair_values_a_to_be_greater_than_b", column_A="arrives", column_B="departs",
               ignore_row_if="either_value_is_missing"),
    ),
    (
        {"departs": INSTANTS.day_end},
        between("departs", min_value={"$PARAMETER": "day_start"}, max_value={"$PARAMETER": "day_end"},
                strict_max=True),
    ),
    ({"name": None}, expect("column_values_to_not_be_null", column="name")),
    ({"distance": 7.0}, expect("column_values_to_not_be_in_set", column="distance", value_set=[7])),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "rule"), PLANTED, ids=[rule["type"] for _, rule in PLANTED])
def test_each_kind_of_fault_is_quarantined_by_its_rule(judge: Judge, fault: Row, rule: Rule) -> None:
    verdicts = judge(rows({}, fault, {}), rule)
    assert short(verdicts) == [(1, QUARANTINED, rule["type"])]
    assert [r.failed_rows for r in verdicts.results if not r.success] == [1]


def test_instants_at_the_edges_of_the_day_are_judged_to_the_microsecond(judge: Judge) -> None:
    last = INSTANTS.day_end - timedelta(microseconds=1)
    rule = between("departs", min_value={"$PARAMETER": "day_start"}, max_value={"$PARAMETER": "last"})
    early = INSTANTS.day_start - timedelta(microseconds=1)
    given = rows({"departs": INSTANTS.day_start}, {"departs": last}, {"departs": early})
    assert [row for row, *_ in short(judge(given, rule, last=last))] == [2]


def test_a_bound_in_another_zone_is_the_same_instant(judge: Judge) -> None:
    last = datetime(2013, 5, 1, 12, tzinfo=ZoneInfo("America/New_York"))
    rule = between("departs", max_value={"$PARAMETER": "last"})
    given = rows({}, {"departs": datetime(2013, 5, 1, 16, 0, 1, tzinfo=UTC)})
    assert [row for row, *_ in short(judge(given, rule, last=last))] == [1]


def test_uniqueness_under_a_row_condition_quarantines_every_copy_and_no_other(judge: Judge) -> None:
    condition = {"type": "comparison", "column": {"name": "origin"}, "operator": "==", "parameter": "EWR"}
    rule = expect(
        "compound_columns_to_be_unique", column_list=["carrier", "distance"], row_condition=condition
    )
    verdicts = judge(rows({}, {"origin": "JFK"}, {}, {"distance": 9.0}), rule)
    assert short(verdicts) == [(row, QUARANTINED, rule["type"]) for row in (0, 2)]


def test_a_withheld_row_stays_withheld_and_carries_all_reasons(judge: Judge) -> None:
    verdicts = judge(rows({"carrier": None, "distance": -1.0}, {"distance": -1.0}), between(min_value=0))
    assert short(verdicts) == [
        (0, WITHHELD, "engine:key_not_null"),
        (0, WITHHELD, "expect_column_values_to_be_between"),
        (1, QUARANTINED, "expect_column_values_to_be_between"),
    ]
    assert (verdicts.withheld, verdicts.quarantined) == (1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_spoils_no_mean_and_no_bound(judge: Judge, value: float) -> None:
    mean = expect("column_mean_to_be_between", column="distance", min_value=99, max_value=101)
    spread = expect("column_stdev_to_be_between", column="distance", max_value=1)
    verdicts = judge(rows({}, {"distance": value}, {}), mean, spread, between(min_value=0, max_value=200))
    assert short(verdicts) == [(1, QUARANTINED, "engine:finite")]


def test_a_warning_or_an_info_never_stops_a_row_and_is_told(judge: Judge) -> None:
    verdicts = judge(
        rows({}, {"distance": -1.0}),
        between(min_value=0, severity="warning"),
        between(max_value=50, severity="info"),
        expect("column_mean_to_be_between", column="distance", max_value=0, severity="warning"),
    )
    assert (verdicts.good, lines(verdicts)) == (2, [])
    assert verdicts.warnings == (
        "expect_column_values_to_be_between on distance: 1 rows",
        "expect_column_mean_to_be_between on distance",
    )


def test_a_rule_that_tolerates_some_rows_quarantines_none_of_them(judge: Judge) -> None:
    given = rows(*[{}] * 9, {"distance": -1.0})
    assert judge(given, between(min_value=0, mostly=0.9)).good == 10
    assert judge(given, between(min_value=0, mostly=0.95)).quarantined == 1


def test_a_critical_rule_on_the_whole_table_refuses_the_snapshot_and_names_all_that_failed(
    judge: Judge, tmp_path: Path
) -> None:
    mean = expect("column_mean_to_be_between", column="distance", max_value=1)
    with pytest.raises(ValidationError) as caught:
        judge(rows({}, {"distance": -1.0}), mean, between(min_value=0), rows_min=600)
    message = str(caught.value)
    assert 'expect_table_row_count_to_be_between: observed 2, expected {"min_value": 600}' in message
    assert 'expect_column_mean_to_be_between on distance: observed 49.5, expected {"max_value": 1}' in message
    assert "expect_column_values_to_be_between on distance: 1 rows" in message
    assert {path.name for path in tmp_path.iterdir()} == {"snapshot.parquet", "suite.json"}


def test_a_message_names_ten_rules_and_counts_the_others(judge: Judge) -> None:
    many = [expect("column_mean_to_be_between", column="distance", max_value=bound) for bound in range(14)]
    with pytest.raises(ValidationError, match="; and 4 more") as caught:
        judge(rows({}), *many)
    assert str(caught.value).count("expect_column_mean_to_be_between") == 10


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_a_rule_that_raises_fails_the_run_whatever_its_severity(judge: Judge, severity: str) -> None:
    with pytest.raises(ValidationError, match=r"between on origin: could not be evaluated \("):
        judge(rows({}), between("origin", severity, min_value=0))


@pytest.mark.parametrize("parameters", [{}, {"low": None}])
def test_a_parameter_without_a_value_fails_the_run(judge: Judge, parameters: dict[str, None]) -> None:
    with pytest.raises(ValidationError, match=r"got none for low\. Known: .*day_start"):
        judge(rows({}), between(min_value={"$PARAMETER": "low"}, severity="info"), **parameters)


def test_rows_that_do_not_add_up_fail_the_run(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scoring.validate.count_good", lambda *_: 1)
    with pytest.raises(ValidationError, match=r"must add up to 3; got 1 \+ 1 \+ 0"):
        judge(rows({}, {}, {"distance": None}))
    assert not (tmp_path / "verdicts.parquet").exists()


def test_a_rule_whose_rows_were_not_all_written_fails_the_run(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(stage: Staged, extract: Extract, reasons: list[Reason], target: Path) -> Written:
        return write_verdicts(stage, extract, reasons[:-1], target)

    monkeypatch.setattr("pipeline.scoring.validate.write_verdicts", forgetful)
    with pytest.raises(ValidationError, match=r"must all be written; got .* on distance: 0 of 1"):
        judge(rows({}, {"distance": -1.0, "carrier": None}), between(min_value=0))


def test_a_snapshot_that_lost_rows_is_refused(tmp_path: Path) -> None:
    whole = snapshot(tmp_path, rows({}, {}), EXTRACT, {"rows_min": 1})
    short_of_one = Snapshot(whole.path, 3, whole.bytes, whole.fingerprint, parameters=whole.parameters)
    with pytest.raises(ValidationError, match="must hold the 3 rows that were extracted; got 2"):
        validate(
            short_of_one,
            suite(tmp_path),
            EXTRACT,
            Validate(max_quarantined_share=1),
            PARTITION,
            INSTANTS,
            tmp_path / "verdicts.parquet",
        )


def test_forty_percent_bad_rows_fail_the_run_with_counts_and_no_value(judge: Judge, tmp_path: Path) -> None:
    bad = {"distance": -12345.0, "name": "Secret"}
    with pytest.raises(ValidationError) as caught:
        judge(rows(*[{}] * 6, bad, bad, {"carrier": None}, bad), between(min_value=0), share=0.2)
    message = str(caught.value)
    assert "at most 20.0% of the rows may be bad; got 40.0% (4 of 10)" in message
    assert (
        "expect_column_values_to_be_between on distance: 3 rows; engine:key_not_null on carrier: 1" in message
    )
    assert "12345" not in message
    assert "Secret" not in message
    assert pq.read_metadata(tmp_path / "verdicts.parquet").num_rows == 4


def test_as_many_bad_rows_as_allowed_are_allowed(judge: Judge) -> None:
    assert judge(rows({}, {}, {}, {}, {"distance": -1.0}), between(min_value=0), share=0.2).quarantined == 1


def test_pii_is_masked_in_values_and_in_what_was_observed(judge: Judge) -> None:
    pattern = expect("column_values_to_match_regex", column="name", regex="^x")
    top = expect("column_most_common_value_to_be_in_set", column="name", value_set=["x"], severity="info")
    verdicts = judge(rows({}), pattern, top)
    assert [line["value"] for line in lines(verdicts)] == ["***"]
    assert result(verdicts, top["type"]).observed == "***"


def test_an_empty_snapshot_is_judged_by_the_rules_on_the_whole_table_only(judge: Judge) -> None:
    newest = expect("column_max_to_be_between", column="departs", min_value={"$PARAMETER": "day_start"})
    verdicts = judge([], newest, rows_min=0)
    assert (verdicts.rows, verdicts.good, lines(verdicts)) == (0, 0, [])
    with pytest.raises(ValidationError, match="row_count"):
        judge([], newest, rows_min=1)


VALUES = st.sampled_from([-1.0, 0.0, 5.0, 11.0, None, float("nan"), float("inf")])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "carrier": st.sampled_from(["UA", "AA", None, f"U{REPLACEMENT}"]),
            "flight": st.integers(0, 3),
            "distance": VALUES,
            "origin": st.sampled_from(["EWR", "JFK", "XXX"]),
            "day": st.sampled_from([DAY, DAY, DAY, date(2013, 5, 2), None]),
        }
    ),
    min_size=1,
    max_size=12,
)


def expected_reasons(given: Sequence[Row]) -> Counter[tuple[int, str]]:
    """What must be found, by plain Python: (row, rule)."""
    keys = Counter((row["carrier"], row["flight"]) for row in given if row["carrier"] is not None)
    found: Counter[tuple[int, str]] = Counter()
    for at, row in enumerate(given):
        distance = row["distance"]
        finite = distance is not None and abs(distance) < float("inf")
        reasons = {
            "engine:key_not_null": row["carrier"] is None,
            "engine:key_unique": keys[(row["carrier"], row["flight"])] > 1,
            "engine:in_partition": row["day"] != DAY,
            "engine:not_null": distance is None,
            "engine:finite": distance is not None and not finite,
            "engine:valid_text": REPLACEMENT in (row["carrier"] or ""),
            "expect_column_values_to_be_between": finite and not 0 <= distance <= 10,
            "expect_column_values_to_be_in_set": row["origin"] == "XXX",
        }
        found.update((at, rule) for rule, holds in reasons.items() if holds)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=ROWS)
def test_every_row_ends_in_one_verdict_and_every_rule_counts_as_plain_python_does(
    tmp_path: Path, given: list[Row]
) -> None:
    in_set = expect("column_values_to_be_in_set", column="origin", value_set=["EWR", "JFK"])
    verdicts = judged(tmp_path, rows(*given), between(min_value=0, max_value=10), in_set)
    assert Counter((row, rule) for row, _, rule in short(verdicts)) == expected_reasons(given)
    assert verdicts.good + verdicts.quarantined + verdicts.withheld == verdicts.rows == len(given)
    withheld = {row for row, verdict, _ in short(verdicts) if verdict == WITHHELD}
    assert withheld.isdisjoint(row for row, verdict, _ in short(verdicts) if verdict == QUARANTINED)
    assert len(withheld) == verdicts.withheld


def flights(extract: Extract, *changes: Row) -> list[Row]:
    """Rows as the flights job extracts them."""
    departs = INSTANTS.day_start + timedelta(hours=9)
    sound = {
        "day": DAY,
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "tailnum": "N14228",
        "sched_dep_time": 900,
        "sched_arr_time": 1130,
        "distance": 1400.0,
        "sched_dep_at": departs,
        "sched_arr_at": departs + timedelta(hours=3, minutes=30),
        "published_at": INSTANTS.day_start - timedelta(days=7),
    }
    made = [{**sound, "flight": number, **change} for number, change in enumerate(changes, start=1)]
    assert set(made[0]) == set(extract.columns)
    return made


@pytest.fixture
def fly(tmp_path: Path, project: Path) -> Judge:
    """Judges rows of the flights job by its own declaration and suite."""
    from ruamel.yaml import YAML

    declared = YAML(typ="safe").load(project / "dags" / "flight_delays.yaml")["extract"]
    extract = Extract(key=tuple(declared["key"]), columns=declared["columns"], sql="select")
    parameters = {
        "rows_min": 5,
        "rows_max": 50,
        "published_min": INSTANTS.day_start - timedelta(days=14),
    }

    def judge_flights(*changes: Row, **given: Any) -> Verdicts:
        return validate(
            snapshot(tmp_path, flights(extract, *changes), extract, {**parameters, **given}),
            load_suite(project / "expectations" / "flight_delays.json"),
            extract,
            Validate(max_quarantined_share=0.5),
            PARTITION,
            INSTANTS,
            tmp_path / "verdicts.parquet",
        )

    return judge_flights


def test_the_flights_suite_passes_a_clean_day_without_a_warning(fly: Judge) -> None:
    verdicts = fly(*[{}] * 10)
    assert [result for result in verdicts.results if not result.success] == []


@pytest.mark.parametrize(
    ("fault", "rule", "column"),
    [
        ({"distance": -3.0}, "expect_column_values_to_be_between", "distance"),
        ({"distance": float("nan")}, "engine:finite", "distance"),
        ({"origin": "BOS"}, "expect_column_values_to_be_in_set", "origin"),
        ({"dest": "ia"}, "expect_column_values_to_match_regex", "dest"),
        ({"sched_dep_time": 2460}, "expect_column_values_to_be_between", "sched_dep_time"),
        ({"sched_arr_time": -1}, "expect_column_values_to_be_between", "sched_arr_time"),
        ({"sched_dep_at": INSTANTS.day_end, "sched_arr_at": INSTANTS.day_end + timedelta(hours=1)},
         "expect_column_values_to_be_between", "sched_dep_at"),
        ({"sched_arr_at": INSTANTS.day_start}, "expect_column_pair_values_a_to_be_greater_than_b",
         "sched_arr_at, sched_dep_at"),
    ],
)  # fmt: skip
def test_the_flights_suite_quarantines_a_bad_flight(fly: Judge, fault: Row, rule: str, column: str) -> None:
    verdicts = fly(*[{}] * 9, fault)
    assert (verdicts.good, verdicts.quarantined) == (9, 1)
    assert (9, rule, column) in [(line["row"], line["rule"], line["column"]) for line in lines(verdicts)]


@pytest.mark.parametrize(
    "oddity",
    [
        {"carrier": "ZZ"},
        {"tailnum": "D942DN"},
        {"distance": 9000.0},
        {"sched_dep_time": 875},
    ],
)
def test_the_flights_suite_scores_an_odd_flight_with_a_warning(fly: Judge, oddity: Row) -> None:
    verdicts = fly(*[{}] * 9, oddity)
    assert (verdicts.good, len(verdicts.warnings)) == (10, 1)


def test_the_flights_suite_warns_of_a_storm_and_scores_it(fly: Judge) -> None:
    verdicts = fly(*[{}] * 6, *[{"tailnum": None}] * 4)
    assert verdicts.good == 10
    assert verdicts.warnings == ("expect_column_values_to_not_be_null on tailnum: 4 rows",)


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"rows_min": 11}, "expect_table_row_count_to_be_between: observed 10"),
        ({"rows_max": 9}, "expect_table_row_count_to_be_between: observed 10"),
        ({"published_min": INSTANTS.day_start}, "expect_column_max_to_be_between on published_at"),
    ],
)
def test_the_flights_suite_refuses_half_a_schedule_and_a_stale_one(
    fly: Judge, parameters: Row, rule: str
) -> None:
    with pytest.raises(ValidationError, match=rule):
        fly(*[{}] * 10, **parameters)


def test_validation_opens_no_connection(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert judge(rows({}), between(min_value=0)).good == 1


def test_the_library_logs_nothing_because_its_messages_hold_values_of_rows() -> None:
    warm_up()
    assert not logging.getLogger("great_expectations").isEnabledFor(logging.CRITICAL)


QUIET = """
import logging, sys, warnings
sys.path.insert(0, {tests!r})
import test_validate
from pathlib import Path
from pipeline.errors import ValidationError

folder = Path({folder!r})
broken = test_validate.between("origin", "info", min_value=0)
try:
    test_validate.judged(folder, test_validate.rows({{}}, {{"distance": -1.0}}), broken)
except ValidationError:
    test_validate.judged(folder, test_validate.rows({{}}), test_validate.between(min_value=0))

assert warnings.showwarning.__module__ != "logging", "the library's capture of warnings is undone"
logging.captureWarnings(True)
assert warnings.showwarning.__module__ == "logging", "and the process may still choose it"
"""


def test_a_process_that_validates_says_nothing_of_its_own(tmp_path: Path) -> None:
    code = QUIET.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.soak
def test_a_hundred_nights_in_one_process_do_not_grow_it(judge: Judge) -> None:
    peaks = []
    for _ in range(130):
        judge(rows({}, {"distance": -1.0}), between(min_value=0))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] < 1.05 * peaks[29]
