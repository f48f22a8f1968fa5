"""How `nightshift rollout JOB status` puts what is known of a rollout into words."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan

import pytest

from pipeline.cli.rollout import _cells, _state
from pipeline.guardrails import Night, Standing
from pipeline.lifecycle.arms import Answered, Comparison
from pipeline.lifecycle.rollout import Rollout

SINCE = datetime(2024, 1, 25, tzinfo=UTC)
CANARY = Rollout(1, "toy", "canary", 2, 0.1, "a", SINCE, SINCE, "ana", "ana", "a test", None, "0" * 64)


@pytest.mark.parametrize(
    ("compared", "told"),
    [
        (
            Comparison(0, nan, nan, nan, -inf, inf, "not enough nights", False),
            "not enough nights after 0 judged nights",
        ),
        (
            Comparison(0, nan, nan, nan, -inf, inf, "sample ratio broken", False),
            "sample ratio broken after 0 judged nights",
        ),
        (
            Comparison(12, 9.0, 11.0, 2.0, 0.5, 3.5, "worse", False),
            "worse after 12 judged nights: cost differs by 2, between 0.5 and 3.5",
        ),
    ],
)
def test_bounds_are_told_where_there_are_any(compared: Comparison, told: str) -> None:
    found = Standing(CANARY, True, None, "cost", (), compared)
    assert _state(found) == f"running; {told}"


def test_a_rollout_to_come_is_told_to_begin_and_not_to_have_ended() -> None:
    told = _state(Standing(CANARY, False, None, "cost", (), None, begins=SINCE))
    assert told == "begins at 2024-01-25 00:00 UTC; until then the champion answers alone"


def test_nobodys_decisions_are_shown_where_the_job_does_not_decide() -> None:
    answered = Answered(90, 10, 90, 10, 0, 0, 0, 0.2, 0.3, 0.1, 0.1)
    night = Night(SINCE.date(), "toy-1", "canary", 0.1, answered, None, None, (), None, None)
    shown = [
        _cells(night, Standing(CANARY, True, None, "mae", (night,), None, decides=decides))[6:8]
        for decides in (True, False)
    ]
    assert shown == [["0.0%", "0.0%"], [None, None]]
