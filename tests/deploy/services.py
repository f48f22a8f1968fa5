"""docker-compose.yml as values: its services with every variable filled in, and the order of their start."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from string import Template
from typing import Any, Literal

from ruamel.yaml import YAML

from pipeline.errors import UsageError

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]

_EXPRESSION = re.compile(r"(?P<name>\w+)(?:(?P<rule>:?[-?+])(?P<word>.*))?", re.DOTALL)


class _Text(Template):
    """A value with `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+instead}`, `$$`."""

    braceidpattern = r"[_a-zA-Z]\w*(?::?[-?+][^}]*)?"


class _Variables(dict[str, str]):
    """Variables by name, asked for by expression; raises UsageError for a missing required one."""

    def __getitem__(self, expression: str) -> str:
        match = _EXPRESSION.fullmatch(expression)
        if match is None:
            raise UsageError(f"a variable must be NAME or NAME with a rule; got {expression!r}")
        name, rule, word = match["name"], match["rule"] or "-", match["word"] or ""
        value = self.get(name)
        given = value is not None and not (rule.startswith(":") and value == "")
        if rule.endswith("+"):
            return word if given else ""
        if given:
            return str(value)
        if rule.endswith("?"):
            raise UsageError(f"{name} must be set; got nothing; {word}")
        return word


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Fill in a value's variables as Compose does; raises UsageError for a missing required one."""
    return _Text(text).substitute(_Variables(variables))


@dataclass(frozen=True)
class Service:
    """One service: what runs, with what environment, after which others, and how its health is asked."""

    name: str
    built: bool
    """Whether it runs our own image."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folders: Mapping[str, str]
    """Volumes: the path inside, and the volume's name or a path beside the compose file."""
    files: Mapping[str, str]
    """Configs: the path inside and the content."""
    ports: tuple[int, ...]
    needs: Mapping[str, Condition]
    probe: tuple[str, ...]
    """The health check's command; empty for what runs once."""


def read_env(file: Path) -> dict[str, str]:
    """The variables of a .env file."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def read_services(
    file: Path, variables: Mapping[str, str], profiles: Collection[str] = ()
) -> dict[str, Service]:
    """The services of a compose file that these profiles start, by name, each after what it needs."""
    document = _filled(YAML(typ="safe").load(file.read_text()), variables)
    wanted = {
        name: _service(name, spec, document.get("configs", {}), variables)
        for name, spec in document["services"].items()
        if not spec.get("profiles") or set(spec["profiles"]) & set(profiles)
    }
    order = TopologicalSorter({name: service.needs for name, service in wanted.items()})
    return {name: wanted[name] for name in order.static_order()}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    match value:
        case str():
            return interpolate(value, variables)
        case list():
            return [_filled(item, variables) for item in value]
        case dict():
            return {key: _filled(item, variables) for key, item in value.items()}
        case _:
            return value


def _service(
    name: str, spec: Mapping[str, Any], configs: Mapping[str, Any], variables: Mapping[str, str]
) -> Service:
    return Service(
        name=name,
        built=spec.get("build") == ".",
        command=_words(spec.get("command", ())),
        environment=dict(_environment(spec.get("environment", {}), variables)),
        folders=dict(_folder(volume) for volume in spec.get("volumes", ())),
        files={use["target"]: configs[use["source"]]["content"] for use in spec.get("configs", ())},
        ports=tuple(int(port.rsplit(":", 1)[-1]) for port in spec.get("ports", spec.get("expose", ()))),
        needs={need: rule["condition"] for need, rule in spec.get("depends_on", {}).items()},
        probe=_probe(spec.get("healthcheck", {}).get("test", ())),
    )


def _words(command: str | list[str]) -> tuple[str, ...]:
    return tuple(shlex.split(command) if isinstance(command, str) else command)


def _environment(spec: Mapping[str, object], variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in spec.items():
        if value is not None:
            yield name, str(value)
        elif name in variables:  # a name alone is handed through, if it is set
            yield name, variables[name]


def _folder(volume: str) -> tuple[str, str]:
    source, target = volume.split(":")[:2]
    return target, source


def _probe(test: list[str]) -> tuple[str, ...]:
    match test:
        case ["CMD", *words]:
            return tuple(words)
        case ["CMD-SHELL", line]:
            return ("sh", "-c", line)
        case _:
            return ()
