"""Reads `expectations/<job>.json`: a Great Expectations suite, every fault at once with file and line.

Great Expectations drops a rule that it does not understand and only logs it, so nothing reaches it unchecked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from pipeline.errors import DeclarationError, Fault, nearest
from pipeline.scoring.rule_schema import (
    PARAMETER,
    columns_of,
    is_parameter,
    kwargs_problems,
    shown,
    type_problem,
)

Severity = Literal["critical", "warning", "info"]

_SUITE_KEYS = ("name", "expectations", "meta", "notes")
_RULE_KEYS = ("type", "kwargs", "severity", "meta", "notes", "description")
_NEEDED = {
    "row count": ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"),
    "column set": ("expect_table_columns_to_match_set", "expect_table_columns_to_match_ordered_list"),
    "not-null": ("expect_column_values_to_not_be_null",),
}
_Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Rule:
    """One expectation of a suite; `name` is its type, numbered where a type stands twice on a column."""

    name: str
    type: str
    severity: Severity
    kwargs: Mapping[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rule judges; none for a rule on the whole table."""
        return columns_of(self.kwargs)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that its bounds need."""
        return tuple(value[PARAMETER] for value in self.kwargs.values() if is_parameter(value))

    def bounded(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Its kwargs with the parameters' values in place."""
        return {
            key: parameters[value[PARAMETER]] if is_parameter(value) else value
            for key, value in self.kwargs.items()
        }


@dataclass(frozen=True)
class Suite:
    """A checked suite: its JSON text, the text's sha256 and its number of expectations."""

    name: str
    text: str
    sha256: str
    expectations: int

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The expectations in the order of the file."""
        return tuple(_rules(json.loads(self.text)["expectations"]))

    @property
    def parameters(self) -> frozenset[str]:
        """The parameters that the suite's bounds need."""
        return frozenset(name for rule in self.rules for name in rule.parameters)


def load_suite(path: Path) -> Suite:
    """The suite in that file; raises DeclarationError with all its faults."""
    return _suite(path, _content(path))


@lru_cache(maxsize=16)
def _suite(path: Path, content: bytes | OSError) -> Suite:
    """Judged once as long as the file holds the same: a backfill asks for it in every stage."""
    faults = _faults(path, content, None)
    if faults or isinstance(content, OSError):
        raise DeclarationError(faults)
    data = json.loads(content)
    digest = sha256(content).hexdigest()
    return Suite(data["name"], content.decode(), digest, len(data["expectations"]))


def check_suite(path: Path, columns: Collection[str] | None = None) -> list[Fault]:
    """All faults of a suite file, in the order of its lines.

    With `columns`, the declared ones, a rule on any other column is a fault too.
    """
    return _faults(path, _content(path), columns)


def _content(path: Path) -> bytes | OSError:
    try:
        return path.read_bytes()
    except OSError as error:
        return error


def _faults(path: Path, content: bytes | OSError, columns: Collection[str] | None) -> list[Fault]:
    document = _Document(path)
    data = _read(document, content)
    if isinstance(data, dict):
        _check_keys(document, data, ("name", "expectations"))
        _check_rules(document, data.get("expectations", []), columns)
    elif not document.faults:
        document.fault((), f"must be an object with the keys name and expectations; got {shown(data)}")
    return sorted(document.faults)


@dataclass
class _Document:
    file: Path
    lines: dict[_Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, place: _Place, message: str) -> None:
        while place and place not in self.lines:
            place = place[:-1]
        self.faults.append(Fault(self.file, self.lines.get(place, 1), message))


def _read(document: _Document, content: bytes | OSError) -> Any:
    try:
        if isinstance(content, OSError):
            raise content
        text = content.decode()
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        document.faults.append(Fault(document.file, error.lineno, f"must be JSON; got {error.msg}"))
    except (OSError, ValueError) as error:
        document.faults.append(Fault(document.file, 1, f"must be readable JSON in UTF-8; got {error}"))
    else:
        _locate_keys(text, document)
        return data
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _locate_keys(text: str, document: _Document) -> None:
    """Find the lines with a YAML parser: JSON is YAML, but for signs that YAML does not print."""
    printable = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)
    try:
        _locate(YAML(typ="safe", pure=True).compose(printable), (), document)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        document.faults.append(Fault(document.file, line, f"must be JSON that is YAML; got {error.problem}"))


def _locate(node: Node, place: _Place, document: _Document) -> None:
    if isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in first:
                message = f"key {key.value!r} stands twice; the first is in line {first[key.value]}"
                document.faults.append(Fault(document.file, line, message))
            first.setdefault(key.value, line)
            document.lines[(*place, key.value)] = line
            _locate(value, (*place, key.value), document)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            document.lines[(*place, index)] = item.start_mark.line + 1
            _locate(item, (*place, index), document)


def _check_keys(document: _Document, data: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    for key in data:
        if key not in _SUITE_KEYS:
            document.fault((key,), f"unknown key {key!r}; {nearest(key, _SUITE_KEYS)}")
    for key in needed:
        if key not in data:
            document.fault((), f"key {key!r} is missing")
    if not isinstance(data.get("name", ""), str):
        document.fault(("name",), f"name must be text; got {shown(data['name'])}")


def _check_rules(document: _Document, rules: Any, columns: Collection[str] | None) -> None:
    place = ("expectations",)
    if not isinstance(rules, list):
        document.fault(place, f"expectations must be a list; got {shown(rules)}")
        return
    for index, rule in enumerate(rules):
        if isinstance(rule, dict):
            _check_rule(document, (*place, index), rule, columns)
        else:
            document.fault((*place, index), f"a rule must be an object; got {shown(rule)}")
    guards = [
        rule.get("type")
        for rule in rules
        if isinstance(rule, dict) and rule.get("severity", "critical") == "critical"
    ]
    for what, types in _NEEDED.items():
        if not any(kind in types for kind in guards):
            message = f"a suite must have a critical {what} rule; got none. Add {' or '.join(types)}"
            document.fault(place, message)


def _check_rule(
    document: _Document, place: _Place, rule: Mapping[str, Any], columns: Collection[str] | None
) -> None:
    for key in rule:
        if key not in _RULE_KEYS:
            document.fault((*place, key), f"unknown key {key!r}; {nearest(key, _RULE_KEYS)}")
    severity = rule.get("severity", "critical")
    if severity not in get_args(Severity):
        accepted = ", ".join(get_args(Severity))
        document.fault((*place, "severity"), f"severity must be one of {accepted}; got {shown(severity)}")
    kind, kwargs = rule.get("type"), rule.get("kwargs", {})
    if problem := type_problem(kind):
        document.fault((*place, "type"), problem)
    elif not isinstance(kwargs, dict):
        document.fault((*place, "kwargs"), f"kwargs must be an object; got {shown(kwargs)}")
    else:
        for key, message in kwargs_problems(str(kind), kwargs, columns):
            document.fault((*place, "kwargs", key), f"{kind}: {message}")


def _rules(expectations: list[dict[str, Any]]) -> Iterator[Rule]:
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    for item in expectations:
        kind, kwargs = item["type"], item.get("kwargs", {})
        place = (kind, columns_of(kwargs))
        seen[place] = seen.get(place, 0) + 1
        name = kind if seen[place] == 1 else f"{kind}#{seen[place]}"
        yield Rule(name, kind, item.get("severity", "critical"), kwargs)
