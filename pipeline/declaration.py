"""Reads `dags/<job>.yaml`: every fault at once, with its file, its line and the nearest accepted name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import DeclarationError, Fault, UsageError, nearest
from pipeline.job import Declaration, Job
from pipeline.query import declared_queries, query_faults
from pipeline.scoring.suite import check_suite

Path_ = tuple[str | int, ...]


@dataclass
class _Document:
    """A YAML document as plain data, with the line of each key and the faults of its layout."""

    file: Path
    data: Any = None
    lines: dict[Path_, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, place: Path_) -> int:
        """The line of a key, or of the nearest enclosing key."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fault(self, place: Path_, message: str) -> Fault:
        shown = ".".join(str(part) for part in place)
        return Fault(self.file, self.line(place), f"{shown}: {message}" if shown else message)


def feature_file(project: Path, job: str) -> Path:
    """Where a job's feature module stands."""
    return project / "features" / f"{job}.py"


def suite_file(project: Path, job: str) -> Path:
    """Where a job's suite stands."""
    return project / "expectations" / f"{job}.json"


def declaration_file(project: Path, job: str) -> Path:
    """Where a job's declaration stands."""
    return project / "dags" / f"{job}.yaml"


def job_names(project: Path) -> tuple[str, ...]:
    """The declared jobs of a project, sorted."""
    return tuple(sorted(file.stem for file in (project / "dags").glob("*.yaml")))


def load_job(project: Path, name: str) -> Job:
    """The job of that name; raises DeclarationError with all faults, UsageError if there is none."""
    if name not in job_names(project):
        raise UsageError(
            f"job {name!r} must have a declaration {declaration_file(project, name)}; "
            + nearest(name, job_names(project))
        )
    document = _read(declaration_file(project, name))
    job = _build(document, name)
    faults = [*document.faults, *_sibling_faults(project, name)]
    if job is not None:
        faults += _query_faults(document, job)
    if faults or job is None:
        raise DeclarationError(faults)
    return job


def load_jobs(project: Path) -> tuple[Job, ...]:
    """All declared jobs; raises DeclarationError with the faults of all of them."""
    jobs, faults = [], []
    for name in job_names(project):
        try:
            jobs.append(load_job(project, name))
        except DeclarationError as error:
            faults += error.faults
    if faults:
        raise DeclarationError(faults)
    return tuple(jobs)


def _build(document: _Document, name: str) -> Job | None:
    if document.data is None:
        return None
    try:
        return Job(name=name, declaration=Declaration.model_validate(document.data))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            place = tuple(part for part in problem["loc"] if part != "[key]")
            document.faults.append(document.fault(place, _sentence(place, problem)))
        return None


def _sentence(place: Path_, problem: Any) -> str:
    kind, got = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"unknown key {place[-1]!r}; " + nearest(str(place[-1]), _accepted(place[:-1]))
    if kind == "missing":
        return f"key {place[-1]!r} is missing"
    if kind == "literal_error":
        accepted = [part.strip(" '") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(accepted)}; got {got!r}; " + nearest(str(got), accepted)
    message = problem["msg"].removeprefix("Value error, ")
    plain = got is None or isinstance(got, str | int | float | bool)
    return f"{message}; got {got!r}" if plain and "; got" not in message else message


def _accepted(place: Path_) -> list[str]:
    """The keys that the schema takes at a place."""
    model: Any = Declaration
    for part in place:
        fields: Mapping[str, Any] = getattr(model, "model_fields", {})
        named = {info.alias or key: info.annotation for key, info in fields.items()}
        model = named.get(str(part), model)
        candidates = [model, *getattr(model, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [info.alias or key for key, info in getattr(model, "model_fields", {}).items()]


def _sibling_faults(project: Path, name: str) -> list[Fault]:
    faults: list[Fault] = []
    features = feature_file(project, name)
    if not features.is_file():
        faults.append(Fault(features, 1, "the job's feature module is missing; write it there"))
    else:
        faults += _syntax_faults(features)
    suite = suite_file(project, name)
    if not suite.is_file():
        faults.append(Fault(suite, 1, "the job's suite is missing; write it there"))
    else:
        faults += check_suite(suite)
    return faults


def _syntax_faults(file: Path) -> list[Fault]:
    try:
        ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None) or 1
        return [Fault(file, line, f"must be Python; got {getattr(error, 'msg', error)}")]
    return []


def _query_faults(document: _Document, job: Job) -> Iterator[Fault]:
    for query in declared_queries(job):
        place = tuple(query.place.split("."))
        for message in query_faults(query, job.declaration.sources):
            yield document.fault(place, message)


def _read(file: Path) -> _Document:
    document = _Document(file)
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        document.faults.append(Fault(file, line, f"must be YAML; got {error.problem}"))
        return document
    except UnicodeDecodeError as error:
        document.faults.append(Fault(file, 1, f"must be UTF-8 text; got {error.reason}"))
        return document
    if not isinstance(node, MappingNode):
        document.faults.append(Fault(file, 1, "must be a mapping of keys"))
        return document
    document.data = _plain(node, (), document, yaml)
    return document


def _plain(node: Node, place: Path_, document: _Document, yaml: YAML) -> Any:
    """Plain data of a node (sequences become tuples); lines and duplicate keys go into the document."""
    if isinstance(node, MappingNode):
        return _mapping(node, place, document, yaml)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            document.lines[(*place, index)] = item.start_mark.line + 1
        return tuple(_plain(v, (*place, i), document, yaml) for i, v in enumerate(node.value))
    assert isinstance(node, ScalarNode)
    return yaml.constructor.construct_object(node)


def _mapping(node: MappingNode, place: Path_, document: _Document, yaml: YAML) -> dict[Any, Any]:
    data: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = yaml.constructor.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in data:
            first = document.lines[(*place, key)]
            document.faults.append(
                Fault(document.file, line, f"key {key!r} stands twice; the first is in line {first}")
            )
            continue
        document.lines[(*place, key)] = line
        data[key] = _plain(value_node, (*place, key), document, yaml)
    return data
