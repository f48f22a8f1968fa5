"""What an owner reads: what failed, what readers see meanwhile, what to do; never a row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from pipeline.monitoring.alerts import Notice, Subject, Visible, failure_notice, late_notice
from pipeline.partition import Partition
from pipeline.run import Status

DAY = Partition(date(2024, 1, 25))
TOY = Subject("toy", "Toys", "on-call@example.com")
DUE = datetime(2024, 1, 25, 5, tzinfo=UTC)
NOW = datetime(2024, 1, 25, 5, 1, 30, tzinfo=UTC)
SEEN = {"run_id": "toy-2024-01-25-abc", "published_at": datetime(2024, 1, 25, 3, 0, 7, tzinfo=UTC)}
AGAIN = "clear the run in Airflow or run `nightshift score toy --day 2024-01-25`"


def failed(
    error_type: str = "ExtractError",
    message: str = "table x must exist",
    visible: Visible = None,
    **other: Any,
) -> Notice:
    given: dict[str, Any] = {"subject": TOY, "partition": DAY, "cause": "extract"} | other
    return failure_notice(error_type=error_type, error_message=message, visible=visible, **given)


def late(last_status: Status | None = None) -> Notice:
    return late_notice(TOY, DAY, DUE, NOW, last_status)


def test_a_failure_is_told_whole() -> None:
    notice = failed()
    assert notice.title == "toy 2024-01-25 failed: extract"
    assert notice.text.split("\n\n") == [
        "What failed: extract, ExtractError: table x must exist",
        "What readers see meanwhile: nothing for this day, 2024-01-25",
        f"What to do: Repair the source or the suite, then {AGAIN}.",
        "Owner: Toys, on-call@example.com",
    ]


def test_a_late_day_is_told_whole() -> None:
    notice = late()
    assert notice.title == "toy 2024-01-25 late: publish_by"
    assert notice.text.split("\n\n") == [
        "What failed: the day must be published by 2024-01-25 05:00:00 UTC; "
        "it is 2024-01-25 05:01:30 UTC and it is not",
        "What readers see meanwhile: nothing for this day, 2024-01-25",
        "What to do: No run was planned: check that the scheduler works and that the job is not paused, "
        f"then {AGAIN}.",
        "Owner: Toys, on-call@example.com",
    ]


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        (SEEN, "run toy-2024-01-25-abc, published 2024-01-25 03:00:07 UTC"),
        (None, "nothing for this day, 2024-01-25"),
        ("unknown", "what was published before; the warehouse could not be asked"),
    ],
)
def test_a_failure_says_what_readers_see_meanwhile(visible: Visible, told: str) -> None:
    assert failed(visible=visible).meanwhile == told


@pytest.mark.parametrize(
    ("error_type", "todo"),
    [
        ("DeclarationError", f"Mend the files named above, `nightshift check toy`, then {AGAIN}."),
        ("ExtractError", f"Repair the source or the suite, then {AGAIN}."),
        ("EmptyPartition", f"Repair the source or the suite, then {AGAIN}."),
        ("ValidationError", f"Repair the source or the suite, then {AGAIN}."),
        ("FeatureError", f"Mend features/toy.py and train, or `nightshift rollback toy`, then {AGAIN}."),
        ("ModelError", f"`nightshift rollback toy` returns to the champion before; then {AGAIN}."),
        ("RegistryError", f"Give the job a champion: `nightshift promote toy VERSION`, then {AGAIN}."),
        ("SealError", f"Tell the pipeline's engineers, who find the run's files kept; then {AGAIN}."),
        ("TransientError", f"Check that the database answers, then {AGAIN}."),
        ("FatalError", f"Do what the message says, then {AGAIN}."),
        ("UsageError", f"Do what the message says, then {AGAIN}."),
    ],
)
def test_what_to_do_follows_the_error_tree(error_type: str, todo: str) -> None:
    notice = failed(error_type, "table x must exist")
    assert notice.todo == todo
    assert "table x must exist" in notice.text


@pytest.mark.parametrize("error_type", ["KeyError", "MemoryError", "Fault", "nearest", "Path", "", "Killed"])
def test_an_error_of_no_known_kind_points_to_the_task_log_and_is_not_quoted(error_type: str) -> None:
    notice = failed(error_type, "row 7: Ana, 12 Main Street")
    assert notice.todo.startswith("The process ended by a fault of no known kind: look at the task log, ")
    assert notice.todo.endswith(f"{AGAIN}.")
    assert "Ana" not in notice.text + notice.title
    assert f"extract, {error_type}: its message may hold rows" in notice.text


@pytest.mark.parametrize("status", [None, "running", "failed", "superseded", "withdrawn"])
def test_what_to_do_about_a_late_day_depends_on_its_newest_run(status: Status | None) -> None:
    others = {late(other).todo for other in (None, "running", "failed", "superseded", "withdrawn")}
    assert len(others) == 5
    assert AGAIN in late(status).todo


def test_a_long_message_is_cut_so_that_chat_services_take_it() -> None:
    text = failed("DeclarationError", "dags/toy.yaml:1: must be …\n" * 10_000, cause="c" * 5000).text
    assert len(text) < 1900
    assert "…" in text


def test_what_databases_and_channels_do_not_take_is_replaced() -> None:
    notice = failed(message="a\0b\udcffc", cause="st\0ge")
    assert "a�b?c" in notice.text
    assert notice.cause == "st�ge"
    (notice.title + notice.text).encode()


def test_a_failure_of_no_single_day_is_told_of_the_job() -> None:
    notice = failed(partition=None)
    assert (notice.title, notice.day) == ("toy failed: extract", None)
    assert notice.meanwhile == "every day that was published before"
    assert notice.todo.endswith("then run it again.")


def test_braces_in_a_message_stay_as_they_are() -> None:
    assert "{job} {0}" in failed(message="{job} {0}").text
