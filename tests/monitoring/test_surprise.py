"""How far a night lies from the nights before it: gaps, and nights that are not consecutive weeks."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.monitoring.surprise import LEAST, LEFT_OUT, surprise

NIGHTS = 70
WEEKDAYS = np.arange(NIGHTS, dtype=np.int64) % 7


def test_nights_without_a_figure_leave_the_other_nights_of_its_column_to_judge_by() -> None:
    values = np.random.default_rng(3).normal(size=(NIGHTS, 2))
    whole = surprise(values, WEEKDAYS, np.zeros(2))
    gappy = values.copy()
    gappy[[5, 12, 30], 1] = np.nan
    found = surprise(gappy, WEEKDAYS, np.zeros(2))
    np.testing.assert_array_equal(found.z[:, 0], whole.z[:, 0])
    judged = found.z[LEAST + LEFT_OUT + 2 :, 1]
    assert np.isfinite(judged).sum() == len(judged) - 1  # the one that is not measured itself
    assert found.z[-1, 1] == pytest.approx(whole.z[-1, 1], abs=1)
