"""A job's feature code, loaded from its source text: the only module that runs `features/<job>.py`.

A registered version brings its own source, so what is loaded here need not be the file in the tree.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Literal, get_args

import sqlglot

from pipeline.errors import Fault, FeatureError, nearest
from pipeline.job import Extract, HistoryQuery

FeatureType = Literal["category", "category?", "float", "float?"]
"""What a feature column holds; a trailing `?` allows missing values."""

_ONE_TREE = Lock()
_REQUIRED = {
    "make_features": ("rows", "history"),
    "make_model": (),
    "make_baseline": (),
}
_OPTIONAL = {"rule_scores": ("rows",)}
_OURS = {"dags", "expectations", "features", "pipeline", "tests"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class FeatureCode:
    """One version of a job's feature definition: its source, and the module that the source made."""

    job: str
    source: str
    queries: Mapping[str, str]
    version: str
    schema: Mapping[str, FeatureType]
    module: ModuleType

    @property
    def has_rule(self) -> bool:
        """Whether the module answers for rows that failed validation."""
        return hasattr(self.module, "rule_scores")


def feeding_queries(extract: Extract, history: Mapping[str, HistoryQuery]) -> dict[str, str]:
    """The SQL that feeds a job's features, by name; a name tells also the types or keys of its query."""
    columns = ", ".join(f"{name} {kind}" for name, kind in extract.columns.items())
    return {f"extract ({columns})": extract.sql} | {
        f"history {name} ({', '.join(query.key)})": query.sql for name, query in history.items()
    }


def load_feature_code(job: str, source: str, queries: Mapping[str, str]) -> FeatureCode:
    """Run the source of `features/<job>.py`; `queries` feed it (see `feeding_queries`).

    Raises FeatureError with all faults: not Python, an import of ours, a name missing, an unknown type.
    """
    module, faults = _load(job, source)
    if module is None or faults:
        raise FeatureError("\n".join(map(str, faults)))
    schema = dict(module.FEATURES)
    return FeatureCode(
        job=job,
        source=source,
        queries=dict(queries),
        version=feature_version(schema, source, queries),
        schema=schema,
        module=module,
    )


def feature_faults(job: str, source: str) -> list[Fault]:
    """Everything wrong with the source of `features/<job>.py`, each with its line; runs the source."""
    return _load(job, source)[1]


def feature_version(schema: Mapping[str, str], source: str, queries: Mapping[str, str]) -> str:
    """`f-` and 12 hex digits: blind to comments, docstrings and layout of code and SQL, to nothing else."""
    parts = [
        repr(list(schema.items())),
        _canonical(_without_docstrings(_tree(source))),
        *(f"{name}: {_lexemes(queries[name])}" for name in sorted(queries)),
    ]
    return "f-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _tree(source: str) -> ast.Module:
    # Python 3.11 counts the depth of all threads' trees together, and raises SystemError.
    with _ONE_TREE:
        return ast.parse(source)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _canonical(node: object) -> str:
    """The syntax tree as text; `ast.dump` and `ast.unparse` differ between Python versions."""
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__} {node.value!a}"
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        inner = ", ".join(f"{name}={_canonical(value)}" for name, value in fields)
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return f"[{', '.join(map(_canonical, node))}]"
    return ascii(node)


def _lexemes(sql: str) -> str:
    return " ".join(sql[t.start : t.end + 1] for t in sqlglot.tokenize(sql, read="postgres"))


def _load(job: str, source: str) -> tuple[ModuleType | None, list[Fault]]:
    file = Path("features") / f"{job}.py"
    try:
        tree = _tree(source)
    except SyntaxError as error:
        return None, [Fault(file, error.lineno or 1, f"must be Python; got {error.msg}")]
    if faults := [Fault(file, line, message) for line, message in _import_faults(tree)]:
        return None, faults
    module = _new_module(job, source)
    try:
        exec(compile(source, str(module.__file__), "exec"), module.__dict__)  # noqa: S102 - the job's own code
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault of that file
        return None, [Fault(file, _line(error, module), f"must run; got {type(error).__name__}: {error}")]
    lines = _definitions(tree)
    return module, [Fault(file, lines.get(name, 1), message) for name, message in _module_faults(module)]


def _import_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            if name.split(".")[0] in _OURS or name.startswith("."):
                yield (
                    node.lineno,
                    f"must import nothing of the project, as a version keeps this file alone; got {name}",
                )


def _new_module(job: str, source: str) -> ModuleType:
    """An empty module under a name of its own, as two versions may be loaded side by side."""
    name = f"features.{job}.{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = f"<{name}>"
    sys.modules[name] = module
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    return module


def _line(error: Exception, module: ModuleType) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if f.filename == module.__file__), 1)


def _definitions(tree: ast.Module) -> dict[str, int]:
    lines: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            lines[node.name] = node.lineno
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            lines |= {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}
    return lines


def _module_faults(module: ModuleType) -> Iterator[tuple[str, str]]:
    schema = getattr(module, "FEATURES", None)
    if not isinstance(schema, dict) or not schema:
        yield "FEATURES", f"must define FEATURES, a dict of feature names to types; got {schema!r}"
    else:
        yield from (("FEATURES", fault) for fault in _schema_faults(schema))
    for name, parameters in (_REQUIRED | _OPTIONAL).items():
        shown = f"{name}({', '.join(parameters)})"
        function = getattr(module, name, None)
        if function is None and name in _REQUIRED:
            yield name, f"must define {shown}; got none"
        elif function is not None and not _takes(function, len(parameters)):
            yield name, f"must define {shown}; got another signature"


def _schema_faults(schema: Mapping[object, object]) -> Iterator[str]:
    types = get_args(FeatureType)
    for name, kind in schema.items():
        if not isinstance(name, str):
            yield f"a feature's name must be text; got {name!r}"
        if kind not in types:
            yield f"feature {name!r} must have a known type; got {kind!r}; {nearest(str(kind), types)}"


def _takes(function: object, arguments: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True
