"""The environment: where state, files and databases are. Nothing else reads environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.run import MASK

_USER_INFO = re.compile(r"(?<=://)\S+@")
_PASSWORD = re.compile(r"(?i)\b(password|passwd|pwd|token)=\S+")

PROJECT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings by environment variable, each with the prefix NIGHTSHIFT_; an empty one counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTSHIFT_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

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
    dags: Path | None = None
    """A folder of further DAGs that the local Airflow runs beside the jobs', such as consumers of a day."""
    store: str | None = None
    """Files: a folder or a URL such as s3://bucket/prefix; `<home>/store` when unset."""

    channels: dict[str, SecretStr] = Field(default_factory=dict)
    """Where notices go: a JSON object, channel names to Apprise URLs such as slack://…"""

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

    def masked(self, text: str) -> str:
        """The text without a secret of these settings, a login in a URL, or a password as key=value."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, MASK)
        return _PASSWORD.sub(rf"\1={MASK}", _USER_INFO.sub(f"{MASK}@", text))

    def _secrets(self) -> Iterator[str]:
        urls = (self.warehouse_url, self.source_url, self.registry_url, *self.channels.values())
        yield from (url.get_secret_value() for url in urls if url)
