"""What `nightshift readiness` prints."""

from __future__ import annotations

import pytest

from pipeline.cli.console import emit
from pipeline.cli.readiness import _table
from pipeline.readiness.rubric import RUBRIC, Assessed, failed, not_applicable, passed


def test_each_status_is_a_word_and_evidence_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        passed("a figure [0, 1]"),
        failed("too slow", "make it faster"),
        not_applicable("no such part"),
    ]
    emit(
        {},
        as_json=False,
        shown=_table("toy", [Assessed(*each) for each in zip(RUBRIC, answers, strict=False)]),
    )
    shown = capsys.readouterr().out
    assert all(each in shown for each in ("pass (required)", "fail", "n/a", "[0, 1]", "make it faster"))
    assert "[/]" not in shown
