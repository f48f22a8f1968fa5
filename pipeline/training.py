"""`nightshift train`, promote and roll back: a model's life as far as the first nights need it."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import structlog

from pipeline.adapters import models, versions
from pipeline.adapters.registry import Lineage, Registry
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import FatalError, UsageError
from pipeline.job import Job
from pipeline.lifecycle import promote as decide
from pipeline.lifecycle.fit import Candidate, TrainingRows, fit
from pipeline.lifecycle.known_answers import KnownAnswers, made_up
from pipeline.lifecycle.promote import Kind, Promotion
from pipeline.monitoring.profile import Profile, merge, profile_features, profile_scores
from pipeline.monitoring.profile_file import dumps
from pipeline.partition import Partition
from pipeline.replay import Replayed, replay, tree_code
from pipeline.scoring.fingerprint import of_many

log = structlog.get_logger()


def registry_of(env: Environment) -> Registry:
    """The MLflow registry of this environment."""
    return Registry(env.registry_url, env.store.root / "registry")


def train(
    env: Environment,
    job_name: str,
    days: Sequence[Partition],
    as_of: datetime,
    seed: int | None,
    on_night: Callable[[Replayed], None],
) -> ModelVersion:
    """Replay nights, fit, and register a version with all that a run needs to use it alone.

    Raises FatalError when there is too little to learn from; before any night is read, UsageError where
    something is asked of the future, DeclarationError or FeatureError.
    """
    job = load_job(env.project, job_name)
    _refuse_future(job, days, as_of, datetime.now(UTC))
    code = tree_code(env, job)
    nights = []
    for night in replay(env, job, code, days, as_of):
        nights.append(night)
        on_night(night)
    settings = job.declaration.train
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    rows = _together(job, nights)
    candidate = fit(code, rows, settings, job.declaration.model.output)
    profile = _profile(job, candidate, rows, nights)
    return _register(env, job, candidate, nights, as_of, profile, _known_answers(job, candidate, rows))


def _known_answers(job: Job, candidate: Candidate, rows: TrainingRows) -> KnownAnswers | None:
    made = made_up(rows.features, candidate.code.schema, job.declaration.extract.pii)
    return None if made is None else KnownAnswers.of(candidate.model, made, candidate.output)


def _profile(job: Job, candidate: Candidate, rows: TrainingRows, nights: Sequence[Replayed]) -> Profile:
    """Inputs of the replayed snapshots, features of the labelled rows, scores of the held-out ones."""
    declaration = job.declaration
    features = profile_features(rows.features, candidate.code.schema, declaration.extract.pii)
    scores = profile_scores(candidate.holdout_scores, declaration.model.threshold)
    return merge([*(night.inputs for night in nights), features, scores])


def _refuse_future(job: Job, days: Sequence[Partition], as_of: datetime, now: datetime) -> None:
    """A source may hold what comes later already, as the live demo's does: nobody learns from it today."""
    if as_of > now:
        raise UsageError(f"--as-of must not lie in the future; got {as_of.isoformat()}")
    if coming := [str(day) for day in days if job.instants(day).cutoff > now]:
        raise UsageError(f"nights to learn from must have passed their cut-off; got {coming[0]}")


def _together(job: Job, nights: Sequence[Replayed]) -> TrainingRows:
    learned = [night.rows for night in nights if night.rows is not None]
    if not learned:
        reasons = sorted({night.refused or "no labels" for night in nights})
        raise FatalError(
            f"training {job.name} needs nights that would have published; got none of {len(nights)}: "
            + "; ".join(reasons[:3])
        )
    return TrainingRows(
        features=pd.concat([rows.features for rows in learned], ignore_index=True),
        label=np.concatenate([rows.label for rows in learned]),
        day=np.concatenate([rows.day for rows in learned]),
        key=np.concatenate([rows.key for rows in learned]),
    )


def _register(
    env: Environment,
    job: Job,
    candidate: Candidate,
    nights: Sequence[Replayed],
    as_of: datetime,
    profile: Profile,
    known: KnownAnswers | None,
) -> ModelVersion:
    declaration = job.declaration
    left_out = {night.partition.key: night.refused for night in nights if night.refused}
    lineage = Lineage(
        job=job.name,
        description=declaration.description,
        labels_as_of=as_of,
        data_fingerprint=of_many(night.fingerprint for night in nights if night.fingerprint),
        code_version=env.code_version,
        owners=declaration.owners.model_dump(mode="json"),
        left_out=left_out,
    )
    sample = next(night.rows.features for night in nights if night.rows is not None).head(100)
    registered = registry_of(env).register(candidate, lineage, sample, dumps(profile))
    source = candidate.code.source
    made = ModelVersion(
        job=job.name,
        version=registered.version,
        feature_version=candidate.code.version,
        feature_source=source,
        feature_source_sha256=hashlib.sha256(source.encode()).hexdigest(),
        queries=versions.queries_json(declaration.extract, declaration.history),
        model_uri=registered.model_uri,
        model_sha256=registered.model_sha256,
        baseline_uri=registered.baseline_uri,
        baseline_sha256=registered.baseline_sha256,
        sklearn_version=models.sklearn_version(),
        trained_from=candidate.first,
        trained_to=candidate.last,
        labels_as_of=as_of,
        rows=candidate.rows,
        data_fingerprint=lineage.data_fingerprint,
        code_version=lineage.code_version,
        seed=candidate.seed,
        metrics=_metrics_json(candidate, left_out, known),
        owners=lineage.owners,
        registry_run_id=registered.run_id,
        profile_uri=registered.profile_uri,
        profile_sha256=registered.profile_sha256,
    )
    with env.engine.begin() as connection:
        versions.insert(connection, made)
    return made


def _metrics_json(
    candidate: Candidate, left_out: dict[str, str], known: KnownAnswers | None
) -> dict[str, Any]:
    held = asdict(candidate.holdout)
    held |= {"first": candidate.holdout.first.isoformat(), "last": candidate.holdout.last.isoformat()}
    return {
        "holdout": held,
        "nights": candidate.nights,
        "nights_left_out": left_out,
        "refit_on_all": True,
        **({"known_answers": known.written()} if known else {}),
    }


def promote(
    env: Environment,
    job_name: str,
    number: int,
    *,
    approved_by: str,
    reason: str,
    effective_from: datetime | None = None,
) -> tuple[Promotion, list[str]]:
    """Make a version the champion; the promotion, and warnings where MLflow could not follow."""
    job = load_job(env.project, job_name)
    decide.check_approver(approved_by, job.declaration.owners.approvers)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        promotion = _record(
            connection,
            versions.version(connection, job.name, number),
            kind="promote",
            approved_by=approved_by,
            reason=reason,
            effective_from=effective_from or datetime.now(UTC),
        )
    return promotion, _mirror(env, job.name)


def rollback(
    env: Environment, job_name: str, *, approved_by: str | None, reason: str
) -> tuple[Promotion, list[str]]:
    """Return to the champion before; without an approver, the approval that version already had stands."""
    job = load_job(env.project, job_name)
    if approved_by is not None:
        decide.check_approver(approved_by, job.declaration.owners.approvers)
    now = datetime.now(UTC)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        history = versions.promotion_history(connection, job.name)
        number = decide.rollback_version(history, now)
        approval = [row.approved_by for row in history if row.version == number and row.kind == "promote"]
        promotion = _record(
            connection,
            versions.version(connection, job.name, number),
            kind="rollback",
            approved_by=approved_by or approval[-1],
            reason=reason,
            effective_from=now,
        )
    return promotion, _mirror(env, job.name)


def _record(
    connection: sa.Connection,
    version: ModelVersion,
    *,
    kind: Kind,
    approved_by: str,
    reason: str,
    effective_from: datetime,
) -> Promotion:
    return versions.record_promotion(
        connection,
        version,
        kind=kind,
        actor=getpass.getuser(),
        approved_by=approved_by,
        reason=reason,
        effective_from=effective_from,
    )


def _mirror(env: Environment, job: str) -> list[str]:
    """Let MLflow's alias follow what is in force now; its failure is a warning, the table is the truth."""
    with env.engine.connect() as connection:
        champion = decide.in_force(versions.promotion_history(connection, job), datetime.now(UTC))
    if champion is None:
        return []
    try:
        registry_of(env).mirror(job, champion.version)
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the promotion stands
        log.warning("MLflow did not follow", error=type(error).__name__)
        return [f"MLflow's alias did not follow ({type(error).__name__}); `nightshift check` will tell again"]
    return []
