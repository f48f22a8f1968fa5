# TO THE HELPER OF TASK models.md: this file and adapters/versions.py are DONE and in use by steps, training,
# cli. Do not rewrite or replace them (no tracking.py). Only: write tests/adapters/test_registry.py,
# test_versions.py and tests/test_every_job.py against them, mend bugs in place, then report.
"""MLflow as the registry that people look at; the only module that imports it.

What a night trusts stands in the tables of `pipeline.adapters.versions`; MLflow mirrors it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from upath import UPath

from pipeline.adapters import models
from pipeline.adapters.store import sha256_of
from pipeline.lifecycle.fit import Candidate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from mlflow import MlflowClient

ALIAS = "champion"
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


@dataclass(frozen=True)
class Registered:
    """Where MLflow keeps a version, and the sha256 of the files that a night loads."""

    version: int
    run_id: str
    model_uri: str
    model_sha256: str
    baseline_uri: str
    baseline_sha256: str


@dataclass(frozen=True)
class Registry:
    """One MLflow registry: its database or server, and the folder of its artifacts."""

    url: str
    artifacts: UPath

    def register(self, candidate: Candidate, lineage: Lineage, sample: pd.DataFrame) -> Registered:
        """Log model, baseline, feature source, parameters and metrics; register a new version of the job.

        `sample` is a feature frame that fixes the signature; none of its values is stored.
        """
        import mlflow
        from mlflow.models import infer_signature
        from mlflow.sklearn import log_model

        client = self._client()
        experiment = self._experiment(client, lineage.job)
        with (
            tempfile.TemporaryDirectory() as folder,
            mlflow.start_run(experiment_id=experiment) as run,
        ):
            mlflow.log_params(_parameters(candidate))
            mlflow.log_metrics(_metrics(candidate))
            mlflow.set_tags(_tags(candidate, lineage))
            source = Path(folder) / "features" / f"{lineage.job}.py"
            source.parent.mkdir()
            source.write_text(candidate.code.source, encoding="utf-8")
            mlflow.log_artifact(str(source), "features")
            baseline, baseline_sha256 = models.save(candidate.baseline, Path(folder), "baseline")
            mlflow.log_artifact(str(baseline), "baseline")
            # MLflow tells on stderr what the command itself tells better.
            with contextlib.redirect_stderr(io.StringIO()):
                logged = log_model(
                    candidate.model,
                    name="model",
                    serialization_format="skops",
                    skops_trusted_types=sorted(models.ALLOWED_TYPES),
                    signature=infer_signature(sample, _scores(candidate, sample)),
                    registered_model_name=lineage.job,
                    pyfunc_predict_fn="predict_proba" if candidate.output == "probability" else "predict",
                    pip_requirements=[f"scikit-learn=={models.sklearn_version()}", "skops"],
                )
            client.update_registered_model(lineage.job, description=lineage.description)
            model_folder = client.get_logged_model(logged.model_id).artifact_location
            model_uri = f"{model_folder.rstrip('/')}/model.skops"
            return Registered(
                version=int(logged.registered_model_version),
                run_id=run.info.run_id,
                model_uri=model_uri,
                model_sha256=sha256_of(fetch(model_uri, Path(folder))),
                baseline_uri=f"{run.info.artifact_uri.rstrip('/')}/baseline/{baseline.name}",
                baseline_sha256=baseline_sha256,
            )

    def mirror(self, job: str, version: int) -> None:
        """Let MLflow's alias `champion` follow the promotion history."""
        self._client().set_registered_model_alias(job, ALIAS, str(version))

    def alias(self, job: str) -> int | None:
        """The version that MLflow's alias `champion` names, if any."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._client().get_registered_model(job).aliases
        except MlflowException:
            return None
        return int(aliases[ALIAS]) if ALIAS in aliases else None

    def _client(self) -> MlflowClient:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        url = _with_driver(self.url)
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        with _one_migration_at_a_time(url):
            return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)

    def _experiment(self, client: MlflowClient, job: str) -> str:
        found = client.get_experiment_by_name(job)
        if found is not None:
            return str(found.experiment_id)
        return str(client.create_experiment(job, artifact_location=_artifact_root(self.artifacts / job)))


def fetch(uri: str, folder: Path) -> Path:
    """A local copy of an artifact in `folder`; MLflow itself is asked only for its own servers' artifacts."""
    local = folder / f"fetched-{uri.rsplit('/', 1)[-1]}"
    if uri.startswith(("mlflow-artifacts:", "runs:", "models:")):
        import mlflow

        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(local)))
    local.write_bytes(UPath(uri.removeprefix("file://")).read_bytes())
    return local


def _with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _artifact_root(folder: UPath) -> str:
    return f"file://{folder.path}" if folder.protocol in ("", "file") else str(folder)


@contextlib.contextmanager
def _one_migration_at_a_time(url: str) -> Iterator[None]:
    """Two processes on an empty database would race in MLflow's migrations, and one would die."""
    if not url.startswith("postgresql"):
        yield
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield


def _scores(candidate: Candidate, sample: pd.DataFrame) -> npt.NDArray[np.float64]:
    name = "predict_proba" if candidate.output == "probability" else "predict"
    scores: npt.NDArray[np.float64] = getattr(candidate.model, name)(sample)
    return scores


def _parameters(candidate: Candidate) -> dict[str, Any]:
    return {
        "seed": candidate.seed,
        "nights": candidate.nights,
        "rows": candidate.rows,
        "trained_from": candidate.first,
        "trained_to": candidate.last,
        "holdout_from": candidate.holdout.first,
        "holdout_nights": candidate.holdout.nights,
        "refit_on_all": True,
    }


def _metrics(candidate: Candidate) -> dict[str, float]:
    held = candidate.holdout
    return (
        {f"holdout_{name}": value for name, value in held.model.items()}
        | {f"holdout_baseline_{name}": value for name, value in held.baseline.items()}
        | {"holdout_rows": held.rows, "holdout_mean_label": held.mean_label}
    )


def _tags(candidate: Candidate, lineage: Lineage) -> dict[str, str]:
    return {
        "feature_version": candidate.code.version,
        "labels_as_of": lineage.labels_as_of.isoformat(),
        "data_fingerprint": lineage.data_fingerprint,
        "code_version": lineage.code_version,
        "owners": json.dumps(lineage.owners),
        "nights_left_out": json.dumps(lineage.left_out),
    }
