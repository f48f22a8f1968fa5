"""An HTTP service that takes notices as Apprise's json:// sends them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import SecretStr

PASSWORD, TOKEN = "pass-5f1c", "path-9d2e"
"""Secrets of the URL: no log, message or table may hold them."""


@dataclass
class Receiver:
    """What came in, and what it answers; `meanwhile` runs before the answer."""

    port: int
    notices: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    meanwhile: Callable[[], object] = lambda: None

    @property
    def url(self) -> SecretStr:
        """The channel's URL."""
        return SecretStr(f"json://user:{PASSWORD}@127.0.0.1:{self.port}/{TOKEN}")

    @property
    def titles(self) -> list[str]:
        """Titles of the notices, in order."""
        return [notice["title"] for notice in self.notices]

    @property
    def texts(self) -> list[str]:
        """Texts of the notices, in order."""
        return [notice["message"] for notice in self.notices]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A service on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.notices.append(json.loads(body))
            receiver.meanwhile()
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
