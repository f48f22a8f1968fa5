"""Great Expectations on DuckDB: every type it knows, and the private parts that the engine stands on."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from datetime import date, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import sqlalchemy as sa

from pipeline.scoring.rule_schema import NOT_ON_A_SNAPSHOT, expectation_types
from pipeline.scoring.suite import Rule
from pipeline.scoring.validate import warm_up

if TYPE_CHECKING:
    from pipeline.scoring.duckdb_engine import Answer, SnapshotEngine

pytestmark = pytest.mark.integration

TABLE = """
create view snapshot as select * from (values
 ('a', 1::bigint, 2::bigint, 1.5::double, date '2013-05-01', timestamp '2013-05-01 04:00:00', true),
 ('a', 2, 3, 2.5, date '2013-05-01', timestamp '2013-05-01 05:00:00', false),
 ('b', 2, 1, null, null, timestamp '2013-05-01 05:00:00', false),
 (null, 3, 7, 100, date '2013-05-01', null, null)
) as rows (word, low, high, size, day, instant, flag)
"""

EVERY_TYPE: dict[str, dict[str, Any]] = {
    "expect_column_distinct_values_to_be_in_set": {"column": "word", "value_set": ["a"]},
    "expect_column_distinct_values_to_contain_set": {"column": "word", "value_set": ["a"]},
    "expect_column_distinct_values_to_equal_set": {"column": "word", "value_set": ["a"]},
    "expect_column_kl_divergence_to_be_less_than": {
        "column": "word",
        "partition_object": {"values": ["a", "b"], "weights": [0.5, 0.5]},
        "threshold": 0.1,
    },
    "expect_column_max_to_be_between": {"column": "instant", "min_value": datetime(2013, 5, 1)},
    "expect_column_mean_to_be_between": {"column": "size", "min_value": 1},
    "expect_column_median_to_be_between": {"column": "size", "min_value": 1},
    "expect_column_min_to_be_between": {"column": "day", "min_value": date(2013, 5, 2)},
    "expect_column_most_common_value_to_be_in_set": {"column": "word", "value_set": ["b"]},
    "expect_column_pair_values_a_to_be_greater_than_b": {
        "column_A": "low",
        "column_B": "high",
        "ignore_row_if": "either_value_is_missing",
    },
    "expect_column_pair_values_to_be_equal": {"column_A": "low", "column_B": "high"},
    "expect_column_pair_values_to_be_in_set": {
        "column_A": "low",
        "column_B": "high",
        "value_pairs_set": [[1, 2]],
    },
    "expect_column_proportion_of_non_null_values_to_be_between": {"column": "word", "min_value": 0.9},
    "expect_column_proportion_of_unique_values_to_be_between": {"column": "word", "min_value": 0.9},
    "expect_column_quantile_values_to_be_between": {
        "column": "size",
        "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]},
    },
    "expect_column_stdev_to_be_between": {"column": "size", "max_value": 1},
    "expect_column_sum_to_be_between": {"column": "size", "max_value": 1},
    "expect_column_to_exist": {"column": "gone"},
    "expect_column_type_to_be": {"column": "size", "type_": "DOUBLE"},
    "expect_column_unique_value_count_to_be_between": {"column": "word", "max_value": 1},
    "expect_column_value_lengths_to_be_between": {"column": "word", "max_value": 0},
    "expect_column_value_lengths_to_equal": {"column": "word", "value": 2},
    "expect_column_value_z_scores_to_be_less_than": {"column": "size", "threshold": 1, "double_sided": True},
    "expect_column_values_to_be_between": {"column": "size", "max_value": 2},
    "expect_column_values_to_be_in_set": {"column": "word", "value_set": ["a"]},
    "expect_column_values_to_be_in_type_list": {"column": "word", "type_list": ["DOUBLE"]},
    "expect_column_values_to_be_null": {"column": "word"},
    "expect_column_values_to_be_of_type": {"column": "word", "type_": "DOUBLE"},
    "expect_column_values_to_be_unique": {"column": "word"},
    "expect_column_values_to_match_like_pattern": {"column": "word", "like_pattern": "b%"},
    "expect_column_values_to_match_like_pattern_list": {"column": "word", "like_pattern_list": ["b%"]},
    "expect_column_values_to_match_regex": {"column": "word", "regex": "^b"},
    "expect_column_values_to_match_regex_list": {"column": "word", "regex_list": ["^b"]},
    "expect_column_values_to_match_strftime_format": {"column": "word", "strftime_format": "%Y"},
    "expect_column_values_to_not_be_in_set": {"column": "word", "value_set": ["a"]},
    "expect_column_values_to_not_be_null": {"column": "word"},
    "expect_column_values_to_not_be_outliers": {"column": "size", "method": "std"},
    "expect_column_values_to_not_match_like_pattern": {"column": "word", "like_pattern": "b%"},
    "expect_column_values_to_not_match_like_pattern_list": {"column": "word", "like_pattern_list": ["b%"]},
    "expect_column_values_to_not_match_regex": {"column": "word", "regex": "^b"},
    "expect_column_values_to_not_match_regex_list": {"column": "word", "regex_list": ["^b"]},
    "expect_compound_columns_to_be_unique": {"column_list": ["word", "day"]},
    "expect_multicolumn_sum_to_equal": {"column_list": ["low", "high"], "sum_total": 3},
    "expect_multicolumn_values_to_be_equal": {"column_list": ["low", "high"]},
    "expect_query_results_to_match_comparison": {
        "base_query": "select 1",
        "comparison_data_source_name": "x",
        "comparison_query": "select 1",
    },
    "expect_select_column_values_to_be_unique_within_record": {"column_list": ["low", "high"]},
    "expect_table_column_count_to_be_between": {"max_value": 1},
    "expect_table_column_count_to_equal": {"value": 1},
    "expect_table_columns_to_match_ordered_list": {"column_list": ["word"]},
    "expect_table_columns_to_match_set": {"column_set": ["word"]},
    "expect_table_row_count_to_be_between": {"max_value": 1},
    "expect_table_row_count_to_equal": {"value": 1},
    "expect_table_row_count_to_equal_other_table": {"other_table_name": "x"},
    "unexpected_rows_expectation": {"unexpected_rows_query": "select * from {batch} where low > 1"},
}


@pytest.fixture
def engine() -> Iterator[SnapshotEngine]:
    warm_up()
    from pipeline.scoring.duckdb_engine import SnapshotEngine

    connection = duckdb.connect()
    connection.execute(TABLE)
    opened = SnapshotEngine(connection, "snapshot")
    yield opened
    opened.close()


def asked(engine: SnapshotEngine, *rules: tuple[str, dict[str, Any]]) -> list[Answer]:
    from pipeline.scoring.duckdb_engine import ask

    return ask(engine, [Rule(kind, kind, "critical", kwargs) for kind, kwargs in rules], {})


def matching(engine: SnapshotEngine, answer: Answer) -> int:
    """The rows on which the answer's condition is true."""
    assert answer.failing is not None
    counted = sa.select(sa.func.count()).select_from(sa.table("snapshot")).where(answer.failing)
    with engine.get_connection() as connection:
        return int(connection.execute(counted).scalar_one())


def test_the_engine_stands_on_the_version_whose_private_parts_it_uses() -> None:
    assert version("great-expectations") == "1.24.1"


def test_the_private_parts_are_there(engine: SnapshotEngine) -> None:
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.validator.metrics_calculator import MetricsCalculator
    from great_expectations.validator.validation_graph import ValidationGraph

    overridden = ("get_connection", "_execute_query_with_recovery", "get_inspector")
    assert all(callable(getattr(SqlAlchemyExecutionEngine, name)) for name in overridden)
    recovery = inspect.signature(SqlAlchemyExecutionEngine._execute_query_with_recovery)
    assert list(recovery.parameters) == ["connection", "query"]
    assert list(inspect.signature(ValidationGraph).parameters) == ["execution_engine", "edges"]
    resolved = inspect.signature(MetricsCalculator.resolve_validation_graph)
    assert {"graph", "runtime_configuration"} <= set(resolved.parameters)
    assert engine._connection is None or not engine._connection.closed


def test_every_type_of_the_library_is_known_to_this_test() -> None:
    assert set(EVERY_TYPE) == set(expectation_types())


def test_every_type_is_evaluated_unless_it_is_declared_impossible(engine: SnapshotEngine) -> None:
    answers = asked(engine, *EVERY_TYPE.items())
    assert {answer.rule.type for answer in answers if answer.error} == set(NOT_ON_A_SNAPSHOT)


def test_the_condition_of_every_row_level_type_is_true_on_as_many_rows_as_the_library_counts(
    engine: SnapshotEngine,
) -> None:
    by_row = [answer for answer in asked(engine, *EVERY_TYPE.items()) if answer.failing is not None]
    assert len(by_row) > 20
    assert {a.rule.type: matching(engine, a) for a in by_row} == {a.rule.type: a.failed_rows for a in by_row}


def where(column: str, operator: str, parameter: object) -> dict[str, Any]:
    """A row condition."""
    return {
        "type": "comparison",
        "column": {"name": column},
        "operator": operator,
        "parameter": parameter,
    }


@pytest.mark.parametrize(
    ("row_condition", "copies"), [(where("low", ">", 1), 0), (where("word", "==", "a"), 2), (None, 2)]
)
def test_uniqueness_is_judged_among_the_rows_of_its_row_condition(
    engine: SnapshotEngine, row_condition: dict[str, Any] | None, copies: int
) -> None:
    kwargs = {"column": "word", "row_condition": row_condition}
    (answer,) = asked(engine, ("expect_column_values_to_be_unique", kwargs))
    assert (answer.failed_rows, matching(engine, answer)) == (copies, copies)


@pytest.mark.parametrize(
    ("kind", "bounds", "failing"),
    [
        ("expect_column_values_to_be_between", {"max_value": 2}, 1),
        ("expect_column_values_to_not_be_null", {}, 0),
    ],
)
def test_a_row_condition_restricts_the_condition_too(
    engine: SnapshotEngine, kind: str, bounds: dict[str, Any], failing: int
) -> None:
    kwargs = {"column": "size", "row_condition": where("low", ">=", 3), **bounds}
    (answer,) = asked(engine, (kind, kwargs))
    assert matching(engine, answer) == answer.failed_rows == failing


def test_no_row_is_fetched_to_judge_a_rule_on_rows(engine: SnapshotEngine) -> None:
    statements: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(engine.engine, "before_cursor_execute", keep)
    asked(engine, ("expect_column_values_to_be_between", {"column": "size", "max_value": 2}))
    assert statements
    assert not [statement for statement in statements if "LIMIT" in statement]


def test_answers_come_in_the_order_of_the_rules(engine: SnapshotEngine) -> None:
    kinds = list(EVERY_TYPE.items())[::-1]
    assert [answer.rule.type for answer in asked(engine, *kinds)] == [kind for kind, _ in kinds]


def test_a_rule_that_raises_leaves_the_others_their_answers(engine: SnapshotEngine) -> None:
    broken = ("expect_column_mean_to_be_between", {"column": "word", "min_value": 0})
    fine = ("expect_column_sum_to_be_between", {"column": "low", "min_value": 8, "max_value": 8})
    first, second, third = asked(engine, broken, fine, broken)
    assert first.error
    assert third.error
    assert (second.success, second.observed, second.error) == (True, "8", None)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"column": "gone", "min_value": 0},
        {"column": "word", "min_value": 0},
        {"column": "size"},
        {"column": "size", "min_value": 2, "max_value": 1},
        {"column": "size", "min_value": {"$PARAM": "x"}},
        {"column": "size", "min_value": 0, "mostly": 7},
        {"column": "size", "min_value": 0, "row_condition": {"type": "pass_through", "condition": "x"}},
        {"column": "size", "min_value": 0, "row_condition": {"type": "comparison"}},
    ],
)
def test_a_rule_that_cannot_be_evaluated_is_an_error_and_no_success(
    engine: SnapshotEngine, kwargs: dict[str, Any]
) -> None:
    (answer,) = asked(engine, ("expect_column_values_to_be_between", kwargs))
    assert answer.error
    assert not answer.success


def test_an_error_does_not_show_a_value_of_a_row(engine: SnapshotEngine) -> None:
    query = "select 1 from {batch} where word::date > day"
    (answer,) = asked(engine, ("unexpected_rows_expectation", {"unexpected_rows_query": query}))
    assert "date field" in str(answer.error)
    assert "'…'" in str(answer.error)
    assert '"a"' not in str(answer.error)


@pytest.mark.parametrize(("mostly", "success"), [(0.6, True), (0.7, False)])
def test_a_rule_may_tolerate_some_rows_and_still_tells_how_many_failed(
    engine: SnapshotEngine, mostly: float, *, success: bool
) -> None:
    kwargs = {"column": "size", "max_value": 3, "mostly": mostly}
    (answer,) = asked(engine, ("expect_column_values_to_be_between", kwargs))
    assert (answer.success, answer.failed_rows, answer.error) == (success, 1, None)


def test_what_was_observed_is_json_and_short(engine: SnapshotEngine) -> None:
    (answer,) = asked(engine, ("expect_table_columns_to_match_set", {"column_set": ["word"]}))
    assert answer.observed is not None
    assert json.loads(answer.observed)[0] == "day"
    assert len(answer.observed) <= 100
