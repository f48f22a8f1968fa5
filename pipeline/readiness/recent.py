"""The newest nights with labels up to the day, replayed as training does it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pandas as pd

from pipeline.lifecycle.fit import TrainingRows
from pipeline.monitoring.decided import matured
from pipeline.partition import Partition, between
from pipeline.readiness.rubric import Answer, not_applicable
from pipeline.readiness.subject import Subject
from pipeline.replay import replay, tree_code

_MORE_NIGHTS = 7
"""Beside those of train.holdout_nights."""


@cache
def recent_rows(subject: Subject) -> TrainingRows | Answer:
    """Labelled rows of as many nights as a trial fit needs, or why there are none."""
    declared = subject.job.declaration
    if declared.outcomes is None:
        return not_applicable("no outcomes are declared, so nothing is trained here")
    # A calibrated fit is measured on nights before those that it is calibrated on.
    held_out = declared.train.holdout_nights * (2 if declared.train.calibrate else 1)
    now, wanted = datetime.now(UTC), held_out + _MORE_NIGHTS
    first, code = Partition(declared.schedule.start), tree_code(subject.env, subject.job)
    learned, last = list[TrainingRows](), subject.day
    # A night that would not have published is passed over, as training does: an earlier one takes its place.
    while len(learned) < wanted and last >= first:
        span = max(first, Partition(last.day - timedelta(days=wanted - len(learned) - 1)))
        days = [day for day in between(span, last) if matured(subject.job, day) <= now]
        nights = replay(subject.env, subject.job, code, days, now)
        learned = [night.rows for night in nights if night.rows is not None] + learned
        last = span.previous()
    if len(learned) < wanted:
        return not_applicable(
            f"{wanted} nights with labels up to {subject.day} are needed; got {len(learned)}"
        )
    return TrainingRows(
        features=pd.concat([rows.features for rows in learned], ignore_index=True),
        label=np.concatenate([rows.label for rows in learned]),
        day=np.concatenate([rows.day for rows in learned]),
        key=np.concatenate([rows.key for rows in learned]),
    )
