"""Reads `dags/<job>.yaml` and looks at its sibling files: every fault at once, with file and line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.document import Document, read_document
from pipeline.errors import DeclarationError, Fault, TransientError, UsageError, nearest
from pipeline.faults import schema_faults
from pipeline.fields import identifier
from pipeline.job import ColumnType, Declaration, Job, Source
from pipeline.partition import BIND_NAMES
from pipeline.query import Query, parse
from pipeline.query_rules import query_faults
from pipeline.scoring.suite import check_suite, load_suite


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


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a declaration, for editors that check YAML while it is written."""
    return Declaration.model_json_schema(by_alias=True)


def load_job(project: Path, name: str) -> Job:
    """The job of that name; raises DeclarationError with all faults, UsageError if there is none."""
    names = job_names(project)
    if name not in names:
        hint = nearest(name, names) if names else "there is none in dags/"
        raise UsageError(f"job {name!r} must have a declaration {declaration_file(project, name)}; {hint}")
    return _job(project, name, _contents(project, name))


def _contents(project: Path, name: str) -> tuple[str | None, ...]:
    """What a job's three files hold, as digests; None for one that cannot be read."""
    files = (declaration_file(project, name), feature_file(project, name), suite_file(project, name))
    return tuple(_digest(file) for file in files)


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


@lru_cache(maxsize=64)
def _job(project: Path, name: str, contents: tuple[str | None, ...]) -> Job:
    """Judged once as long as its files hold the same: a backfill asks for it in every stage."""
    document = read_document(declaration_file(project, name))
    declaration, faults = _declaration(document)
    faults += [
        *_name_faults(document, name),
        *_query_faults(document),
        *_rule_faults(document),
        *_upstream_faults(project, name, document),
        *_sibling_faults(project, name, document),
    ]
    if faults or declaration is None:
        raise DeclarationError(faults)
    if _contents(project, name) != contents:
        raise TransientError(f"the files of {name} must stand still while they are read; they changed")
    return Job(name=name, declaration=declaration)


def load_jobs(project: Path) -> tuple[Job, ...]:
    """All declared jobs; raises DeclarationError with the faults of all of them."""
    jobs: list[Job] = []
    faults: list[Fault] = []
    for name in job_names(project):
        try:
            jobs.append(load_job(project, name))
        except DeclarationError as error:
            faults += error.faults
    if faults:
        raise DeclarationError(faults)
    return tuple(jobs)


def _declaration(document: Document) -> tuple[Declaration | None, list[Fault]]:
    if document.data is None:
        return None, document.faults
    try:
        return Declaration.model_validate(document.data), list(document.faults)
    except ValidationError as error:
        found = schema_faults(error, json_schema())
        return None, [*document.faults, *(document.fault(place, sentence) for place, sentence in found)]


def _name_faults(document: Document, name: str) -> Iterator[Fault]:
    try:
        identifier(name)
    except ValueError as error:
        yield Fault(document.file, 1, f"the job's name, the file's stem, {error}; got {name[:60]!r}")


def _query_faults(document: Document) -> Iterator[Fault]:
    sources = _sources(document.part("sources"))
    for query in _queries(document):
        place = tuple(query.place.split("."))
        for sentence in query_faults(query, sources):
            yield document.fault(place, sentence)


def _rule_faults(document: Document) -> Iterator[Fault]:
    expression, columns = document.part("fallback", "rule_sql"), document.part("extract", "columns")
    if isinstance(expression, str) and expression.strip() and isinstance(columns, Mapping):
        from pipeline.scoring.sql_rule import sql_rule_faults  # pandas: most jobs do without

        # A column of an unknown type has its own fault already.
        known = {str(name): kind for name, kind in columns.items() if kind in get_args(ColumnType)}
        for sentence in sql_rule_faults(expression, known):
            yield document.fault(("fallback", "rule_sql"), sentence)


def _upstream_faults(project: Path, name: str, document: Document) -> Iterator[Fault]:
    """Jobs that this one waits for must be declared."""
    written = document.part("schedule", "after")
    others = [other for other in job_names(project) if other != name]
    for index, upstream in enumerate(written if isinstance(written, list) else []):
        if upstream not in others:
            sentence = f"job {upstream!r} must be another declared one; {nearest(str(upstream), others)}"
            yield document.fault(("schedule", "after", index), sentence)


def _sources(written: Any) -> dict[str, Source]:
    """The sources by alias, as far as they can be told: a faulty one has its own fault already."""
    if not isinstance(written, Mapping):
        return {}
    tables = {
        alias: str(source.get("table")) if isinstance(source, Mapping) else ""
        for alias, source in written.items()
    }
    return {alias: Source.model_construct(table=table) for alias, table in tables.items()}


def _queries(document: Document) -> Iterator[Query]:
    """Every query that is written, in the order in which data flows."""
    history = document.part("history")
    named = [("history", name, "sql") for name in history] if isinstance(history, Mapping) else []
    first, last = (("ready", "sql"), ("extract", "sql")), (("validate", "parameters"), ("outcomes", "sql"))
    for place in (*first, *named, *last):
        sql = document.part(*place)
        if isinstance(sql, str) and sql.strip():
            yield Query(".".join(place), sql)


def _sibling_faults(project: Path, name: str, document: Document) -> Iterator[Fault]:
    features, suite = feature_file(project, name), suite_file(project, name)
    if features.is_file():
        yield from _syntax_faults(features)
    else:
        yield Fault(features, 1, "the job's feature module is missing; write it there")
    if suite.is_file():
        yield from _suite_faults(suite, document)
    else:
        yield Fault(suite, 1, "the job's suite is missing; write it there")


def _suite_faults(suite: Path, document: Document) -> list[Fault]:
    columns = document.part("extract", "columns")
    faults = check_suite(suite, tuple(columns) if isinstance(columns, Mapping) else None)
    if faults:
        return faults
    given = _selected(document.part("validate", "parameters"))
    needed = load_suite(suite).parameters - set(BIND_NAMES)
    place, shown = ("validate", "parameters"), ", ".join(given) or "none"
    return [
        document.fault(place, f"must give the parameter {name!r}, which the suite needs; got {shown}")
        for name in sorted(needed)
        if name not in given and "*" not in given
    ]


def _selected(sql: Any) -> list[str]:
    """The names that a query gives; `*` where they cannot be told."""
    if sql is None:
        return []
    try:
        return parse(str(sql)).tree.named_selects
    except ValueError:
        return ["*"]


def _syntax_faults(file: Path) -> Iterator[Fault]:
    try:
        # No syntax tree: Python 3.11 counts the depth of all threads' trees together, and fails.
        compile(file.read_text(encoding="utf-8"), file.name, "exec", dont_inherit=True)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        yield Fault(file, line, f"must be UTF-8 text; got {error.reason}")
    except SyntaxError as error:
        yield Fault(file, error.lineno or 1, f"must be Python; got {error.msg}")
