"""The gate's verdicts in the warehouse: what was said of a challenger, when and on which evidence.

Functions take a SQLAlchemy connection; the caller owns the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from pipeline.adapters.tables import gate_verdicts
from pipeline.adapters.versions import ModelVersion
from pipeline.lifecycle.gate import Outcome, Reason, Verdict


@dataclass(frozen=True)
class Recorded:
    """One row of the verdicts."""

    verdict_no: int
    job: str
    challenger: int
    champion: int
    first_day: date
    last_day: date
    nights: int
    labels_as_of: datetime
    outcome: Outcome
    reasons: tuple[Reason, ...]
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    judged_at: datetime
    actor: str
    challenger_sha256: str
    champion_sha256: str


def append(
    connection: sa.Connection,
    challenger: ModelVersion,
    champion: ModelVersion,
    verdict: Verdict,
    *,
    span: tuple[date, date],
    nights: int,
    labels_as_of: datetime,
    figures: Mapping[str, Any],
    settings: Mapping[str, Any],
    actor: str,
) -> int:
    """Record a verdict; its number."""
    statement = sa.insert(gate_verdicts).values(
        job=challenger.job,
        challenger=challenger.version,
        champion=champion.version,
        first_day=span[0],
        last_day=span[1],
        nights=nights,
        labels_as_of=labels_as_of,
        outcome=verdict.outcome,
        reasons=[asdict(reason) for reason in verdict.reasons],
        figures=figures,
        settings=settings,
        actor=actor,
        challenger_sha256=challenger.model_sha256,
        champion_sha256=champion.model_sha256,
    )
    return int(connection.execute(statement.returning(gate_verdicts.c.verdict_no)).scalar_one())


def newest(connection: sa.Connection, job: str, challenger: int) -> Recorded | None:
    """What the gate said last of a version; None where it was never asked."""
    which = (gate_verdicts.c.job == job, gate_verdicts.c.challenger == challenger)
    statement = sa.select(gate_verdicts).where(*which).order_by(gate_verdicts.c.verdict_no.desc()).limit(1)
    found = connection.execute(statement).mappings().first()
    if found is None:
        return None
    return Recorded(**{**found, "reasons": tuple(Reason(**reason) for reason in found["reasons"])})
