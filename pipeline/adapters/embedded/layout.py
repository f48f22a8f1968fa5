"""Where one embedded server keeps its data, log, port and passwords, and who may read them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from pipeline.adapters.embedded.programs import SHARED, OsUser, make_folder, run, server_user
from pipeline.errors import FatalError, UsageError

LOGINS = {
    "superuser": "postgres",
    "owner": "nightshift_owner",
    "analyst": "nightshift_analyst",
}
"""PostgreSQL's login role for each role of ours."""


@dataclass(frozen=True)
class Layout:
    """The folders and files of one state folder's server."""

    state: Path

    @property
    def link(self) -> Path:
        """The server's home as the state folder knows it: a folder, or a link to one under SHARED."""
        return self.state / "postgres"

    @property
    def home(self) -> Path:
        """The folder that holds data, log and port, free of links."""
        return self.link.resolve()

    @property
    def data(self) -> Path:
        """The data folder; there only once it is complete."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "postgres.log"

    @property
    def secrets(self) -> Path:
        """The folder of passwords, one file for each of LOGINS."""
        return self.state / "secrets"

    @property
    def port(self) -> int | None:
        """The remembered port; None before the first start."""
        file = self.home / "port"
        return int(file.read_text()) if file.exists() else None

    def remember_port(self, port: int) -> None:
        """Keep the port for the next start and for URLs."""
        (self.home / "port").write_text(f"{port}\n")

    def password(self, role: str) -> str:
        """Read the password of a role, one of LOGINS."""
        return (self.secrets / role).read_text().strip()

    def new_passwords(self) -> None:
        """Generate a password for each of LOGINS, readable by us alone."""
        make_folder(self.secrets, 0o700)
        for role in LOGINS:
            file = self.secrets / role
            file.touch(mode=0o600)
            file.write_text(token_urlsafe(24) + "\n")

    def make_state(self) -> None:
        """Create the state folder if missing; under root, others may pass through but not list it."""
        make_folder(self.state, 0o711 if os.geteuid() == 0 else 0o700)

    def make_home(self) -> None:
        """Create the server's home where the server's user can reach it; keep one that is there.

        Raises FatalError when the state folder points to a home that is gone.
        """
        if self.link.is_symlink() and not self.link.exists():
            raise FatalError(
                f"the data of {self.state} must lie in {self.home}; got no such folder; bring it back, or "
                f"remove {self.link} to begin with an empty database"
            )
        if not self.link.exists():
            user = server_user(self.data)
            make_folder(self.link, 0o711 if user else 0o700)
            if user and not _reachable(self.link, user):
                self.link.rmdir()
                self.link.symlink_to(self._home_elsewhere())

    def _home_elsewhere(self) -> Path:
        make_folder(SHARED, 0o755)
        # A new name each time: the data of a removed state folder is neither taken over nor lost.
        path_hash = hashlib.sha256(str(self.state).encode()).hexdigest()[:10]
        home = Path(tempfile.mkdtemp(dir=SHARED, prefix=f"{path_hash}-"))
        home.chmod(0o711)
        return home

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold this server's lock, one process or thread at a time; gives the lock's descriptor."""
        # flock, for a lockf lock (as in fasteners) does not part two threads of one process.
        with (self.state / "postgres.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()


def _reachable(folder: Path, user: OsUser) -> bool:
    return run(["test", "-x", folder], user).returncode == 0


@contextmanager
def own_state(state: Path) -> Iterator[None]:
    """Turn a refused file access into a UsageError that says whose the state folder must be."""
    try:
        yield
    except PermissionError as error:
        raise UsageError(
            f"the state folder {state} must belong to the user who runs nightshift; got no access to "
            f"{error.filename}; run as its owner, or set NIGHTSHIFT_HOME to a folder of your own"
        ) from error
