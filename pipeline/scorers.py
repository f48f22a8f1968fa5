"""Who may answer in a run: the pinned version and the declared steps behind it, each loaded when needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from pipeline.adapters import models, registry, run_files
from pipeline.adapters.carried import earlier_scores
from pipeline.adapters.loading import load_shadow
from pipeline.adapters.rollouts import Challenger
from pipeline.adapters.versions import ModelVersion
from pipeline.environment import Environment
from pipeline.errors import FatalError, FeatureError, ModelError, NightshiftError
from pipeline.frames import history_frame
from pipeline.job import Job, ScoreSource
from pipeline.lifecycle import fallback
from pipeline.lifecycle.fallback import Answer, Scores, Step
from pipeline.lifecycle.known_answers import KnownAnswers
from pipeline.lifecycle.rollout import Rollout, in_challenger_arm
from pipeline.monitoring.profiler import Profiler
from pipeline.run import Run, Snapshot
from pipeline.scoring.feature_code import FeatureCode, feeding_queries, load_feature_code
from pipeline.scoring.featurize import features, rule_scores
from pipeline.scoring.output import shadow_schema
from pipeline.scoring.score import Output, predict
from pipeline.scoring.sql_rule import sql_rule_scores
from pipeline.shard import Unfit, numbered, predictions, shadows, write_part

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

log = structlog.get_logger()

MODEL_STEPS: tuple[ScoreSource, ...] = ("champion", "previous_model", "baseline")
ANSWERED: tuple[ScoreSource, ...] = ("champion", "challenger")
"""Sources that are no fallback."""
_ARMS = pa.array(["champion", "challenger"], pa.string())


def history_name(version: ModelVersion, name: str) -> str:
    """Under which name a snapshot keeps a history query of a version."""
    return f"history/{version.feature_version}/{name}"


def history_frames(version: ModelVersion, snapshot: Snapshot) -> dict[str, pd.DataFrame]:
    """What a snapshot holds of a version's history queries, each indexed by its key; else ModelError."""
    if missing := [name for name in version.history if history_name(version, name) not in snapshot.history]:
        raise ModelError(
            f"the snapshot must hold the history that version {version.version} needs; got no "
            f"{', '.join(missing)}, as its query failed or the run was planned without that version"
        )
    return {
        name: history_frame(name, pq.read_table(snapshot.history[history_name(version, name)]), query.key)
        for name, query in version.history.items()
    }


@dataclass(frozen=True)
class Scorers:
    """The answerers of one run; `versions` holds the pinned version and, if there is one, the one before.

    A challenger is one that answers its arm's rows.
    """

    env: Environment
    job: Job
    run: Run
    snapshot: Snapshot
    versions: Sequence[ModelVersion]
    folder: Path
    challenger: Challenger | None = None
    warnings: list[str] = field(default_factory=list)
    """Which steps did not answer, and why; batches at once append to it."""

    def attempts(self) -> Iterator[tuple[str, Callable[[Profiler], Step]]]:
        """What may answer good rows, best first: a model alone, then the row-wise steps together."""
        if self.challenger:
            yield "challenger", partial(self._by_arm, self.challenger)
        chain: tuple[ScoreSource, ...] = ("champion", *self.job.declaration.fallback.model_failure)
        for position, step in enumerate(chain):
            if step in MODEL_STEPS:
                yield step, partial(self.model_step, step)
            else:
                rows = [name for name in chain[position:] if name not in MODEL_STEPS]
                yield step, partial(self._row_steps, rows)
                return

    def arms(self, rollout: Rollout, rows: pa.RecordBatch) -> pa.Array:
        """In which arm of a rollout each row is, whoever answers it."""
        return _ARMS.take(pa.array(self._theirs(rollout, rows).astype(np.int8)))

    def _theirs(self, rollout: Rollout, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        return in_challenger_arm(rows, self.job.declaration.extract.key, *rollout.draw)

    def _by_arm(self, challenger: Challenger, profiler: Profiler) -> Step:
        """Each row by its arm's version; what the challenger cannot do is a ChallengerError."""
        champion = self.model_step("champion", profiler)
        with _challenger_errors():
            score = self.scores_of(challenger.version)

        def answer_challenger(rows: pa.RecordBatch) -> Answer:
            with _challenger_errors():
                scores = score(rows)
            # Its features may be others, so the night's profile is of the pinned version's alone.
            profiler.unscored(rows)
            return Answer.of("challenger", scores, version=challenger.version.version)

        def answer(rows: pa.RecordBatch) -> Answer:
            theirs = self._theirs(challenger.rollout, rows)
            answered = Answer.none(rows.num_rows)
            for mask, step in ((~theirs, champion), (theirs, answer_challenger)):
                chosen = np.flatnonzero(mask)
                if len(chosen):
                    answered = answered.put(chosen, step(rows.take(pa.array(chosen))))
            return answered

        return answer

    def scores_of(self, version: ModelVersion) -> Callable[[pa.RecordBatch], Scores]:
        """What a version says of rows by its own features, float64 (n,)."""
        code, history = feature_code(version), history_frames(version, self.snapshot)
        model, output = (
            load_model(version, self.folder, self.env.registry_url),
            self.job.declaration.model.output,
        )
        _refuse_other_answers(version, model, code, output)
        return lambda rows: predict(model, features(code, rows, version.extract.columns, history), output)

    def for_bad_rows(self, profiler: Profiler) -> Step:
        """What answers rows that no model may see."""
        return self._row_steps(self.job.declaration.fallback.bad_row, profiler)

    def _row_steps(self, names: Sequence[str], profiler: Profiler) -> Step:
        steps = [self._row_step(name) for name in names]

        def answer(rows: pa.RecordBatch) -> Answer:
            profiler.unscored(rows)
            return fallback.answer(rows, steps)

        return answer

    def _row_step(self, name: str) -> Step:
        declared = self.job.declaration.fallback
        if name == "rule":
            return fallback.unless_it_fails("rule", fallback.rule(self._rule_scores), self.warn)
        if name == "carried_forward":
            return self._carried_forward
        if declared.default is None:
            raise FatalError("fallback.default must be declared for the step default")
        return fallback.default(declared.default)

    def warn(self, warning: str) -> None:
        """Tell once that a step did not answer."""
        if warning not in self.warnings:
            self.warnings.append(warning)
            log.warning("answerer failed", warning=warning)

    def _rule_scores(self, rows: pa.RecordBatch) -> Scores:
        version = self.versions[0]
        output = self.job.declaration.model.output
        expression = self.job.declaration.fallback.rule_sql
        if expression is not None:
            return sql_rule_scores(self.job.name, expression, rows, version.extract.columns, output)
        return rule_scores(feature_code(version), rows, version.extract.columns, output)

    def _carried_forward(self, rows: pa.RecordBatch) -> Answer:
        return self._earlier(rows)

    @cached_property
    def _earlier(self) -> Step:
        # Read with the first row that needs it: most nights have none.
        declared = self.job.declaration.fallback.carried_forward
        if declared is None:
            raise FatalError("fallback.carried_forward must be declared for the step carried_forward")
        table = earlier_scores(
            self.env.warehouse_url, self.job.name, self.run.partition, declared.key, declared.max_age_days
        )
        return fallback.carried_forward(table, declared.key)

    def model_step(self, step: ScoreSource, profiler: Profiler) -> Step:
        """A model alone, loaded; raises ModelError when it cannot be."""
        if step == "previous_model" and len(self.versions) == 1:
            raise ModelError("a previous champion must be in the promotion history; there is none")
        version = self.versions[1 if step == "previous_model" else 0]
        _refuse_other_columns(version, self.versions[0])
        code, history = feature_code(version), history_frames(version, self.snapshot)
        model = load_model(version, self.folder, self.env.registry_url, baseline=step == "baseline")
        output = self.job.declaration.model.output
        if step != "baseline":
            _refuse_other_answers(version, model, code, output)

        def answer(rows: pa.RecordBatch) -> Answer:
            frame = features(code, rows, version.extract.columns, history)
            scores = predict(model, frame, output)
            profiler.scored(rows, frame, code.schema, scores)
            return Answer.of(step, scores, version=version.version)

        return answer


def _refuse_other_columns(version: ModelVersion, pinned: ModelVersion) -> None:
    there = pinned.extract.columns
    wanted = {name: kind for name, kind in version.extract.columns.items() if there.get(name) != kind}
    if wanted:
        raise ModelError(
            f"version {version.version} must read columns that version {pinned.version} extracts; got none "
            "of " + ", ".join(f"{name} {kind}" for name, kind in wanted.items())
        )


def _refuse_other_answers(
    version: ModelVersion, model: BaseEstimator, code: FeatureCode, output: Output
) -> None:
    """Raise ModelError where a version answers its known rows otherwise than when it was trained."""
    if known := version.metrics.get("known_answers"):
        KnownAnswers.read(known).check(model, code.schema, output)


def load_model(
    version: ModelVersion, folder: Path, registry_url: str, *, baseline: bool = False, anew: bool = False
) -> BaseEstimator:
    """A version's registered model or its baseline, fetched into `folder`, hash checked; else ModelError."""
    uri, sha256 = (
        (version.baseline_uri, version.baseline_sha256)
        if baseline
        else (version.model_uri, version.model_sha256)
    )
    file = registry.fetch(uri, folder, registry_url)
    return models.load(file, sha256, version.sklearn_version, anew=anew)


def feature_code(version: ModelVersion) -> FeatureCode:
    """A version's own feature code, loaded from its registered source, hash checked."""
    source = version.feature_source
    if hashlib.sha256(source.encode()).hexdigest() != version.feature_source_sha256:
        raise ModelError(f"the feature source of version {version.version} must be the registered one")
    queries = tuple(sorted(feeding_queries(version.extract, version.history).items()))
    code = _feature_code(version.job, source, queries)
    if code.version != version.feature_version:
        raise ModelError(
            f"the features of version {version.version} must be the registered ones, "
            f"{version.feature_version}; its source and queries make {code.version}"
        )
    return code


@lru_cache(maxsize=8)
def _feature_code(job: str, source: str, queries: tuple[tuple[str, str], ...]) -> FeatureCode:
    return load_feature_code(job, source, dict(queries))


class ChallengerError(ModelError):
    """A challenger could not be loaded or gave no usable score: its champion answers its rows."""


@contextmanager
def _challenger_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Ours are written for people; another error's message may hold rows.
        told = str(error) if isinstance(error, NightshiftError) else type(error).__name__
        raise ChallengerError(told) from error


def shadow_part(
    env: Environment, job: Job, run: Run, version: ModelVersion, part: int, parts: int
) -> list[str]:
    """Keep what a shadow says of a shard's good rows, beside and never among the predictions.

    What it cannot do is a warning: nothing of it fails a night.
    """
    try:
        with env.store.workspace() as folder:
            snapshot = run_files.sealed_snapshot(env.store, run, folder)
            unfit = Unfit.of(run_files.load_verdicts(env.store, run, folder))
            score = Scorers(env, job, run, snapshot, [version], folder).scores_of(version)
            batches = shadows(job, run, version.version, numbered(snapshot.path, part, parts), unfit, score)
            load_shadow(env.warehouse_url, run, part, shadow_schema(job), batches)
    except Exception as error:  # noqa: BLE001 - whatever it is, the night goes on
        told = str(error) if isinstance(error, NightshiftError) else type(error).__name__
        log.warning("shadow failed", version=version.version, part=part, error_type=type(error).__name__)
        return [f"shadow did not answer: {told}"]
    return []


def score_part(
    env: Environment,
    job: Job,
    run: Run,
    versions: Sequence[ModelVersion],
    part: int,
    parts: int,
    challenger: Challenger | None = None,
) -> list[str]:
    """Score a shard by the first answerer that holds through all of it; the warnings tell who did not.

    A challenger answers the rows of its arm beside the champion, or none of them. Raises the champion's error
    when nobody else may answer.
    """
    failures: list[Exception] = []
    with env.store.workspace() as folder:
        snapshot = run_files.sealed_snapshot(env.store, run, folder)
        unfit = Unfit.of(run_files.load_verdicts(env.store, run, folder))
        instants = job.instants(run.partition)
        scorers = Scorers(env, job, run, snapshot, versions, folder, challenger)
        arms = partial(scorers.arms, challenger.rollout) if challenger else None
        for name, prepare in scorers.attempts():
            try:
                batches = numbered(snapshot.path, part, parts)
                profiler = Profiler(versions[0].extract, instants, job.declaration.model.threshold)
                good, bad = prepare(profiler), scorers.for_bad_rows(profiler)
                stream = predictions(job, run, batches, unfit, good, bad, profiler.unscored, arms)
                write_part(env, job, run, part, stream, profiler, folder)
            except (ModelError, FeatureError) as error:
                if name == "challenger" and not isinstance(error, ChallengerError):
                    continue  # the champion's own fault: told by its own attempt
                failures.append(error)
                scorers.warn(f"{name} did not answer: {error}")
            else:
                return scorers.warnings
    raise next(error for error in failures if not isinstance(error, ChallengerError))
