"""What runs beside the champion: decisions over the append-only rollout history, without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.frames import key_hashes
from pipeline.lifecycle import promote
from pipeline.lifecycle.promote import Promotion

Kind = Literal["shadow", "canary", "ab"]
Arm = Literal["champion", "challenger"]

SHARED: tuple[Kind, ...] = ("canary", "ab")
"""Kinds whose challenger answers readers, for its share of the keys."""


@dataclass(frozen=True)
class Rollout:
    """One row of the rollout history: from `effective_from` on, `version` runs beside the champion.

    A stop has no version and ends the row that `stops` names. `share` is the challenger's of all keys, None
    for a shadow, which answers nobody. `salt` decides which keys those are: a row that goes on with the
    version of the one before keeps its salt, so that no key changes sides.
    """

    rollout_no: int
    job: str
    kind: Kind | Literal["stop"]
    version: int | None
    share: float | None
    salt: str | None
    effective_from: datetime
    recorded_at: datetime
    actor: str
    approved_by: str | None
    reason: str
    stops: int | None
    model_sha256: str | None

    @property
    def challenger(self) -> int:
        """The version beside the champion; a stop has none."""
        if self.version is None:
            raise ValueError(f"rollout {self.rollout_no} is a stop: nothing runs beside the champion")
        return self.version

    @property
    def draw(self) -> tuple[str, float]:
        """Salt and share, by which keys are drawn into arms; a shadow and a stop have none."""
        if self.salt is None or self.share is None:
            raise ValueError(f"rollout {self.rollout_no} is a {self.kind}, which draws no keys")
        return self.salt, self.share


def timeline(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The history in the order in which its rows came into force; of one instant, the later row wins."""
    return sorted(rollouts, key=lambda row: (row.effective_from, row.rollout_no))


def in_force(rollouts: Iterable[Rollout], promotions: Iterable[Promotion], at: datetime) -> Rollout | None:
    """The rollout in force at an instant; None before the first, after a stop, or once it has no purpose.

    A change of the champion ends it: the challenger was promoted, or is compared with another model than
    those who started it meant. A roll-back does not bring it to life again. A stop ends its whole series,
    also what was recorded before it to begin later, such as a growing share.
    """
    begun = [row for row in timeline(rollouts) if row.effective_from <= at]
    newest = begun[-1] if begun else None
    if newest is None or newest.version is None or _is_stopped(newest, begun):
        return None
    history = list(promotions)
    champion = promote.in_force(history, newest.effective_from)
    if champion is None or newest.version == champion.version:
        return None
    later = [row.version for row in history if newest.effective_from < row.effective_from <= at]
    return newest if set(later) <= {champion.version} else None


def _is_stopped(row: Rollout, begun: Sequence[Rollout]) -> bool:
    """Whether a stop of the row's series was recorded after it."""
    stopped = {stop.stops for stop in begun if stop.stops and stop.rollout_no > row.rollout_no}
    return any(each.rollout_no in stopped and each.salt == row.salt for each in begun)


def series(rollouts: Iterable[Rollout], running: Rollout) -> list[Rollout]:
    """The rows up to `running` that put the same keys into the same arms, such as before its share grew."""
    before = [row for row in timeline(rollouts) if row.rollout_no <= running.rollout_no]
    return [row for row in before if row.salt == running.salt and row.version == running.version]


def in_challenger_arm(
    rows: pa.RecordBatch | pa.Table, key: Sequence[str], salt: str, share: float
) -> npt.NDArray[np.bool_]:
    """Which of n rows the challenger answers, bool (n,): by their key alone, so a key stays in its arm.

    A larger share takes keys from the champion and gives none back.
    """
    return positions(rows, key, salt) < share


BUCKETS = 20
"""Groups of keys in each arm, drawn by key: how they differ tells how far two draws of keys may."""


def buckets(rows: pa.RecordBatch | pa.Table, key: Sequence[str]) -> npt.NDArray[np.int64]:
    """Each row's group of keys, from 0; independent of the arms of every rollout."""
    return (positions(rows, key, "buckets") * BUCKETS).astype(np.int64)


def positions(rows: pa.RecordBatch | pa.Table, key: Sequence[str], salt: str) -> npt.NDArray[np.float64]:
    """Where each row's key lies between 0 and 1, uniform over keys and independent between salts."""
    offset = np.frombuffer(hashlib.sha256(salt.encode()).digest()[:8], "<u8")
    # Of whole numbers pandas' hash is the finaliser of splitmix64: each bit depends on each bit.
    mixed = pd.util.hash_array(key_hashes(rows, key) ^ offset)
    return mixed / 2.0**64
