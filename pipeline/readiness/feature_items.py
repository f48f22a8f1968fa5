"""Items of inputs and features, on the rows of the first scratch night."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline import leaks
from pipeline.adapters.source import open_reader
from pipeline.declaration import suite_file
from pipeline.errors import NightshiftError
from pipeline.lifecycle.fit import key_hashes
from pipeline.partition import COLUMN
from pipeline.query import Query, compose
from pipeline.readiness.recent import recent_rows
from pipeline.readiness.rubric import Answer, failed, judged, not_applicable
from pipeline.readiness.subject import ROUNDING, Subject
from pipeline.replay import replay, tree_code
from pipeline.scoring.featurize import features
from pipeline.scoring.score import predict
from pipeline.scoring.suite import load_suite

_ALONE = 20
"""Rows that are followed through one by one."""
_EXTREME = 1e30
_PERMUTED = 5_000
"""Rows on which features are permuted at most."""
Scores = npt.NDArray[np.float64]


def expectations(subject: Subject) -> Answer:
    """data-1: which inputs no rule of the suite looks at, of those judged on the first night."""
    suite = load_suite(suite_file(subject.env.project, subject.job.name))
    judged_columns = {column for rule in suite.rules for column in rule.columns}
    columns = subject.job.declaration.extract.columns
    bare = [name for name in columns if name not in (*judged_columns, COLUMN)]
    results = subject.base.record["suite_results"]
    return judged(
        not bare,
        f"{len(results)} rules judged {len(columns)} inputs on {subject.day}"
        + (f"; none looks at {', '.join(bare)}" if bare else ""),
        f"add rules on {', '.join(bare)} to expectations/{subject.job.name}.json",
    )


def beneficial(subject: Subject) -> Answer:
    """data-2: permuting a feature over rows of several nights changes scores where the model uses it."""
    rows = recent_rows(subject)
    if isinstance(rows, Answer):
        return rows
    if tree_code(subject.env, subject.job).version != subject.code.version:
        return _features_changed(subject)
    random = np.random.default_rng(0)
    chosen = random.permutation(len(rows.label))[:_PERMUTED]
    frame = rows.take(chosen).features
    base, idle = _predict(subject, frame), []
    for name in frame.columns:
        permuted = frame[name].iloc[random.permutation(len(frame))].set_axis(frame.index)
        if np.array_equal(_predict(subject, frame.assign(**{name: permuted})), base):
            idle.append(name)
    return judged(
        not idle,
        f"of {len(frame.columns)} features, each permuted over {len(frame)} rows of {len(rows.nights())} "
        f"nights, {len(idle)} changed no score" + (f": {', '.join(idle)}" if idle else ""),
        "take features out that the model does not use",
    )


def _features_changed(subject: Subject) -> Answer:
    return not_applicable(
        f"features/{subject.job.name}.py was changed since version {subject.version.version} was trained"
    )


def as_of(subject: Subject) -> Answer:
    """data-4: what was known after the cut-off is scrambled, then deleted; no feature may change."""
    found = leaks.probe(subject.env, subject.job, subject.day, subject.version)
    return judged(
        not found,
        "; ".join(map(str, found))
        or f"scrambling and deleting what was known later changed no feature of {subject.day}",
        "bound the query by what was known: give the source known_at",
    )


def row_wise(subject: Subject) -> Answer:
    """data-7: the features of rows alone, in halves and in another order."""
    rows = subject.inputs.rows
    whole = _features(subject, rows)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    half = rows.num_rows // 2
    faults = []
    halves = [part for part in (rows.slice(0, half), rows.slice(half)) if part.num_rows]
    if not _same(pd.concat([_features(subject, part) for part in halves], ignore_index=True), whole):
        faults.append("halves of the rows have other features than the whole")
    shuffled = _features(subject, rows.take(pa.array(order)).combine_chunks())
    if not _same(shuffled, whole.iloc[order].reset_index(drop=True)):
        faults.append("the order of the rows changes features")
    return judged(
        not faults,
        "; ".join(faults)
        or f"{rows.num_rows} rows in halves and shuffled have the same features, bit by bit",
        "make_features must look at one row and the history only: count over the day in a history query",
    )


def alone(subject: Subject) -> Answer:
    """infra-5: single rows through features and model, against what the night published."""
    rows = subject.inputs.rows
    chosen = np.random.default_rng(0).choice(rows.num_rows, min(_ALONE, rows.num_rows), replace=False)
    together = _predict(subject, _features(subject, rows))
    single = [
        _predict(subject, _features(subject, rows.slice(int(row), 1)))[0] for row in sorted(chosen.tolist())
    ]
    differ = int((~np.isclose(single, together[np.sort(chosen)], rtol=ROUNDING, atol=0)).sum())
    return judged(
        differ == 0,
        f"{len(single)} rows scored one by one; {differ} differ from the score among all",
        "make_features and the model must score a row whatever stands beside it",
    )


def skew(subject: Subject) -> Answer:
    """monitor-3: the training replay of the day, scored, against what the night published."""
    job = subject.job
    if job.declaration.outcomes is None:
        return not_applicable("no outcomes are declared, so nothing is trained here")
    code = tree_code(subject.env, job)
    if code.version != subject.code.version:
        return _features_changed(subject)
    (night,) = replay(subject.env, job, code, [subject.day], datetime.now(UTC))
    if night.rows is None or len(night.rows.label) == 0:
        return not_applicable(f"{subject.day} has no labels yet: choose an earlier --day")
    published = subject.published(subject.base.record)
    keys = published.select(list(job.declaration.extract.key))
    keys = keys.append_column("day", pa.array([subject.day.day] * keys.num_rows))
    served = pd.Series(
        published.column("score").to_numpy(), index=key_hashes(keys, job.declaration.extract.key)
    )
    replayed = _predict(subject, night.rows.features)
    # Labels may not be there for every row, so fewer rows may be scored together.
    differ = int((~np.isclose(served.reindex(night.rows.key), replayed, rtol=ROUNDING, atol=0)).sum())
    return judged(
        differ == 0,
        f"{len(replayed)} rows of {subject.day} replayed as for training; {differ} have another score than "
        "the night gave them",
        "this is a defect of Nightshift, or a source was overwritten in between: compare the snapshots",
    )


def stable(subject: Subject) -> Answer:
    """monitor-5: features at their extremes, missing where they may be, and of unseen categories."""
    frame = _features(subject, subject.inputs.rows.slice(0, 200))
    told, faults = 0, []
    for name, kind in subject.code.schema.items():
        for value in _extremes(kind):
            changed = frame.assign(**{name: pd.Series([value] * len(frame), dtype=frame[name].dtype)})
            told += 1
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    _predict(subject, changed)
            except NightshiftError as error:
                faults.append(f"{name} = {value}: {error}")
    return judged(
        not faults,
        "; ".join(faults[:3])
        or f"{told} changes of {len(frame.columns)} features to extremes, to missing and to unseen "
        "categories: every score is usable",
        "let the model's Pipeline take such values: an imputer, an encoder with handle_unknown",
    )


def _extremes(kind: str) -> list[float | str | None]:
    missing: list[float | str | None] = [np.nan] if kind.endswith("?") else []
    if kind.startswith("category"):
        return ["never seen", "", *([None] if missing else [])]
    return [0.0, -_EXTREME, _EXTREME, *missing]


def _features(subject: Subject, rows: pa.Table) -> pd.DataFrame:
    inputs = subject.inputs
    return features(subject.code, rows.combine_chunks(), subject.version.extract.columns, inputs.history)


def _predict(subject: Subject, frame: pd.DataFrame) -> Scores:
    return predict(subject.model, frame, subject.job.declaration.model.output)


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.reset_index(drop=True).equals(other)


def dear_inputs(subject: Subject) -> Answer:
    """data-3: how long each history query takes on the day, against the whole night."""
    job, seconds = subject.job, {}
    with open_reader(subject.env.source_url, job.instants(subject.day).binds()) as reader:
        for name, query in subject.version.history.items():
            sql = compose(Query(name, query.sql), job.declaration.sources, reader.dialect)
            begun = time.monotonic()
            for _ in reader.batches(sql):
                continue
            seconds[name] = time.monotonic() - begun
    if not seconds:
        return not_applicable("no history is read")
    dearest = max(seconds, key=lambda name: seconds[name])
    told = f"{len(seconds)} history queries took {sum(seconds.values()):.2f} s; the dearest, {dearest}, "
    told += f"{seconds[dearest]:.2f} s of a night of {subject.base.seconds:.1f} s"
    if seconds[dearest] > subject.base.seconds / 2:
        return failed(told, f"give history.{dearest} an index, or sum it up once a day in the warehouse")
    return judged(True, told, "")
