"""From statistics beyond their limits to findings: what began on one night has one cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.job import Monitor
from pipeline.monitoring.breaks import broken
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import Judged, judge
from pipeline.monitoring.surprise import WINDOW

QUIET_NIGHTS = 3
"""After so many nights within the limits, a change is over."""

_MOST_TOLD = 6
_UPSTREAM = ("rows", "input", "feature", "score")
_WHAT = {
    "missing_share": "more values missing",
    "unseen_share": "unknown values",
    "js": "another distribution",
    "mean": "another level",
    "rows_in": "another number of rows",
    "withheld_share": "more rows withheld",
    "quarantined_share": "more rows in quarantine",
    "fallback_share": "more rows answered by a fallback",
    "share_over_threshold": "other decisions",
    "copied_share": "a copy of the night before",
}
_BROKEN = {"missing_share": "no values", "mean": "another unit or another column"}
_TODO_BREAK = "Compare the source with the night before; the run's snapshot shows what was read."
_TODO_DRIFT = "Look these columns up at their source; a change that is right is a reason to train again."


def findings(job: str, metrics: pd.DataFrame, monitor: Monitor) -> list[Finding]:
    """What the last night of `metrics` shows against the nights before it; `metrics` as `watched` takes them.

    One finding for all that began on one night, or on the next: yesterday's outcomes are tonight's features.
    """
    judged = judge(metrics, monitor)
    return findings_of(job, judged, broken(judged), len(judged.watched.days) - 1)


def findings_of(job: str, judged: Judged, breaks: npt.NDArray[np.bool_], night: int) -> list[Finding]:
    """What that night shows, by its position."""
    soon = judged.soon.confirmed[night] | breaks[night]
    seen = judged.soon.beyond | breaks
    late = judged.late.confirmed[night] & ~soon
    begun = {
        **{at: _begun(seen[: night + 1, at], QUIET_NIGHTS) for at in np.flatnonzero(soon).tolist()},
        **{at: _begun(judged.late.beyond[: night + 1, at], 1) for at in np.flatnonzero(late).tolist()},
    }
    groups: list[list[int]] = []
    for place in sorted(begun, key=begun.__getitem__):
        if groups and begun[place] - begun[groups[-1][0]] <= 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [_finding(job, judged, breaks, night, _Group(begun[group[0]], tuple(group))) for group in groups]


def _begun(seen: npt.NDArray[np.bool_], quiet: int) -> int:
    """The first night of the change that its last night shows: none of its gaps is as long as `quiet`."""
    nights = np.flatnonzero(seen)
    gaps = np.flatnonzero(np.diff(nights) > quiet)
    return int(nights[gaps[-1] + 1] if len(gaps) else nights[0])


@dataclass(frozen=True)
class _Group:
    begun: int
    places: tuple[int, ...]


def _finding(job: str, judged: Judged, breaks: npt.NDArray[np.bool_], night: int, group: _Group) -> Finding:
    statistics, days = judged.watched.statistics, judged.watched.days
    strength = np.abs(judged.surprise.z[night]) / judged.soon.limits[night]
    order = sorted(
        group.places,
        key=lambda at: (not breaks[night, at], _UPSTREAM.index(statistics[at].part), -strength[at]),
    )
    is_break = bool(breaks[night, list(group.places)].any())
    lead = order[0]
    columns = tuple(dict.fromkeys(statistics[at].name for at in order))
    return Finding(
        job=job,
        day=days[night].date(),
        kind="structure" if is_break else "drift",
        cause=f"{statistics[lead].name}: {_what(judged, breaks, night, lead)}",
        evidence=_evidence(judged, night, order, columns),
        todo=_TODO_BREAK if is_break else _TODO_DRIFT,
        since=days[group.begun].date(),
        columns=columns,
    )


def _what(judged: Judged, breaks: npt.NDArray[np.bool_], night: int, place: int) -> str:
    metric = judged.watched.statistics[place].metric
    if metric.startswith("share:"):
        return "other shares of its values"
    return _BROKEN.get(metric, _WHAT[metric]) if breaks[night, place] else _WHAT[metric]


def _evidence(judged: Judged, night: int, order: Sequence[int], columns: tuple[str, ...]) -> str:
    told = [_figure(judged, night, at) for at in order[:_MOST_TOLD]]
    if len(columns) > _MOST_TOLD:
        told.append(f"{len(columns)} columns in all: {', '.join(columns)}")
    return ". ".join(told) + "."


def _figure(judged: Judged, night: int, place: int) -> str:
    statistic, raw = judged.watched.statistics[place], judged.watched.raw[:, place]
    before = raw[max(0, night - WINDOW) : night]
    low, high = np.nanquantile(before, [0.05, 0.95])
    metric = statistic.metric.replace("share:", "share of ")
    return f"{statistic.name}, {metric}: {raw[night]:.4g}, usually {low:.4g} to {high:.4g}"
