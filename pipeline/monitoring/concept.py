"""Concept drift: realised quality or calibration that stays worse than a version promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline.monitoring.control_charts import CHARTS, Chart, Judged
from pipeline.monitoring.cusum import Rise, autocorrelation, limit, rises
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.quality import Floats, Output

REFERENCE_NIGHTS = 28
"""The first judged nights of a version, which join the held-out ones as its reference."""

_LEAST_REFERENCE = 10  # nights without which a chart is not drawn
_LEAST_LABELLED = 50  # rows without which a night says nothing


@dataclass(frozen=True)
class Raised:
    """One chart on one night on which it is raised, with the nights of its rise and of its reference."""

    chart: Chart
    rise: Sequence[Judged]
    reference: Sequence[Judged]
    cusum: float
    limit: float

    @property
    def day(self) -> date:
        """The night on which it is raised, the last one of the rise."""
        return self.rise[-1].day


def findings(
    job: str,
    output: Output,
    promise: Sequence[Judged],
    nights: Sequence[Judged],
    worse_for_nights: int,
    false_alarms_a_year: float,
) -> list[Finding]:
    """What is worse than promised on each night, and has been for `worse_for_nights` nights; by day.

    That scores have lost their meaning, as labels of other rows give it, is told after three.

    `promise`: the nights held out from the version's training; `nights`: all judged ones of that version,
    in order; `false_alarms_a_year`: episodes over all charts together where nothing is wrong. A finding
    stands on every night of its episode, with the same cause.
    """
    charts = CHARTS[output]
    share = false_alarms_a_year / sum(chart.weight for chart in charts)
    raised = [
        each
        for chart in charts
        for each in watch(chart, promise, nights, worse_for_nights, share * chart.weight)
    ]
    ordered = sorted(raised, key=lambda each: (each.day, each.chart.cause))
    return [_finding(job, each, false_alarms_a_year) for each in ordered]


def watch(
    chart: Chart,
    promise: Sequence[Judged],
    nights: Sequence[Judged],
    worse_for_nights: int,
    false_alarms_a_year: float,
) -> list[Raised]:
    """The nights on which a chart is raised.

    The first REFERENCE_NIGHTS are held against the promise alone, those after them against the promise and
    these first ones, unless they ended raised: what was bad from its start is no reference.
    """
    usable = [night for night in nights if night.labelled >= _LEAST_LABELLED]
    first, later = usable[:REFERENCE_NIGHTS], usable[REFERENCE_NIGHTS:]
    early = _raised(chart, promise, first, worse_for_nights, false_alarms_a_year)
    if early and early[-1].day == first[-1].day:
        return _raised(chart, promise, usable, worse_for_nights, false_alarms_a_year)
    return early + _raised(chart, [*promise, *first], later, worse_for_nights, false_alarms_a_year)


def _raised(
    chart: Chart,
    reference: Sequence[Judged],
    nights: Sequence[Judged],
    worse_for_nights: int,
    false_alarms_a_year: float,
) -> list[Raised]:
    usual = _values(chart, reference)
    usual = usual[~np.isnan(usual)]
    if len(usual) < _LEAST_REFERENCE or usual.std() == 0:
        return []
    most = limit(len(usual), autocorrelation(usual), false_alarms_a_year, chart.allowance)
    centre = float(usual.mean() + chart.moved(reference))
    at_least = chart.nights or worse_for_nights
    found = rises(_values(chart, nights), usual, centre, most, at_least, chart.allowance)
    return [_as_raised(chart, rise, nights, reference, most) for rise in found]


def _values(chart: Chart, nights: Sequence[Judged]) -> Floats:
    return np.array([chart.value(night) for night in nights], dtype=np.float64)


def _as_raised(
    chart: Chart, rise: Rise, nights: Sequence[Judged], reference: Sequence[Judged], most: float
) -> Raised:
    return Raised(chart, nights[rise.since : rise.place + 1], reference, rise.cusum, most)


def _finding(job: str, raised: Raised, false_alarms_a_year: float) -> Finding:
    figures = "; ".join(
        f"{name} {_mean(raised.rise, name):.3f}, in the reference {_mean(raised.reference, name):.3f}"
        for name in raised.chart.told
    )
    return Finding(
        job=job,
        day=raised.day,
        kind="concept",
        cause=raised.chart.cause,
        evidence=f"Over {len(raised.rise)} judged nights since {raised.rise[0].day}, means: {figures}. "
        f"The CUSUM of the nights stands at {raised.cusum:.1f} standard deviations, its limit is "
        f"{raised.limit:.1f} by {len(raised.reference)} reference nights: {false_alarms_a_year:g} "
        "false alarms a year over all charts.",
        todo=f"Retrain on nights since the change and compare: `nightshift train {job} --from … --to …`; "
        f"`nightshift outcomes {job}` shows the weeks.",
    )


def _mean(nights: Sequence[Judged], name: str) -> float:
    return float(np.nanmean([night.metric(name) for night in nights]))
