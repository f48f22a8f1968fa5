"""A line to PostgreSQL that breaks once, at a statement of the test's choice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa

_BLOCK = 1 << 16
_QUIET = 0.5  # seconds without a byte: the server has answered


@dataclass
class FaultyLine:
    """Relays connections to the server; `fault` happens once, when one has sent all `patterns` in order.

    It is called before the last of them goes on; it returns False to cut the connection instead, None to
    let it pass, and True to let it pass and cut the connection before the server's answer comes back.
    """

    server_port: int
    patterns: Sequence[bytes]
    fault: Callable[[], bool | None]
    happened: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Relay every connection until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port))
        except OSError:
            client.close()
            return
        answers = threading.Thread(target=_pump, args=(server, client), daemon=True)
        answers.start()
        awaited = list(self.patterns)
        with suppress(OSError):
            while data := client.recv(_BLOCK):
                if not self._passed(data, awaited, server, client):
                    break
        _close(client)
        _close(server)

    def _passed(
        self, data: bytes, awaited: list[bytes], server: socket.socket, client: socket.socket
    ) -> bool:
        verdict = self.fault() if self._is_time(data, awaited) else None
        if verdict is False:
            return False
        if verdict is True:
            # The client hears no more; what it asked for is done all the same.
            client.shutdown(socket.SHUT_RDWR)
        server.sendall(data)
        if verdict is True:
            threading.Event().wait(_QUIET)
        return verdict is None

    def _is_time(self, data: bytes, awaited: list[bytes]) -> bool:
        if not awaited or awaited[0] not in data:
            return False
        del awaited[0]
        with self._lock:
            first = not awaited and not self.happened
            self.happened |= first
        return first


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_BLOCK):
            target.sendall(data)
    _close(target)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def faulty_line(
    url: str, patterns: Sequence[bytes], fault: Callable[[], bool | None]
) -> Iterator[tuple[str, FaultyLine]]:
    """The URL of a faulty line to the database of `url`, and the line, whose `happened` tells the fault."""
    made = sa.make_url(url)
    assert made.port is not None
    line = FaultyLine(made.port, patterns, fault)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=line.serve, args=(listener,), daemon=True)
        thread.start()
        port: int = listener.getsockname()[1]
        yield made.set(port=port).render_as_string(hide_password=False), line
        # Closing alone would leave accept() waiting.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
