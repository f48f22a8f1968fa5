"""Pages as HTML: each of them one file that loads nothing, with every value escaped."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.monitoring.dictionary import PARTS
from pipeline.monitoring.report import trends, verdict, wording
from pipeline.monitoring.report.calendar import months
from pipeline.monitoring.report.drift import SHOWN, drift
from pipeline.monitoring.report.histogram import histogram
from pipeline.monitoring.report.links import Links
from pipeline.monitoring.report.quality import estimated_rows, slices, whole
from pipeline.monitoring.report.values import (
    DictionaryPage,
    JobLine,
    JobPage,
    ReadinessPage,
    RunPage,
    VerdictPage,
)
from pipeline.monitoring.report.weekly import weeks

_FILTERS = (
    wording.count, wording.share, wording.number, wording.seconds, wording.size, wording.instant,
    wording.weekday, wording.short,
)  # fmt: skip


def run_html(page: RunPage, links: Links) -> str:
    """One run: what happened, its data, its scores, its model, where everything came from."""
    declared, marks = page.declared, trends.promotion_marks(page.promotions, page.job.timezone)
    output = declared.output if declared else None
    nights = trends.points(page.nights)
    return _render(
        "run.html",
        page=page,
        links=links,
        run=page.run,
        quality=whole(page.realised),
        estimated_rows=estimated_rows(page.realised),
        slices=slices(page.realised, output),
        estimates={one.metric: one.value for one in page.metrics if one.part == "estimate"},
        score_metrics={
            one.metric: one.value for one in page.metrics if (one.part, one.baseline) == ("score", "none")
        },
        drift=drift(page.metrics),
        shown_columns=SHOWN,
        histogram=histogram(page.scores, declared.threshold if declared else None) if page.scores else None,
        quality_charts=trends.quality_charts(nights, marks, declared, by_week=False),
        run_charts=trends.run_charts(nights, marks),
        drift_charts=trends.drift_charts(nights, marks),
    )


def job_html(page: JobPage, links: Links) -> str:
    """One job: its days, its quality and drift over the weeks, its versions."""
    declared, marks = page.declared, trends.promotion_marks(page.promotions, page.job.timezone)
    lines = weeks(page.nights)
    by_week = [line.point for line in reversed(lines)]
    said = {
        day: "champion " + ", ".join(mark.text for mark in of_day)
        for day, of_day in groupby(sorted(marks, key=attrgetter("day")), key=attrgetter("day"))
    }
    return _render(
        "job.html",
        page=page,
        links=links,
        months=months(page.days, said),
        quality_charts=trends.quality_charts(by_week, marks, declared, by_week=True),
        drift_charts=trends.drift_charts(by_week, marks),
        run_charts=trends.run_charts(by_week, marks),
        weeks=lines,
        quality_metric=trends.quality_metric(declared),
        hindsight=sum(night.hindsight is True for night in page.nights),
        judged=sum(night.hindsight is not None for night in page.nights),
    )


def jobs_html(lines: tuple[JobLine, ...], links: Links) -> str:
    """All jobs, one line each."""
    return _render("jobs.html", lines=lines, links=links)


def verdict_html(page: VerdictPage, links: Links) -> str:
    """One verdict of the gate: each reason, night by night, slice by slice, what was tested and measured."""
    return _render(
        "verdict.html",
        page=page,
        links=links,
        verdict=page.verdict,
        figures=page.verdict.figures,
        whole=verdict.whole(page.verdict),
        charts_of_nights=verdict.charts(page.verdict),
        slices=verdict.slices(page.verdict),
        metrics=verdict.metrics(page.verdict),
    )


def readiness_html(page: ReadinessPage, links: Links) -> str:
    """Whether a job is ready for its nights: every item with its evidence, the failed ones first."""
    return _render("readiness.html", page=page, links=links)


def dictionary_html(page: DictionaryPage, links: Links) -> str:
    """What analysts may read of a job, column by column, and what every metric means."""
    return _render("dictionary.html", page=page, links=links, metrics=PARTS)


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("pipeline.monitoring.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update({each.__name__: each for each in _FILTERS})
    templates.filters["part_of"] = wording.part_of
    templates.filters["change"] = wording.change
    templates.globals.update(
        headline=wording.headline,
        verdict_headline=wording.verdict_headline,
        outcome_words=wording.OUTCOME,
        checked_words=wording.CHECKED,
        check_words=wording.CHECK,
        status_words=wording.STATUS,
        status_signs=wording.SIGN,
        unknown=wording.UNKNOWN,
    )
    return templates
