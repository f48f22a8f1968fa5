"""Every declared job keeps one contract; a new job is held to it without a test of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sqlglot import exp

from pipeline.adapters import models
from pipeline.declaration import feature_file, load_jobs
from pipeline.frames import history_frame, rows_frame
from pipeline.job import HistoryQuery, Job
from pipeline.scoring.boundary import ARROW_TYPES, arrow_schema
from pipeline.scoring.feature_code import FeatureCode, feature_faults, feeding_queries, load_feature_code
from pipeline.scoring.featurize import features, rule_scores
from pipeline.scoring.score import predict

TESTS = Path(__file__).parent
PROJECTS = (TESTS.parent, TESTS / "support" / "toy_project")
JOBS = {job.name: (job, project) for project in PROJECTS for job in load_jobs(project)}

every_job = pytest.mark.parametrize("name", JOBS)
a_few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS = st.sampled_from(["a", "b", "c"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6
)
"""Few enough to repeat, odd enough to be unseen."""


class Night(NamedTuple):
    """What a job's features read of one night."""

    rows: pa.Table
    history: Mapping[str, pd.DataFrame]


@cache
def code(name: str) -> FeatureCode:
    job, project = JOBS[name]
    declared = job.declaration
    source = feature_file(project, name).read_text(encoding="utf-8")
    return load_feature_code(name, source, feeding_queries(declared.extract, declared.history))


def cells(job: Job, kind: str) -> st.SearchStrategy[Any]:
    """Values of a declared type, as validated rows may hold them."""
    day = job.declaration.schedule.start + timedelta(days=40)
    midnight = datetime.combine(day, time(0), tzinfo=UTC)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "text": WORDS,
        "integer": st.integers(0, 2359),
        "float": st.floats(-1e6, 1e6),
        "boolean": st.booleans(),
        "date": st.just(day),
        "timestamp": st.integers(0, 3000).map(lambda minutes: midnight + timedelta(minutes=minutes)),
    }
    values = plain[kind.rstrip("?")]
    return values | st.none() if kind.endswith("?") else values


def row(job: Job) -> st.SearchStrategy[dict[str, Any]]:
    columns = job.declaration.extract.columns
    return st.fixed_dictionaries({column: cells(job, kind) for column, kind in columns.items()})


def a_history(job: Job, name: str, query: HistoryQuery, rows: pa.Table, *, filled: bool) -> pd.DataFrame:
    """A history query's answer: none, or one row for each key among the rows, with numbers from 1 on."""
    columns = job.declaration.extract.columns
    select = sqlglot.parse_one(query.sql, read="postgres").find(exp.Select)
    assert select is not None
    kinds = {key: ARROW_TYPES[columns.get(key, "integer").rstrip("?")] for key in query.key}
    known = [key for key in query.key if key in columns]
    keys = rows.slice(0, None if filled and known else 0).select(known)
    keys = keys.group_by(known).aggregate([]).drop_null() if known else keys
    data = {
        column: keys[column] if column in known else pa.array(np.arange(len(keys)) % 50 + 1)
        for column in select.named_selects
    }
    table = pa.table(data)
    for key, kind in kinds.items():
        table = table.set_column(table.column_names.index(key), key, table[key].cast(kind))
    return history_frame(name, table, query.key)


def night_of(job: Job, values: list[dict[str, Any]], *, filled: bool) -> Night:
    rows = pa.Table.from_pylist(values, schema=arrow_schema(job.declaration.extract.columns))
    return Night(
        rows,
        {
            name: a_history(job, name, query, rows, filled=filled)
            for name, query in job.declaration.history.items()
        },
    )


def nights(name: str, min_size: int = 1) -> st.SearchStrategy[Night]:
    job, _ = JOBS[name]
    values = st.lists(row(job), min_size=min_size, max_size=8)
    return st.builds(lambda listed, filled: night_of(job, listed, filled=filled), values, st.booleans())


def made(name: str, night: Night, index_start: int = 0) -> pd.DataFrame:
    job, _ = JOBS[name]
    return features(code(name), night.rows, job.declaration.extract.columns, night.history, index_start)


def frame(name: str, night: Night) -> pd.DataFrame:
    return rows_frame(night.rows, JOBS[name][0].declaration.extract.columns)


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    assert_frame_equal(first, second, check_exact=True, check_names=True)


@every_job
def test_its_feature_code_has_no_faults(name: str) -> None:
    source = feature_file(JOBS[name][1], name).read_text(encoding="utf-8")
    assert feature_faults(name, source) == []


@every_job
def test_it_has_a_rule_where_its_fallback_names_one(name: str) -> None:
    declared = JOBS[name][0].declaration.fallback
    assert code(name).has_rule or "rule" not in declared.bad_row


@every_job
@a_few
@given(data=st.data())
def test_equal_rows_give_equal_features_that_keep_the_contract(name: str, data: st.DataObject) -> None:
    night = data.draw(nights(name))
    same(made(name, night), made(name, night))


@every_job
@a_few
@given(data=st.data())
def test_its_input_is_untouched(name: str, data: st.DataObject) -> None:
    night = data.draw(nights(name))
    rows = frame(name, night)
    before = rows.copy(deep=True)
    history = {query: held.copy(deep=True) for query, held in night.history.items()}
    code(name).module.make_features(rows, night.history)
    same(rows, before)
    assert night.history.keys() == history.keys()
    for query, held in history.items():
        same(night.history[query], held)


@every_job
@a_few
@given(data=st.data())
def test_a_row_has_the_same_features_alone_and_among_others(name: str, data: st.DataObject) -> None:
    night = data.draw(nights(name, min_size=2))
    whole = made(name, night)
    cut = data.draw(st.integers(1, len(whole) - 1))
    parts = [(0, cut), *((row, 1) for row in range(cut, len(whole)))]
    chunks = [made(name, Night(night.rows.slice(*part), night.history), part[0]) for part in parts]
    assert all(list(chunk.columns) == list(whole.columns) for chunk in chunks)
    for (start, rows), chunk in zip(parts, chunks, strict=True):
        same(chunk, whole.iloc[start : start + rows])


@every_job
@a_few
@given(data=st.data())
def test_its_features_follow_a_shuffled_index(name: str, data: st.DataObject) -> None:
    night = data.draw(nights(name))
    rows = frame(name, night)
    order = data.draw(st.permutations(range(len(rows))))
    make_features = code(name).module.make_features
    same(
        make_features(rows.iloc[order], night.history),
        make_features(rows, night.history).iloc[order],
    )


def many(name: str, count: int, seed: int) -> Night:
    """Varied rows without hypothesis, enough of them to fit a model on; two seeds share few texts."""
    job, _ = JOBS[name]
    random = np.random.default_rng(seed)
    start = datetime.combine(job.declaration.schedule.start + timedelta(days=40), time(5), tzinfo=UTC)
    one: dict[str, Any] = {
        "text": lambda: f"{seed}-{random.integers(4)}",
        "integer": lambda: int(random.integers(24) * 100 + random.integers(60)),
        "float": lambda: float(random.uniform(1, 1000)),
        "boolean": lambda: bool(random.integers(2)),
        "date": start.date,
        "timestamp": lambda: start + timedelta(minutes=int(random.integers(1440))),
    }
    columns = job.declaration.extract.columns.items()
    values = [
        {
            column: None if kind.endswith("?") and random.random() < 0.2 else one[kind.rstrip("?")]()
            for column, kind in columns
        }
        for _ in range(count)
    ]
    return night_of(job, values, filled=bool(seed))


@every_job
@pytest.mark.parametrize("maker", ["make_model", "make_baseline"])
@pytest.mark.parametrize("learned_with_history", [False, True])
def test_its_models_score_what_they_never_saw(
    name: str, maker: str, learned_with_history: bool, tmp_path: Path
) -> None:
    """Fitted on rows with and without history, asked about other texts and histories, saved and loaded."""
    output = JOBS[name][0].declaration.model.output
    seen, unseen = (many(name, 60, seed) for seed in ((1, 0) if learned_with_history else (0, 1)))
    label = np.arange(60) % 2 == 0
    model = clone(getattr(code(name).module, maker)()).fit(made(name, seen), label)
    scores = predict(model, made(name, unseen), output)
    path, sha256 = models.save(model, tmp_path, maker)
    loaded = models.load(path, sha256, models.sklearn_version())
    np.testing.assert_array_equal(predict(loaded, made(name, unseen), output), scores)


@every_job
@a_few
@given(data=st.data())
def test_its_rule_bears_rows_that_failed_validation(name: str, data: st.DataObject) -> None:
    job, _ = JOBS[name]
    if not code(name).has_rule:
        return
    extract = job.declaration.extract
    absurd: dict[str, st.SearchStrategy[Any]] = {
        "text": st.text(st.characters(codec="utf-8"), max_size=6),
        "integer": st.integers(-(2**62), 2**62),
        "float": st.floats(),
    }
    cell = {
        column: st.none() | absurd.get(kind.rstrip("?"), cells(job, kind))
        for column, kind in extract.columns.items()
    }
    values = data.draw(st.lists(st.fixed_dictionaries(cell), min_size=1, max_size=8))
    rows = pa.Table.from_pylist(values, schema=arrow_schema(extract.columns))
    scores = rule_scores(code(name), rows, extract.columns, job.declaration.model.output)
    assert scores.shape == (len(values),)
