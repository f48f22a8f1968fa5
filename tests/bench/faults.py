"""Faults planted in the rows, the scores or the labels of consecutive nights; sizes drawn from a range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

Scores: TypeAlias = npt.NDArray[np.float64]

NIGHTS = 5
"""How long a fault lasts."""


@dataclass(frozen=True)
class Drawn:
    """One planting of a fault: what does it to rows, feature frame, scores and labels of a night."""

    detail: str
    rows: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame] | None = None
    features: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    scores: Callable[[Scores], Scores] | None = None
    shuffled_labels: bool = False
    stale: bool = False


def _nulls(draw: np.random.Generator) -> Drawn:
    column, share = draw.choice(["tailnum", "dest", "distance", "carrier"]), draw.uniform(0.02, 0.05)

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{column: rows[column].mask(night.random(len(rows)) < share)})

    return Drawn(f"{share:.1%} of {column}", rows=plant)


def _new_category(draw: np.random.Generator) -> Drawn:
    column, share = draw.choice(["carrier", "dest", "origin"]), draw.uniform(0.03, 0.08)

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{column: rows[column].mask(night.random(len(rows)) < share, "ZZZ")})

    return Drawn(f"{share:.1%} of {column}", rows=plant)


def _kilometres(draw: np.random.Generator) -> Drawn:
    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return rows.assign(distance=rows["distance"] * 1.609344)

    return Drawn("distance", rows=plant)


def _celsius(draw: np.random.Generator) -> Drawn:
    def plant(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(temperature=(frame["temperature"] - 32) / 1.8)

    return Drawn("temperature", features=plant)


def _half_a_carrier(draw: np.random.Generator) -> Drawn:
    carrier = draw.choice(["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN"])
    share = draw.uniform(0.4, 0.6)

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        kept: pd.DataFrame = rows[(rows["carrier"] != carrier) | (night.random(len(rows)) >= share)]
        return kept

    return Drawn(f"{share:.0%} of {carrier}", rows=plant)


def _swap(draw: np.random.Generator) -> Drawn:
    pairs = [("sched_dep_time", "sched_arr_time"), ("origin", "dest"), ("distance", "flight")]
    one, other = pairs[int(draw.integers(len(pairs)))]

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{one: rows[other], other: rows[one]})

    return Drawn(f"{one} and {other}", rows=plant)


def _shifted_scores(draw: np.random.Generator) -> Drawn:
    shift = draw.uniform(0.4, 1.0) * draw.choice([-1, 1])

    def plant(scores: Scores) -> Scores:
        shifted: Scores = expit(logit(scores) + shift)
        return shifted

    return Drawn(f"{shift:+.2f} in log odds", scores=plant)


def _duplicates(draw: np.random.Generator) -> Drawn:
    share = draw.uniform(0.01, 0.05)

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return pd.concat([rows, rows[night.random(len(rows)) < share]], ignore_index=True)

    return Drawn(f"{share:.1%} of the rows", rows=plant)


FAULTS: Mapping[str, Callable[[np.random.Generator], Drawn]] = {
    "null +3 %": _nulls,
    "new category 5 %": _new_category,
    "unit: miles to km": _kilometres,
    "unit: °F to °C": _celsius,
    "half of a carrier dropped": _half_a_carrier,
    "stale copy of yesterday": lambda draw: Drawn("every row", stale=True),
    "column swap": _swap,
    "shuffled labels": lambda draw: Drawn("every label", shuffled_labels=True),
    "score shift": _shifted_scores,
    "duplicated rows": _duplicates,
}
