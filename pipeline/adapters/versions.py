"""Registered versions and the promotion history: the tables that a night trusts, without MLflow.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects.postgresql import insert as upsert

from pipeline.adapters.tables import model_versions, promotions
from pipeline.errors import RegistryError
from pipeline.job import Extract, HistoryQuery
from pipeline.lifecycle import promote as decide
from pipeline.lifecycle.promote import Kind, Promotion

NIGHT_DISTANCE = "night_distance"
"""The metric of a version that tells how far nights of its training lie from all of its rows, by feature."""

_HISTORY = TypeAdapter(dict[str, HistoryQuery])


@dataclass(frozen=True)
class ModelVersion:
    """One registered version: its artifacts, its own feature code and queries, and what made it."""

    job: str
    version: int
    feature_version: str
    feature_source: str
    feature_source_sha256: str
    queries: Mapping[str, Any]
    """`extract` and `history`, as the declaration had them."""
    model_uri: str
    model_sha256: str
    baseline_uri: str
    baseline_sha256: str
    sklearn_version: str
    trained_from: date
    trained_to: date
    labels_as_of: datetime
    rows: int
    data_fingerprint: str
    code_version: str
    seed: int
    metrics: Mapping[str, Any]
    owners: Mapping[str, Any]
    registry_run_id: str
    profile_uri: str | None = None
    profile_sha256: str | None = None
    environment_sha256: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """The fingerprint of each night's snapshot by its day; empty of older versions."""
    refit_of: int | None = None
    """The accepted version that this one was fitted like, on more nights."""
    challenger_of: int | None = None
    """The champion when this version was trained."""
    trigger: str = "manual"
    trigger_evidence: str | None = None
    training_key: str | None = None
    """Names the training that registered it, whatever its attempts."""

    @property
    def judged_as(self) -> int:
        """The version whose verdict counts for this one: what a refit was made of, else itself."""
        return self.refit_of or self.version

    @property
    def extract(self) -> Extract:
        """The extract that this version was trained over."""
        return Extract.model_validate_json(json.dumps(self.queries["extract"]))

    @property
    def history(self) -> dict[str, HistoryQuery]:
        """The history queries that its features need."""
        return _HISTORY.validate_json(json.dumps(self.queries["history"]))


def queries_json(extract: Extract, history: Mapping[str, HistoryQuery]) -> dict[str, Any]:
    """Extract and history as the versions table keeps them."""
    return {
        "extract": extract.model_dump(mode="json"),
        "history": {name: query.model_dump(mode="json") for name, query in history.items()},
    }


def insert(connection: sa.Connection, version: ModelVersion) -> ModelVersion:
    """Append a version; from now on nights may use it. What stands for its training.

    Where another attempt at the same training was first, that one's version stands and this one is not
    appended. Raises RegistryError when its number is taken.
    """
    once = upsert(model_versions).on_conflict_do_nothing(index_elements=["job", "training_key"])
    try:
        with connection.begin_nested():
            appended = connection.execute(once.values(**vars(version))).rowcount == 1
    except sa.exc.IntegrityError as error:
        raise RegistryError(
            f"version {version.version} of {version.job} must be new; it is registered already, so another "
            "MLflow registry numbered it. Point NIGHTSHIFT_REGISTRY_URL to that one and train again"
        ) from error
    first = None if appended else of_training(connection, version.job, str(version.training_key))
    return first or version


def of_training(connection: sa.Connection, job: str, key: str) -> ModelVersion | None:
    """The version that an attempt at this training has registered, if any has."""
    columns = [column for column in model_versions.c if column.name != "registered_at"]
    statement = sa.select(*columns).filter_by(job=job, training_key=key)
    row = connection.execute(statement).mappings().first()
    return None if row is None else ModelVersion(**row)


def version(connection: sa.Connection, job: str, number: int) -> ModelVersion:
    """A registered version; raises RegistryError naming those there are."""
    columns = [column for column in model_versions.c if column.name != "registered_at"]
    statement = sa.select(*columns).where(model_versions.c.job == job, model_versions.c.version == number)
    row = connection.execute(statement).mappings().first()
    if row is None:
        there = ", ".join(map(str, numbers(connection, job))) or "none"
        raise RegistryError(
            f"version {number} of {job} must be registered; there are: {there}. "
            f"Register one: nightshift train {job} --from … --to …"
        )
    return ModelVersion(**row)


def numbers(connection: sa.Connection, job: str) -> list[int]:
    """The numbers of a job's versions, sorted."""
    statement = sa.select(model_versions.c.version).where(model_versions.c.job == job)
    return sorted(connection.execute(statement).scalars())


def promotion_history(connection: sa.Connection, job: str) -> list[Promotion]:
    """Every promotion and roll-back of a job, in the order of recording."""
    statement = sa.select(promotions).where(promotions.c.job == job).order_by(promotions.c.promotion_no)
    return [Promotion(**row) for row in connection.execute(statement).mappings()]


def in_force(connection: sa.Connection, job: str, at: datetime | None = None) -> Promotion:
    """The promotion in force at an instant, now by default; raises RegistryError when there is none."""
    found = decide.in_force(promotion_history(connection, job), at or now(connection))
    if found is None:
        when = f"at {at.isoformat()}" if at else "now"
        raise RegistryError(
            f"a champion of {job} must be in force {when}; there is none. Promote one: "
            f"nightshift promote {job} VERSION --approved-by WHO --reason … --effective-from INSTANT, "
            "or choose --model current or VERSION"
        )
    return found


def champion(connection: sa.Connection, job: str) -> Promotion | None:
    """The promotion in force now, by the warehouse's clock; None where there is none."""
    return decide.in_force(promotion_history(connection, job), now(connection))


def with_predecessor(
    connection: sa.Connection, job: str, number: int, *, at: datetime, known: datetime
) -> list[ModelVersion]:
    """A version and, where there is one, the champion that stood behind it.

    By the promotions in force by `at` of those recorded by `known`, so that each step of a run gets the same.
    """
    history = [
        row
        for row in promotion_history(connection, job)
        if row.effective_from <= at and row.recorded_at <= known
    ]
    behind = decide.predecessor(history, number)
    wanted = [number] if behind is None else [number, behind]
    return [version(connection, job, each) for each in wanted]


def record_promotion(
    connection: sa.Connection,
    promoted: ModelVersion,
    *,
    kind: Kind,
    actor: str,
    approved_by: str,
    reason: str,
    effective_from: datetime,
) -> Promotion:
    """Append to the history of the version's job; the caller holds `lock`."""
    before = decide.in_force(promotion_history(connection, promoted.job), effective_from)
    statement = sa.insert(promotions).values(
        job=promoted.job,
        version=promoted.version,
        previous_version=before.version if before else None,
        kind=kind,
        effective_from=effective_from,
        actor=actor,
        approved_by=approved_by,
        reason=reason,
        model_sha256=promoted.model_sha256,
    )
    return Promotion(**connection.execute(statement.returning(promotions)).mappings().one())


def lock(connection: sa.Connection, job: str) -> None:
    """Let one change of a job's history or versions happen at a time, until the transaction ends."""
    name = f"nightshift versions {job}"
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def now(connection: sa.Connection) -> datetime:
    """The instant by the warehouse's clock: one for all machines, so that histories have one order."""
    instant: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return instant.astimezone(UTC)


def alias_faults(job: str, champion: int, alias: int | None) -> list[str]:
    """Where MLflow's alias `champion` and the promotion history, by which it must be `champion`, disagree."""
    if alias == champion:
        return []
    return [f"MLflow's alias champion of {job} must be version {champion}; it is {alias}"]
