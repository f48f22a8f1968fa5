"""Where notices go: any service that Apprise knows. Its URL is a secret and never leaves this module."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from pydantic import SecretStr

from pipeline.errors import ChannelError

if TYPE_CHECKING:
    from apprise import AppriseResult

_SECONDS = 20
_HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")
_TELLTALES = ("apprise", "urllib3.connectionpool")
"""Loggers that tell hosts, users, paths and tokens, some of them in warnings."""

_sending: ContextVar[list[str] | None] = ContextVar("sending", default=None)
"""HTTP's statuses of the notice that is being sent; None while there is none."""


class Message(Protocol):
    """What a channel shows: a line and a text."""

    @property
    def title(self) -> str:
        """One line."""

    @property
    def text(self) -> str:
        """Plain text, not markup."""


def send(url: SecretStr, notice: Message) -> None:
    """Send the notice once, within 20 s; raises ChannelError unless every service of the URL took it."""
    for name in _TELLTALES:
        logging.getLogger(name).addFilter(_is_of_others)
    statuses: list[str] = []
    token = _sending.set(statuses)
    try:
        result = _notify(url, notice)
    finally:
        _sending.reset(token)
    if not result:
        services = ", ".join(sorted({str(service.name) for service in result})) or "no service"
        status = f", HTTP {statuses[-1]}" if statuses else ""
        raise ChannelError(
            f"the channel must take the notice within {_SECONDS} s; "
            f"got {result.status.name} from {services}{status}"
        )


def _notify(url: SecretStr, notice: Message) -> AppriseResult:
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

    channel = Apprise(asset=AppriseAsset(app_id="Nightshift"))
    if not channel.add(url.get_secret_value()):
        raise ChannelError("a channel must be a URL that Apprise takes, such as slack://…; this one is not")
    return channel.notify(
        body=notice.text,
        title=notice.title,
        notify_type=NotifyType.FAILURE,
        body_format=NotifyFormat.TEXT,
        timeout=_SECONDS,
    )


def _is_of_others(record: logging.LogRecord) -> bool:
    """Drop what is logged while a notice is sent; of it only HTTP's status is kept."""
    statuses = _sending.get()
    if statuses is None:
        return True
    statuses += _HTTP_STATUS.findall(record.getMessage())
    return False
