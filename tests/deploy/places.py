"""Where a container's addresses and paths lie on this machine: 127.0.0.1 with free ports, and folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCAL = "127.0.0.1"

Ports = Mapping[int, int]
"""The port inside a container, and the one on this machine."""


@dataclass(frozen=True)
class Place:
    """One container's place; `worker-2` is the second of the service `worker`."""

    name: str
    ports: Ports
    folders: Mapping[str, Path]
    """Paths inside and on this machine."""
    hosts: Mapping[str, Ports]
    """The other services' ports, by host name."""

    def local(self, text: str) -> str:
        """A command's word, a value or a file's content, with addresses and paths of this machine."""
        if text == "0.0.0.0":  # what a container may listen on
            return LOCAL
        if text.isdecimal() and int(text) in self.ports:
            return str(self.ports[int(text)])
        return self._paths(self._addresses(text))

    def _addresses(self, text: str) -> str:
        hosts = {**self.hosts, LOCAL: self.ports, "localhost": self.ports}
        names = "|".join(map(re.escape, hosts))

        def address(match: re.Match[str]) -> str:
            port = int(match["port"])
            return f"{LOCAL}:{hosts[match['host']].get(port, port)}"

        return re.sub(rf"(?<![\w.-])(?P<host>{names}):(?P<port>\d+)\b", address, text)

    def _paths(self, text: str) -> str:
        longest_first = sorted(self.folders, key=len, reverse=True)
        paths = "|".join(map(re.escape, longest_first))
        return re.sub(rf"(?<![\w./-])(?:{paths})(?![\w.-])", lambda match: str(self.folders[match[0]]), text)
