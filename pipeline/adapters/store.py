"""Files: runs' immutable files and the dataset of current predictions, in a folder or an object store.

Layout: `runs/<job>/<day>/<run_id>/…` is written once; `predictions/<job>/day=…/predictions.parquet` is
replaced as a whole. Nothing unfinished ever lies in either.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from upath import UPath

from pipeline.errors import UsageError
from pipeline.partition import COLUMN, Partition
from pipeline.run import Run

_BLOCK = 1 << 20
_LEFT_BEHIND = 3600  # seconds; younger folders may be just about to be locked


def sha256_of(path: Path) -> str:
    """The sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Store:
    """Files under one root; `scratch` is a local folder for what is not finished yet."""

    root: UPath
    scratch: Path

    @classmethod
    def at(cls, url: str, state: Path) -> Store:
        """The store of a folder or URL; unfinished files lie beside a folder, or in the state folder.

        Raises UsageError for a URL of no file system that is installed.
        """
        try:
            root = UPath(url)
            _ = root.fs
        except (ValueError, ImportError) as error:
            raise UsageError(f"NIGHTSHIFT_STORE must be a folder or a URL such as s3://…; {error}") from error
        return cls(root, Path(root.path) / ".staging" if _is_folder(root) else state / "staging")

    @property
    def is_local(self) -> bool:
        """Whether files are renamed into place (else they are put)."""
        return _is_folder(self.root)

    def run_folder(self, run: Run) -> UPath:
        """Where a run's immutable files are."""
        return self.root / "runs" / run.job / run.partition.key / run.run_id

    def current_file(self, job: str, partition: Partition) -> UPath:
        """The Parquet file that readers of the dataset see for a day."""
        day = f"{COLUMN}={partition.key}"
        return self.root / "predictions" / job / day / "predictions.parquet"

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A local folder for unfinished files, on the store's file system; gone afterwards.

        What killed processes left behind is removed first.
        """
        self._sweep()
        folder = self.scratch / uuid4().hex
        folder.mkdir(parents=True)
        with _locked(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        old = time.time() - _LEFT_BEHIND
        for folder in self.scratch.glob("*"):
            # Other processes sweep too, and end their work meanwhile.
            with suppress(OSError):
                if folder.stat().st_mtime < old:
                    with _locked(folder, must=True):
                        shutil.rmtree(folder, ignore_errors=True)

    def seal(self, local: Path, target: UPath) -> None:
        """Put a finished local file in its place as a whole: one rename, or one PUT."""
        if not self.is_local:
            target.fs.put_file(str(local), target.path)
            return
        _sync(local)
        final = _ready(target)
        local.replace(final)
        _sync(final.parent)

    def seal_once(self, local: Path, target: UPath) -> bool:
        """As `seal`, but a file that is in place already stays; whether this one was put there."""
        with suppress(FileExistsError):
            if self.is_local:
                _sync(local)
                final = _ready(target)
                final.hardlink_to(local)
                _sync(final.parent)
            else:
                target.fs.put_file(str(local), target.path, mode="create")
            return True
        return False

    def seal_folder(self, local: Path, target: UPath) -> None:
        """Put every file of a finished local folder in its place, one by one."""
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            self.seal(file, target / file.relative_to(local).as_posix())

    def copy(self, source: UPath, target: UPath) -> None:
        """Replace `target` by a copy of `source` as a whole."""
        with self.workspace() as folder:
            local = folder / target.name
            with source.open("rb") as opened, local.open("wb") as written:
                shutil.copyfileobj(opened, written, _BLOCK)
            self.seal(local, target)

    def size(self, place: UPath) -> int:
        """Bytes of a file, or of all files below a folder; 0 where there is nothing."""
        files = [place] if place.is_file() else place.rglob("*")
        return sum(int(file.stat().st_size) for file in files if file.is_file())

    def remove(self, place: UPath) -> None:
        """Take a file away, or a folder with all that is in it; one that is gone already is no fault."""
        with suppress(FileNotFoundError):
            place.fs.rm(place.path, recursive=True)
            if self.is_local:
                _sync(Path(place.path).parent)

    def fetch(self, source: UPath, folder: Path) -> Path:
        """A local path of a stored file: the file itself, or a copy in `folder`."""
        if self.is_local:
            return Path(source.path)
        local = folder / source.name
        local.parent.mkdir(parents=True, exist_ok=True)
        source.fs.get_file(source.path, str(local))
        return local

    def hold(self, source: UPath, folder: Path) -> Path:
        """A local path in `folder` of a stored file, a link or a copy: it stays when the store's goes."""
        if not self.is_local:
            return self.fetch(source, folder)
        held = folder / source.name
        held.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.hardlink_to(source.path)
        except FileNotFoundError:
            raise
        except OSError:  # not every file system links
            shutil.copyfile(source.path, held)
        return held


def _is_folder(root: UPath) -> bool:
    return root.protocol in ("", "file", "local")


@contextmanager
def _locked(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Hold a folder's lock, which the system frees when this process dies, however it dies.

    With `must`, raises OSError when another holds it or the file system has no locks; without, a file
    system without locks is taken as it is: nobody can sweep there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(*() if must else (OSError,)):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _ready(target: UPath) -> Path:
    """A local target's path, once its folder is there for good."""
    final = Path(target.path)
    missing = [folder for folder in final.parents if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync(folder.parent)
    return final


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
