"""What a run is, and the small values that its stages hand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Literal

from pipeline.partition import Partition

Status = Literal["running", "published", "failed", "superseded", "withdrawn"]
Stage = Literal["planned", "extracted", "validated", "scored", "sealed", "published"]
Trigger = Literal["manual", "scheduled", "asset", "backfill", "train"]
Verdict = Literal["quarantined", "withheld"]

QUARANTINED: Verdict = "quarantined"
WITHHELD: Verdict = "withheld"

MASK = "***"
"""Stands for a value that is declared pii."""

Parameter = int | float | str | bool | date | datetime | None
"""A value that the suite's day-dependent bounds may take."""

BATCH_ROWS = 65_536
"""Rows of one Arrow batch: every stage streams batches of this size (the last one is shorter)."""


@dataclass(frozen=True)
class Run:
    """One attempt at one (job, partition): what was fixed when it was planned."""

    run_no: int
    run_id: str
    job: str
    partition: Partition
    token: int
    model_version: int
    status: Status
    stage: Stage
    rollout_no: int | None = None
    """The rollout in which a challenger takes part; None without one."""


@dataclass(frozen=True)
class Snapshot:
    """The run's immutable staged input, local paths.

    `path` holds the declared columns in order, row number = position in the file. `history` maps a history
    query's name to its Parquet file (one row per its key). `parameters` are the suite's bounds.
    `fingerprint` covers rows, history and parameters, whatever the batch boundaries were. `proved` is false
    where the source has no consistent transaction, so `count(*)` proves nothing.
    """

    path: Path
    rows: int
    bytes: int
    fingerprint: str
    history: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    proved: bool = True
    digests: Mapping[str, str] = field(default_factory=dict)
    """The fingerprint of the rows and of each history, by the place of its query."""
    questions: Mapping[str, str] = field(default_factory=dict)
    """sha256 of what each query asked, by its place (see `pipeline.scoring.extract.questions`); none of
    snapshots sealed before these were kept."""


@dataclass(frozen=True)
class RuleResult:
    """One rule's answer over a snapshot; `failed_rows` is 0 for table-level rules."""

    rule: str
    column: str | None
    severity: Literal["critical", "warning", "info"]
    success: bool
    failed_rows: int
    observed: str | None = None


@dataclass(frozen=True)
class Verdicts:
    """Which rows of a snapshot a model may not see.

    `path` is a Parquet file with one line per (row, reason): row int64 (position in the snapshot), verdict
    text ('quarantined' or 'withheld', the same on every line of a row), rule text, column text null, value
    text null (masked where the column is declared pii), key text (JSON of the key columns). Sorted by row.
    """

    path: Path
    rows: int
    good: int
    quarantined: int
    withheld: int
    results: tuple[RuleResult, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Rules of severity warning that failed, one sentence each."""
        return tuple(
            f"{result.rule}"
            + (f" on {result.column}" if result.column else "")
            + (f": {result.failed_rows} rows" if result.failed_rows else "")
            for result in self.results
            if not result.success and result.severity == "warning"
        )
