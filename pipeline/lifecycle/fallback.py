"""What answers instead of the champion: a chain of steps, each for the rows that still have no score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import FatalError, FeatureError, ModelError
from pipeline.frames import key_index
from pipeline.job import ScoreSource

Scores: TypeAlias = npt.NDArray[np.float64]
Positions: TypeAlias = npt.NDArray[np.int64]

SOURCES: tuple[ScoreSource, ...] = get_args(ScoreSource)
_NONE = -1


@dataclass(frozen=True)
class Answer:
    """Scores of n rows and where each comes from; a row without an answer has NaN, no source, age or version.

    scores float64 (n,); sources int8 (n,), positions in SOURCES; ages int32 (n,), days since a carried score
    was made; versions int32 (n,), model version. -1 stands for none.
    """

    scores: Scores
    sources: npt.NDArray[np.int8]
    ages: npt.NDArray[np.int32]
    versions: npt.NDArray[np.int32]

    @classmethod
    def none(cls, rows: int) -> Self:
        """No answer for any of n rows."""
        return cls(
            np.full(rows, np.nan),
            np.full(rows, _NONE, np.int8),
            np.full(rows, _NONE, np.int32),
            np.full(rows, _NONE, np.int32),
        )

    @classmethod
    def of(
        cls,
        source: ScoreSource,
        scores: Scores,
        *,
        version: int | npt.NDArray[np.int32] = _NONE,
        ages: int | npt.NDArray[np.int32] = _NONE,
    ) -> Self:
        """One source's scores, NaN where it has none."""
        answered = ~np.isnan(scores)
        return cls(
            scores,
            np.where(answered, SOURCES.index(source), _NONE).astype(np.int8),
            np.where(answered, ages, _NONE).astype(np.int32),
            np.where(answered, version, _NONE).astype(np.int32),
        )

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which rows have a score, bool (n,)."""
        return ~np.isnan(self.scores)

    def put(self, positions: Positions, part: Answer) -> Self:
        """The same answer with the rows at `positions` taken from `part`, whose row i is row positions[i]."""
        merged = (_replaced(vars(self)[name], positions, vars(part)[name]) for name in vars(self))
        return type(self)(*merged)

    def columns(self) -> dict[str, pa.Array]:
        """Output columns: score, score_source, score_age_days, model_version; null where there is none."""
        names = pa.array(SOURCES, pa.string())
        return {
            "score": pa.array(self.scores, from_pandas=True),
            "score_source": names.take(_nullable(self.sources)),
            "score_age_days": _nullable(self.ages),
            "model_version": _nullable(self.versions),
        }


Step: TypeAlias = Callable[[pa.RecordBatch], Answer]
"""Answers for a batch of rows, or for some of them."""


def answer(rows: pa.RecordBatch, chain: Iterable[Step]) -> Answer:
    """Each step answers for the rows that no earlier one answered; the rest stay without, to be withheld."""
    answered = Answer.none(rows.num_rows)
    for step in chain:
        open_rows = np.flatnonzero(~answered.answered)
        if open_rows.size == 0:
            break
        answered = answered.put(open_rows, step(rows.take(pa.array(open_rows))))
    return answered


def unless_it_fails(name: ScoreSource, step: Step, told: Callable[[str], None]) -> Step:
    """The step, or no answer for a batch where its code is refused or breaks its contract; `told` why."""

    def attempted(rows: pa.RecordBatch) -> Answer:
        try:
            return step(rows)
        except (FeatureError, ModelError) as error:
            told(f"{name} did not answer: {error}")
            return Answer.none(rows.num_rows)

    return attempted


def rule(scores_of: Callable[[pa.RecordBatch], Scores]) -> Step:
    """The job's own rule: float64 (n,), NaN where it has no answer."""
    return lambda rows: Answer.of("rule", scores_of(rows))


def default(score: float) -> Step:
    """The same declared score for every row."""
    return lambda rows: Answer.of("default", np.full(rows.num_rows, score))


def carried_forward(previous: pa.Table, key: Sequence[str]) -> Step:
    """The last score of the same key.

    `previous` has the key columns, score, score_age_days and model_version (which may be null), one row per
    key; raises FatalError when a key is repeated.
    """
    index = key_index(previous, key)
    if not index.is_unique:
        raise FatalError(
            f"earlier scores must have one row per {', '.join(key)}; got {index.duplicated().sum()} repeated "
            f"keys in {len(index)} rows"
        )
    scores = previous.column("score").to_numpy()
    ages, versions = (
        pc.fill_null(previous.column(name), _NONE).to_numpy() for name in ("score_age_days", "model_version")
    )

    def step(rows: pa.RecordBatch) -> Answer:
        if not len(index):
            return Answer.none(rows.num_rows)
        found = index.get_indexer(key_index(rows, key))
        known = np.where(found < 0, np.nan, scores[found])
        return Answer.of("carried_forward", known, version=versions[found], ages=ages[found])

    return step


def _replaced(whole: npt.NDArray[Any], at: Positions, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copied = whole.copy()
    copied[at] = part
    return copied


def _nullable(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=values == _NONE)
