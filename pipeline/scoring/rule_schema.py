"""What an expectation type takes, read from the JSON Schemas in Great Expectations' installed package.

The library itself, seconds of start-up, stays unimported.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pipeline.errors import nearest

NOT_ON_A_SNAPSHOT = {
    "expect_column_values_to_match_strftime_format": "declare the column as date or timestamp instead",
    "expect_query_results_to_match_comparison": "there is no second source",
    "expect_table_row_count_to_equal_other_table": "there is no second table; use a parameter",
}
"""Types that Great Expectations knows and that cannot be evaluated on a snapshot, and what to do."""

PARAMETER = "$PARAMETER"
"""The key of a bound that is a parameter: `{"$PARAMETER": "rows_min"}`."""

_NOT_FOR_FILES = frozenset(
    {
        *("id", "meta", "notes", "description", "severity", "metadata", "library_metadata"),
        *("result_format", "catch_exceptions", "rendered_content", "windows", "batch_id"),
        "condition_parser",
    }
)

_CONDITION = '{"type": "comparison", "column": {"name": "origin"}, "operator": "==", "parameter": "JFK"}'


def expectation_types() -> tuple[str, ...]:
    """The types that Great Expectations documents."""
    return tuple(_schema_files())


def type_problem(kind: Any) -> str | None:
    """Why a rule cannot have that type, with the nearest one that it can have; None if it can."""
    if kind is None:
        return "key 'type' is missing"
    if not isinstance(kind, str) or kind not in expectation_types():
        return f"unknown expectation type {shown(kind)}; {nearest(str(kind), expectation_types())}"
    if kind in NOT_ON_A_SNAPSHOT:
        return f"{kind} cannot be evaluated on a snapshot: {NOT_ON_A_SNAPSHOT[kind]}"
    return None


def kwargs_problems(
    kind: str, kwargs: Mapping[str, Any], columns: Collection[str] | None
) -> Iterator[tuple[str, str]]:
    """What is wrong with the kwargs of a rule of a known type: (the key or "", what is wrong)."""
    schema = _schema(kind)
    accepted = [key for key in schema["properties"] if key not in _NOT_FOR_FILES]
    for key in kwargs:
        if key not in accepted:
            yield key, f"takes no {key!r}; {nearest(key, accepted)}"
    for key in schema.get("required", ()):
        if key not in kwargs:
            yield "", f"needs {key!r}"
    for key in accepted:
        if key in kwargs:
            yield from ((key, message) for message in _value_problems(key, kwargs[key], schema))
    for name in () if columns is None else columns_of(kwargs):
        if columns is not None and name not in columns:
            yield "", f"column {name!r} is not declared; {nearest(name, tuple(columns))}"


def _value_problems(key: str, value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    if is_parameter(value):
        if set(value) != {PARAMETER} or not str(value[PARAMETER]).isidentifier():
            yield (
                f"{key} must name one parameter, {{{PARAMETER!r}: name}}; got {shown(value)}. "
                "Compute it in validate.parameters"
            )
        return
    if PARAMETER in json.dumps(value):
        yield f"{key} must be a parameter as a whole; got one inside {shown(value)}"
        return
    if key == "row_condition" and isinstance(value, str):
        yield f"row_condition must be an object such as {_CONDITION}; got {shown(value)}"
    part = _without_parameters(schema["properties"][key])
    if not _fits(value, {"definitions": schema.get("definitions", {}), **part}):
        yield f"{key} must be {_accepted(part, schema)}; got {shown(value)}"


def _without_parameters(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value less its option of any object, which stands for a parameter."""
    options = [option for option in part.get("anyOf", ()) if option != {"type": "object"}]
    return {**part, "anyOf": options} if options else part


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # 0.2 s of start-up

    # multipleOf 0.01 refuses 0.57, which no binary fraction is
    return all(error.validator == "multipleOf" for error in Draft7Validator(schema).iter_errors(value))


def _accepted(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in part:
        return _accepted(schema["definitions"][part["$ref"].rsplit("/", 1)[-1]], schema)
    for combination in ("anyOf", "oneOf", "allOf"):
        if combination in part:
            options = (_accepted(option, schema) for option in part[combination])
            return " or ".join(dict.fromkeys(options))
    if "enum" in part:
        return "one of " + ", ".join(map(str, part["enum"]))
    name = str(part.get("format", part.get("type", "a value")))
    if "items" in part:
        name += " of " + _accepted(part["items"], schema)
    if {"minimum", "maximum"} <= set(part):
        name += f" from {part['minimum']:g} to {part['maximum']:g}"
    return name


def columns_of(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that a rule with these kwargs judges; none for a rule on the whole table."""
    names = [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    listed = kwargs.get("column_list")
    names += listed if isinstance(listed, list) else []
    return tuple(name for name in names if isinstance(name, str))


def is_parameter(value: Any) -> bool:
    """Whether a bound is given by a parameter."""
    return isinstance(value, dict) and PARAMETER in value


def shown(value: Any) -> str:
    """A value of a suite file in a message."""
    return json.dumps(value, default=str)[:80]


@cache
def _schema_folder() -> Path:
    installed = distribution("great-expectations")
    return Path(str(installed.locate_file("great_expectations/expectations/core/schemas")))


@cache
def _schema_files() -> dict[str, str]:
    index = json.loads((_schema_folder() / "index.json").read_text(encoding="utf-8"))
    return {kind: entry["schema_file"] for kind, entry in index["expectations"].items()}


@cache
def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(
        (_schema_folder() / _schema_files()[kind]).read_text(encoding="utf-8")
    )
    return schema
