"""Where this process works: settings turned into the warehouse, the source, the files and the registry."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.store import Store, sha256_of
from pipeline.adapters.warehouse import warehouse_engine
from pipeline.errors import UsageError
from pipeline.settings import Settings


@dataclass(frozen=True)
class Environment:
    """One process's surroundings; the embedded server starts when something first needs it."""

    settings: Settings

    @cached_property
    def server(self) -> EmbeddedServer:
        """The embedded PostgreSQL of the state folder, not necessarily running."""
        return EmbeddedServer(self.settings.state)

    @cached_property
    def warehouse_url(self) -> str:
        """PostgreSQL for outputs and control tables, `postgresql://…`, with its password."""
        given = self.settings.warehouse_url
        if given is None:
            self.server.start()
            return self.server.url()
        url = given.get_secret_value()
        if not _is_postgresql(url):
            raise UsageError(
                "NIGHTSHIFT_WAREHOUSE_URL must be a PostgreSQL URL: the fence and the pointer need it. "
                "Read from another database with NIGHTSHIFT_SOURCE_URL"
            )
        return url

    @cached_property
    def source_url(self) -> str:
        """Where the declared queries read from; the warehouse unless it is given."""
        given = self.settings.source_url
        return self.warehouse_url if given is None else given.get_secret_value()

    @cached_property
    def registry_url(self) -> str:
        """MLflow's database or server; the embedded server's `registry` unless it is given."""
        given = self.settings.registry_url
        if given is not None:
            return given.get_secret_value()
        self.server.start()
        return self.server.url(database="registry")

    @cached_property
    def engine(self) -> sa.Engine:
        """SQLAlchemy's engine for the control tables; its errors are ours."""
        return warehouse_engine(self.warehouse_url)

    @cached_property
    def store(self) -> Store:
        """Files of runs and the dataset of predictions."""
        return Store.at(self.settings.store_url, self.settings.state)

    @property
    def project(self) -> Path:
        """The folder that holds dags/, features/ and expectations/."""
        return self.settings.project

    @cached_property
    def lock_sha256(self) -> str | None:
        """The sha256 of the project's requirements.lock, which pins what is installed; None without one."""
        lock = self.project / "requirements.lock"
        return sha256_of(lock) if lock.is_file() else None

    @cached_property
    def code_version(self) -> str:
        """The commit of the project, marked `+changes` where the tree differs; else the package's version."""
        return _code_version(self.project)


def _is_postgresql(url: str) -> bool:
    try:
        return sa.make_url(url).get_backend_name() == "postgresql"
    except sa.exc.ArgumentError:
        return False


@cache
def _code_version(project: Path) -> str:
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return f"nightshift {version('nightshift')}"
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changed else commit


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
