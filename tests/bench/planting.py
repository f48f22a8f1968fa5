"""One night of a benchmark, clean or with a planted fault, from its rows to its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from bench import peers
from bench.faults import Drawn
from bench.nights import Night, Nights

from pipeline.errors import ModelError
from pipeline.frames import rows_frame
from pipeline.lifecycle.known_answers import KnownAnswers, made_up
from pipeline.monitoring.control_charts import Judged
from pipeline.monitoring.metrics import RowCounts, profile_metrics, row_metrics
from pipeline.monitoring.nightly import nightly_metrics
from pipeline.monitoring.profile import Profile, merge, profile_features, profile_inputs, profile_scores
from pipeline.monitoring.quality import quality
from pipeline.partition import Partition
from pipeline.scoring.feature_code import FeatureType
from pipeline.scoring.score import predict

COLUMNS = ["day", "part", "column_name", "metric", "baseline", "value"]
KEY = ["carrier", "flight", "origin"]
ROLLING = 28
LEAST_ROLLING = 7


@dataclass(frozen=True)
class Seen:
    """What monitoring sees of a night, and the quality that its labels show later."""

    day: date
    profile: Profile
    counts: RowCounts
    judged: Judged
    is_known: bool
    """Whether known rows got the scores that they had when the model was fitted."""


@dataclass(frozen=True)
class Bench:
    """The replayed nights, a model fitted on the first months, and °F at each airport by night."""

    nights: Nights
    model: Any
    temperatures: pd.DataFrame
    judged_from: date
    """The first night that the model did not learn from."""
    known: KnownAnswers

    def seen(self, night: Night, fault: Drawn | None = None, draw: np.random.Generator | None = None) -> Seen:
        """The night's profile: inputs of all rows, features and scores of those that no rule refuses.

        A stale fault is given the rows of an earlier night.
        """
        job, code = self.nights.job, self.nights.code
        extract = job.declaration.extract
        table, draw = night.rows, draw or np.random.default_rng(0)
        if fault and fault.rows:
            planted = fault.rows(table.to_pandas(), draw)
            table = pa.Table.from_pandas(planted, schema=table.schema, preserve_index=False, safe=False)
        frame = rows_frame(table, extract.columns)
        doubled = frame.duplicated(list(extract.key), keep=False)
        required = [name for name, kind in extract.columns.items() if not kind.endswith("?")]
        bad = frame[required].isna().any(axis=1) & ~doubled
        good = pa.array((~bad & ~doubled).to_numpy())
        made = self.featured(night, table.filter(good))
        if fault and fault.features:
            made = fault.features(made)
        scorer = faulty(self.model, fault)
        scores = predict(scorer, made[list(code.schema)], "probability")
        profile = merge(
            [
                profile_inputs(table, extract, job.instants(Partition(night.day))),
                profile_features(made, {**code.schema, "temperature": "float?"}),
                profile_scores(scores, job.declaration.model.threshold),
            ]
        )
        counts = RowCounts(table.num_rows, int(bad.sum()), int(doubled.sum()), int(bad.sum()))
        judged = realised(night, table.filter(good), scores, KEY, fault, draw)
        return Seen(night.day, profile, counts, judged, answers_as_known(self.known, scorer, code.schema))

    def featured(self, night: Night, rows: pa.Table) -> pd.DataFrame:
        """The job's features, and the temperature that no feature of the job uses."""
        made = self.nights.features(night, rows)
        at = self.temperatures.loc[pd.Timestamp(night.day)]
        return made.assign(temperature=made["origin"].map(dict(at)).astype("float64"))


@dataclass(frozen=True)
class Moved:
    """A model whose scores a fault moves, whatever rows it is given."""

    model: Any
    moved: Callable[[Any], Any]

    @property
    def classes_(self) -> Any:
        """Those of the model."""
        return self.model.classes_

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        """The model's probabilities, moved."""
        yes = self.moved(self.model.predict_proba(frame)[:, 1])
        return np.column_stack([1 - yes, yes])


def faulty(model: Any, fault: Drawn | None) -> Any:
    """The model, or with a fault of scores one that has it."""
    return Moved(model, fault.scores) if fault and fault.scores else model


def answers_as_known(known: KnownAnswers, model: Any, schema: Mapping[str, FeatureType]) -> bool:
    """Whether a night's model would be asked at all."""
    try:
        known.check(model, schema, "probability")
    except ModelError:
        return False
    return True


def realised(
    night: Night,
    rows: pa.Table,
    scores: Any,
    key: list[str],
    fault: Drawn | None,
    draw: np.random.Generator,
) -> Judged:
    """The quality of the rows whose label is known; none where no key is known, as a swap of keys gives."""
    label = night.labels.column_names[-1]
    scored = rows.select(key).to_pandas().assign(score=scores)
    known = scored.merge(night.labels.to_pandas().astype({label: bool}), on=key)
    truth = known[label].to_numpy(dtype=np.float64)
    if fault and fault.shuffled_labels:
        truth = draw.permutation(truth)
    return Judged(night.day, len(truth), quality(known["score"].to_numpy(), None, truth, "probability", None))


@dataclass(frozen=True)
class Measured:
    """A night's metrics as the table has them, and what the tests of its distributions say."""

    metrics: pd.DataFrame
    tests: peers.Scores


def measured(seen: Seen, before: Sequence[Seen]) -> Measured:
    """Of a night, against the ROLLING nights before it."""
    found = row_metrics(seen.counts)
    rolling = merge([each.profile for each in before[-ROLLING:]]) if len(before) >= LEAST_ROLLING else None
    found += profile_metrics(seen.profile, None, rolling, "probability")
    if rolling is not None:
        found += nightly_metrics(seen.profile, rolling, before[-1].profile)
    rows = [(pd.Timestamp(seen.day), m.part, m.column, m.metric, m.baseline, m.value) for m in found]
    tests = {} if rolling is None else peers.corrected_tests(seen.profile, rolling)
    return Measured(pd.DataFrame(rows, columns=COLUMNS), tests)


def known_answers(nights: Nights, model: Any, frames: Mapping[date, pd.DataFrame]) -> KnownAnswers:
    """As a training keeps them."""
    schema = nights.code.schema
    rows = made_up(pd.concat([frame[list(schema)] for frame in frames.values()]), schema, ())
    if rows is None:
        raise ValueError("no feature of the benchmark may be empty")
    return KnownAnswers.of(model, rows, "probability")


def fitted(nights: Nights, frames: Mapping[date, pd.DataFrame]) -> Any:
    """The job's model, fitted on the labelled rows of these feature frames."""
    learned = [_labelled(nights.read(day), frame) for day, frame in frames.items()]
    model = nights.code.module.make_model()
    seeds = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
    model.set_params(**dict.fromkeys(seeds, 0))
    return model.fit(pd.concat([rows for rows, _ in learned]), np.concatenate([late for _, late in learned]))


def _labelled(night: Night, frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    rows = night.rows.select(KEY).to_pandas().reset_index()
    known = rows.merge(night.labels.to_pandas(), on=KEY)
    return frame.iloc[known["index"].to_numpy()], known["late"].astype(int).to_numpy()
