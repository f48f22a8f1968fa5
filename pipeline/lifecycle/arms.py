"""Champion and challenger compared by night: what stops a canary and ends an A/B test.

Arms are drawn by key and stay, so two things are left to chance: which keys each arm has, once for all
nights, and what each night brings. A bound over nights alone takes the first for a difference of the models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.job_life import Rollout as Declared
from pipeline.lifecycle.sequence import Bounds, mean_bounds

Floats = npt.NDArray[np.float64]
Conclusion = Literal["better", "worse", "no difference found", "not enough nights", "sample ratio broken"]

SAMPLE_RATIO_P = 0.001
"""Below it, a night's arms are not of their declared share. In 60 nights of equal arms that is so in 0.1 % of
tests where every night has the same keys, in 5.6 % where each night has new ones."""
_SURELY = 0.001
"""The chance, two-sided, that a gap of one night seems wider than declared and is not."""


@dataclass(frozen=True)
class Answered:
    """How the arms of one night answered, before any label: rows, and the scores of those answered."""

    champion_assigned: int
    challenger_assigned: int
    champion_rows: int
    challenger_rows: int
    failed_rows: int
    champion_decisions: int
    challenger_decisions: int
    champion_mean: float | None
    challenger_mean: float | None
    champion_std: float | None
    challenger_std: float | None


@dataclass(frozen=True)
class JudgedNight:
    """What the arms of one night cost, the lower the better; a mean over labelled rows.

    sums and counts: float64 (2, BUCKETS), of the champion's and the challenger's groups of keys.
    """

    day: date
    champion: float
    challenger: float
    sums: Floats
    counts: Floats


@dataclass(frozen=True)
class Comparison:
    """The difference, challenger less champion, and what it says; `lower` and `upper` hold on all nights."""

    nights: int
    champion: float
    challenger: float
    difference: float
    lower: float
    upper: float
    conclusion: Conclusion
    stops: bool
    """Whether a canary must be stopped: it is worse by more than the declared margin."""


def sample_ratio_p(night: Answered, share: float) -> float:
    """The chance that arms of this share are as uneven as these, or more: an exact binomial test."""
    rows = night.champion_assigned + night.challenger_assigned
    from scipy.stats import binomtest

    return float(binomtest(night.challenger_assigned, rows, share).pvalue) if rows else 1.0


def night_faults(night: Answered, declared: Declared) -> list[str]:
    """Why the challenger must stop at once, without any label, in sentences.

    Both arms are of one night, and their keys drawn at random, so rows are the unit here: only a gap that is
    surely wider than declared counts, also of a handful of rows.
    """
    faults = []
    asked = night.challenger_rows + night.failed_rows
    if asked and night.failed_rows / asked > declared.max_failed_share:
        faults.append(f"the challenger did not answer {night.failed_rows} of its {asked} rows")
    if not (night.champion_rows and night.challenger_rows):
        return faults
    champion, challenger = (
        night.champion_decisions / night.champion_rows,
        night.challenger_decisions / night.challenger_rows,
    )
    gap = _least_gap(
        (night.champion_decisions, night.champion_rows), (night.challenger_decisions, night.challenger_rows)
    )
    if gap > declared.max_decision_gap:
        faults.append(
            f"the challenger decides yes in {challenger:.1%} of its rows, the champion in {champion:.1%}: "
            f"more than {declared.max_decision_gap:.1%} apart"
        )
    return faults + _score_faults(night, declared.max_score_gap)


def _least_gap(*decided: tuple[int, int]) -> float:
    """The least gap between two shares, each of (decisions, rows), at `_SURELY`.

    Distances to the exact limits of each (Clopper and Pearson 1934) add as squares (Newcombe 1998): of normal
    errors, one row of a challenger's arm was said to be surely different on 4 % of nights of equal arms.
    """
    from scipy.stats import beta

    (few, of_few), (many, of_many) = sorted(decided, key=lambda each: each[0] / each[1])
    low, high = few / of_few, many / of_many
    highest = float(beta.ppf(1 - _SURELY / 2, few + 1, of_few - few)) if few < of_few else 1.0
    lowest = float(beta.ppf(_SURELY / 2, many, of_many - many + 1)) if many else 0.0
    return high - low - math.hypot(high - lowest, highest - low)


def _score_faults(night: Answered, gap: float | None) -> list[str]:
    if gap is None or night.champion_mean is None or night.challenger_mean is None:
        return []
    if night.champion_std is None or night.challenger_std is None:
        return []  # of one row, nobody knows how far the next one lies
    from scipy.stats import t

    spread = math.hypot(
        night.champion_std / math.sqrt(night.champion_rows),
        night.challenger_std / math.sqrt(night.challenger_rows),
    )
    # At the freedom of the smaller arm, which no unequal variances make too narrow (Hsu 1938).
    half = float(t.ppf(1 - _SURELY / 2, min(night.champion_rows, night.challenger_rows) - 1)) * spread
    if abs(night.challenger_mean - night.champion_mean) - half <= gap:
        return []
    return [
        f"the challenger's mean score is {night.challenger_mean:.4g}, the champion's "
        f"{night.champion_mean:.4g}: more than {gap:.4g} apart"
    ]


def compare(nights: Sequence[JudgedNight], declared: Declared, *, ratio_holds: bool = True) -> Comparison:
    """Compare the arms over judged nights, in any order, at any number of looks.

    Two independent errors, so their half-widths add as squares: of the nights, a confidence sequence on their
    differences; of the draw of keys, made once, a t-bound at half of `declared.error` from the groups of keys
    in each arm. Of simulated Gaussian pairs of both, at most 3.6 % were ever called different of a promised
    5 %, whichever dominates (`make bench-rollout`).
    """
    differences = np.array([night.challenger - night.champion for night in nights])
    # Planned for the first look: a bad canary is stopped soon, and sixty nights lose 7 % of their width.
    bounds = mean_bounds(differences, declared.error, declared.min_nights)
    half = math.hypot(bounds.upper - bounds.mean, _keys_half_width(nights, declared.error / 2))
    champion, challenger = (
        float(np.mean([getattr(night, arm) for night in nights])) if nights else math.nan
        for arm in ("champion", "challenger")
    )
    lower, upper = (bounds.mean - half, bounds.mean + half) if nights else (-math.inf, math.inf)
    conclusion = _conclusion(bounds, lower, upper, declared, ratio_holds=ratio_holds)
    return Comparison(
        nights=len(nights),
        champion=champion,
        challenger=challenger,
        difference=bounds.mean,
        lower=lower,
        upper=upper,
        conclusion=conclusion,
        # Uneven arms conclude nothing, yet what readers see gets worse: readers come first.
        stops=bounds.nights >= declared.min_nights and lower > declared.margin * abs(champion),
    )


def _conclusion(
    bounds: Bounds, lower: float, upper: float, declared: Declared, *, ratio_holds: bool
) -> Conclusion:
    if not ratio_holds:
        return "sample ratio broken"
    if bounds.nights < declared.min_nights:
        return "not enough nights"
    if lower > 0:
        return "worse"
    if upper < 0:
        return "better"
    return "no difference found" if bounds.nights >= declared.max_nights else "not enough nights"


def _keys_half_width(nights: Sequence[JudgedNight], error: float) -> float:
    """How far the arms may differ by their keys alone, from groups of keys over all nights together."""
    if not nights:
        return math.inf
    sums = np.sum([night.sums for night in nights], axis=0)
    counts = np.sum([night.counts for night in nights], axis=0)
    variance, freedom = 0.0, 0
    for total, rows in zip(sums, counts, strict=True):
        held = rows > 0
        groups = int(held.sum())
        if groups < 2:
            return math.inf
        weights = rows[held] / rows.sum()
        means = total[held] / rows[held]
        around = means - (weights * means).sum()
        # The linearised variance of a ratio of totals over groups drawn independently.
        variance += groups / (groups - 1) * float((weights**2 * around**2).sum())
        freedom += groups - 1
    from scipy.stats import t

    return float(t.ppf(1 - error / 2, freedom)) * math.sqrt(variance)
