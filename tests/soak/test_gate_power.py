"""The gate over many planted challengers: its declared error holds, and its power is what the README says."""

from __future__ import annotations

import pytest
from bench.gate import PLANTS, line
from scipy.stats import binomtest

from pipeline.job_life import Gate

pytestmark = pytest.mark.soak

SETTINGS = Gate(error=0.1, margin=0.08)
RUNS = 300


@pytest.mark.parametrize("name", ["worse by the margin", "worse by the margin, heavy noise"])
def test_what_is_worse_by_the_margin_is_accepted_no_more_often_than_declared_at_any_look(name: str) -> None:
    found = line(name, PLANTS[name], SETTINGS, RUNS)
    assert binomtest(found.ever_accepted, RUNS, SETTINGS.error, alternative="greater").pvalue > 0.01
    assert found.said["accept"] <= found.ever_accepted


@pytest.mark.parametrize(
    ("name", "outcome", "share"),
    [
        ("10 % better", "accept", 0.95),
        ("5 % better", "accept", 0.9),
        ("5 % better, heavy noise", "accept", 0.85),
        ("worse by the margin", "refuse", 0.95),
        ("5 % better, 40 % worse on a tenth", "refuse", 0.9),
        ("5 % better, 6 nights", "not_enough_evidence", 0.99),
    ],
)
def test_a_plant_gets_the_right_verdict_with_the_declared_power(
    name: str, outcome: str, share: float
) -> None:
    said = line(name, PLANTS[name], SETTINGS, RUNS).said[outcome]
    assert binomtest(said, RUNS, share, alternative="less").pvalue > 0.01


def test_an_equal_challenger_is_never_refused_by_its_slices_more_often_than_declared() -> None:
    same = line("equal", PLANTS["equal"], Gate(error=0.1, margin=0.08, gain=-0.08), RUNS)
    assert binomtest(same.said["refuse"], RUNS, 2 * SETTINGS.error, alternative="greater").pvalue > 0.01
