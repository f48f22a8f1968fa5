"""Faults planted in the rows, the scores or the labels of consecutive nights; sizes drawn from a range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


Fault: TypeAlias = Callable[[np.random.Generator], Drawn]
"""Draws what is planted, and how much of it."""


def nulls(columns: Sequence[str]) -> Fault:
    """2 to 5 % of a column's values are lost."""

    def drawn(draw: np.random.Generator) -> Drawn:
        column, share = str(draw.choice(columns)), draw.uniform(0.02, 0.05)

        def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
            return rows.assign(**{column: rows[column].mask(night.random(len(rows)) < share)})

        return Drawn(f"{share:.1%} of {column}", rows=plant)

    return drawn


def category(columns: Sequence[str]) -> Fault:
    """3 to 8 % of a column's values become one that was never there."""

    def drawn(draw: np.random.Generator) -> Drawn:
        column, share = str(draw.choice(columns)), draw.uniform(0.03, 0.08)

        def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
            return rows.assign(**{column: rows[column].mask(night.random(len(rows)) < share, "ZZZ")})

        return Drawn(f"{share:.1%} of {column}", rows=plant)

    return drawn


def times(column: str, factor: float) -> Fault:
    """A column comes in another unit."""

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{column: rows[column] * factor})

    return lambda draw: Drawn(column, rows=plant)


def celsius(column: str) -> Fault:
    """A feature in °F comes in °C."""

    def plant(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{column: (frame[column] - 32) / 1.8})

    return lambda draw: Drawn(column, features=plant)


def dropped(column: str, values: Sequence[str]) -> Fault:
    """40 to 60 % of the rows of one value are lost."""

    def drawn(draw: np.random.Generator) -> Drawn:
        value, share = str(draw.choice(values)), draw.uniform(0.4, 0.6)

        def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
            kept: pd.DataFrame = rows[(rows[column] != value) | (night.random(len(rows)) >= share)]
            return kept

        return Drawn(f"{share:.0%} of {value}", rows=plant)

    return drawn


def swapped(pairs: Sequence[tuple[str, str]]) -> Fault:
    """Two columns change places."""

    def drawn(draw: np.random.Generator) -> Drawn:
        one, other = pairs[int(draw.integers(len(pairs)))]

        def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
            return rows.assign(**{one: rows[other], other: rows[one]})

        return Drawn(f"{one} and {other}", rows=plant)

    return drawn


def shifted(draw: np.random.Generator) -> Drawn:
    """Scores move by 0.4 to 1.0 in log odds, either way."""
    shift = draw.uniform(0.4, 1.0) * draw.choice([-1, 1])

    def plant(scores: Scores) -> Scores:
        moved: Scores = expit(logit(scores) + shift)
        return moved

    return Drawn(f"{shift:+.2f} in log odds", scores=plant)


def doubled(draw: np.random.Generator) -> Drawn:
    """1 to 5 % of the rows come twice."""
    share = draw.uniform(0.01, 0.05)

    def plant(rows: pd.DataFrame, night: np.random.Generator) -> pd.DataFrame:
        return pd.concat([rows, rows[night.random(len(rows)) < share]], ignore_index=True)

    return Drawn(f"{share:.1%} of the rows", rows=plant)


FAULTS: Mapping[str, Fault] = {
    "null +3 %": nulls(["tailnum", "dest", "distance", "carrier"]),
    "new category 5 %": category(["carrier", "dest", "origin"]),
    "unit: miles to km": times("distance", 1.609344),
    "unit: °F to °C": celsius("temperature"),
    "half of a carrier dropped": dropped("carrier", ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN"]),
    "stale copy of yesterday": lambda draw: Drawn("every row", stale=True),
    "column swap": swapped(
        [("sched_dep_time", "sched_arr_time"), ("origin", "dest"), ("distance", "flight")]
    ),
    "shuffled labels": lambda draw: Drawn("every label", shuffled_labels=True),
    "score shift": shifted,
    "duplicated rows": doubled,
}
"""Of flights."""
