"""One night of a benchmark, clean or with a planted fault, from its rows to its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from bench.faults import Drawn
from bench.nights import Night, Nights

from pipeline.frames import rows_frame
from pipeline.monitoring.control_charts import Judged
from pipeline.monitoring.metrics import RowCounts, profile_metrics, row_metrics
from pipeline.monitoring.nightly import nightly_metrics
from pipeline.monitoring.profile import Profile, merge, profile_features, profile_inputs, profile_scores
from pipeline.monitoring.quality import quality
from pipeline.partition import Partition

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


@dataclass(frozen=True)
class Bench:
    """The replayed nights, a model fitted on the first months, and °F at each airport by night."""

    nights: Nights
    model: Any
    temperatures: pd.DataFrame
    judged_from: date
    """The first night that the model did not learn from."""

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
        scores = self.model.predict_proba(made[list(code.schema)])[:, 1]
        if fault and fault.scores:
            scores = fault.scores(scores)
        profile = merge(
            [
                profile_inputs(table, extract, job.instants(Partition(night.day))),
                profile_features(made, {**code.schema, "temperature": "float?"}),
                profile_scores(scores, job.declaration.model.threshold),
            ]
        )
        counts = RowCounts(table.num_rows, int(bad.sum()), int(doubled.sum()), int(bad.sum()))
        return Seen(night.day, profile, counts, realised(night, table.filter(good), scores, KEY, fault, draw))

    def featured(self, night: Night, rows: pa.Table) -> pd.DataFrame:
        """The job's features, and the temperature that no feature of the job uses."""
        made = self.nights.features(night, rows)
        at = self.temperatures.loc[pd.Timestamp(night.day)]
        return made.assign(temperature=made["origin"].map(dict(at)).astype("float64"))


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


def metrics_of(seen: Seen, before: Sequence[Seen]) -> pd.DataFrame:
    """The night's metrics as the table has them."""
    found = row_metrics(seen.counts)
    rolling = merge([each.profile for each in before[-ROLLING:]]) if len(before) >= LEAST_ROLLING else None
    found += profile_metrics(seen.profile, None, rolling, "probability")
    if rolling is not None:
        found += nightly_metrics(seen.profile, rolling, before[-1].profile)
    rows = [(pd.Timestamp(seen.day), m.part, m.column, m.metric, m.baseline, m.value) for m in found]
    return pd.DataFrame(rows, columns=COLUMNS)


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
