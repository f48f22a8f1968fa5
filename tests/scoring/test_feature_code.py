from __future__ import annotations

import ast
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import FeatureError
from pipeline.scoring.feature_code import FeatureCode, feature_faults, feature_version, load_feature_code

SOURCE = '''"""Features of a toy."""
import pandas as pd

FEATURES = {"size": "float"}
SCALE = 2.0


def make_features(rows, history):
    """Sizes."""
    return pd.DataFrame({"size": rows["amount"] * SCALE})  # in metres


def make_model():
    return None


def make_baseline():
    return None
'''
QUERIES = {"extract": "select amount from sales where day = :day"}


def load(source: str = SOURCE, queries: dict[str, str] = QUERIES) -> FeatureCode:
    return load_feature_code("toy", source, queries)


def messages(source: str) -> list[str]:
    return [str(fault) for fault in feature_faults("toy", source)]


def test_the_module_runs_from_its_text_and_tells_its_schema() -> None:
    code = load()
    assert code.schema == {"size": "float"}
    assert code.module.SCALE == 2.0
    assert not code.has_rule


def test_two_versions_of_one_job_live_side_by_side() -> None:
    old, new = load(), load(SOURCE.replace("2.0", "3.0"))
    assert (old.module.SCALE, new.module.SCALE) == (2.0, 3.0)


def test_a_dataclass_in_a_feature_module_finds_its_module() -> None:
    source = "from __future__ import annotations\n" + SOURCE.replace(
        "SCALE = 2.0", "from dataclasses import dataclass\n@dataclass\nclass Shape:\n    wide: float = 1\n"
    ).replace("* SCALE", "* Shape().wide")
    assert load(source).module.Shape().wide == 1


def test_every_missing_name_and_wrong_type_is_told_at_once_with_its_line() -> None:
    source = 'X = 1\nFEATURES = {"size": "flaot", "kind": "text"}\ndef make_features(rows): ...\n'
    assert messages(source) == [
        "features/toy.py:2: feature 'size' must have a known type; got 'flaot'; did you mean 'float'?",
        "features/toy.py:2: feature 'kind' must have a known type; got 'text'; "
        "accepted: category, category?, float, float?",
        "features/toy.py:3: must define make_features(rows, history); got another signature",
        "features/toy.py:1: must define make_model(); got none",
        "features/toy.py:1: must define make_baseline(); got none",
    ]


@pytest.mark.parametrize("schema", ["{}", "['size']", "None"])
def test_features_must_be_declared_as_a_filled_dict(schema: str) -> None:
    (fault,) = messages(SOURCE.replace('{"size": "float"}', schema))
    assert "features/toy.py:4: must define FEATURES" in fault


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import pipeline.job", "pipeline.job"),
        ("from pipeline import job", "pipeline"),
        ("from features.other import x", "features.other"),
        ("from . import sibling", "."),
        ("def f():\n    import dags", "dags"),
    ],
)
def test_an_import_of_the_project_is_refused_before_anything_runs(statement: str, name: str) -> None:
    (fault,) = messages(f"raise SystemExit\n{statement}\n")
    assert "must import nothing of the project" in fault
    assert fault.endswith(f"got {name}")


def test_a_syntax_error_is_told_with_its_line() -> None:
    (fault,) = messages("FEATURES = {}\n\nx = = 1\n")
    assert fault.startswith("features/toy.py:3: must be Python")


def test_a_module_that_raises_is_told_with_its_line() -> None:
    (fault,) = messages("import math\n\nmath.sqrt(-1)\n")
    assert fault.startswith("features/toy.py:3: must run; got ValueError")


def test_loading_a_faulty_module_raises_all_its_faults() -> None:
    with pytest.raises(FeatureError, match=r"(?s)make_model.*make_baseline"):
        load('FEATURES = {"size": "float"}\ndef make_features(rows, history): ...\n')


def test_comments_docstrings_and_layout_keep_the_version() -> None:
    source = SOURCE.replace("  # in metres", "").replace('    """Sizes."""\n', "").replace("\n\n\n", "\n\n")
    source = source.replace('"""Features of a toy."""', '"""Other words."""')
    queries = {"extract": "select amount -- the money\n  from sales\n  where day = :day /* today */"}
    assert load(source, queries).version == load().version


@pytest.mark.parametrize(
    ("old", "new"), [("2.0", "2"), ("2.0", "2.5"), ('"size"', '"Size"'), ("* SCALE", "/ SCALE")]
)
def test_any_change_of_the_code_changes_the_version(old: str, new: str) -> None:
    assert load(SOURCE.replace(old, new)).version != load().version


@pytest.mark.parametrize(
    "queries",
    [
        {"extract": "select amount from sales where day <= :day"},
        {"extract": "select 'amount' from sales where day = :day"},
        QUERIES | {"history.sums": "select 1"},
        {"history.sums": QUERIES["extract"]},
        {},
    ],
)
def test_any_change_of_the_sql_changes_the_version(queries: dict[str, str]) -> None:
    assert load(queries=queries).version != load().version


def test_a_schema_that_code_computes_counts_for_the_version() -> None:
    versions = {feature_version({"size": kind}, SOURCE, QUERIES) for kind in ("float", "float?")}
    assert len(versions) == 2


def test_the_version_is_the_same_on_every_python() -> None:
    """A pinned value: a version registered under one Python must not look changed under another."""
    assert load().version == "f-4f235975bdcd"


def test_threads_read_one_source_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 fails where two build syntax trees at once."""
    parse, inside = ast.parse, []

    def watched(source: str) -> ast.Module:
        inside.append(source)
        time.sleep(0.01)
        at_once.append(len(inside))
        inside.pop()
        return parse(source)

    at_once: list[int] = []
    with monkeypatch.context() as patched, ThreadPoolExecutor(4) as pool:
        patched.setattr(ast, "parse", watched)
        list(pool.map(lambda _: load(), range(8)))
    assert set(at_once) == {1}
