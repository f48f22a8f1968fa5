"""The metrics of a night: its profile alone, against the training rows, and against the nights before it.

Everything here is arithmetic on profiles; nothing is read and no clock is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from pipeline.monitoring import divergence
from pipeline.monitoring.columns import Categories, Column, Numbers
from pipeline.monitoring.profile import DECISION, SCORE, Part, Profile

Baseline: TypeAlias = Literal["none", "training", "rolling"]

QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}


@dataclass(frozen=True)
class Metric:
    """One figure of one column; `value` is finite."""

    part: Literal["rows", "input", "feature", "score", "estimate"]
    column: str
    metric: str
    baseline: Baseline
    value: float


@dataclass(frozen=True)
class RowCounts:
    """What became of a run's rows, as the runs table has it."""

    rows_in: int
    quarantined: int
    withheld: int
    fallback: int


def row_metrics(counts: RowCounts) -> list[Metric]:
    """rows_in, and the shares of it that were quarantined, withheld, answered by a fallback."""
    shares = {
        "quarantined_share": counts.quarantined,
        "withheld_share": counts.withheld,
        "fallback_share": counts.fallback,
    }
    values = {"rows_in": float(counts.rows_in)}
    if counts.rows_in:
        values |= {name: count / counts.rows_in for name, count in shares.items()}
    return [Metric("rows", "rows", name, "none", value) for name, value in values.items()]


def profile_metrics(
    profile: Profile,
    training: Profile | None,
    rolling: Profile | None,
    output: Literal["probability", "value"],
) -> list[Metric]:
    """All metrics of inputs, features and scores; what is not defined or not finite is left out.

    A column that a baseline lacks, or has as another kind, is not compared with it.
    """
    baselines: dict[Baseline, Profile] = {}
    if training is not None:
        baselines["training"] = training
    if rolling is not None:
        baselines["rolling"] = rolling
    found = [*_of_columns("input", profile, baselines), *_of_columns("feature", profile, baselines)]
    found += _of_scores(profile, baselines, output)
    return [metric for metric in found if isfinite(metric.value)]


def _of_columns(part: Part, profile: Profile, baselines: Mapping[Baseline, Profile]) -> Iterator[Metric]:
    for name, column in profile.part(part).items():
        if column.rows:
            yield Metric(part, name, "missing_share", "none", column.missing / column.rows)
        for metric, value in _alone(column):
            yield Metric(part, name, metric, "none", value)
        yield from _against(part, name, column, baselines)


def _of_scores(
    profile: Profile, baselines: Mapping[Baseline, Profile], output: Literal["probability", "value"]
) -> Iterator[Metric]:
    scores, decisions = profile.score.get(SCORE), profile.score.get(DECISION)
    if not isinstance(scores, Numbers) or not scores.present:
        return
    values = dict(_moments(scores))
    if isinstance(decisions, Categories):
        values["share_over_threshold"] = decisions.counts.get("true", 0) / decisions.rows
    if output == "probability":
        values["entropy"] = mean_entropy(scores)
    for metric, value in values.items():
        yield Metric("score", SCORE, metric, "none", value)
    for found in _against("score", SCORE, scores, baselines):
        if found.metric != "out_of_range_share":
            yield found


def _against(
    part: Part, name: str, column: Column, baselines: Mapping[Baseline, Profile]
) -> Iterator[Metric]:
    for baseline, profile in baselines.items():
        for metric, value in _distances(column, profile.part(part).get(name)):
            if value is not None:
                yield Metric(part, name, metric, baseline, value)


def _alone(column: Column) -> Iterator[tuple[str, float]]:
    present = column.rows - column.missing
    if isinstance(column, Numbers) and present:
        yield from _moments(column)
    elif isinstance(column, Categories) and present:
        if column.is_exact:
            yield "distinct", float(len(column.counts))
        yield "top_share", max(column.counts.values(), default=0) / present


def _moments(column: Numbers) -> Iterator[tuple[str, float]]:
    yield from (("mean", column.mean), ("std", column.std), ("min", column.min), ("max", column.max))
    values = divergence.quantiles(column, np.array(list(QUANTILES.values())))
    yield from zip(QUANTILES, values.tolist(), strict=True)


def _distances(column: Column, baseline: Column | None) -> Iterator[tuple[str, float | None]]:
    if baseline is None or not (column.rows and baseline.rows):
        return
    if isinstance(column, Numbers) and isinstance(baseline, Numbers):
        bins = divergence.number_bins(column, baseline)
        yield "wasserstein", divergence.wasserstein(column, baseline)
        yield "out_of_range_share", divergence.out_of_range_share(column, baseline)
    elif isinstance(column, Categories) and isinstance(baseline, Categories):
        bins = divergence.category_bins(column, baseline)
        yield "unseen_share", divergence.unseen_share(column, baseline)
    else:
        return
    yield "js", divergence.js(*bins)
    yield "psi", divergence.psi(*bins)


def night_distances(nights: Sequence[Profile], together: Profile) -> dict[str, float]:
    """How far a night lies from all of them together: each feature's median divergence, in bits.

    A day of the week is far from a year of them: what is asked of later nights is how much further they lie.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for night in nights:
        for name, column in night.feature.items():
            bits = dict(_distances(column, together.feature.get(name))).get("js")
            if bits is not None:
                found[name].append(bits)
    return {name: median(bits) for name, bits in found.items()}


def mean_entropy(scores: Numbers) -> float:
    """Mean binary entropy of probabilities, in bits: 0 where the model is always sure, 1 where never."""
    from scipy.special import entr

    p = np.clip(scores.middles(), 0, 1)
    bits = (entr(p) + entr(1 - p)) / np.log(2)
    return float(np.average(bits, weights=scores.buckets.counts))
