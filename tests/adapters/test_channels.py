"""Channels by Apprise, against a real HTTP service: taken or refused, and never a secret told."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from support.mailbox import mailbox
from support.publishing import DAY
from support.receiver import PASSWORD, TOKEN, Receiver, receiving

from pipeline.adapters.channels import send
from pipeline.errors import ChannelError
from pipeline.monitoring.alerts import Subject, failure_notice

NOTICE = failure_notice(
    Subject("toy", "Toys", "on-call@example.com"), DAY, "extract", "MissingTable", "<b>a & b</b>", None
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as received:
        yield received


def refusal(url: SecretStr) -> str:
    with pytest.raises(ChannelError) as caught:
        send(url, NOTICE)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_notice_arrives_as_it_was_written(receiver: Receiver) -> None:
    send(receiver.url, NOTICE)
    assert (receiver.titles, receiver.texts) == ([NOTICE.title], [NOTICE.text])
    assert receiver.notices[0]["type"] == "failure"


def test_a_notice_arrives_by_mail() -> None:
    with mailbox() as received:
        send(SecretStr(received.url), NOTICE)
    (letter,) = received.letters
    assert letter["subject"] == NOTICE.title
    assert letter["to"] == "on-call@example.com"
    body = letter.get_body(("plain",))
    assert body is not None
    assert body.get_content().split() == NOTICE.text.split()


def test_a_refused_notice_tells_the_service_and_its_status(receiver: Receiver) -> None:
    receiver.status = 503
    told = refusal(receiver.url)
    assert told == "the channel must take the notice within 20 s; got FAILURE from JSON, HTTP 503"


def test_nobody_there_is_a_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    told = refusal(SecretStr(f"json://user:{PASSWORD}@127.0.0.1:{port}/{TOKEN}"))
    assert told == "the channel must take the notice within 20 s; got FAILURE from JSON"


def test_a_service_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.adapters.channels._SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begun = time.monotonic()
        told = refusal(SecretStr(f"json://user:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/{TOKEN}"))
    assert told == "the channel must take the notice within 1 s; got TIMEOUT from JSON"
    assert time.monotonic() - begun < 3.5


@pytest.mark.parametrize(
    "url", ["", PASSWORD, f"nonsense://{PASSWORD}", f"slack://{PASSWORD}", "json://:99999"]
)
def test_what_is_no_channel_is_refused_without_being_quoted(url: str) -> None:
    told = refusal(SecretStr(url))
    assert told == "a channel must be a URL that Apprise takes, such as slack://…; this one is not"


def test_no_log_of_any_library_holds_the_url_while_a_notice_is_sent(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(1)
    send(receiver.url, NOTICE)
    receiver.status = 500
    told = [refusal(receiver.url), refusal(SecretStr(f"slack://{PASSWORD}/{TOKEN}"))]
    printed = "\n".join((caplog.text, *told, *capfd.readouterr()))
    assert PASSWORD not in printed
    assert TOKEN not in printed


def test_requests_of_others_are_logged_as_before(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    send(receiver.url, NOTICE)
    for name in ("urllib3.connectionpool", "apprise"):
        logging.getLogger(name).debug("somebody else's")
    assert [record.message for record in caplog.records] == ["somebody else's"] * 2
