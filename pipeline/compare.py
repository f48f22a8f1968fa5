"""Two versions answer the same labelled nights, replayed: each with its own features, queries and history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.adapters.source import open_reader
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import suite_file
from pipeline.environment import Environment
from pipeline.errors import ExtractError, FatalError, FeatureError, ModelError, ValidationError
from pipeline.frames import key_index
from pipeline.job import Extract, Job
from pipeline.labels import declared_outcomes, match, read_labels
from pipeline.lifecycle.gate import Night, Pair, night
from pipeline.monitoring.quality import UNKNOWN, Floats, losses, quality
from pipeline.partition import Partition
from pipeline.replay import good_rows
from pipeline.run import Snapshot
from pipeline.scorers import feature_code, history_frames, load_model
from pipeline.scoring.extract import extract
from pipeline.scoring.feature_code import FeatureCode
from pipeline.scoring.featurize import features
from pipeline.scoring.score import predict
from pipeline.scoring.suite import Suite, load_suite
from pipeline.steps import extract_plan
from pipeline.streams import ahead

if TYPE_CHECKING:
    from datetime import datetime

    from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class Contender:
    """A registered version, ready to answer."""

    version: ModelVersion
    declared: Extract
    code: FeatureCode
    model: BaseEstimator
    registry_url: str

    @classmethod
    def of(cls, version: ModelVersion, folder: Path, registry_url: str) -> Contender:
        """The version with its own code and its registered artifact, fetched into `folder`."""
        folder.mkdir()
        model = load_model(version, folder, registry_url)
        return cls(version, version.extract, feature_code(version), model, registry_url)

    def anew(self, folder: Path) -> Contender:
        """The same with its artifact read and parsed once more."""
        return replace(self, model=load_model(self.version, folder, self.registry_url, anew=True))


@dataclass(frozen=True)
class Answered:
    """One contender's answers to n rows of a night: rows, features and scores in one order."""

    contender: Contender
    snapshot: Snapshot
    rows: pa.Table
    history: dict[str, pd.DataFrame]
    features: pd.DataFrame
    score: Floats


@dataclass(frozen=True)
class Compared:
    """A night of both, the champion's answers first; or why it is left out, and whether by the challenger."""

    partition: Partition
    night: Night | None = None
    answers: tuple[Answered, Answered] | None = None
    left_out: str | None = None
    challenger_failed: int = 0
    """So many rows had no score, as the challenger's queries, its rows, features or model failed."""


@dataclass(frozen=True)
class _Read:
    """A night's snapshots, one by contender, and its labels; or why there are none.

    Where only the challenger's queries failed, the champion's snapshot stands alone.
    """

    partition: Partition
    folders: tuple[Path, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    labels: pa.Table | None = None
    left_out: str | None = None
    challenger_failed: str | None = None


def compared(
    env: Environment,
    job: Job,
    contenders: tuple[Contender, Contender],
    days: Iterable[Partition],
    as_of: datetime,
    folder: Path,
) -> Iterator[Compared]:
    """Each night with the labels known at `as_of`; files of a night stay in `folder`.

    Contenders with equal extracts share one read and one judgement of its rows; others are compared on the
    rows that both have. A night that the champion fails on is left out: it says nothing of the challenger.
    """
    for contender in contenders:
        if contender.declared.key != job.declaration.extract.key:
            raise FatalError(
                f"version {contender.version.version} must have the declared key to be compared, "
                f"{', '.join(job.declaration.extract.key)}; got {', '.join(contender.declared.key)}"
            )
    suite = load_suite(suite_file(env.project, job.name))
    for read in ahead(_read_nights(env, job, contenders, days, as_of, folder), depth=2):
        yield _answered(job, suite, contenders, read)


def _read_nights(
    env: Environment,
    job: Job,
    contenders: tuple[Contender, Contender],
    days: Iterable[Partition],
    as_of: datetime,
    folder: Path,
) -> Iterator[_Read]:
    for partition in days:
        try:
            read = _read_night(env, job, contenders, partition, folder / partition.key)
        except ExtractError as error:
            yield _Read(partition, left_out=_told(error))
        else:
            yield replace(read, labels=read_labels(env, job, partition, as_of))


def _read_night(
    env: Environment,
    job: Job,
    contenders: tuple[Contender, Contender],
    partition: Partition,
    folder: Path,
) -> _Read:
    """A night without its labels; raises ExtractError where the champion's queries fail."""
    try:
        return _Read(partition, *_snapshots(env, job, contenders, partition, folder / "both"))
    except ExtractError as error:
        # Where it is the champion's own fault, this fails too.
        alone = _snapshots(env, job, contenders[:1], partition, folder / "alone")
        return _Read(partition, *alone, challenger_failed=_told(error))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _snapshots(
    env: Environment,
    job: Job,
    contenders: Sequence[Contender],
    partition: Partition,
    folder: Path,
) -> tuple[tuple[Path, ...], tuple[Snapshot, ...]]:
    shared = contenders[0].declared == contenders[-1].declared
    groups = [contenders] if shared else [contenders[:1], contenders[1:]]
    folders, snapshots = [], []
    for number, group in enumerate(groups):
        own = folder / str(number)
        own.mkdir(parents=True)
        plan = extract_plan(job, [contender.version for contender in group])
        with open_reader(env.source_url, job.instants(partition).binds()) as reader:
            read = extract(reader, plan, own)
        folders += [own] * len(group)
        snapshots += [read] * len(group)
    return tuple(folders), tuple(snapshots)


def _answered(job: Job, suite: Suite, contenders: tuple[Contender, Contender], read: _Read) -> Compared:
    if read.labels is None:
        return Compared(read.partition, left_out=read.left_out)
    champion, challenger = contenders
    try:
        first_rows = _good_rows(job, suite, champion, read, 0)
    except ValidationError as error:
        return Compared(read.partition, left_out=_told(error))
    failed, second_rows = read.challenger_failed, first_rows
    if failed is None and read.folders[0] != read.folders[1]:
        try:
            second_rows = _good_rows(job, suite, challenger, read, 1)
        except ValidationError as error:
            failed = _told(error)
    rows, label = _labelled(job, (first_rows, second_rows), read.labels)
    if not len(label):
        return Compared(read.partition, left_out="no labelled row was known to both")
    try:
        first = _answer(job, champion, read.snapshots[0], rows[0])
    except (FeatureError, ModelError) as error:
        return Compared(read.partition, left_out=f"the champion: {error}")
    if failed is None:
        try:
            second = _answer(job, challenger, read.snapshots[1], rows[1])
        except (FeatureError, ModelError) as error:
            failed = str(error)
        else:
            return Compared(
                read.partition, _night(job, read.partition, (first, second), label), (first, second)
            )
    return Compared(read.partition, left_out=f"the challenger: {failed}", challenger_failed=len(label))


def _good_rows(job: Job, suite: Suite, contender: Contender, read: _Read, number: int) -> pa.Table:
    folder, snapshot = read.folders[number], read.snapshots[number]
    return good_rows(job, contender.declared, suite, snapshot, read.partition, folder)[1]


def _labelled(
    job: Job, tables: tuple[pa.Table, pa.Table], labels: pa.Table
) -> tuple[tuple[pa.Table, pa.Table], Floats]:
    """The rows of both that have a label, in one order, and those labels, float64 (n,)."""
    key = job.declaration.extract.key
    champion, challenger = tables
    if challenger is not champion:
        position = key_index(challenger, key).get_indexer(key_index(champion, key))
        champion = champion.filter(pa.array(position >= 0))
        challenger = challenger.take(pa.array(position[position >= 0]))
    known, found = match(labels, champion, key)
    label = _numbers(found, job.declaration.model.output)
    kept = pa.array(known)
    return (champion.filter(kept).combine_chunks(), challenger.filter(kept).combine_chunks()), label


def _numbers(found: npt.NDArray[Any], output: str) -> Floats:
    try:
        label = found.astype(np.float64)
    except (TypeError, ValueError):
        raise FatalError(f"the label must be true, false or a number; got {found.dtype}") from None
    usable = np.isin(label, [0, 1]) if output == "probability" else np.isfinite(label)
    if not usable.all():
        wanted = "true or false" if output == "probability" else "a finite number"
        raise FatalError(f"labels must be {wanted}; got {(~usable).sum()} others of {len(label)} rows")
    return label


def _answer(job: Job, contender: Contender, snapshot: Snapshot, rows: pa.Table) -> Answered:
    history = history_frames(contender.version, snapshot)
    frame = features(contender.code, rows, contender.declared.columns, history)
    score = predict(contender.model, frame, job.declaration.model.output)
    return Answered(contender, snapshot, rows, history, frame, score)


def _night(job: Job, partition: Partition, answers: tuple[Answered, Answered], label: Floats) -> Night:
    model, outcomes = job.declaration.model, declared_outcomes(job, "judged by the gate")
    scores = (answers[0].score, answers[1].score)
    decisions = [None if model.threshold is None else score >= model.threshold for score in scores]
    rows = 1 if outcomes.costs is None else 1000  # money is told per 1,000 rows
    lost = [
        rows * losses(score, decision, label, model.output, outcomes.costs)
        for score, decision in zip(scores, decisions, strict=True)
    ]
    measured = [
        quality(score, decision, label, model.output, outcomes.costs)
        for score, decision in zip(scores, decisions, strict=True)
    ]
    both = [name for name in measured[0] if name in measured[1]]
    metrics = {name: Pair(measured[0][name], measured[1][name]) for name in both}
    slices = {
        name: _texts(answered.rows, name)
        for name in outcomes.slices
        # Rows of both are the same; the challenger's have what was declared since the champion was trained.
        for answered in answers
        if name in answered.rows.column_names
    }
    return night(partition.day, label, scores, (lost[0], lost[1]), slices, metrics)


def _texts(rows: pa.Table, name: str) -> npt.NDArray[np.object_]:
    texts: npt.NDArray[np.object_] = rows.column(name).cast(pa.string()).to_numpy(zero_copy_only=False)
    return np.where(pd.isna(texts), UNKNOWN, texts).astype(object)
