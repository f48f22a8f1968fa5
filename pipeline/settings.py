"""The environment: where state, files and databases are. Nothing else reads environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings by environment variable, each with the prefix NIGHTSHIFT_."""

    model_config = SettingsConfigDict(env_prefix="NIGHTSHIFT_", frozen=True, extra="ignore")

    home: Path = PROJECT / ".nightshift"
    """State folder: the embedded server's settings, its passwords, the default store."""
    project: Path = PROJECT
    """The folder that holds dags/, features/ and expectations/."""
    warehouse_url: SecretStr | None = None
    """PostgreSQL for the output and control tables; the embedded server when unset."""
    source_url: SecretStr | None = None
    """Where the queries read from: any SQLAlchemy URL; the warehouse when unset."""
    registry_url: SecretStr | None = None
    """MLflow's database or server; the embedded server's database `registry` when unset."""
    store: str | None = None
    """Files: a folder or a URL such as s3://bucket/prefix; `<home>/store` when unset."""

    @property
    def state(self) -> Path:
        """The state folder, absolute, not necessarily existing."""
        return self.home.expanduser().absolute()

    @property
    def store_url(self) -> str:
        """Where files are kept: an absolute folder or a URL."""
        if self.store is None:
            return str(self.state / "store")
        return self.store if "://" in self.store else str(Path(self.store).expanduser().absolute())
