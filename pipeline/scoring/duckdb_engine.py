"""Great Expectations on DuckDB: the engine that its stock dialects lack, and asking it about a suite.

Imports Great Expectations, seconds of start-up: import this module late. It builds on private API of the
pinned version; tests/scoring/test_duckdb_engine.py holds what is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import duckdb
import sqlalchemy as sa
from duckdb_engine import ConnectionWrapper
from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.registry import get_expectation_impl
from great_expectations.validator.metrics_calculator import MetricsCalculator
from great_expectations.validator.validation_graph import ValidationGraph
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.elements import TryCast

from pipeline.scoring.rules import Condition, duplicated
from pipeline.scoring.suite import Rule

# duckdb-engine hangs its TRY_CAST, unused here, on a class that outlives DuckDB when the interpreter ends;
# DuckDB then prints a page about leaks
TryCast._compiler_dispatcher.specs.pop("duckdb", None)  # type: ignore[attr-defined]

_SQL_TYPES: Mapping[str, sa.types.TypeEngine[Any]] = {
    "VARCHAR": sa.VARCHAR(),
    "BIGINT": sa.BIGINT(),
    "DOUBLE": sa.DOUBLE(),
    "BOOLEAN": sa.BOOLEAN(),
    "DATE": sa.DATE(),
    "TIMESTAMP": sa.TIMESTAMP(),
}
_UNIQUE = ("column_values.unique", "compound_columns.unique")
_SETTINGS = {"catch_exceptions": True}
_SHOWN = 100


@dataclass(frozen=True)
class Answer:
    """What Great Expectations says of one rule.

    `failing` is true on each failing row of a row-level rule, over the view's columns; None for a rule on the
    whole table. `error` says why the rule could not be evaluated; then `success` is false.
    """

    rule: Rule
    success: bool = False
    failed_rows: int = 0
    observed: str | None = None
    failing: Condition | None = None
    error: str | None = None


class SnapshotEngine(SqlAlchemyExecutionEngine):  # type: ignore[misc]  # the library is untyped for us
    """The library's SQL engine over one view of a DuckDB connection, which it closes with itself."""

    _connection: sa.Connection | None

    def __init__(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        engine = sa.create_engine(
            "duckdb:///:memory:", creator=lambda: ConnectionWrapper(connection), poolclass=StaticPool
        )
        # The library asks for this attribute before it writes REGEXP_MATCHES and LIKE, which DuckDB knows
        engine.dialect.DremioDialect = True  # type: ignore[attr-defined]
        super().__init__(engine=engine)
        self.view = view
        described = connection.execute(f'DESCRIBE "{view}"').fetchall()
        self._columns = [{"name": name, "type": _SQL_TYPES[kind]} for name, kind, *_ in described]
        self.load_batch_data(view, SqlAlchemyBatchData(execution_engine=self, table_name=view))

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        """The one connection, left open: results are fetched after this context ends."""
        if self._connection is None:
            self._connection = self.engine.connect()
        yield self._connection

    @staticmethod
    def _execute_query_with_recovery(connection: sa.Connection, query: Any) -> Any:
        try:
            return connection.execute(query)
        except sa.exc.DBAPIError:
            # One failed statement must not abort the transaction of all later rules
            connection.rollback()
            raise

    def get_inspector(self) -> Any:
        """What the library reflects of a table; duckdb-engine's own inspector finds no view."""
        return self

    def get_columns(self, table_name: str, schema: str | None = None) -> list[dict[str, Any]]:
        """The view's columns, as an inspector gives them."""
        return self._columns

    def get_pk_constraint(self, table_name: str, schema: str | None = None) -> dict[str, Any]:
        """A view has no primary key."""
        return {}


@dataclass
class _Question:
    """One rule on its way through the library."""

    rule: Rule
    expectation: Any = None
    needs: Any = None
    edges: Sequence[Any] = field(default_factory=tuple)
    error: str | None = None

    @property
    def count(self) -> Any:
        """The metric that counts a row-level rule's failing rows; None for a rule on the whole table."""
        metric = f"{getattr(self.expectation, 'map_metric', None)}.unexpected_count"
        return self.needs.metric_configurations.get(metric) if self.needs else None


def ask(engine: SnapshotEngine, rules: Sequence[Rule], parameters: Mapping[str, Any]) -> list[Answer]:
    """One answer a rule, in their order; a rule that raises is answered with its error.

    `parameters` must hold every parameter of the rules; instants naive, in UTC, as the view's are.
    """
    calculator = MetricsCalculator(execution_engine=engine, show_progress_bars=False)
    questions = [_question(rule, engine, calculator, parameters) for rule in rules]
    graph = ValidationGraph(engine, list(chain.from_iterable(question.edges for question in questions)))
    metrics, aborted = calculator.resolve_validation_graph(graph, runtime_configuration=_SETTINGS)
    return [_answer(question, engine, metrics, aborted) for question in questions]


def _question(
    rule: Rule, engine: SnapshotEngine, calculator: MetricsCalculator, parameters: Mapping[str, Any]
) -> _Question:
    question = _Question(rule)
    try:
        for result_format in ("BOOLEAN_ONLY", "BASIC"):
            _plan(question, engine, rule.bounded(parameters) | {"result_format": result_format})
            if question.count is not None:
                break  # a row-level rule: its count is a metric, and BASIC would fetch rows too
        graph = calculator.build_metric_dependency_graph(
            question.needs.get_metric_configurations(), runtime_configuration=_SETTINGS
        )
        question.edges = graph.edges
    except Exception as error:  # noqa: BLE001  a rule may raise anything: it is reported, with its name
        question.error = _reason(error)
    return question


def _plan(question: _Question, engine: SnapshotEngine, kwargs: dict[str, Any]) -> None:
    question.expectation = get_expectation_impl(question.rule.type)(**kwargs)
    question.needs = question.expectation.get_validation_dependencies(
        execution_engine=engine, runtime_configuration=dict(_SETTINGS)
    )


def _answer(
    question: _Question, engine: SnapshotEngine, metrics: Mapping[Any, Any], aborted: Mapping[Any, Any]
) -> Answer:
    rule = question.rule
    error = question.error or _aborted(question, metrics, aborted)
    if error is not None:
        return Answer(rule, error=error)
    try:
        result = question.expectation.metrics_validate(
            metrics, execution_engine=engine, runtime_configuration=dict(_SETTINGS)
        )
        if question.count is None:
            return Answer(rule, success=bool(result.success), observed=_observed(result.result))
        failed = int(metrics[question.count.id] or 0)
        failing = _failing(question.count, engine, metrics)
        return Answer(rule, bool(result.success), failed, failing=failing)
    except Exception as raised:  # noqa: BLE001  a rule may raise anything: it is reported, with its name
        return Answer(rule, error=_reason(raised))


def _aborted(question: _Question, metrics: Mapping[Any, Any], aborted: Mapping[Any, Any]) -> str | None:
    needed = {vertex.id for edge in question.edges for vertex in (edge.left, edge.right) if vertex}
    for metric in needed & set(aborted):
        return _masked(str(aborted[metric]["exception_info"].exception_message))
    missing = sorted(metric.metric_name for metric in needed - set(metrics))
    return f"no value for {', '.join(missing)}" if missing else None


def _failing(count: Any, engine: SnapshotEngine, metrics: Mapping[Any, Any]) -> Condition:
    """The very condition that the library counted, with the filters of its domain."""
    while "unexpected_condition" not in count.metric_dependencies:
        count = count.metric_dependencies["metric_partial_fn"]
    metric = count.metric_dependencies["unexpected_condition"]
    condition, domain, accessor = metrics[metric.id]
    filters = tuple(_filters(engine, domain, accessor))
    if metric.metric_name.removesuffix(".condition") in _UNIQUE:
        names = accessor.get("column_list") or [accessor["column"]]
        return duplicated(engine.view, [sa.column(str(name)) for name in names], filters)
    return sa.and_(condition, *filters)


def _filters(
    engine: SnapshotEngine, domain: Mapping[str, Any], accessor: Mapping[str, Any]
) -> Iterator[Condition]:
    """A rule's own restrictions, `row_condition` and `ignore_row_if`, which its condition leaves out."""
    whole = {**domain, **accessor}
    conditions = {key: whole.get(key) for key in ("row_condition", "condition_parser")}
    ignored = {key: value for key, value in whole.items() if key not in conditions}
    for part in (conditions, ignored):
        records = engine.get_domain_records(part)
        select = getattr(records, "element", records)
        if isinstance(select, sa.Select) and select.whereclause is not None:
            yield select.whereclause


def _observed(result: Mapping[str, Any]) -> str | None:
    value = result.get("observed_value")
    return None if value is None else json.dumps(value, default=str)[:_SHOWN]


def _reason(error: Exception) -> str:
    return _masked(f"{type(error).__name__}: {error}")


def _masked(message: str) -> str:
    """A message's first line without what stands in quotes: it may be a row's value."""
    first = (message.strip().splitlines() or ["no message"])[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", first)[:200]
