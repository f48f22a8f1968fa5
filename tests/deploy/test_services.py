from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.places import Place
from deploy.services import Service, interpolate, read_env, read_services
from pipeline.errors import UsageError

SECRET = re.compile(r"PASSWORD|SECRET|_KEY")


@pytest.fixture
def secrets(project: Path, tmp_path: Path) -> dict[str, str]:
    subprocess.run([project / ".ci/env", tmp_path / "env"], check=True, stdout=subprocess.DEVNULL)
    return read_env(tmp_path / "env")


@pytest.fixture
def services(project: Path, secrets: dict[str, str]) -> dict[str, Service]:
    return read_services(project / "docker-compose.yml", secrets, profiles={"demo"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$SET and ${SET}", "value and value"),
        ("${EMPTY-default}|${EMPTY:-default}", "|default"),
        ("${UNSET-default}|${UNSET:-}|${UNSET}", "default||"),
        ("${SET:-default}", "value"),
        ("${SET:+instead}|${UNSET:+instead}|${EMPTY+instead}", "instead||instead"),
        ("${SET:?must be there}", "value"),
        ("a $$SET stays for the shell", "a $SET stays for the shell"),
        ("postgresql://x:${SET:?run make env}@host:5432/db", "postgresql://x:value@host:5432/db"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    assert interpolate(text, {"SET": "value", "EMPTY": ""}) == expected


def test_a_required_variable_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="JWT_SECRET must be set; got nothing; run make env"):
        interpolate("${JWT_SECRET:?run make env}", {"JWT_SECRET": ""})


def test_the_compose_file_starts_nothing_without_secrets(project: Path) -> None:
    with pytest.raises(UsageError, match="must be set"):
        read_services(project / "docker-compose.yml", {})


def test_services_stand_after_what_they_need(services: dict[str, Service]) -> None:
    order = list(services)
    for service in services.values():
        assert all(order.index(need) < order.index(service.name) for need in service.needs)


def test_the_scheduler_waits_for_a_healthy_api_server(services: dict[str, Service]) -> None:
    for name in ("scheduler", "dag-processor", "triggerer", "worker"):
        assert services[name].needs == {"api-server": "service_healthy"}


def test_every_service_that_stays_has_a_health_check(services: dict[str, Service]) -> None:
    assert {name for name, service in services.items() if not service.probe} == {"init", "demo"}


def test_profiles_start_on_demand_only(project: Path, secrets: dict[str, str]) -> None:
    assert not {"demo", "mlflow-ui"} & set(read_services(project / "docker-compose.yml", secrets))


def test_workers_hold_no_key_of_airflow_and_no_login_to_its_database(
    services: dict[str, Service], secrets: dict[str, str]
) -> None:
    values = " ".join(services["worker"].environment.values())
    for name in ("AIRFLOW_DB_PASSWORD", "POSTGRES_PASSWORD", "JWT_SECRET", "FERNET_KEY", "API_SECRET_KEY"):
        assert secrets[name] not in values


def test_no_secret_has_a_default(project: Path) -> None:
    text = (project / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    secret = [(name, rule) for name, rule in used if SECRET.search(name)]
    assert {name for name, _ in secret} == {name for name, value in _example(project).items() if not value}
    assert {rule for _, rule in secret} == {":?run make env"}


def test_settings_of_the_example_are_the_defaults_of_the_compose_file(project: Path) -> None:
    text = (project / "docker-compose.yml").read_text()
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    settings = {name: value for name, value in _example(project).items() if value}
    assert settings == {name: defaults[name] for name in settings}


def test_each_variable_of_the_example_has_a_comment(project: Path) -> None:
    lines = (project / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        assert not re.match(r"\w+=", line) or lines[number - 1].startswith("# ")


def test_ports_are_published_on_this_machine_only(project: Path) -> None:
    for spec in _document(project)["services"].values():
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in spec.get("ports", ()))


def test_workers_can_be_scaled(project: Path) -> None:
    assert not {"container_name", "ports"} & set(_document(project)["services"]["worker"])


def test_make_env_writes_secrets_for_their_owner_alone(project: Path, tmp_path: Path) -> None:
    target = tmp_path / ".env"
    _make_env(project, target)
    values = read_env(target)
    secrets = [values[name] for name, value in _example(project).items() if not value]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(set(secrets)) == len(secrets)
    assert all(len(secret) >= 43 and re.fullmatch(r"[\w=-]+", secret) for secret in secrets)


def test_make_env_keeps_a_file_that_is_there(project: Path, tmp_path: Path) -> None:
    target = tmp_path / ".env"
    target.write_text("MINE=1\n")
    assert "kept" in _make_env(project, target)
    assert target.read_text() == "MINE=1\n"
    assert [file.name for file in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize(
    ("inside", "local"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("8080", "20001"),
        ("http://127.0.0.1:8080/health", "http://127.0.0.1:20001/health"),
        ("redis://:secret@redis:6379/0", "redis://:secret@127.0.0.1:20002/0"),
        ("/srv/nightshift/store/runs", "/tmp/store/runs"),
        ("/srv/nightshift/home", "/tmp/one/home"),
        ("/srv/nightshifts", "/srv/nightshifts"),
        ("my-redis:6379", "my-redis:6379"),
    ],
)
def test_addresses_and_paths_become_those_of_this_machine(inside: str, local: str) -> None:
    folders = {"/srv/nightshift": Path("/tmp/one"), "/srv/nightshift/store": Path("/tmp/store")}
    place = Place("api-server", {8080: 20001}, folders, {"redis": {6379: 20002}})
    assert place.local(inside) == local


def _make_env(project: Path, target: Path) -> str:
    return subprocess.run([project / ".ci/env", target], check=True, capture_output=True, text=True).stdout


def _example(project: Path) -> dict[str, str]:
    return read_env(project / ".env.example")


def _document(project: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load((project / "docker-compose.yml").read_text())
    return document
