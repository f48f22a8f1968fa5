"""MLflow as the registry that people look at; the only module that imports it.

What a night trusts stands in the tables of `pipeline.adapters.versions`; MLflow mirrors it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from upath import UPath

from pipeline.adapters import models
from pipeline.adapters.store import sha256_of
from pipeline.adapters.versions import ModelVersion
from pipeline.errors import ModelError, RegistryError
from pipeline.lifecycle.fit import Candidate

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

ALIAS = "champion"
CHALLENGER = "challenger"
_LOCK = 7_305_414_022


@dataclass(frozen=True)
class Lineage:
    """What made a candidate, beyond what the candidate knows itself."""

    job: str
    description: str
    labels_as_of: datetime
    data_fingerprint: str
    code_version: str
    owners: Mapping[str, Any]
    left_out: Mapping[str, str]
    """Nights that could not be replayed, with the reason."""
    fingerprints: Mapping[str, str]
    """Of each night's snapshot, by its day."""
    environment_sha256: str | None = None
    refit_of: int | None = None
    challenger_of: int | None = None
    trigger: str = "manual"
    trigger_evidence: str | None = None
    training_key: str | None = None


@dataclass(frozen=True)
class Registered:
    """Where MLflow keeps a version, and the sha256 of the files that a night loads."""

    version: int
    run_id: str
    model_uri: str
    model_sha256: str
    baseline_uri: str
    baseline_sha256: str
    profile_uri: str
    profile_sha256: str


@dataclass(frozen=True)
class Registry:
    """One MLflow registry: its database or server, and the folder of its artifacts."""

    url: str
    artifacts: UPath

    def register(
        self, candidate: Candidate, lineage: Lineage, sample: pd.DataFrame, profile: bytes
    ) -> Registered:
        """Log model, baseline, feature source, profile, parameters and metrics; register a new version.

        `sample` is a feature frame that fixes the signature; none of its values is stored. Raises ModelError,
        before anything is logged, for a model that no night would load; RegistryError when MLflow refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            models.save(candidate.model, Path(folder), "model")
            with _mlflow(self.url):
                return self._log(candidate, lineage, sample, profile, Path(folder))

    def _log(
        self, candidate: Candidate, lineage: Lineage, sample: pd.DataFrame, profile: bytes, folder: Path
    ) -> Registered:
        import mlflow
        from mlflow.models import infer_signature
        from mlflow.sklearn import log_model

        client = self._client()
        experiment = self._experiment(client, lineage.job)
        method = "predict_proba" if candidate.output == "probability" else "predict"
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_params(_parameters(candidate))
            mlflow.log_metrics(candidate.holdout.metrics())
            mlflow.set_tags(_tags(candidate, lineage))
            mlflow.log_text(candidate.code.source, f"features/{lineage.job}.py")
            made_of = {"parameters": candidate.parameters(), "fingerprints": dict(lineage.fingerprints)}
            mlflow.log_dict(made_of, "lineage.json")
            baseline, baseline_sha256 = models.save(candidate.baseline, folder, "baseline")
            mlflow.log_artifact(str(baseline), "baseline")
            profile_file = folder / "profile.json.zst"
            profile_file.write_bytes(profile)
            mlflow.log_artifact(str(profile_file), "profile")
            # MLflow tells on stderr what the command itself tells better.
            with contextlib.redirect_stderr(io.StringIO()):
                logged = log_model(
                    candidate.model,
                    name="model",
                    serialization_format="skops",
                    skops_trusted_types=sorted(models.ALLOWED_TYPES),
                    signature=infer_signature(sample, getattr(candidate.model, method)(sample)),
                    registered_model_name=lineage.job,
                    pyfunc_predict_fn=method,
                    pip_requirements=[f"scikit-learn=={models.sklearn_version()}", "skops"],
                )
            client.update_registered_model(lineage.job, description=lineage.description)
            model_folder = client.get_logged_model(logged.model_id).artifact_location
            model_uri = f"{model_folder.rstrip('/')}/model.skops"
            return Registered(
                version=int(logged.registered_model_version),
                run_id=run.info.run_id,
                model_uri=model_uri,
                model_sha256=sha256_of(fetch(model_uri, folder, self.url)),
                baseline_uri=f"{run.info.artifact_uri.rstrip('/')}/baseline/{baseline.name}",
                baseline_sha256=baseline_sha256,
                profile_uri=f"{run.info.artifact_uri.rstrip('/')}/profile/{profile_file.name}",
                profile_sha256=sha256_of(profile_file),
            )

    def mirror(self, job: str, version: int) -> None:
        """Let MLflow's alias `champion` follow the promotion history; raises RegistryError.

        A champion is no challenger any more.
        """
        with _mlflow(self.url):
            client = self._client()
            client.set_registered_model_alias(job, ALIAS, str(version))
            if _alias(client, job, CHALLENGER) == version:
                client.delete_registered_model_alias(job, CHALLENGER)

    def challenge(self, job: str, version: int) -> None:
        """Let MLflow's alias `challenger` name the newest version; raises RegistryError."""
        with _mlflow(self.url):
            self._client().set_registered_model_alias(job, CHALLENGER, str(version))

    def alias(self, job: str, alias: str = ALIAS) -> int | None:
        """The version that MLflow's alias names, if any; raises RegistryError."""
        with _mlflow(self.url):
            return _alias(self._client(), job, alias)

    def artifact_faults(self, version: ModelVersion) -> list[str]:
        """Why a night could not load a version's files, one sentence each; empty when it could."""
        faults = []
        with tempfile.TemporaryDirectory() as folder:
            for uri, sha256 in (
                (version.model_uri, version.model_sha256),
                (version.baseline_uri, version.baseline_sha256),
            ):
                try:
                    models.load(fetch(uri, Path(folder), self.url), sha256, version.sklearn_version)
                except ModelError as error:
                    faults.append(f"{version.job} version {version.version}: {error}")
        return faults

    def _client(self) -> MlflowClient:
        import mlflow

        url = self.url.replace("postgresql://", "postgresql+psycopg://", 1)
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        with _one_migration_at_a_time(url):
            return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)

    def _experiment(self, client: MlflowClient, job: str) -> str:
        if found := client.get_experiment_by_name(job):
            return str(found.experiment_id)
        return str(client.create_experiment(job, artifact_location=_artifact_root(self.artifacts / job)))


def _alias(client: MlflowClient, job: str, alias: str) -> int | None:
    # By search: to any other question, a model that is not there is an error.
    found = client.search_registered_models(f"name = '{job}'")
    number = found[0].aliases.get(alias) if found else None
    return None if number is None else int(number)


def fetch(uri: str, folder: Path, registry_url: str | None = None) -> Path:
    """A local copy of an artifact in `folder`; raises ModelError when it cannot be had.

    MLflow itself is asked only for what its own server keeps, at `registry_url`.
    """
    # A place of its own: a download that failed leaves a folder behind, and names repeat among versions.
    place = Path(mkdtemp(prefix="fetched-", dir=folder))
    local = place / uri.rsplit("/", 1)[-1]
    try:
        if uri.startswith("mlflow-artifacts:"):
            return _download(uri, place, registry_url)
        local.write_bytes(UPath(uri.removeprefix("file://")).read_bytes())
    except (OSError, ImportError, ValueError, RegistryError) as error:
        raise ModelError(f"artifact {uri} must be readable; got {type(error).__name__}: {error}") from error
    return local


def _download(uri: str, folder: Path, registry_url: str | None) -> Path:
    if registry_url is None:
        raise ValueError("no registry URL; an MLflow server keeps this artifact")
    with _mlflow(registry_url):
        import mlflow

        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=registry_url))


@contextlib.contextmanager
def _mlflow(url: str) -> Iterator[None]:
    """MLflow without its chatter and telemetry, which it starts when it is imported; its errors as ours."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    # Its own seven retries keep a night waiting for minutes where a fallback could answer.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    except (MlflowException, sa.exc.SQLAlchemyError) as error:
        told = str(error).partition("\n")[0].replace(sa.make_url(url).password or url, "***")
        raise RegistryError(
            f"the MLflow registry must answer; got {type(error).__name__}: {told}. "
            "See that NIGHTSHIFT_REGISTRY_URL is right and that it runs"
        ) from error


def _artifact_root(folder: UPath) -> str:
    return f"file://{folder.path}" if folder.protocol in ("", "file") else str(folder)


@contextlib.contextmanager
def _one_migration_at_a_time(url: str) -> Iterator[None]:
    """Two processes on an empty database would race in MLflow's migrations, and one would die."""
    if url.startswith("postgresql"):
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection, connection.begin():
            connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield
    elif url.startswith("sqlite"):
        database = Path(sa.make_url(url).database or "registry.db")
        database.parent.mkdir(parents=True, exist_ok=True)
        with database.with_name(f"{database.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    else:
        yield


def _parameters(candidate: Candidate) -> dict[str, Any]:
    return {
        "seed": candidate.seed,
        "nights": candidate.nights,
        "rows": candidate.rows,
        "trained_from": candidate.first,
        "trained_to": candidate.last,
        "holdout_from": candidate.holdout.first,
        "holdout_nights": candidate.holdout.nights,
        "refit_on_all": candidate.refit_on_all,
    }


def _tags(candidate: Candidate, lineage: Lineage) -> dict[str, str]:
    return {
        "feature_version": candidate.code.version,
        "labels_as_of": lineage.labels_as_of.isoformat(),
        "data_fingerprint": lineage.data_fingerprint,
        "code_version": lineage.code_version,
        "owners": json.dumps(lineage.owners),
        "nights_left_out": json.dumps(lineage.left_out),
        "environment_sha256": lineage.environment_sha256 or "none",
        "trigger": lineage.trigger,
        "trigger_evidence": lineage.trigger_evidence or "",
        "refit_of": str(lineage.refit_of or ""),
        "challenger_of": str(lineage.challenger_of or ""),
        "training_key": lineage.training_key or "",
    }
