"""Published rows of a run and what became of them: predictions, labels and slices joined by the job's key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from pipeline.adapters import run_files
from pipeline.environment import Environment
from pipeline.errors import FatalError
from pipeline.frames import key_index
from pipeline.job import Job
from pipeline.labels import match
from pipeline.lifecycle.rollout import buckets
from pipeline.monitoring.quality import Answers, Floats
from pipeline.run import Run

log = structlog.get_logger()

_SOURCE = "score_source"


def read_answers(
    env: Environment, job: Job, run: Run, labels: pa.Table, slices: Sequence[str] = ()
) -> Answers:
    """The rows that a run published, from its own sealed file, with these labels and slices.

    Where several sources answered, `score_source` is a slice too. Raises FatalError when the run's file is
    gone or a label is none of the model's output.
    """
    with env.store.workspace() as folder:
        rows = predictions_of(env, run, folder)
        cut = slices_of(env, job, run, rows, slices, folder)
    if len(set(sources := _texts(rows, _SOURCE))) > 1:
        cut = {**cut, _SOURCE: sources}
    decides = job.declaration.model.output == "probability"
    has_arms = rows.column("arm").null_count < rows.num_rows
    return Answers(
        score=rows.column("score").to_numpy(),
        decision=rows.column("decision").to_numpy().astype(bool) if decides else None,
        label=_labels(job, rows, labels),
        arm=_texts(rows, "arm"),
        slices=cut,
        bucket=buckets(rows, job.declaration.extract.key) if has_arms else None,
    )


def predictions_of(env: Environment, run: Run, folder: Path) -> pa.Table:
    """The rows that a run published, from its sealed file; raises FatalError when that is gone."""
    try:
        return pq.read_table(env.store.fetch(run_files.predictions_file(env.store, run), folder))
    except FileNotFoundError:
        raise FatalError(
            f"the predictions of run {run.run_id} must be in the store to be judged; they are gone"
        ) from None


def _labels(job: Job, rows: pa.Table, labels: pa.Table) -> Floats:
    known, found = match(labels, rows, job.declaration.extract.key)
    label = np.full(rows.num_rows, np.nan)
    try:
        label[known] = found.astype(np.float64)
    except (TypeError, ValueError):
        kind = labels.column(labels.num_columns - 1).type
        raise FatalError(f"the label must be true, false or a number; got type {kind}") from None
    if job.declaration.model.output == "probability":
        odd = int((~np.isin(label, [0, 1]) & ~np.isnan(label)).sum())
        if odd:
            raise FatalError(f"labels must be true or false; got {odd} others of {known.sum()} rows")
    return label


def slices_of(
    env: Environment, job: Job, run: Run, rows: pa.Table, slices: Sequence[str], folder: Path
) -> dict[str, npt.NDArray[Any]]:
    """The columns by which rows are set apart; one that is no key column comes from the run's snapshot."""
    key = job.declaration.extract.key
    cut = {name: _texts(rows, name) for name in slices if name in key}
    others = [name for name in slices if name not in key]
    return {**cut, **(_from_snapshot(env, run, rows, key, others, folder) if others else {})}


def _from_snapshot(
    env: Environment, run: Run, rows: pa.Table, key: Sequence[str], names: Sequence[str], folder: Path
) -> Mapping[str, npt.NDArray[Any]]:
    snapshot = run_files.load_snapshot(env.store, run, folder)
    if snapshot is None:
        log.warning("slices left out, the run's snapshot is gone", run_id=run.run_id, slices=list(names))
        return {}
    table = pq.read_table(snapshot.path, columns=[*key, *names])
    index = key_index(table, key)
    # Copies of a key were withheld, so no published row is among them.
    table = table.filter(pa.array(~index.duplicated(keep=False)))
    position = key_index(table, key).get_indexer(key_index(rows, key))
    return {name: _texts(table, name)[position] for name in names}


def _texts(table: pa.Table, name: str) -> npt.NDArray[np.object_]:
    texts: npt.NDArray[np.object_] = table.column(name).cast(pa.string()).to_numpy(zero_copy_only=False)
    return texts
