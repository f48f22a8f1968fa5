"""Start and stop the embedded PostgreSQL, and hand out its URLs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, LiteralString
from urllib.parse import quote

from pipeline.adapters.embedded import cluster
from pipeline.adapters.embedded.layout import LOGINS, Layout, own_state
from pipeline.adapters.embedded.ports import free_ports, is_free
from pipeline.adapters.embedded.processes import ServerProcesses
from pipeline.adapters.embedded.programs import installed, run, server_user
from pipeline.errors import FatalError, TransientError, UsageError

if TYPE_CHECKING:
    from psycopg import Connection

Role = Literal["owner", "analyst"]

_PATIENCE = 300  # seconds; recovery after a crash replays up to max_wal_size
_ROOMY = 256 * 2**20  # bytes


@dataclass(frozen=True)
class EmbeddedServer:
    """One PostgreSQL server per state folder, which outlives the process that started it.

    Every method raises UsageError when the state folder is another user's.
    """

    state: Path

    def start(self) -> None:
        """Start the server unless it is up; the first call creates roles and databases.

        Raises FatalError when it cannot start, TransientError when it is neither up nor down in time.
        """
        with own_state(self.state):
            if self.running():
                return
            self._layout.make_state()
            with self._layout.locked() as lock:
                self._layout.make_home()
                if not self._layout.data.exists():
                    cluster.create(self._layout, lock)
                if not self._settled().ready():
                    self._processes.clear()
                    self._launch()

    def stop(self) -> bool:
        """Shut down fast, rolling open transactions back; True when a server was stopped."""
        with own_state(self.state):
            if not self._layout.data.exists():
                return False
            with self._layout.locked():
                was_up = self._settled().ready()
                if was_up:
                    self._shut_down()
                self._processes.clear()
                return was_up

    def remove(self) -> None:
        """Stop the server and delete its databases and passwords for good, wherever they lie."""
        self.stop()
        with own_state(self.state):
            for folder in (self._layout.home, self._layout.secrets):
                if folder.exists():
                    shutil.rmtree(folder)
            if self._layout.link.is_symlink():
                self._layout.link.unlink()

    def running(self) -> bool:
        """Whether this state folder's server is up and accepts connections."""
        with own_state(self.state):
            return self._layout.data.exists() and self._processes.ready()

    def url(self, database: str = "warehouse", role: Role = "owner") -> str:
        """Give `postgresql://user:password@127.0.0.1:port/database`.

        Raises UsageError before the first start.
        """
        return self._url(database, role)

    def create_database(self, name: str) -> None:
        """Create the owner's database, to which the analyst may connect; keep one that is there.

        Raises TransientError when the server is not up.
        """
        owner, analyst = LOGINS["owner"], LOGINS["analyst"]
        with self._administration() as connection, self._layout.locked():
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            if known.fetchone() is None:
                _execute(connection, "CREATE DATABASE {} OWNER {}", name, owner)
            _execute(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
            _execute(connection, "GRANT CONNECT ON DATABASE {} TO {}", name, analyst)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, and end the connections to it.

        Raises TransientError when the server is not up.
        """
        with self._administration() as connection:
            _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @property
    def _layout(self) -> Layout:
        return Layout(self.state)

    @property
    def _processes(self) -> ServerProcesses:
        return ServerProcesses(self._layout.data)

    def _settled(self) -> ServerProcesses:
        if not self._processes.settled(_PATIENCE):
            raise TransientError(
                f"the embedded PostgreSQL must be up or down within {_PATIENCE} s; got a server still on "
                f"its way; look into {self._layout.log} and try again later"
            )
        return self._processes

    def _url(self, database: str, role: str) -> str:
        with own_state(self.state):
            port = self._layout.port
            if port is None:
                raise UsageError(
                    "the embedded PostgreSQL must have been started once to have a URL; got no server in "
                    f"{self.state}; run `nightshift up`"
                )
            login = f"{LOGINS[role]}:{self._layout.password(role)}"
            return f"postgresql://{login}@127.0.0.1:{port}/{quote(database, safe='')}"

    @contextmanager
    def _administration(self) -> Iterator[Connection]:
        import psycopg

        if not self.running():
            raise TransientError(
                f"the embedded PostgreSQL of {self.state} must be up; got no server; run `nightshift up`"
            )
        with psycopg.connect(self._url("postgres", "superuser"), autocommit=True) as connection:
            yield connection

    def _shut_down(self) -> None:
        self._control("stop", "-m", "fast", "-t", str(_PATIENCE))
        if not self._processes.gone(patience=10):
            raise TransientError(
                f"the embedded PostgreSQL must end; got processes {self._processes.all()} still at work; "
                f"look into {self._layout.log} and run `nightshift down` again"
            )

    def _launch(self) -> None:
        log_start = self._layout.log.stat().st_size if self._layout.log.exists() else 0
        for port in islice(free_ports(self._layout.port), 3):
            self._layout.remember_port(port)
            self._start_on(port)
            if self._settled().ready():
                return
            if is_free(port):
                break  # another port would not help
        raise FatalError(
            "the embedded PostgreSQL must start; got a refusal; mend what its log says and run "
            f"`nightshift up` again; {self._layout.log} ends with:\n{self._last_lines(log_start)}"
        )

    def _start_on(self, port: int) -> None:
        options = f"-p {port} -c cluster_name={self._processes.mark} "
        options += f"-c dynamic_shared_memory_type={_shared_memory()}"
        self._control("start", "-o", options)

    def _control(self, verb: str, *arguments: str) -> None:
        user, layout = server_user(self._layout.data), self._layout
        log = os.open(layout.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            run([installed(user) / "pg_ctl", verb, "-s", "-D", layout.data, *arguments], user, output=log)
        finally:
            os.close(log)

    def _last_lines(self, position: int) -> str:
        with self._layout.log.open("rb") as log:
            log.seek(position)
            return b"".join(log.readlines()[-15:]).decode(errors="replace")


def _execute(connection: Connection, statement: LiteralString, *names: str) -> None:
    from psycopg.sql import SQL, Identifier

    connection.execute(SQL(statement).format(*map(Identifier, names)))


def _shared_memory() -> str:
    # Parallel queries outgrow the 64 MB of /dev/shm that containers get by default.
    shm = Path("/dev/shm")  # noqa: S108  looked at, not written to
    tiny = shm.is_dir() and shutil.disk_usage(shm).total < _ROOMY
    return "mmap" if tiny else "posix"
