"""Labels as the declared outcomes query gives them, known at an instant; joined to rows by the job's key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.adapters.source import open_reader
from pipeline.environment import Environment
from pipeline.errors import FatalError, UsageError
from pipeline.frames import history_frame, key_index
from pipeline.job import Job, Outcomes
from pipeline.partition import Partition
from pipeline.query import Query, compose


def declared_outcomes(job: Job, purpose: str) -> Outcomes:
    """The job's outcomes; raises UsageError where it declares none."""
    if job.declaration.outcomes is None:
        raise UsageError(f"{job.name} must declare outcomes to be {purpose}; add outcomes: {{label, sql}}")
    return job.declaration.outcomes


def read_labels(env: Environment, job: Job, partition: Partition, as_of: datetime) -> pa.Table:
    """The key columns and, last, the label of the partition's rows whose label was known at `as_of`."""
    outcomes = declared_outcomes(job, "labelled")
    binds = {**job.instants(partition).binds(), "cutoff": as_of}
    with open_reader(env.source_url, binds) as reader:
        sql = compose(Query("outcomes.sql", outcomes.sql), job.declaration.sources, reader.dialect)
        table = pa.Table.from_batches(list(reader.batches(sql)))
    wanted = [*job.declaration.extract.key, outcomes.label]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise FatalError(f"outcomes.sql must give the key and the label; got none named {missing}")
    return table.select(wanted)


def match(
    labels: pa.Table, rows: pa.Table, key: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Which of n rows have a label, bool (n,), and those labels in the order of the rows.

    Raises FeatureError when the labels' key is null or not unique.
    """
    values = history_frame("outcomes", labels, key)[labels.column_names[-1]].to_numpy()
    position = key_index(labels, key).get_indexer(key_index(rows, key))
    known = position >= 0
    return known, values[position[known]]
