"""What each rule finds: ours by its alerts, the usual ones by the columns they flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from bench import peers
from bench.faults import NIGHTS, Fault
from bench.nights import Night
from bench.parcels import ParcelBench
from bench.planting import Bench, Measured, Seen, measured

from pipeline.job import Monitor, Outcomes
from pipeline.monitoring.breaks import broken
from pipeline.monitoring.causes import findings_of
from pipeline.monitoring.concept import findings as concept_findings
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import MOST_NIGHTS, Judged, judge, judged, surprises
from pipeline.monitoring.surprise import LEAST, LEFT_OUT, WINDOW, Surprise
from pipeline.monitoring.watched import Flags, watched

OURS = "ours"
NIGHT_ALONE = "ours, of a night's data alone"
"""Without what labels show, and without the answers to known rows."""
KNOWN_ROWS = "score of known rows"
OUTCOME = "outcome "
"""Begins what is seen by labels, not by the data of the night."""
MATURE_AFTER = Outcomes.model_fields["mature_after_days"].default
PEERS = {
    "PSI > 0.2": ("psi", 0.2),
    "KS, chi2 p < .05": ("tests", -np.log10(0.05)),
    "mean ± 3 sd": ("sd", 3.0),
}
"""The usual rules: kind of objection and threshold."""


@dataclass(frozen=True)
class Objections:
    """How strongly each rule objects to each column of one night; ours only to those of its findings."""

    ours: frozenset[str]
    peers: Mapping[str, peers.Scores]


@dataclass(frozen=True)
class Year:
    """The clean nights: what was seen, their metrics, our judgement, all objections."""

    bench: Bench | ParcelBench
    monitor: Monitor
    seen: Sequence[Seen]
    metrics: pd.DataFrame
    judged: Judged
    breaks: Flags
    concept: Sequence[Finding]
    """Drift that outcomes show, on each of its nights."""
    objections: Sequence[Objections]

    def position(self, day: date) -> int:
        """Which night of the year it is."""
        return (day - self.seen[0].day).days


@dataclass(frozen=True)
class Planted:
    """One planting: the objections to its nights with the fault, and to the same nights without it."""

    fault: str
    detail: str
    start: date
    with_fault: Sequence[Objections]
    without: Sequence[Objections]

    def found(self, rule: str, threshold: float | None = None) -> int | None:
        """The night, from 1 on, on which the rule objects to what it accepts without the fault.

        What labels show is told when they are there.
        """
        nights = []
        for night, (faulty, clean) in enumerate(zip(self.with_fault, self.without, strict=True), 1):
            for column in flagged(faulty, rule, threshold) - flagged(clean, rule, threshold):
                nights.append(night + MATURE_AFTER if column.startswith(OUTCOME) else night)
        return min(nights, default=None)


def flagged(night: Objections, rule: str, threshold: float | None = None) -> set[str]:
    """The columns that a rule flags; its own threshold unless another one is given."""
    if rule == OURS:
        return set(night.ours)
    if rule == NIGHT_ALONE:
        return {each for each in night.ours if not each.startswith((OUTCOME, KNOWN_ROWS))}
    kind, usual = PEERS[rule]
    least = usual if threshold is None else threshold
    return {column for column, score in night.peers[kind].items() if score > least}


def clean_year(bench: Bench | ParcelBench, monitor: Monitor) -> Year:
    """Every night of the year as it was."""
    seen = [bench.seen(bench.nights.read(day)) for day in bench.nights.days]
    nightly = [measured(each, seen[:position]) for position, each in enumerate(seen)]
    metrics = pd.concat([each.metrics for each in nightly], ignore_index=True)
    judgement = judge(metrics, monitor)
    breaks = broken(judgement)
    concept = _concept(bench, seen, monitor)
    objections = [
        _objections(bench, judgement, breaks, concept, at, seen, nightly[at]) for at in range(len(seen))
    ]
    return Year(bench, monitor, seen, metrics, judgement, breaks, concept, objections)


def _concept(bench: Bench | ParcelBench, seen: Sequence[Seen], monitor: Monitor) -> list[Finding]:
    judged_nights = [each.judged for each in seen if each.day >= bench.judged_from]
    worse_for_nights = Outcomes.model_fields["worse_for_nights"].default
    budget = monitor.false_alarms_a_year / 2
    return concept_findings("bench", "probability", [], judged_nights, worse_for_nights, budget)


def _objections(
    bench: Bench | ParcelBench,
    judgement: Judged,
    breaks: Flags,
    concept: Sequence[Finding],
    at: int,
    seen: Sequence[Seen],
    night: Measured,
) -> Objections:
    """Of one night by its position in `seen`, which are the nights that were judged."""
    ours = {name for finding in findings_of("bench", judgement, breaks, at) for name in finding.columns}
    if not seen[at].is_known:
        ours.add(KNOWN_ROWS)
    ours |= {OUTCOME + finding.cause for finding in concept if finding.day == seen[at].day}
    if at < LEAST:
        return Objections(frozenset(ours), {"psi": {}, "tests": {}, "sd": {}})
    names = [f"{each.name} {each.metric}" for each in judgement.watched.statistics]
    aucs = [each.judged.metric("auc") if each.day >= bench.judged_from else np.nan for each in seen[: at + 1]]
    figures = np.column_stack([judgement.watched.raw[: at + 1], aucs])
    return Objections(
        frozenset(ours),
        {
            "psi": peers.psi(night.metrics),
            "tests": night.tests,
            "sd": peers.deviations(figures, [*names, OUTCOME + "auc"]),
        },
    )


def plant(year: Year, faults: Mapping[str, Fault], name: str, start: date, seed: int) -> Planted:
    """Plant one of the faults on NIGHTS nights from `start` on."""
    draw = np.random.default_rng([seed, list(faults).index(name)])
    fault, first = faults[name](draw), year.position(start)
    back = max(0, first - MOST_NIGHTS - WINDOW - LEFT_OUT)
    seen = list(year.seen[back:first])
    stale = year.bench.nights.read(year.seen[first - 1].day)
    planted = []
    for each in year.seen[first : first + NIGHTS]:
        night = year.bench.nights.read(each.day)
        given = _with_rows_of(night, stale) if fault.stale else night
        seen.append(year.bench.seen(given, fault, draw))
        planted.append(measured(seen[-1], seen[:-1]))
    days = pd.DatetimeIndex([pd.Timestamp(each.day) for each in seen])
    known = year.metrics[year.metrics["day"].between(days[0], days[-NIGHTS - 1])]
    judgement = _judged(
        year, pd.concat([known, *(each.metrics for each in planted)], ignore_index=True), back, first
    )
    breaks = broken(judgement)
    concept = _concept(year.bench, [*year.seen[:first], *seen[-NIGHTS:]], year.monitor)
    begun = first - back
    return Planted(
        fault=name,
        detail=fault.detail,
        start=start,
        with_fault=[
            _objections(year.bench, judgement, breaks, concept, begun + at, seen, planted[at])
            for at in range(NIGHTS)
        ],
        without=year.objections[first : first + NIGHTS],
    )


def _with_rows_of(night: Night, stale: Night) -> Night:
    days = pa.array(np.full(stale.rows.num_rows, np.datetime64(night.day)))
    place = stale.rows.column_names.index("day")
    return Night(night.day, stale.rows.set_column(place, "day", days), night.history, night.labels)


def _judged(year: Year, metrics: pd.DataFrame, back: int, first: int) -> Judged:
    """The last nights judged anew; how far the ones before lay is known from the clean year."""
    nights = watched(metrics)
    clean, before = year.judged, slice(back, first)
    places = {_key(statistic): place for place, statistic in enumerate(clean.watched.statistics)}
    at = np.array([places.get(_key(statistic), -1) for statistic in nights.statistics])
    known = Surprise(
        *(
            np.where(at >= 0, each[before][:, at], np.nan)
            for each in (clean.surprise.z, clean.surprise.centre, clean.surprise.spread)
        )
    )
    return judged(nights, surprises(nights, known), year.monitor, first - back)


def _key(statistic: Any) -> tuple[str, str, str]:
    return statistic.part, statistic.column, statistic.metric
