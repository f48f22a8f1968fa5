"""A mail server that keeps what it is sent, as Apprise's mailto:// sends notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller  # type: ignore[import-untyped,unused-ignore]

from pipeline.adapters.embedded.ports import free_ports


@dataclass
class Mailbox:
    """The letters that came in, and the channel's URL."""

    url: str
    letters: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        """Keep a letter."""
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 kept"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A server on a free port of this machine."""
    port = next(free_ports(None))
    addresses = "from=nightshift@example.com&to=on-call@example.com"
    received = Mailbox(f"mailto://127.0.0.1:{port}?{addresses}&mode=insecure")
    controller = Controller(received, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield received
    finally:
        controller.stop()
