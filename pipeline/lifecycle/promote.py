"""Who is champion: decisions over the append-only promotion history, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.errors import RegistryError, UsageError, nearest

Kind = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Promotion:
    """One row of the promotion history: from `effective_from` on, `version` is the job's champion.

    `previous_version` was champion until then. `recorded_at` tells when the row was really written, which is
    later than `effective_from` where a promotion is back-dated.
    """

    promotion_no: int
    job: str
    version: int
    previous_version: int | None
    kind: Kind
    effective_from: datetime
    recorded_at: datetime
    actor: str
    approved_by: str
    reason: str
    model_sha256: str


def timeline(promotions: Iterable[Promotion]) -> list[Promotion]:
    """The history in the order in which its rows came into force; of one instant, the later row wins."""
    return sorted(promotions, key=lambda row: (row.effective_from, row.promotion_no))


def in_force(promotions: Iterable[Promotion], at: datetime) -> Promotion | None:
    """The row in force at an instant; None before the first one."""
    return next((row for row in reversed(timeline(promotions)) if row.effective_from <= at), None)


def rollback_version(promotions: Iterable[Promotion], at: datetime) -> int:
    """The champion before the current one: a roll-back undoes a promotion, a second one the one before.

    A version that was rolled back is not returned to. Raises RegistryError when there is none to return to.
    """
    champions: list[int] = []
    for row in timeline(promotions):
        if row.effective_from <= at:
            champions = _after(champions, row)
    if len(champions) < 2:
        current = f"version {champions[0]} is the first champion" if champions else "there is no champion"
        raise RegistryError(
            f"a roll-back needs an earlier champion to return to; got none, as {current}. "
            "Promote another version instead: nightshift promote JOB VERSION"
        )
    return champions[-2]


def predecessor(promotions: Iterable[Promotion], version: int) -> int | None:
    """The champion that stood behind `version` when that last became champion; None when none did."""
    champions: list[int] = []
    behind: int | None = None
    for row in timeline(promotions):
        champions = _after(champions, row)
        if champions[-1] == version:
            behind = champions[-2] if len(champions) > 1 else None
    return behind


def _after(champions: Sequence[int], row: Promotion) -> list[int]:
    """The champions that are not undone, the current one last, after one more row."""
    if row.kind == "rollback":
        kept = list(champions[:-1])
        while kept and kept[-1] != row.version:
            kept.pop()
        return kept or [row.version]
    return [*champions, row.version] if champions[-1:] != [row.version] else list(champions)


def check_approver(who: str, approvers: Sequence[str]) -> None:
    """Raise UsageError unless WHO is one of the job's declared approvers."""
    if who not in approvers:
        raise UsageError(
            f"--approved-by must be one of the job's declared approvers; got {who!r}; "
            + nearest(who, approvers)
            + f" (owners.approvers: {', '.join(approvers)})"
        )


def check_reason(reason: str) -> None:
    """Raise UsageError where a change that is kept for ever has no reason."""
    if not reason.strip():
        raise UsageError("--reason must tell why, as it is kept for ever; got nothing")
