"""Files: runs' immutable files and the dataset of current predictions, in a folder or an object store.

Layout: `runs/<job>/<day>/<run_id>/…` is written once; `predictions/<job>/day=…/predictions.parquet` is
replaced as a whole. Nothing unfinished ever lies inside `predictions/`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from upath import UPath

from pipeline.partition import COLUMN, Partition
from pipeline.run import Run

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """The sha256 of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """Files under one root; `scratch` is a local folder for what is not finished yet."""

    root: UPath
    scratch: Path

    @classmethod
    def at(cls, url: str, state: Path) -> Store:
        """The store of a folder or URL; unfinished files lie beside a folder, or in the state folder."""
        root = UPath(url)
        local = root.protocol in ("", "file")
        return cls(root, Path(root.path) / ".staging" if local else state / "staging")

    @property
    def is_local(self) -> bool:
        """Whether files are renamed into place (else they are put)."""
        return self.root.protocol in ("", "file")

    def run_folder(self, run: Run) -> UPath:
        """Where a run's immutable files are."""
        return self.root / "runs" / run.job / run.partition.key / run.run_id

    def current_file(self, job: str, partition: Partition) -> UPath:
        """The Parquet file that readers of the dataset see for a day."""
        day = f"{COLUMN}={partition.key}"
        return self.root / "predictions" / job / day / "predictions.parquet"

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A local folder for unfinished files, on the store's file system; gone afterwards."""
        folder = self.scratch / uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def seal(self, local: Path, target: UPath) -> None:
        """Put a finished local file in its place as a whole: one rename, or one PUT."""
        if not self.is_local:
            target.fs.put_file(str(local), target.path)
            return
        _sync(local)
        final = Path(target.path)
        final.parent.mkdir(parents=True, exist_ok=True)
        local.replace(final)
        _sync(final.parent)

    def seal_folder(self, local: Path, target: UPath) -> None:
        """Put a finished local folder in its place; `sealed` tells whether that was done wholly."""
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            self.seal(file, target / file.relative_to(local).as_posix())

    def copy(self, source: UPath, target: UPath) -> None:
        """Replace `target` by a copy of `source` as a whole."""
        with self.workspace() as folder:
            local = folder / target.name
            with source.open("rb") as opened, local.open("wb") as written:
                shutil.copyfileobj(opened, written, _BLOCK)
            self.seal(local, target)

    def fetch(self, source: UPath, folder: Path) -> Path:
        """A local path of a stored file: the file itself, or a copy in `folder`."""
        if self.is_local:
            return Path(source.path)
        local = folder / source.name
        local.parent.mkdir(parents=True, exist_ok=True)
        source.fs.get_file(source.path, str(local))
        return local

    def remove(self, target: UPath) -> None:
        """Remove a file that may not be there."""
        target.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
