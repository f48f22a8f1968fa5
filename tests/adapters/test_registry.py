from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from upath import UPath

from pipeline.adapters import models
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.registry import Lineage, Registered, Registry, fetch
from pipeline.adapters.store import sha256_of
from pipeline.adapters.versions import ModelVersion
from pipeline.errors import ModelError, RegistryError
from pipeline.lifecycle.fit import Candidate, Holdout
from pipeline.scoring.feature_code import load_feature_code

pytestmark = pytest.mark.integration

SOURCE = """
FEATURES = {"size": "float"}
def make_features(rows, history): ...
def make_model(): ...
def make_baseline(): ...
"""
SAMPLE = pd.DataFrame({"size": [12345.678, 2.0, 3.0, 4.0]})
PROFILE = b"a profile of the training rows"
LINEAGE = Lineage(
    job="toy",
    description="Whether a toy is large.",
    labels_as_of=datetime(2013, 5, 2, tzinfo=UTC),
    data_fingerprint="f" * 64,
    code_version="abc",
    owners={"team": "toys"},
    left_out={},
    fingerprints={"2013-04-28": "a" * 64},
    environment_sha256="e" * 64,
    trigger="on_drift",
    trigger_evidence="a feature moved",
    challenger_of=3,
)


class Foreign(LogisticRegression):  # type: ignore[misc]
    """A model that is not scikit-learn's own."""


@pytest.fixture(autouse=True)
def _mlflow_warns_of_its_own_code() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def url(server: EmbeddedServer) -> Iterator[str]:
    """One database for all registries here: MLflow's migrations take seconds."""
    name = f"registry_{uuid4().hex[:12]}"
    server.create_database(name)
    yield server.url(database=name)
    server.drop_database(name)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Registry:
    return Registry(url, UPath(tmp_path / "registry"))


@pytest.fixture
def lineage() -> Lineage:
    """A job that no other test registers."""
    return dataclasses.replace(LINEAGE, job=f"toy_{uuid4().hex[:8]}")


def candidate(model: BaseEstimator | None = None) -> Candidate:
    model = LogisticRegression() if model is None else model
    held = Holdout(
        first=date(2013, 4, 30),
        last=date(2013, 5, 1),
        nights=2,
        rows=8,
        mean_label=0.25,
        model={"auc": 0.75},
        baseline={"auc": 0.5},
        by_night={},
    )
    return Candidate(
        code=load_feature_code("toy", SOURCE, {}),
        output="probability",
        model=model.fit(SAMPLE, [True, False, True, False]),
        baseline=LogisticRegression(C=0.1).fit(SAMPLE, [True, False, True, False]),
        rows=16,
        nights=4,
        first=date(2013, 4, 28),
        last=date(2013, 5, 1),
        seed=7,
        holdout=held,
        holdout_scores=np.full(8, 0.25),
    )


def version(registered: Registered, **changes: Any) -> ModelVersion:
    made: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(ModelVersion))
    made |= vars(registered) | {"job": "toy", "sklearn_version": models.sklearn_version()} | changes
    return ModelVersion(**{name: made[name] for name in made if name != "run_id"})


def client(registry: Registry) -> Any:
    import mlflow

    return mlflow.MlflowClient(registry.url.replace("postgresql:", "postgresql+psycopg:"))


def test_what_is_registered_can_be_loaded_from_the_store_alone(
    registry: Registry, lineage: Lineage, tmp_path: Path
) -> None:
    made = candidate()
    registered = registry.register(made, lineage, SAMPLE, PROFILE)
    for uri, sha256, fitted in (
        (registered.model_uri, registered.model_sha256, made.model),
        (registered.baseline_uri, registered.baseline_sha256, made.baseline),
    ):
        assert uri.startswith(f"file://{tmp_path}/registry/{lineage.job}/")
        loaded = models.load(fetch(uri, tmp_path), sha256, models.sklearn_version())
        np.testing.assert_array_equal(loaded.predict_proba(SAMPLE), fitted.predict_proba(SAMPLE))
    profile = fetch(registered.profile_uri, tmp_path)
    assert (profile.read_bytes(), sha256_of(profile)) == (PROFILE, registered.profile_sha256)


def test_mlflow_shows_what_made_the_version(registry: Registry, lineage: Lineage) -> None:
    registered = registry.register(candidate(), lineage, SAMPLE, PROFILE)
    run = client(registry).get_run(registered.run_id)
    assert run.data.metrics == {
        "holdout_auc": 0.75,
        "holdout_baseline_auc": 0.5,
        "holdout_rows": 8,
        "holdout_mean_label": 0.25,
    }
    assert run.data.params["seed"] == "7"
    assert run.data.params["refit_on_all"] == "True"
    assert run.data.tags["feature_version"] == candidate().code.version
    assert run.data.tags["data_fingerprint"] == "f" * 64
    assert (run.data.tags["trigger"], run.data.tags["challenger_of"]) == ("on_drift", "3")
    assert run.data.tags["environment_sha256"] == "e" * 64
    artifacts = {found.path for found in client(registry).list_artifacts(registered.run_id)}
    assert artifacts == {"baseline", "features", "profile", "lineage.json"}


def test_parameters_and_the_fingerprint_of_each_night_stand_beside_the_model(
    registry: Registry, lineage: Lineage
) -> None:
    registered = registry.register(candidate(), lineage, SAMPLE, PROFILE)
    made_of = json.loads(
        Path(client(registry).download_artifacts(registered.run_id, "lineage.json")).read_text()
    )
    assert made_of["fingerprints"] == {"2013-04-28": "a" * 64}
    assert made_of["parameters"]["C"] == "1.0"


def test_versions_of_a_job_are_counted(registry: Registry, lineage: Lineage) -> None:
    numbers = [registry.register(candidate(), lineage, SAMPLE, PROFILE).version for _ in range(2)]
    assert numbers == [1, 2]


def test_no_value_of_the_sample_is_stored(registry: Registry, lineage: Lineage, tmp_path: Path) -> None:
    registry.register(candidate(), lineage, SAMPLE, PROFILE)
    files = [path for path in (tmp_path / "registry").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"12345.678" in path.read_bytes()]


def test_a_model_that_no_night_would_load_is_refused_before_anything_is_logged(
    registry: Registry, lineage: Lineage
) -> None:
    with pytest.raises(ModelError, match=r"known types only; got .*Foreign"):
        registry.register(candidate(Foreign()), lineage, SAMPLE, PROFILE)
    assert client(registry).get_experiment_by_name(lineage.job) is None


def test_nothing_is_said_on_the_terminal(
    registry: Registry, lineage: Lineage, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.register(candidate(), lineage, SAMPLE, PROFILE)
    registry.mirror(lineage.job, 1)
    assert capfd.readouterr() == ("", "")


def test_the_alias_follows_the_champion(registry: Registry, lineage: Lineage) -> None:
    assert registry.alias(lineage.job) is None
    registry.register(candidate(), lineage, SAMPLE, PROFILE)
    assert registry.alias(lineage.job) is None
    registry.mirror(lineage.job, 1)
    assert registry.alias(lineage.job) == 1


def test_the_newest_version_is_the_challenger_until_it_is_champion(
    registry: Registry, lineage: Lineage
) -> None:
    for number in (1, 2):
        registry.register(candidate(), lineage, SAMPLE, PROFILE)
        registry.challenge(lineage.job, number)
    registry.mirror(lineage.job, 1)
    assert [registry.alias(lineage.job, name) for name in ("champion", "challenger")] == [1, 2]
    registry.mirror(lineage.job, 2)
    assert [registry.alias(lineage.job, name) for name in ("champion", "challenger")] == [2, None]


def test_an_alias_to_a_version_that_mlflow_does_not_have_is_refused(
    registry: Registry, lineage: Lineage
) -> None:
    with pytest.raises(RegistryError, match="the MLflow registry must answer"):
        registry.mirror(lineage.job, 1)


def test_a_registry_that_is_away_is_told_without_its_password(server: EmbeddedServer, tmp_path: Path) -> None:
    url = server.url(database="gone")
    password = sa.make_url(url).password
    assert password
    with pytest.raises(RegistryError, match="the MLflow registry must answer") as caught:
        Registry(url, UPath(tmp_path)).alias("toy")
    assert password not in str(caught.value)


def test_files_that_a_night_could_load_have_no_faults(registry: Registry, lineage: Lineage) -> None:
    assert registry.artifact_faults(version(registry.register(candidate(), lineage, SAMPLE, PROFILE))) == []


def test_missing_and_changed_files_are_told(registry: Registry, lineage: Lineage) -> None:
    registered = registry.register(candidate(), lineage, SAMPLE, PROFILE)
    Path(registered.model_uri.removeprefix("file://")).unlink()
    Path(registered.baseline_uri.removeprefix("file://")).write_bytes(b"changed")
    gone, changed = registry.artifact_faults(version(registered))
    assert gone.startswith("toy version 1: artifact")
    assert "must be readable; got FileNotFoundError" in gone
    assert "must be the approved file" in changed


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nowhere/model.skops", "FileNotFoundError"),
        ("file:///nowhere/model.skops", "FileNotFoundError"),
        ("unknown://nowhere/model.skops", "ValueError"),
        ("mlflow-artifacts:/1/model.skops", "no registry URL"),
    ],
)
def test_a_file_that_cannot_be_had_is_a_model_failure(uri: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"must be readable; got .*{reason}"):
        fetch(uri, tmp_path)


def test_a_file_of_another_store_is_fetched_by_its_url(tmp_path: Path) -> None:
    stored = UPath("memory://models/toy/model.skops")
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(b"model")
    assert fetch(str(stored), tmp_path).read_bytes() == b"model"


FIRST_LOOK = """
import sys, warnings
warnings.simplefilter("ignore")
from upath import UPath
from pipeline.adapters.registry import Registry
assert Registry(sys.argv[1], UPath("unused")).alias("toy") is None
"""


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("sqlite", marks=pytest.mark.soak)])
def test_processes_that_meet_on_an_empty_registry_all_come_through(
    kind: str, warehouse_url: str, tmp_path: Path
) -> None:
    url = warehouse_url if kind == "postgresql" else f"sqlite:///{tmp_path}/new/registry.db"
    looks = [
        subprocess.Popen([sys.executable, "-c", FIRST_LOOK, url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [look.communicate()[1] for look in looks]
    assert [look.returncode for look in looks] == [0, 0], errors


def test_a_night_does_not_import_mlflow_or_start_its_telemetry() -> None:
    """Its import alone takes seconds and 175 MB, and it starts telemetry unless told before."""
    program = (
        "import sys; from pipeline.adapters import registry, versions; import pipeline.scorers; "
        "assert 'mlflow' not in sys.modules; "
        "import warnings; warnings.simplefilter('ignore')\n"
        "with registry._mlflow('sqlite://'):\n"
        "    from mlflow.telemetry.client import get_telemetry_client\n"
        "assert get_telemetry_client() is None"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
