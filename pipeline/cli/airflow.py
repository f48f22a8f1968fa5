"""Airflow on this machine: the settings it starts with, its processes, and their end.

Nothing here imports Airflow: its own command is run, with everything said by environment variables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from secrets import token_bytes, token_urlsafe
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.adapters.embedded.ports import is_free
from pipeline.cli.sessions import Sessions
from pipeline.cli.supervisor import Supervisor, ended_by_signals, undisturbed
from pipeline.errors import FatalError, TransientError, UsageError
from pipeline.settings import PROJECT

if TYPE_CHECKING:
    from pipeline.environment import Environment

DATABASE = "airflow"
LOGINS = {"admin": "admin", "viewer": "viewer"}
"""User name to role of Airflow's simple auth manager, which is for one machine only."""

COMPONENTS = ("dag-processor", "scheduler", "triggerer")
"""What follows the API server; tasks of a scheduler without one fail."""

_PATIENCE = 300  # seconds until a component is healthy on a busy machine
_AT_ONCE = 4
_MOST_ENDS, _WINDOW = 5, 600
"""How often a component may end within so many seconds before all is given up."""

log = structlog.get_logger()


@dataclass(frozen=True)
class LocalAirflow:
    """Airflow with the embedded PostgreSQL as its metadata database and LocalExecutor."""

    env: Environment
    port: int

    @property
    def home(self) -> Path:
        """AIRFLOW_HOME."""
        return self.env.settings.state / "airflow"

    @property
    def url(self) -> str:
        """Where people look at it."""
        return f"http://localhost:{self.port}"

    def variables(self) -> dict[str, str]:
        """The environment of every process: Airflow's configuration and ours."""
        metadata = self.env.server.url(DATABASE).replace("postgresql:", "postgresql+psycopg:", 1)
        secrets = self._secrets()
        address = f"http://127.0.0.1:{self.port}"
        settings = {
            "core": {
                "executor": "dags.executor.WarmLocalExecutor",
                "parallelism": str(_AT_ONCE),
                "load_examples": "False",
                "plugins_folder": str(PROJECT / "dags" / "plugins"),
                "execution_api_server_url": f"{address}/execution/",
                "fernet_key": secrets["fernet_key"],
                "simple_auth_manager_users": ",".join(f"{user}:{role}" for user, role in LOGINS.items()),
                "simple_auth_manager_passwords_file": str(self.passwords_file),
            },
            "database": {"sql_alchemy_conn": metadata, "sql_alchemy_conn_async": metadata},
            "dag_processor": {
                "dag_bundle_config_list": json.dumps(self._bundles()),
                "refresh_interval": "10",
                "min_file_process_interval": "10",
                "bundle_refresh_check_interval": "5",
                "dag_bundle_storage_path": str(self.home / "bundles"),
            },
            "api": {
                "host": "127.0.0.1",
                "port": str(self.port),
                "base_url": self.url,
                "secret_key": secrets["secret_key"],
                "workers": "1",
            },
            "api_auth": {"jwt_secret": secrets["jwt_secret"]},
            "workers": {"execution_api_timeout": "60"},
            "usage_data_collection": {"enabled": "False"},
        }
        given = {
            f"AIRFLOW__{section}__{name}".upper(): value
            for section, pairs in settings.items()
            for name, value in pairs.items()
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        own = {
            "AIRFLOW_HOME": str(self.home),
            "NIGHTSHIFT_HOME": str(self.env.settings.state),
            "NIGHTSHIFT_PROJECT": str(self.env.project),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        return inherited | given | own

    def _bundles(self) -> list[dict[str, Any]]:
        jobs = {"name": "nightshift", "classpath": "dags.bundle.DeclarationBundle", "kwargs": {}}
        folder = self.env.settings.dags
        if folder is None:
            return [jobs]
        local = "airflow.dag_processing.bundles.local.LocalDagBundle"
        return [jobs, {"name": "more", "classpath": local, "kwargs": {"path": str(folder.absolute())}}]

    def prepare(self) -> None:
        """Migrate the metadata database and make the pool, once for each version of Airflow."""
        self.env.server.start()
        self.home.mkdir(parents=True, exist_ok=True)
        stamp, made_by = self.home / "prepared", version("apache-airflow")
        if stamp.exists() and stamp.read_text() == made_by:
            return
        self.env.server.create_database(DATABASE)
        cpus = os.cpu_count() or 1
        self._airflow("db", "migrate")
        self._airflow("pools", "set", "nightshift", str(2 * cpus), "CPUs that nights may use at once")
        stamp.write_text(made_by)

    def passwords(self) -> Mapping[str, str]:
        """The passwords by user name, made with the first call."""
        if not self.passwords_file.exists():
            _write_private(self.passwords_file, json.dumps({user: token_urlsafe(12) for user in LOGINS}))
        passwords: dict[str, str] = json.loads(self.passwords_file.read_text())
        return passwords

    def run(self, when_healthy: Callable[[], None]) -> None:
        """Run all components until an exception, such as Ctrl-C's, ends it; none is left behind.

        A component that ends is started again, and so is the database. Raises UsageError when it runs
        already or its port is taken, FatalError when a component does not come up or keeps ending.
        """
        if self.sessions.processes():
            raise UsageError(f"Airflow of {self.home} is running already; stop it with `make airflow-stop`")
        if not is_free(self.port):
            raise UsageError(
                f"port {self.port} must be free for Airflow; somebody listens. Choose with --port"
            )
        self.passwords()
        with self.supervisor.recorded(), self._stopped_in_the_end():
            first = self._start("api-server")
            _wait(self._is_healthy, first, "api-server", self.home)
            others = {name: self._start(name) for name in COMPONENTS}
            _wait(self._is_scheduling, others["scheduler"], "scheduler", self.home)
            when_healthy()
            self._keep_up({"api-server": first, **others})

    def stop(self) -> int:
        """End one that runs, whoever started it; how many processes of it there were."""
        count = len(self.sessions.processes())
        self.supervisor.stop()  # the first: it would start again what ends
        self.sessions.stop()
        return count

    def _keep_up(self, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        ends: dict[str, list[float]] = {name: [] for name in processes}
        while True:
            self._database_up()
            for name, process in processes.items():
                if process.poll() is None:
                    continue
                now = time.monotonic()
                ends[name] = [*(end for end in ends[name] if end > now - _WINDOW), now]
                if len(ends[name]) > _MOST_ENDS:
                    raise _ended(name, self.home)
                log.warning("started again", component=name, code=process.returncode)
                processes[name] = self._start(name)
            time.sleep(1)

    def _database_up(self) -> None:
        try:
            self.env.server.start()
        except TransientError as error:  # on its way: looked at again in a second
            log.warning("database not up yet", error=str(error))

    @property
    def sessions(self) -> Sessions:
        """The processes of it, whoever started them."""
        return Sessions(self.home / "sessions.json")

    @property
    def supervisor(self) -> Supervisor:
        """The process that runs it."""
        return Supervisor(self.home / "supervisor.json")

    @property
    def passwords_file(self) -> Path:
        """Kept for its owner alone."""
        return self.home / "passwords.json"

    def _secrets(self) -> dict[str, str]:
        from base64 import urlsafe_b64encode

        file = self.home / "secrets.json"
        if not file.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            names = ("fernet_key", "jwt_secret", "secret_key")
            made = {name: urlsafe_b64encode(token_bytes(32)).decode() for name in names}
            _write_private(file, json.dumps(made))
        secrets: dict[str, str] = json.loads(file.read_text())
        return secrets

    def _airflow(self, *words: str) -> None:
        log = self._log(words[0])
        with log.open("ab") as output:
            done = subprocess.run(
                ["airflow", *words], env=self.variables(), stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise FatalError(f"`airflow {' '.join(words[:2])}` must succeed; it did not. See {log}")

    def _start(self, component: str) -> subprocess.Popen[bytes]:
        return self.sessions.start(["airflow", component], self.variables(), self._log(component))

    def _log(self, component: str) -> Path:
        return _log_file(self.home, component)

    @contextmanager
    def _stopped_in_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            with undisturbed():
                self.sessions.stop()

    def _is_healthy(self) -> bool:
        return self._health() is not None

    def _is_scheduling(self) -> bool:
        health = self._health() or {}
        return all(health.get(name, {}).get("status") == "healthy" for name in ("scheduler", "dag_processor"))

    def _health(self) -> dict[str, dict[str, str]] | None:
        address = f"http://127.0.0.1:{self.port}/api/v2/monitor/health"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                health: dict[str, dict[str, str]] = json.load(answer)
        except (OSError, urllib.error.URLError):
            return None
        return health


def _log_file(home: Path, component: str) -> Path:
    folder = home / "logs" / "components"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{component}.log"


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")


def _wait(healthy: Callable[[], bool], process: subprocess.Popen[bytes], name: str, home: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while not healthy():
        if process.poll() is not None:
            raise _ended(name, home)
        if time.monotonic() > until:
            raise TransientError(
                f"Airflow's {name} must be healthy within {_PATIENCE} s; see {_log_file(home, name)}"
            )
        time.sleep(0.5)


def _ended(name: str, home: Path) -> FatalError:
    return FatalError(f"Airflow's {name} must stay up; it has ended. See {_log_file(home, name)}")


def run_command(env: Environment, port: int, words: Sequence[str]) -> int:
    """`nightshift airflow WORDS…`: the exit code of Airflow's own command."""
    local = LocalAirflow(env, port)
    local.prepare()
    return subprocess.run(["airflow", *words], env=local.variables(), check=False).returncode


def run_airflow(env: Environment, port: int, *, stop: bool, as_json: bool) -> None:
    """`nightshift airflow`: until Ctrl-C, or the end of one that runs."""
    from pipeline.cli.console import emit, err

    local = LocalAirflow(env, port)
    if stop:
        count = local.stop()
        emit({"stopped": count}, as_json=as_json, shown=f"Airflow is stopped, {count} processes ended")
        return
    new = not local.passwords_file.exists()
    with ended_by_signals(), err.status("Airflow: database") as status:
        local.prepare()
        status.update("Airflow: API server, DAG processor, scheduler, triggerer")

        def told() -> None:
            status.stop()
            passwords = dict(local.passwords()) if new else {}
            lines = [
                f"Airflow is up at {local.url}; Ctrl-C ends it",
                *(f"  login {user}  password {password}" for user, password in passwords.items()),
                f"  passwords are kept in {local.passwords_file}",
            ]
            emit({"url": local.url, "passwords": passwords}, as_json=as_json, shown="\n".join(lines))

        local.run(told)
