"""`nightshift train`, promote and roll back: a model's life as far as the first nights need it."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import structlog

from pipeline.adapters import models, verdict_book, versions
from pipeline.adapters.registry import Lineage, Registry
from pipeline.adapters.verdict_book import Recorded
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import FatalError, UsageError
from pipeline.job import Job
from pipeline.job_life import LARGEST_SEED
from pipeline.lifecycle import promote as decide
from pipeline.lifecycle.fit import Candidate, TrainingRows, fit
from pipeline.lifecycle.known_answers import KnownAnswers, made_up
from pipeline.lifecycle.promote import Kind, Promotion
from pipeline.monitoring.metrics import night_distances
from pipeline.monitoring.profile import Profile, merge, profile_features, profile_scores
from pipeline.monitoring.profile_file import dumps
from pipeline.partition import Partition
from pipeline.replay import Replayed, replay, tree_code
from pipeline.scoring.fingerprint import of_many

log = structlog.get_logger()


@dataclass(frozen=True)
class Cause:
    """What asks for a training: manual, schedule, or the kind of a trigger that fired, with its evidence."""

    trigger: str = "manual"
    evidence: str | None = None
    refit_of: int | None = None
    """The accepted version that is fitted again, on more nights."""
    key: str | None = None
    """Names the training, whatever its attempts: a later one finds what an earlier has registered."""


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
    cause: Cause = Cause(),
) -> ModelVersion:
    """Replay nights, fit, and register a version with all that a run needs to use it alone.

    Of several attempts at a training that has a key one registers; to the others its version is given, with
    the labels that it knew. What MLflow got from them no table names, and no night loads.

    Raises FatalError when there is too little to learn from; before any night is read, DeclarationError,
    FeatureError, or UsageError: something of the future, a seed that is none, another training's key.
    """
    job = load_job(env.project, job_name)
    _refuse_future(job, days, as_of, datetime.now(UTC))
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed must be from 0 to {LARGEST_SEED}; got {seed}")
    made = _of_an_earlier_attempt(env, job, days, seed, cause)
    if made is None:
        made = _fitted(env, job, days, as_of, seed, on_night, cause)
    _challenge(env, made)
    return made


def _of_an_earlier_attempt(
    env: Environment, job: Job, days: Sequence[Partition], seed: int | None, cause: Cause
) -> ModelVersion | None:
    """What the training has registered; raises UsageError where its key stands for another one."""
    if cause.key is None:
        return None
    with env.engine.connect() as connection:
        found = versions.of_training(connection, job.name, cause.key)
    if found is None:
        return None
    nights = sorted({*found.fingerprints, *found.metrics["nights_left_out"]})
    if (nights, found.refit_of) != (sorted(day.key for day in days), cause.refit_of) or (
        seed not in (None, found.seed)
    ):
        raise UsageError(
            f"the key {cause.key!r} must name one training of {job.name}; version {found.version} has it, "
            f"made of {nights[0]} to {nights[-1]} with seed {found.seed}. Name another key"
        )
    log.info("registered by an earlier attempt", job=job.name, version=found.version, key=cause.key)
    return found


def _challenge(env: Environment, made: ModelVersion) -> None:
    """Let MLflow's alias name the version, unless a newer one came or it is champion by now."""
    with env.engine.connect() as connection:
        newest = versions.numbers(connection, made.job)[-1]
        champion = versions.champion(connection, made.job)
    if made.version == newest and (champion is None or champion.version != newest):
        _follow("challenger", registry_of(env).challenge, made.job, made.version)


def _fitted(
    env: Environment,
    job: Job,
    days: Sequence[Partition],
    as_of: datetime,
    seed: int | None,
    on_night: Callable[[Replayed], None],
    cause: Cause,
) -> ModelVersion:
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
    kept = _kept(job, candidate, rows, nights)
    return _register(env, job, candidate, nights, as_of, kept, cause)


@dataclass(frozen=True)
class _Kept:
    """What is kept of a training beside its model: what it has seen, and what it has answered."""

    profile: Profile
    night_distance: Mapping[str, float]
    known: KnownAnswers | None


def _kept(job: Job, candidate: Candidate, rows: TrainingRows, nights: Sequence[Replayed]) -> _Kept:
    """Inputs of the replayed snapshots, features of the labelled rows, scores of the held-out ones."""
    declaration, schema = job.declaration, candidate.code.schema
    learned = [night.rows.features for night in nights if night.rows is not None]
    features = [profile_features(each, schema, declaration.extract.pii) for each in learned]
    scores = profile_scores(candidate.holdout_scores, declaration.model.threshold)
    profile = merge([*(night.inputs for night in nights), *features, scores])
    return _Kept(profile, night_distances(features, profile), _known_answers(job, candidate, rows))


def _known_answers(job: Job, candidate: Candidate, rows: TrainingRows) -> KnownAnswers | None:
    made = made_up(rows.features, candidate.code.schema, job.declaration.extract.pii)
    return None if made is None else KnownAnswers.of(candidate.model, made, candidate.output)


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
    kept: _Kept,
    cause: Cause,
) -> ModelVersion:
    declaration = job.declaration
    left_out = {night.partition.key: night.refused for night in nights if night.refused}
    with env.engine.connect() as connection:
        champion = versions.champion(connection, job.name)
    lineage = Lineage(
        job=job.name,
        description=declaration.description,
        labels_as_of=as_of,
        data_fingerprint=of_many(night.fingerprint for night in nights if night.fingerprint),
        code_version=env.code_version,
        owners=declaration.owners.model_dump(mode="json"),
        left_out=left_out,
        fingerprints={night.partition.key: night.fingerprint for night in nights if night.fingerprint},
        environment_sha256=env.lock_sha256,
        refit_of=cause.refit_of,
        challenger_of=champion.version if champion else None,
        trigger=cause.trigger,
        trigger_evidence=cause.evidence,
        training_key=cause.key,
    )
    sample = next(night.rows.features for night in nights if night.rows is not None).head(100)
    registered = registry_of(env).register(candidate, lineage, sample, dumps(kept.profile))
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
        metrics=_metrics_json(candidate, nights, kept),
        owners=lineage.owners,
        registry_run_id=registered.run_id,
        profile_uri=registered.profile_uri,
        profile_sha256=registered.profile_sha256,
        environment_sha256=lineage.environment_sha256,
        parameters=candidate.parameters(),
        fingerprints=lineage.fingerprints,
        refit_of=lineage.refit_of,
        challenger_of=lineage.challenger_of,
        trigger=lineage.trigger,
        trigger_evidence=lineage.trigger_evidence,
        training_key=lineage.training_key,
    )
    with env.engine.begin() as connection:
        return versions.insert(connection, made)


def _metrics_json(candidate: Candidate, nights: Sequence[Replayed], kept: _Kept) -> dict[str, Any]:
    held = asdict(candidate.holdout)
    held |= {"first": candidate.holdout.first.isoformat(), "last": candidate.holdout.last.isoformat()}
    return {
        "holdout": held,
        "nights": candidate.nights,
        "nights_left_out": {night.partition.key: night.refused for night in nights if night.refused},
        "nights_reused": {night.partition.key: night.reused for night in nights if night.reused},
        "calibrated": candidate.calibrated,
        "refit_on_all": candidate.refit_on_all,
        versions.NIGHT_DISTANCE: dict(kept.night_distance),
        **({"known_answers": kept.known.written()} if kept.known else {}),
    }


def promote(
    env: Environment,
    job_name: str,
    number: int,
    *,
    approved_by: str,
    reason: str,
    effective_from: datetime | None = None,
    actor: str | None = None,
) -> tuple[Promotion, list[str]]:
    """Make a version the champion; the promotion, and warnings.

    They tell that the gate has not accepted a version in place of the one that it replaces, that it is not
    champion now, as its instant is to come or another one came since, and where MLflow did not follow.
    `actor` is who asks for it, the system's user when unset; one that is given names one request: tried
    again, its promotion stands.
    """
    job = load_job(env.project, job_name)
    decide.check_approver(approved_by, job.declaration.owners.approvers)
    decide.check_reason(reason)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        before = versions.promotion_history(connection, job.name)
        promoted = versions.version(connection, job.name, number)
        made = next((row for row in before if row.actor == actor and row.version == number), None)
        promotion = made or _record(
            connection,
            promoted,
            kind="promote",
            actor=actor or getpass.getuser(),
            approved_by=approved_by,
            reason=reason,
            effective_from=effective_from or versions.now(connection),
        )
        said = verdict_book.newest(connection, job.name, promoted.judged_as)
        champion = versions.champion(connection, job.name)
    unjudged = _unaccepted(promotion, promoted.judged_as, said) if before else []
    return promotion, [*unjudged, *_elsewhen(promotion, champion), *_mirror(env, job.name)]


def _unaccepted(promotion: Promotion, number: int, said: Recorded | None) -> list[str]:
    """What an approver should know where the gate has not accepted version `number` for the one replaced."""
    if said is None:
        return [f"the gate was never asked about version {number}: nightshift gate {promotion.job} {number}"]
    newest = f"the gate's newest verdict on version {number}, number {said.verdict_no},"
    if said.outcome != "accept":
        checks = ", ".join(one.check.replace("_", " ") for one in said.reasons if one.outcome != "accept")
        told = "refused it" if said.outcome == "refuse" else "had not enough evidence"
        return [f"{newest} {told}: {checks}"]
    replaced = promotion.previous_version
    if replaced in (None, said.champion, promotion.version):
        return []
    return [f"{newest} accepted it against version {said.champion}, not against the champion, {replaced}"]


def _elsewhen(promotion: Promotion, champion: Promotion | None) -> list[str]:
    """What an approver should know of a promotion that is not in force now."""
    if champion is not None and champion.version == promotion.version:
        return []
    now = "there is none" if champion is None else f"it is {champion.version}"
    since = promotion.effective_from.isoformat()
    return [f"version {promotion.version} is champion from {since} on: now {now}"]


def rollback(
    env: Environment, job_name: str, *, approved_by: str | None, reason: str
) -> tuple[Promotion, list[str]]:
    """Return to the champion before; without an approver, the approval that version already had stands."""
    job = load_job(env.project, job_name)
    if approved_by is not None:
        decide.check_approver(approved_by, job.declaration.owners.approvers)
    decide.check_reason(reason)
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        # Not before the lock: of two at once, the second must see what the first did.
        now = versions.now(connection)
        history = versions.promotion_history(connection, job.name)
        number = decide.rollback_version(history, now)
        approval = [row.approved_by for row in history if row.version == number and row.kind == "promote"]
        promotion = _record(
            connection,
            versions.version(connection, job.name, number),
            kind="rollback",
            actor=getpass.getuser(),
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
    actor: str,
    approved_by: str,
    reason: str,
    effective_from: datetime,
) -> Promotion:
    return versions.record_promotion(
        connection,
        version,
        kind=kind,
        actor=actor,
        approved_by=approved_by,
        reason=reason,
        effective_from=effective_from,
    )


def _mirror(env: Environment, job: str) -> list[str]:
    """Let MLflow's alias follow what is in force now; its failure is a warning, the table is the truth."""
    with env.engine.begin() as connection:
        versions.lock(connection, job)  # of two promotions at once, the later one is told to MLflow last
        champion = versions.champion(connection, job)
        return _follow("champion", registry_of(env).mirror, job, champion.version) if champion else []


def _follow(alias: str, mirror: Callable[[str, int], None], job: str, version: int) -> list[str]:
    """Let an alias of MLflow name a version; what is to be told where it does not."""
    try:
        mirror(job, version)
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the tables are the truth
        log.warning("MLflow did not follow", alias=alias, error=type(error).__name__)
        told = f"MLflow's alias {alias} did not follow ({type(error).__name__})"
        return [f"{told}; `nightshift check` will tell again"]
    return []
