"""When a day is decided and mature, and which of its runs are judged then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pipeline.job import Job
from pipeline.partition import Partition


@dataclass(frozen=True)
class Publication:
    """From when until when readers saw a run of a day; `superseded_at` is None while they do."""

    day: date
    run_no: int
    published_at: datetime
    superseded_at: datetime | None


def decision_instant(job: Job, partition: Partition) -> datetime:
    """The UTC instant at which the day's predictions are acted upon; the day's end where none is declared."""
    outcomes = job.declaration.outcomes
    if outcomes is None or outcomes.decided_at is None:
        return job.instants(partition).day_end
    return partition.at(outcomes.decided_at, job.timezone)


def matured(job: Job, partition: Partition) -> datetime:
    """The UTC instant at which the day's labels should be there: the end of the day that is so many later."""
    days = job.declaration.outcomes.mature_after_days if job.declaration.outcomes else 0
    return job.instants(Partition(partition.day + timedelta(days=days))).day_end


def judged(publications: Sequence[Publication], decided_at: datetime) -> dict[int, bool]:
    """Runs of one day by number, and whether each is judged in hindsight.

    The run that readers saw at `decided_at` is not; the one that they see now is, unless it is the same.
    Others are not judged: nobody acted upon them, and nobody reads them.
    """
    at_decision = [p.run_no for p in publications if _visible(p, decided_at)]
    now = [p.run_no for p in publications if p.superseded_at is None]
    return dict.fromkeys(now, True) | dict.fromkeys(at_decision, False)


def _visible(publication: Publication, at: datetime) -> bool:
    ended = publication.superseded_at
    return publication.published_at <= at and (ended is None or at < ended)
