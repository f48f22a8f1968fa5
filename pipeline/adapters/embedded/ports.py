"""TCP ports on 127.0.0.1: which are free, and which PostgreSQL answers on."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

_RANGE = range(20_000, 30_000)  # below the ports that systems lend to outgoing connections
# The protocol's SSLRequest: the shortest question that a server answers before any password.
_QUESTION = struct.pack("!ii", 8, 80877103)


def free_ports(preferred: int | None) -> Iterator[int]:
    """Give free ports one by one, the preferred one first if it is free."""
    others = random.SystemRandom().sample(_RANGE, 200)
    return filter(is_free, others if preferred is None else [preferred, *others])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def answers(port: int, patience: float = 5) -> bool:
    """Whether a PostgreSQL server answers on this port within these seconds."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=patience) as line:
        line.sendall(_QUESTION)
        return line.recv(1) != b""
    return False
