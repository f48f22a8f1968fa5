"""The compose file's services as local processes: started in order, asked for their health, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.places import Place, Ports
from deploy.processes import Running, adopt_orphans, end_all, start
from deploy.programs import postgres_path, start_postgres, start_redis
from deploy.services import Service
from pipeline.adapters.embedded.ports import free_ports

_PATIENCE = 300  # seconds for a service to get healthy
_CODE, _STATE = "/opt/nightshift", "/srv/nightshift"
"""Folders of the image: what is installed, and what a container writes."""


@dataclass
class Container:
    """One started container: a service's processes in their place."""

    service: Service
    place: Place
    environment: Mapping[str, str]
    running: Running
    started: float
    seconds: float | None = None
    """How long it took to be healthy, or done; None before."""

    @property
    def healthy(self) -> bool:
        """Whether its health check passes."""
        command = [self.place.local(word) for word in self.service.probe]
        try:
            asked = subprocess.run(
                command, env=dict(self.environment), capture_output=True, check=False, timeout=60
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    def look(self) -> None:
        """Note the time when it is healthy, or done. Raises RuntimeError when it has ended badly."""
        ended, once = self.running.ended, not self.service.probe
        if ended is not None and (ended != 0 or not once):
            raise RuntimeError(
                f"{self.place.name} must {'succeed' if once else 'stay up'}; got exit code {ended}; its log "
                f"ends with:\n{self.running.last_lines()}"
            )
        if self.seconds is None and (ended == 0 if once else self.healthy):
            self.seconds = time.monotonic() - self.started


@dataclass
class Stack:
    """All services of one compose file, below one folder; `image` is what .ci/image installed."""

    services: Mapping[str, Service]
    project: Path
    folder: Path
    image: Path
    scale: Mapping[str, int]
    containers: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        ports = free_ports(None)
        self._ports: dict[str, Ports] = {
            name: {port: next(ports) for port in service.ports} for name, service in self.services.items()
        }

    def port(self, service: str) -> int:
        """The port of this machine on which a service with one port listens."""
        (port,) = self._ports[service].values()
        return port

    def of(self, service: str) -> list[Container]:
        """The containers of one service."""
        return [container for container in self.containers if container.service.name == service]

    def up(self) -> None:
        """Start each service once what it needs is healthy; returns when all are healthy or done."""
        waiting = list(self.services.values())
        deadline = time.monotonic() + _PATIENCE
        while waiting or any(container.seconds is None for container in self.containers):
            for service in [service for service in waiting if self._may_start(service)]:
                waiting.remove(service)
                self._start(service)
            for container in self.containers:
                container.look()
            if time.monotonic() > deadline:
                raise TimeoutError(self._late(waiting))
            time.sleep(0.2)

    def down(self) -> None:
        """Stop all, what others need last, and leave no process behind."""
        own = [container for container in self.containers if container.service.built]
        for container in own:
            container.running.stop(signal.SIGTERM)
        _await_end(own, 20)
        for container in own:
            container.running.kill()
        for container in self.containers:
            container.running.stop(signal.SIGINT)
        end_all(patience=20)

    def _may_start(self, service: Service) -> bool:
        return all(self._is_met(need, condition) for need, condition in service.needs.items())

    def _is_met(self, need: str, condition: str) -> bool:
        found = self.of(need)
        return bool(found) and (
            condition == "service_started" or all(container.seconds is not None for container in found)
        )

    def _late(self, waiting: list[Service]) -> str:
        late = [container for container in self.containers if container.seconds is None]
        logs = "\n".join(f"{container.place.name}:\n{container.running.last_lines()}" for container in late)
        return (
            f"every service must be healthy within {_PATIENCE} s; got {[one.place.name for one in late]} "
            f"unhealthy and {[service.name for service in waiting]} not started:\n{logs}"
        )

    def _start(self, service: Service) -> None:
        count = self.scale.get(service.name, 1)
        for number in range(1, count + 1):
            name = service.name if count == 1 else f"{service.name}-{number}"
            self.containers.append(self._container(service, name))

    def _container(self, service: Service, name: str) -> Container:
        place = self._place(service, name)
        for inside, content in service.files.items():
            place.folders[inside].write_text(place.local(content))
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        environment = self._environment(service, place)
        started = time.monotonic()
        return Container(service, place, environment, self._run(service, place, environment, log), started)

    def _run(self, service: Service, place: Place, environment: Mapping[str, str], log: Path) -> Running:
        if service.name == "postgres":
            return start_postgres(service, place, log)
        if service.name == "redis":
            return start_redis(service, place, log)
        command = [place.local(word) for word in service.command]
        return start(command, environment, folder=place.folders[_STATE], log=log)

    def _place(self, service: Service, name: str) -> Place:
        home = self.folder / "containers" / name
        home.mkdir(parents=True)
        folders = {inside: self._volume(source) for inside, source in service.folders.items()}
        files = {inside: home / Path(inside).name for inside in service.files}
        ports = self._ports[service.name]
        return Place(name, ports, {_CODE: self.image, _STATE: home, **folders, **files}, self._ports)

    def _volume(self, source: str) -> Path:
        if source.startswith("."):
            return self.project / source
        folder = self.folder / "volumes" / source
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _environment(self, service: Service, place: Place) -> dict[str, str]:
        values = {name: place.local(value) for name, value in service.environment.items()}
        path = f"{self.image}/venv/bin:{os.defpath}" if service.built else postgres_path()
        home = str(place.folders[_STATE])
        return {"PATH": path, "HOME": home, "HOSTNAME": place.name, "LANG": "C.UTF-8", **values}


def _await_end(containers: list[Container], patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(container.running.ended is not None for container in containers):
            return
        time.sleep(0.1)


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Keep a stack up for a while; whatever happens, no process of it is left."""
    adopt_orphans()
    try:
        stack.up()
        yield stack
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not stop the stopping
            signal.signal(number, signal.SIG_IGN)
        stack.down()
