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
_sending: ContextVar[bool] = ContextVar("sending", default=False)


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
    _keep_urls_out_of_logs()
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

    token = _sending.set(True)
    try:
        channel = Apprise(asset=AppriseAsset(app_id="Nightshift"))
        if not channel.add(url.get_secret_value()):
            raise ChannelError(
                "a channel must be a URL that Apprise knows, such as slack://…; this one is not"
            )
        result = channel.notify(
            body=notice.text,
            title=notice.title,
            notify_type=NotifyType.FAILURE,
            body_format=NotifyFormat.TEXT,
            timeout=_SECONDS,
        )
    finally:
        _sending.reset(token)
    if not result:
        raise ChannelError(f"the channel must take the notice within {_SECONDS} s; got {_got(result)}")


def _got(result: AppriseResult) -> str:
    """The kind of service, the outcome and HTTP's status: nothing that a URL holds."""
    services = ", ".join(sorted({str(service.name) for service in result})) or "no service"
    status = _HTTP_STATUS.search("\n".join(entry.message for entry in result.logs()))
    return f"{result.status.name} from {services}" + (f", HTTP {status[1]}" if status else "")


def _keep_urls_out_of_logs() -> None:
    # Apprise logs hosts and users; urllib3 logs paths, which are tokens for many services.
    apprise = logging.getLogger("apprise")
    apprise.propagate = False
    if not apprise.handlers:
        apprise.addHandler(logging.NullHandler())
    logging.getLogger("urllib3.connectionpool").addFilter(_of_others)


def _of_others(_: logging.LogRecord) -> bool:
    return not _sending.get()
