"""Failed and late nights reach their owner once, through a real channel, and stand on record."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from support.receiver import PASSWORD, TOKEN, Receiver, receiving
from support.toy import JOB, NIGHT, YESTERDAY, Toy

from pipeline.alerting import QUIET_NIGHTS, alert_failed, alert_findings, alert_late, retry_undelivered
from pipeline.environment import Environment
from pipeline.errors import DeclarationError, FatalError, TransientError
from pipeline.monitoring.findings import Finding
from pipeline.partition import Partition
from pipeline.run import Trigger

pytestmark = pytest.mark.integration

DUE = datetime(2024, 1, 25, 5, tzinfo=UTC)
"""06:00 in Berlin, which the toy's alerts declare."""
ALERTS = 'alerts: {channel: ops, publish_by: "06:00"}'
_LAST_LINE = "train: {holdout_nights: 3, seed: 0}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as received:
        yield received


@pytest.fixture
def paged(toy: Toy, receiver: Receiver) -> Iterator[Toy]:
    """The toy project, whose alerts go to the receiver."""
    toy.edit("dags/toy.yaml", _LAST_LINE, f"{_LAST_LINE}\n{ALERTS}")
    with toy.with_settings(channels={"ops": receiver.url}) as other:
        yield other


def fail(
    toy: Toy,
    cause: str = "extract",
    trigger: Trigger = "scheduled",
    error: tuple[str, str] = ("MissingTable", "table x must exist"),
    partition: Partition | None = NIGHT,
) -> bool:
    return alert_failed(toy.env, JOB, partition, cause, trigger, *error, run_id="toy-run")


def late(toy: Toy, now: datetime = DUE, partition: Partition = NIGHT) -> bool:
    return alert_late(toy.env, JOB, partition, now)


def recorded(toy: Toy) -> list[dict[str, Any]]:
    return toy.rows("select * from nightshift.alerts order by alert_no")


def deliveries(toy: Toy) -> list[tuple[bool, str | None]]:
    return [(row["delivered_at"] is not None, row["delivery_error"]) for row in recorded(toy)]


def at_once(action: Callable[[], object], times: int = 2) -> list[object]:
    with ThreadPoolExecutor(times) as pool:
        return [done.result() for done in [pool.submit(action) for _ in range(times)]]


def away(toy: Toy) -> Toy:
    """The same project while its database does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://owner:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/toy"
    settings = toy.env.settings.model_copy(update={"warehouse_url": SecretStr(url)})
    return Toy(Environment(settings))


# A failed night


def test_a_failed_night_is_recorded_and_sent(paged: Toy, receiver: Receiver) -> None:
    assert fail(paged)
    (row,) = recorded(paged)
    assert (row["day"], row["run_id"], row["kind"], row["cause"]) == (
        NIGHT.day,
        "toy-run",
        "failed",
        "extract",
    )
    assert (row["owner"], row["channel"]) == ("Toys, toys-oncall@example.com", "ops")
    assert deliveries(paged) == [(True, None)]
    assert (receiver.titles, receiver.texts) == (["toy 2024-01-25 failed: extract"], [row["message"]])
    assert "MissingTable: table x must exist" in row["message"]
    assert "nothing for this day, 2024-01-25" in row["message"]


def test_the_same_cause_pages_once_and_another_one_again(paged: Toy, receiver: Receiver) -> None:
    assert [fail(paged), fail(paged), fail(paged, "score"), fail(paged, partition=YESTERDAY)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert len(receiver.notices) == len(recorded(paged)) == 3


def test_of_two_threads_that_tell_the_same_one_pages(paged: Toy, receiver: Receiver) -> None:
    assert sorted(map(bool, at_once(lambda: fail(paged), 4))) == [False, False, False, True]
    assert len(receiver.notices) == 1


def test_an_alert_is_on_record_before_it_is_sent(paged: Toy, receiver: Receiver) -> None:
    seen: list[Any] = []
    receiver.meanwhile = lambda: seen.append(deliveries(paged))
    fail(paged)
    assert seen == [[(False, None)]]


@pytest.mark.parametrize("trigger", ["backfill", "train"])
def test_backfills_and_training_never_page(paged: Toy, receiver: Receiver, trigger: Trigger) -> None:
    assert not fail(paged, trigger=trigger)
    assert (receiver.notices, recorded(paged)) == ([], [])


def test_a_failed_manual_night_pages(paged: Toy, receiver: Receiver) -> None:
    assert fail(paged, trigger="manual")
    assert len(receiver.notices) == 1


def test_a_failure_without_a_day_is_told_of_the_job_once(paged: Toy, receiver: Receiver) -> None:
    assert [fail(paged, partition=None) for _ in range(2)] == [True, False]
    assert receiver.titles == ["toy failed: extract"]


def test_a_published_day_is_not_late_and_a_failed_rerun_names_what_readers_see(
    paged: Toy, receiver: Receiver
) -> None:
    run = paged.night()
    assert not late(paged)
    assert fail(paged)
    shown = paged.rows("select published_at from nightshift.pointer")[0]["published_at"].astimezone(UTC)
    assert f"run {run['run_id']}, published {shown:%Y-%m-%d %H:%M:%S} UTC" in receiver.texts[0]


# A broken declaration, a database that is away


def test_a_broken_declaration_pages_the_owners_on_record_through_the_channel_it_names(
    paged: Toy, receiver: Receiver
) -> None:
    paged.edit("dags/toy.yaml", "team: Toys", "teem: Nobody")
    assert fail(paged, "plan", error=("DeclarationError", "dags/toy.yaml:4: unknown key 'teem'"))
    assert "dags/toy.yaml:4: unknown key 'teem'" in receiver.texts[0]
    assert receiver.texts[0].endswith("Owner: Toys, toys-oncall@example.com")


def test_a_job_that_nobody_knows_is_recorded_with_unknown_owners(paged: Toy) -> None:
    assert alert_failed(paged.env, "gone", NIGHT, "plan", "scheduled", "UsageError", "no such job")
    (row,) = recorded(paged)
    assert (row["owner"], row["channel"], row["delivered_at"]) == (
        "unknown team, unknown address",
        None,
        None,
    )
    assert row["delivery_error"].startswith("ChannelError: alerts.channel must be declared")


def test_an_alert_that_cannot_be_recorded_is_sent_all_the_same(paged: Toy, receiver: Receiver) -> None:
    with pytest.raises(TransientError):
        fail(away(paged), error=("TransientError", "the database must answer"))
    assert receiver.titles == ["toy 2024-01-25 failed: extract"]
    assert "the warehouse could not be asked" in receiver.texts[0]
    assert receiver.texts[0].endswith("Owner: Toys, toys-oncall@example.com")


def test_a_warehouse_that_was_not_migrated_does_not_keep_a_page_back(paged: Toy, receiver: Receiver) -> None:
    paged.execute("drop table nightshift.alerts cascade")
    with pytest.raises(FatalError, match="nightshift migrate"):
        fail(paged)
    assert len(receiver.notices) == 1


def test_without_database_and_channel_the_databases_error_is_raised(paged: Toy, receiver: Receiver) -> None:
    receiver.status = 500
    with pytest.raises(TransientError):
        fail(away(paged))


# A channel that is down


def test_a_channel_that_is_down_fails_nothing_and_is_told_on_record(paged: Toy, receiver: Receiver) -> None:
    receiver.status = 503
    assert fail(paged)
    assert not fail(paged)
    told = "ChannelError: the channel must take the notice within 20 s; got FAILURE from JSON, HTTP 503"
    assert deliveries(paged) == [(False, told)]
    assert len(receiver.notices) == 1


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("alerts: {}", "alerts.channel must be declared for a notice to go out; got none"),
        ("alerts: {channel: opps}", "channel 'opps' must be among those of NIGHTSHIFT_CHANNELS; "
                                    "did you mean 'ops'?"),
    ],
)  # fmt: skip
def test_a_channel_that_is_not_there_fails_nothing_and_is_told_on_record(
    paged: Toy, receiver: Receiver, declared: str, told: str
) -> None:
    paged.edit("dags/toy.yaml", ALERTS, declared)
    assert fail(paged)
    assert deliveries(paged) == [(False, f"ChannelError: {told}")]
    assert receiver.notices == []


def test_what_was_not_delivered_is_sent_again_once_the_channel_is_up(paged: Toy, receiver: Receiver) -> None:
    receiver.status = 503
    fail(paged)
    fail(paged, "score")
    assert retry_undelivered(paged.env, JOB) == 0
    receiver.status, receiver.notices = 200, []
    assert retry_undelivered(paged.env, JOB) == 2
    assert receiver.titles == ["toy 2024-01-25 failed: extract", "toy 2024-01-25 failed: score"]
    row = recorded(paged)[0]
    raised = f"Raised {row['raised_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC and not delivered then."
    assert receiver.texts[0] == f"{raised}\n\n{row['message']}"
    assert deliveries(paged) == [(True, None), (True, None)]
    assert retry_undelivered(paged.env, JOB) == 0


def test_two_who_send_again_at_once_send_once(paged: Toy, receiver: Receiver) -> None:
    receiver.status = 503
    fail(paged)
    receiver.status, receiver.notices = 200, []
    assert sorted(map(str, at_once(lambda: retry_undelivered(paged.env, JOB)))) == ["0", "1"]
    assert len(receiver.notices) == 1


def test_an_alert_on_its_way_is_not_sent_again_meanwhile(paged: Toy, receiver: Receiver) -> None:
    sent_again: list[int] = []
    receiver.meanwhile = lambda: sent_again.append(retry_undelivered(paged.env, JOB))
    fail(paged)
    assert sent_again == [0]
    assert len(receiver.notices) == 1


def test_what_is_older_than_a_day_is_not_sent_again(paged: Toy, receiver: Receiver) -> None:
    receiver.status = 503
    fail(paged)
    paged.execute("update nightshift.alerts set raised_at = raised_at - interval '25 hours'")
    receiver.status = 200
    assert retry_undelivered(paged.env, JOB) == 0
    assert len(receiver.notices) == 1


# Secrets


def test_no_secret_is_told_anywhere(
    paged: Toy,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(1)
    channel, warehouse = receiver.url.get_secret_value(), paged.url
    message = f"could not reach {warehouse} nor postgresql://a:{TOKEN}@b/c, password={TOKEN}; told {channel}"
    fail(paged, error=("TransientError", message))
    receiver.status = 500
    fail(paged, "score", error=("ExtractError", message))
    retry_undelivered(paged.env, JOB)
    with pytest.raises(TransientError) as caught:
        fail(away(paged), "publish", error=("ExtractError", message))
    told = "\n".join(
        [*receiver.texts, str(recorded(paged)), str(caught.value), caplog.text, *capfd.readouterr()]
    )
    assert "could not reach ***" in told
    for secret in (PASSWORD, TOKEN, channel, warehouse, f"{paged.env.engine.url.password}"):
        assert secret not in told


def test_settings_show_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.settings import Settings

    monkeypatch.setenv("NIGHTSHIFT_CHANNELS", f'{{"ops": "slack://{TOKEN}"}}')
    settings = Settings()
    assert settings.channels["ops"].get_secret_value() == f"slack://{TOKEN}"
    assert TOKEN not in repr(settings)
    for wrong in (f'"slack://{TOKEN}"', f'["slack://{TOKEN}"]', f'{{"ops": ["{TOKEN}"]}}', TOKEN):
        monkeypatch.setenv("NIGHTSHIFT_CHANNELS", wrong)
        with pytest.raises(ValueError, match="channels") as caught:
            Settings()
        assert TOKEN not in str(caught.value)


# A late night


def test_a_day_that_nobody_can_read_when_it_is_due_pages_once(paged: Toy, receiver: Receiver) -> None:
    assert not late(paged, DUE - timedelta(seconds=1))
    assert [late(paged), late(paged, DUE + timedelta(hours=1))] == [True, False]
    assert receiver.titles == ["toy 2024-01-25 late: publish_by"]
    assert "must be published by 2024-01-25 05:00:00 UTC; it is 2024-01-25 05:00:00 UTC" in receiver.texts[0]
    assert "No run was planned" in receiver.texts[0]
    assert [(row["kind"], row["cause"], row["run_id"]) for row in recorded(paged)] == [
        ("late", "publish_by", None)
    ]


def test_a_late_day_tells_of_its_newest_run(paged: Toy, receiver: Receiver) -> None:
    paged.execute("delete from source.toy where day = %s", NIGHT.day)
    with pytest.raises(FatalError):
        paged.night()
    assert late(paged)
    assert "The newest run failed" in receiver.texts[0]


@pytest.mark.parametrize("day", ["2023-12-31", "2024-02-10"])
def test_a_day_outside_of_the_schedule_is_never_late(paged: Toy, day: str) -> None:
    assert not late(paged, DUE + timedelta(days=99), Partition.parse(day))


def test_without_a_declared_time_no_day_is_late(paged: Toy) -> None:
    paged.edit("dags/toy.yaml", ALERTS, "alerts: {channel: ops}")
    assert not late(paged, DUE + timedelta(days=99))
    assert recorded(paged) == []


def test_whether_a_day_of_a_broken_declaration_is_late_nobody_knows(paged: Toy) -> None:
    paged.edit("dags/toy.yaml", "team: Toys", "teem: Nobody")
    with pytest.raises(DeclarationError):
        late(paged)


# Changes of the data


def change(day: date, cause: str = "input amount: no values", since: date = NIGHT.day) -> Finding:
    return Finding(JOB, day, "structure", cause, "input amount, missing_share: 1.", "Look.", since)


def tell(toy: Toy, day: date, *findings: Finding, trigger: Trigger = "scheduled") -> int:
    return alert_findings(toy.env, JOB, day, findings, trigger, run_id="toy-run")


def test_a_change_is_told_once_however_many_nights_it_lasts(paged: Toy, receiver: Receiver) -> None:
    days = [NIGHT.day + timedelta(days=offset) for offset in range(4)]
    assert [tell(paged, day, change(day)) for day in days] == [1, 0, 0, 0]
    (row,) = recorded(paged)
    assert (row["state"], row["day"], row["last_day"]) == ("open", NIGHT.day, days[-1])
    assert receiver.titles == ["toy 2024-01-25 structure: input amount: no values"]
    assert receiver.texts[0].startswith("What changed: input amount, missing_share: 1.")
    assert "What readers see meanwhile: nothing for this day, 2024-01-25" in receiver.texts[0]


@pytest.mark.parametrize("trigger", ["backfill", "train"])
def test_neither_a_backfill_nor_training_opens_an_episode(
    paged: Toy, receiver: Receiver, trigger: Trigger
) -> None:
    assert tell(paged, NIGHT.day, change(NIGHT.day), trigger=trigger) == 0
    assert (recorded(paged), receiver.notices) == ([], [])


def test_two_causes_are_two_alerts(paged: Toy, receiver: Receiver) -> None:
    later = NIGHT.day + timedelta(days=4)
    assert tell(paged, later, change(later), change(later, "input kind: unknown values", later)) == 2
    assert len(receiver.notices) == 2


def test_an_episode_ends_by_itself_after_quiet_nights_and_comes_back_as_a_new_one(
    paged: Toy, receiver: Receiver
) -> None:
    tell(paged, YESTERDAY.day, change(YESTERDAY.day, since=YESTERDAY.day))
    quiet = [Partition(YESTERDAY.day + timedelta(days=offset)) for offset in range(1, QUIET_NIGHTS + 1)]
    for partition in quiet:
        paged.night(partition, trigger="backfill")
        assert [row["state"] for row in recorded(paged)] == ["open"]
    assert tell(paged, quiet[-1].day) == 0
    assert [row["resolved_by"] for row in recorded(paged)] == ["nightshift"]
    back = quiet[-1].day + timedelta(days=1)
    assert tell(paged, back, change(back, since=back)) == 1


def test_a_change_is_recorded_where_its_channel_is_down_and_sent_later(
    paged: Toy, receiver: Receiver
) -> None:
    receiver.status = 503
    assert tell(paged, NIGHT.day, change(NIGHT.day)) == 1
    assert [delivered for delivered, _ in deliveries(paged)] == [False]
    receiver.status = 200
    assert retry_undelivered(paged.env, JOB) == 1


def test_of_two_that_tell_a_night_at_once_one_does(paged: Toy, receiver: Receiver) -> None:
    told = at_once(lambda: tell(paged, NIGHT.day, change(NIGHT.day)))
    assert sorted(map(str, told)) == ["0", "1"]
    assert len(receiver.notices) == 1


@pytest.mark.soak
def test_a_night_whose_column_lost_its_values_pages_and_its_backfill_does_not(
    paged: Toy, receiver: Receiver
) -> None:
    for day in range(1, 25):
        paged.night(Partition(date(2024, 1, day)), trigger="backfill")
    paged.execute("update source.toy set note = null where day = %s", NIGHT.day)
    paged.night(NIGHT, trigger="backfill")
    assert recorded(paged) == []
    paged.night(NIGHT, trigger="scheduled")
    (row,) = recorded(paged)
    assert (row["kind"], row["day"], row["state"]) == ("structure", NIGHT.day, "open")
    assert row["cause"] == "input note: no values"
    assert "input note, missing_share: 1, usually 0.2 to 0.2" in row["message"]
    assert receiver.titles == ["toy 2024-01-25 structure: input note: no values"]
