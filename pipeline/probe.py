"""What a challenger does beyond its quality: declared behaviour, strange inputs, golden rows, CPU, memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.compare import Answered, Contender
from pipeline.environment import Environment
from pipeline.errors import FatalError, FeatureError, ModelError, nearest
from pipeline.job import Job
from pipeline.job_life import Behaviour
from pipeline.lifecycle.fallback import Step
from pipeline.lifecycle.gate import Pair, Probe
from pipeline.monitoring.profiler import Profiler
from pipeline.monitoring.quality import Floats
from pipeline.partition import Partition
from pipeline.run import Run
from pipeline.scorers import Scorers
from pipeline.scoring.feature_code import FeatureCode
from pipeline.scoring.featurize import features
from pipeline.scoring.score import Output, predict

_ROWS = 1000
_TIMED_ROWS = 5000
_ROUNDS = 5
_GOLDEN_ROWS = 20
_FAR = 1e12
_UNSEEN = "a value that no night has had"
_SAME = 1e-9

Score = Callable[[pd.DataFrame], Floats]


def check_behaviour(code: FeatureCode, declared: Behaviour, version: int) -> None:
    """Raise FatalError unless the declared columns are features of this code that can rise and fall."""
    numbers = {name for name, kind in code.schema.items() if kind.startswith("float")}
    faults = [
        f"{name!r} must be a {'number' if known is numbers else 'feature'}; {nearest(name, sorted(known))}"
        for names, known in (
            (declared.rising, numbers),
            (declared.falling, numbers),
            (declared.invariant, set(code.schema)),
        )
        for name in names
        if name not in known
    ]
    if faults:
        raise FatalError(
            f"gate.behaviour must name features of version {version} of {code.job}: {'; '.join(faults)}"
        )


def behaviour_tests(model: Score, frame: pd.DataFrame, declared: Behaviour) -> Iterator[Probe]:
    """How the scores of real feature rows move with the declared columns, one at a time.

    A column rises by one standard deviation of its values; an invariant one gets other rows' values. Rows
    that have no value to raise, or got an equal one, are not counted: they cannot show anything.
    """
    frame = _sample(frame)
    before = model(frame)
    slack = _SAME * np.maximum(1, np.abs(before))
    for sign, names in ((1, declared.rising), (-1, declared.falling)):
        for name in names:
            there = frame[name].notna().to_numpy()
            moved = sign * (_scores(model, frame.assign(**{name: frame[name] + _step(frame[name])})) - before)
            told = f"{name} {'rising' if sign > 0 else 'falling'}"
            yield Probe("behaviour", told, int(there.sum()), int((there & ~(moved >= -slack)).sum()))
    other = np.random.default_rng(0).permutation(len(frame))
    for name in declared.invariant:
        values = frame[name].iloc[other].set_axis(frame.index)
        alike = (values == frame[name]) | (values.isna() & frame[name].isna())
        swapped = ~alike.to_numpy(dtype=bool)
        same = np.abs(_scores(model, frame.assign(**{name: values})) - before) <= slack
        yield Probe("behaviour", f"{name} invariant", int(swapped.sum()), int((swapped & ~same).sum()))


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows from all over the night: the first ones may all be of one shop, where the source is in order."""
    return frame.sample(min(_ROWS, len(frame)), random_state=0)


def _step(values: pd.Series[float]) -> float:
    """One standard deviation, or 1 where the values are alike or a single one."""
    spread = float(values.std())
    return spread if spread > 0 else 1.0


def _scores(model: Score, frame: pd.DataFrame) -> Floats:
    """What the model says, NaN where it fails: that breaks any test."""
    try:
        return model(frame)
    except ModelError:
        return np.full(len(frame), np.nan)


def robustness_tests(model: Score, code: FeatureCode, frame: pd.DataFrame) -> Iterator[Probe]:
    """Whether strange features get usable scores: none where that is allowed, extremes, unseen values."""
    frame = _sample(frame)
    kinds = code.schema
    numbers = [name for name, kind in kinds.items() if kind.startswith("float")]
    categories = [name for name, kind in kinds.items() if kind.startswith("category")]
    nullable = [name for name, kind in kinds.items() if kind.endswith("?")]
    empty = {name: np.nan if name in numbers else _texts(frame, None) for name in nullable}
    strange: dict[str, dict[str, Any]] = {
        "every optional input missing": empty,
        f"every number {_FAR:g}": dict.fromkeys(numbers, _FAR),
        f"every number {-_FAR:g}": dict.fromkeys(numbers, -_FAR),
        "every number 0": dict.fromkeys(numbers, 0.0),
        "every category unseen": {name: _texts(frame, _UNSEEN) for name in categories},
    }
    for name, columns in strange.items():
        if columns:
            usable = _is_usable(model, frame.assign(**columns))
            yield Probe("robustness", name, len(frame), 0 if usable else len(frame))


def _texts(frame: pd.DataFrame, text: str | None) -> pd.Series[str]:
    return pd.Series([text] * len(frame), index=frame.index, dtype="str")


def _is_usable(model: Score, frame: pd.DataFrame) -> bool:
    return not np.isnan(_scores(model, frame)).any()


def golden_tests(
    env: Environment, job: Job, partition: Partition, answered: Answered, folder: Path
) -> Iterator[Probe]:
    """Rows of a replayed night through what serves a run: one by one, all at once, and as replayed.

    The artifact is fetched and parsed anew, as by a process that has never seen it.
    """
    rows = answered.rows.slice(0, _GOLDEN_ROWS).combine_chunks()
    (batch,) = rows.to_batches()
    folder.mkdir()
    fresh = answered.contender.anew(folder)
    again = predict(fresh.model, answered.features.head(batch.num_rows), job.declaration.model.output)
    replayed = answered.score[: batch.num_rows]
    try:
        serve = _serving(env, job, partition, answered, folder)
        together = serve(batch).scores
        alone = np.concatenate([serve(batch.slice(at, 1)).scores for at in range(batch.num_rows)])
    except (FeatureError, ModelError) as error:
        yield Probe("golden_rows", f"served as a night's rows: {error}", batch.num_rows, batch.num_rows)
        return
    for name, got, expected in (
        ("one row alone and all together", alone, together),
        ("served and replayed", together, replayed),
        ("artifact loaded anew and replayed", again, replayed),
    ):
        differ = ~np.isclose(got, expected, rtol=_SAME, atol=_SAME)
        yield Probe("golden_rows", name, batch.num_rows, int(differ.sum()))


def _serving(env: Environment, job: Job, partition: Partition, answered: Answered, folder: Path) -> Step:
    """What would answer a night's rows as champion; raises ModelError where a night would refuse it."""
    version = answered.contender.version
    run = Run(0, "gate", job.name, partition, 0, version.version, "running", "validated")
    _, prepare = next(Scorers(env, job, run, answered.snapshot, [version], folder).attempts())
    return prepare(Profiler(version.extract, job.instants(partition), job.declaration.model.threshold))


def cpu_seconds(answers: tuple[Answered, Answered], output: Output) -> Pair:
    """CPU seconds per 1,000 rows of features and scores: each one's best of interleaved rounds."""
    taken: tuple[list[float], list[float]] = ([], [])
    rows = min(_TIMED_ROWS, answers[0].rows.num_rows)
    for number in range(2 * _ROUNDS):
        which = (
            number + number // 2
        ) % 2  # champion, challenger, challenger, champion: neither is always first
        started = time.process_time()
        _served(answers[which], answers[which].contender, rows, output)
        taken[which].append(time.process_time() - started)
    champion, challenger = (1000 * min(own) / rows for own in taken)
    return Pair(champion, challenger)


def memory_mb(answers: tuple[Answered, Answered], output: Output, folder: Path) -> Pair:
    """MiB that Python and NumPy held at the peak of loading the artifact and scoring the same rows."""
    rows = min(_TIMED_ROWS, answers[0].rows.num_rows)
    champion, challenger = (_peak_mb(answered, rows, output, folder) for answered in answers)
    return Pair(champion, challenger)


def _peak_mb(answered: Answered, rows: int, output: Output, folder: Path) -> float:
    own = folder / f"memory-{answered.contender.version.version}"
    own.mkdir()
    tracemalloc.start()
    try:
        loaded = answered.contender.anew(own)
        _served(answered, loaded, rows, output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak / (1 << 20)


def _served(answered: Answered, contender: Contender, rows: int, output: Output) -> Floats:
    table = answered.rows.slice(0, rows)
    frame = features(contender.code, table, contender.declared.columns, answered.history)
    return predict(contender.model, frame, output)
