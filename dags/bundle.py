"""The DAG bundle of a project: one file a declaration, so that a broken one takes no other job with it."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle

from pipeline.declaration import job_names
from pipeline.settings import Settings

_FILE = '''"""Airflow's DAGs of the job {name}, made from its declaration: change that one, not this file."""

from dags.jobs import dags_of

globals().update(dags_of({name!r}))
'''


class DeclarationBundle(BaseDagBundle):
    """One Python file for each `dags/<job>.yaml` of the project that NIGHTSHIFT_PROJECT names."""

    supports_versioning = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._project = Settings().project

    @property
    def path(self) -> Path:
        """Where the files are; this host's own, made when the bundle is used."""
        return Path(self.base_dir) / "jobs"

    def get_current_version(self) -> None:
        """The declarations are read as they stand."""
        return

    def initialize(self) -> None:
        """Make the files that are missing."""
        self.refresh()
        super().initialize()

    def refresh(self) -> None:
        """One file a declaration; processes may do this at the same time."""
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = {self.path / f"{name}.py": _file(self._project, name) for name in job_names(self._project)}
        for file, text in wanted.items():
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                _write(file, text)
        for file in set(self.path.glob("*.py")) - set(wanted):
            file.unlink(missing_ok=True)


def _file(project: Path, name: str) -> str:
    """The file's text; the declaration stands below as it is, for the Code tab of the DAG."""
    declaration = (project / "dags" / f"{name}.yaml").read_text(encoding="utf-8", errors="replace")
    shown = "".join(f"# {line}".rstrip() + "\n" for line in declaration.splitlines())
    return f"{_FILE.format(name=name)}\n# dags/{name}.yaml:\n#\n{shown}"


def _write(file: Path, text: str) -> None:
    with NamedTemporaryFile("w", dir=file.parent, suffix=".new", delete=False, encoding="utf-8") as new:
        new.write(text)
    os.replace(new.name, file)  # noqa: PTH105 - Path.replace of a name is no shorter
