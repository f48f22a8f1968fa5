"""Which runs of a day are judged, and from when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipeline.declaration import load_job
from pipeline.job import Job
from pipeline.monitoring.decided import Publication, decision_instant, judged, matured
from pipeline.partition import Partition

DAY = date(2013, 5, 1)
DECIDED = datetime(2013, 5, 1, 10, tzinfo=UTC)


def shown(run_no: int, since: int, until: int | None = None) -> Publication:
    """A run that readers saw between hours of the first of May."""
    ended = None if until is None else datetime(2013, 5, 1, until, tzinfo=UTC)
    return Publication(DAY, run_no, datetime(2013, 5, 1, since, tzinfo=UTC), ended)


@pytest.fixture(scope="module")
def job() -> Job:
    return load_job(Path(__file__).resolve().parents[2], "flight_delays")


def test_the_run_that_readers_saw_at_the_decision_is_judged() -> None:
    assert judged([shown(1, 7)], DECIDED) == {1: False}


def test_a_run_published_after_the_decision_is_judged_in_hindsight() -> None:
    assert judged([shown(1, 11)], DECIDED) == {1: True}


def test_a_backfill_does_not_take_the_place_of_the_run_that_was_acted_upon() -> None:
    assert judged([shown(1, 7, 12), shown(2, 12)], DECIDED) == {1: False, 2: True}


def test_what_was_replaced_before_the_decision_is_not_judged() -> None:
    assert judged([shown(1, 7, 9), shown(2, 9)], DECIDED) == {2: False}


def test_a_backfill_that_another_one_replaced_is_not_judged() -> None:
    assert judged([shown(1, 7, 12), shown(2, 12, 14), shown(3, 14)], DECIDED) == {1: False, 3: True}


def test_the_very_instant_of_the_flip_belongs_to_the_newer_run() -> None:
    assert judged([shown(1, 7, 10), shown(2, 10)], DECIDED) == {2: False}


def test_a_run_that_was_taken_back_was_acted_upon_all_the_same() -> None:
    assert judged([shown(1, 7, 12)], DECIDED) == {1: False}


def test_a_roll_back_to_the_run_that_was_acted_upon_is_no_hindsight() -> None:
    assert judged([shown(1, 7, 12), shown(2, 12, 13), shown(1, 13)], DECIDED) == {1: False}


def test_the_decision_is_at_the_declared_local_time(job: Job) -> None:
    assert decision_instant(job, Partition(DAY)) == DECIDED


def test_without_a_declared_time_a_day_is_decided_until_its_end(job: Job) -> None:
    assert job.declaration.outcomes
    outcomes = job.declaration.outcomes.model_copy(update={"decided_at": None})
    undeclared = job.model_copy(
        update={"declaration": job.declaration.model_copy(update={"outcomes": outcomes})}
    )
    assert decision_instant(undeclared, Partition(DAY)) == datetime(2013, 5, 2, 4, tzinfo=UTC)


def test_labels_are_mature_when_the_day_so_many_later_has_ended(job: Job) -> None:
    assert matured(job, Partition(DAY)) == datetime(2013, 5, 4, 4, tzinfo=UTC)
