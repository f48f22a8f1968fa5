"""What commands print for machines."""

from __future__ import annotations

import json
from datetime import date
from math import inf, nan

import pytest

from pipeline.cli.console import emit


def test_what_is_not_known_or_not_bounded_is_null_as_json_has_no_nan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit({"auc": nan, "nights": ({"upper": inf, "rows": 3}, [0.5, -inf])}, as_json=True)
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"auc": None, "nights": [{"upper": None, "rows": 3}, [0.5, None]]}


def test_days_are_iso_dates(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"day": date(2024, 1, 2)}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"day": "2024-01-02"}
