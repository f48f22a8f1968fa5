"""The programs that stand in for the images postgres and redis, started as those images start theirs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from deploy.places import LOCAL, Place
from deploy.processes import Running, start
from deploy.services import Service
from pipeline.adapters.embedded.ports import free_ports
from pipeline.adapters.embedded.programs import Programs, installed, server_user

_SCRIPTS = "/docker-entrypoint-initdb.d/"
_DATA = "/var/lib/postgresql"
_PORT = 5432
_BARE = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def start_redis(service: Service, place: Place, log: Path) -> Running:
    """Start the system's redis-server with the service's own configuration."""
    (port,) = place.ports.values()
    command = [*map(place.local, service.command), "--port", str(port), "--bind", LOCAL]
    return start(command, _BARE, folder=log.parent, log=log)


def start_postgres(service: Service, place: Place, log: Path) -> Running:
    """Start PostgreSQL; a new data folder is first filled by the service's scripts, out of reach."""
    data = place.folders[_DATA] / "data"
    user = server_user(data)
    programs = Programs(installed(user), user)
    if not data.exists():
        _create(data, service.environment["POSTGRES_PASSWORD"], programs)
        _fill(service, place, data, programs, log)
    return _serve(service, data, programs, place.ports[_PORT], log)


def postgres_path() -> str:
    """PATH with PostgreSQL's client programs, as in its image."""
    return f"{installed(server_user(Path('/nowhere')))}:{os.defpath}"


def _create(data: Path, password: str, programs: Programs) -> None:
    secret = data.parent / "password"
    data.mkdir(mode=0o700)
    secret.touch(mode=0o600)
    secret.write_text(password)
    if programs.user:
        for path in (data, secret):
            os.chown(path, programs.user.uid, programs.user.gid)
    programs.run(
        "initdb", "-D", data, f"--pwfile={secret}", "--username=postgres", "--auth=scram-sha-256",
        "--encoding=UTF8", "--locale=C", "--no-instructions",
    )  # fmt: skip
    secret.unlink()


def _fill(service: Service, place: Place, data: Path, programs: Programs, log: Path) -> None:
    port = next(free_ports(None))
    server = _serve(service, data, programs, port, log)
    try:
        _await(port, service.environment["POSTGRES_PASSWORD"])
        for inside in sorted(path for path in service.folders if path.startswith(_SCRIPTS)):
            _run_script(place.folders[inside], _script_environment(service, port, programs))
    finally:
        server.stop(signal.SIGINT)
        server.root.wait(timeout=60)


def _serve(service: Service, data: Path, programs: Programs, port: int, log: Path) -> Running:
    settings = ("-D", str(data), "-p", str(port), "-h", LOCAL, "-c", "unix_socket_directories=")
    program, *arguments = service.command
    command = [str(programs.folder / program), *arguments, *settings]
    return start(command, _BARE, folder=Path("/"), log=log, user=programs.user)


def _await(port: int, password: str) -> None:
    """Wait until it takes a login: one that starts up answers, and says no."""
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host=LOCAL, port=port, user="postgres", password=password).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _script_environment(service: Service, port: int, programs: Programs) -> Mapping[str, str]:
    server = {"PGHOST": LOCAL, "PGPORT": str(port), "PGPASSWORD": service.environment["POSTGRES_PASSWORD"]}
    return {**service.environment, **server, "PATH": f"{programs.folder}:{os.defpath}"}


def _run_script(script: Path, environment: Mapping[str, str]) -> None:
    shell = shutil.which("sh") or "/bin/sh"
    subprocess.run([shell, script], env=dict(environment), check=True, timeout=60)
