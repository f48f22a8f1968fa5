"""A suite file: every fault with its line, and what is kept of a sound one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DeclarationError
from pipeline.scoring.suite import check_suite, load_suite

Expectation = dict[str, Any]

GUARDS: list[Expectation] = [
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": {"$PARAMETER": "rows_min"}}},
    {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["distance"]}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "distance"}},
]


def between(**kwargs: Any) -> Expectation:
    return {"type": "expect_column_values_to_be_between", "kwargs": {"column": "distance", **kwargs}}


def written(folder: Path, *rules: Any, **keys: Any) -> Path:
    path = folder / "job.json"
    suite = {"name": "job", "expectations": [*GUARDS, *rules], **keys}
    path.write_text(json.dumps(suite, indent=1), encoding="utf-8")
    return path


def faults(folder: Path, *rules: Any, **keys: Any) -> list[str]:
    return [fault.message for fault in check_suite(written(folder, *rules, **keys))]


def line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_sound_suite_has_no_faults(tmp_path: Path) -> None:
    assert faults(tmp_path, between(min_value=0, mostly=0.57), between(max_value="2013-01-01")) == []


def test_a_suite_keeps_its_text_its_hash_and_its_number_of_expectations(tmp_path: Path) -> None:
    path = written(tmp_path, between(min_value={"$PARAMETER": "low"}))
    suite = load_suite(path)
    assert suite.text == path.read_text(encoding="utf-8")
    assert suite.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (suite.name, suite.expectations, len(suite.rules)) == ("job", 4, 4)
    assert suite.parameters == {"rows_min", "low"}


def test_a_rule_knows_its_columns_its_severity_and_its_bounds(tmp_path: Path) -> None:
    rule = between(min_value={"$PARAMETER": "low"}, max_value=9) | {"severity": "warning"}
    kept = load_suite(written(tmp_path, rule)).rules[-1]
    assert (kept.columns, kept.severity) == (("distance",), "warning")
    assert kept.bounded({"low": 3}) == {"column": "distance", "min_value": 3, "max_value": 9}


def test_the_second_rule_of_a_type_on_a_column_is_numbered(tmp_path: Path) -> None:
    other = between(min_value=0) | {"kwargs": {"column": "delay", "min_value": 0}}
    suite = load_suite(written(tmp_path, between(min_value=0), other, between(max_value=9)))
    assert [rule.name.removeprefix("expect_column_values_to_be_") for rule in suite.rules[3:]] == [
        "between",
        "between",
        "between#2",
    ]


def test_a_misspelt_type_is_a_fault_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"type": "expect_column_value_to_be_between", "kwargs": {"column": "distance"}})
    (fault,) = check_suite(path)
    assert fault.file == path
    assert fault.line == line_of(path, "expect_column_value_to_be_between")
    assert "did you mean 'expect_column_values_to_be_between'?" in fault.message


def test_a_bad_severity_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, between(min_value=0) | {"severity": "warn"})
    (fault,) = check_suite(path)
    assert fault.line == line_of(path, '"warn"')
    assert fault.message == 'severity must be one of critical, warning, info; got "warn"'


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_valeu": 0}, "takes no 'min_valeu'; did you mean 'min_value'?"),
        ({"min_value": [1]}, "min_value must be number or date or date-time; got [1]"),
        ({"min_value": {"$PARAM": "low"}}, "min_value must be number or date or date-time; got {"),
        ({"min_value": {"$PARAMETER": "2 * low"}}, "min_value must name one parameter"),
        ({"min_value": 0, "mostly": 1.5}, "mostly must be number from 0 to 1; got 1.5"),
        ({"min_value": 0, "strict_min": "yes"}, 'strict_min must be boolean; got "yes"'),
        ({"min_value": 0, "result_format": "BASIC"}, "takes no 'result_format'"),
        ({"min_value": 0, "row_condition": "delay > 0"}, "row_condition must be an object such as {"),
        ({"min_value": 0, "condition_parser": "great_expectations"}, "takes no 'condition_parser'"),
    ],
)
def test_kwargs_that_a_type_does_not_take_are_faults(
    tmp_path: Path, kwargs: dict[str, Any], message: str
) -> None:
    (fault,) = faults(tmp_path, between(**kwargs))
    assert message in fault


def test_a_row_condition_is_an_object(tmp_path: Path) -> None:
    condition = {"type": "comparison", "column": {"name": "delay"}, "operator": ">", "parameter": 0}
    assert faults(tmp_path, between(min_value=0, row_condition=condition)) == []


def test_a_missing_kwarg_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "a"}}) == [
        "expect_column_values_to_be_in_set: needs 'value_set'"
    ]


def test_a_parameter_within_a_list_is_a_fault_because_it_would_stay_unread(tmp_path: Path) -> None:
    rule = {
        "type": "expect_column_values_to_be_in_set",
        "kwargs": {"column": "a", "value_set": [{"$PARAMETER": "b"}]},
    }
    (fault,) = faults(tmp_path, rule)
    assert "value_set must be a parameter as a whole" in fault


def test_a_type_that_needs_more_than_a_snapshot_is_a_fault(tmp_path: Path) -> None:
    rule = {"type": "expect_table_row_count_to_equal_other_table", "kwargs": {"other_table_name": "x"}}
    assert "use a parameter" in faults(tmp_path, rule)[0]


def test_unknown_keys_are_faults_with_the_nearest_name(tmp_path: Path) -> None:
    assert faults(tmp_path, between(min_value=0) | {"severty": "info"}, metta={}) == [
        "unknown key 'severty'; did you mean 'severity'?",
        "unknown key 'metta'; did you mean 'meta'?",
    ]


def test_a_column_that_is_not_declared_is_a_fault_where_the_columns_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, between(min_value=0) | {"kwargs": {"column": "distanse", "min_value": 0}})
    (fault,) = check_suite(path, columns=["distance", "delay"])
    assert "column 'distanse' is not declared; did you mean 'distance'?" in fault.message


@pytest.mark.parametrize(("guard", "what"), [(0, "row count"), (1, "column set"), (2, "not-null")])
def test_every_suite_needs_its_guards_and_needs_them_critical(tmp_path: Path, guard: int, what: str) -> None:
    weakened = [rule | {"severity": "warning"} if at == guard else rule for at, rule in enumerate(GUARDS)]
    (fault,) = faults(tmp_path, expectations=weakened)
    assert fault.startswith(f"a suite must have a critical {what} rule; got none")


def test_a_suite_without_rules_lacks_all_its_guards(tmp_path: Path) -> None:
    assert len(faults(tmp_path, expectations=[])) == 3


def test_duplicate_keys_are_faults_with_both_lines(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace('"name": "job",', '"name": "job",\n "name": "other",'))
    (fault,) = check_suite(path)
    assert (fault.line, fault.message) == (3, "key 'name' stands twice; the first is in line 2")


def test_text_that_is_not_json_is_a_fault_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"name": "job",\n "expectations": [}\n', encoding="utf-8")
    (fault,) = check_suite(path)
    assert (fault.line, fault.message[:12]) == (2, "must be JSON")


@pytest.mark.parametrize(
    "content", [b"[1]", b'{"name": NaN}', b"\xff", b'{"name": "job", "expectations": {}}']
)
def test_other_content_is_a_fault_and_never_a_crash(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    assert len(check_suite(path)) == 1


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
WORDS = st.sampled_from(["type", "kwargs", "severity", "column", "column_list", "min_value", "$PARAMETER"])
ANYTHING = st.recursive(
    SCALARS | st.sampled_from([rule["type"] for rule in GUARDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(rules=st.lists(ANYTHING, max_size=3))
def test_no_rule_whatever_crashes_the_check(
    tmp_path_factory: pytest.TempPathFactory, rules: list[Any]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), *rules)
    last = len(path.read_text(encoding="utf-8").splitlines())
    assert all(1 <= fault.line <= last for fault in check_suite(path))


@settings(max_examples=100, deadline=None)
@given(text=st.text(), separator=st.sampled_from([":", " : ", ":\r\n"]), ascii_only=st.booleans())
def test_any_text_may_stand_in_a_suite(
    tmp_path_factory: pytest.TempPathFactory, text: str, separator: str, *, ascii_only: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.json"
    rules = [*GUARDS, between(min_value=0) | {"notes": text}]
    suite = {"name": text, "expectations": rules}
    path.write_text(json.dumps(suite, ensure_ascii=ascii_only, separators=(",", separator)), encoding="utf-8")
    assert check_suite(path) == []


def test_tabs_between_tokens_are_json(tmp_path: Path) -> None:
    path = written(tmp_path, between(min_value=0))
    path.write_text(path.read_text().replace("\n ", "\n\t"), encoding="utf-8")
    assert check_suite(path) == []


def test_a_suite_that_changed_is_judged_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    loaded = load_suite(path)
    assert load_suite(path) is loaded
    path.write_text("[]")
    with pytest.raises(DeclarationError):
        load_suite(path)


def test_loading_reports_all_faults_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    path = written(tmp_path, between(min_valeu=0), "rule", between(min_value=0) | {"severity": 1})
    with pytest.raises(DeclarationError) as caught:
        load_suite(path)
    lines = [fault.line for fault in caught.value.faults]
    assert len(lines) == 3
    assert lines == sorted(lines)


def test_the_flights_suite_is_sound_and_judges_declared_columns_only(project: Path) -> None:
    suite = load_suite(project / "expectations" / "flight_delays.json")
    declared = next(rule for rule in suite.rules if "column_set" in rule.kwargs).kwargs["column_set"]
    assert check_suite(project / "expectations" / "flight_delays.json", declared) == []


def test_checking_a_suite_does_not_import_great_expectations(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.scoring.suite import check_suite;"
        "check_suite(Path('expectations/flight_delays.json'));"
        "sys.exit('great_expectations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == 0
