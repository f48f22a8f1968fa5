"""Profiles a shard while it is scored: each row's inputs once, features and scores where a model answered."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import pandas as pd
import pyarrow as pa

from pipeline.job import Extract
from pipeline.monitoring.buckets import Floats
from pipeline.monitoring.profile import Profile, merge, profile_inputs, profile_scored, profile_scores
from pipeline.partition import Instants
from pipeline.scoring.feature_code import FeatureType


class Profiler:
    """Merges what several threads hand in; `profile` is that of all rows so far."""

    def __init__(self, extract: Extract, instants: Instants, threshold: float | None) -> None:
        self._extract = extract
        self._instants = instants
        self._threshold = threshold
        self._profile = Profile()
        self._lock = Lock()

    @property
    def profile(self) -> Profile:
        """The profile of all rows so far."""
        return self._profile

    def unscored(self, rows: pa.RecordBatch) -> None:
        """Take in snapshot rows that no model sees."""
        self._add(profile_inputs(rows, self._extract, self._instants))

    def scored(
        self, rows: pa.RecordBatch, frame: pd.DataFrame, schema: Mapping[str, FeatureType], scores: Floats
    ) -> None:
        """Take in snapshot rows, the features made of them, and a model's scores, one per row."""
        seen = profile_scored(rows, self._extract, self._instants, frame, schema)
        self._add(seen, profile_scores(scores, self._threshold))

    def _add(self, *profiles: Profile) -> None:
        with self._lock:
            self._profile = merge([self._profile, *profiles])
