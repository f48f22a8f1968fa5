"""How a new data folder is made, with settings, access rules, roles and databases: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.adapters.embedded.layout import LOGINS, Layout
from pipeline.adapters.embedded.programs import OsUser, Programs, installed, server_user

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # A failing statement and its details hold data rows: the client is told, the log is not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

_ACCESS = "# Passwords only, from this machine only.\nhost all all 127.0.0.1/32 scram-sha-256\n"

_INITDB = (
    f"--username={LOGINS['superuser']}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    # PostgreSQL's own C.UTF-8 sorts alike on every system; no system upgrade can spoil an index.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    *(f"--set={name}={value}" for name, value in _SETTINGS.items()),
)


def create(layout: Layout, lock: int) -> None:
    """Make the data folder in the server's home, under the held lock.

    The programs inherit the lock's descriptor: should we be killed, the next start waits for their end.
    """
    for remains in layout.home.glob("new-*"):
        shutil.rmtree(remains)
    layout.new_passwords()
    user = server_user(layout.data)
    programs = Programs(installed(user), user, keep_open=(lock,))
    with tempfile.TemporaryDirectory(dir=layout.home, prefix="new-") as folder:
        draft = Path(folder)
        draft.chmod(0o711)
        _fill(draft, layout, programs)
        (draft / "data").rename(layout.data)


def _fill(draft: Path, layout: Layout, programs: Programs) -> None:
    data, password = draft / "data", draft / "password"
    data.mkdir(mode=0o700)
    password.touch(mode=0o600)
    password.write_text(layout.password("superuser"))
    for path in (data, password):
        _hand_over(path, programs.user)
    programs.run("initdb", "-D", data, f"--pwfile={password}", *_INITDB)
    programs.write(data / "pg_hba.conf", _ACCESS)
    # Single-user mode: roles and databases exist before any connection is possible.
    single_user = ("--single", "-c", "exit_on_error=on", "-D", data, "template1")
    programs.run("postgres", *single_user, stdin="\n".join(_statements(layout)) + "\n")


def _hand_over(path: Path, user: OsUser | None) -> None:
    if user:
        os.chown(path, user.uid, user.gid)


def _statements(layout: Layout) -> Iterator[str]:
    owner, analyst = LOGINS["owner"], LOGINS["analyst"]
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC"  # in template1, so every database inherits it
    yield "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC"
    yield f"CREATE ROLE {owner} LOGIN CREATEDB PASSWORD '{layout.password('owner')}'"
    yield f"CREATE ROLE {analyst} LOGIN PASSWORD '{layout.password('analyst')}'"
    yield f"ALTER ROLE {analyst} SET default_transaction_read_only = on"
    yield f"ALTER ROLE {analyst} SET statement_timeout = '5min'"
    # A forgotten transaction would keep migrations from their exclusive locks.
    yield f"ALTER ROLE {analyst} SET idle_in_transaction_session_timeout = '10min'"
    for database in ("warehouse", "registry"):
        yield f"CREATE DATABASE {database} OWNER {owner}"
        yield f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
    # No login: an administrator grants it to those of the systems that ask for scores.
    yield "CREATE ROLE nightshift_requester NOLOGIN"
    yield f"GRANT CONNECT ON DATABASE warehouse TO {analyst}, nightshift_requester"
