"""Pages as HTML: each of them one file that loads nothing, with every value escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.monitoring.dictionary import PARTS
from pipeline.monitoring.report import trends, wording
from pipeline.monitoring.report.calendar import months
from pipeline.monitoring.report.drift import SHOWN, drift
from pipeline.monitoring.report.histogram import histogram
from pipeline.monitoring.report.links import Links
from pipeline.monitoring.report.quality import slices, whole
from pipeline.monitoring.report.values import DictionaryPage, JobLine, JobPage, RunPage

_FILTERS = (
    wording.count, wording.share, wording.number, wording.seconds, wording.size, wording.instant,
    wording.weekday, wording.short,
)  # fmt: skip


def run_html(page: RunPage, links: Links) -> str:
    """One run: what happened, its data, its scores, its model, where everything came from."""
    declared, marks = page.declared, trends.promotion_marks(page.promotions)
    output = declared.output if declared else None
    return _render(
        "run.html",
        page=page,
        links=links,
        run=page.run,
        quality=whole(page.realised),
        slices=slices(page.realised, output),
        estimates={one.metric: one.value for one in page.measures if one.part == "estimate"},
        score_metrics={
            one.metric: one.value for one in page.measures if (one.part, one.baseline) == ("score", "none")
        },
        drift=drift(page.measures),
        shown_columns=SHOWN,
        histogram=histogram(page.scores, declared.threshold if declared else None) if page.scores else None,
        quality_charts=trends.quality_charts(
            page.nights, marks, output, declared.currency if declared else None
        ),
        run_charts=trends.run_charts(page.nights, marks),
        drift_charts=trends.data_charts(page.nights, marks),
    )


def job_html(page: JobPage, links: Links) -> str:
    """One job: its days, its quality and drift over the weeks, its versions."""
    declared, marks = page.declared, trends.promotion_marks(page.promotions)
    output = declared.output if declared else None
    said = {mark.day: f"champion {mark.text}" for mark in marks}
    return _render(
        "job.html",
        page=page,
        links=links,
        months=months(page.days, said),
        quality_charts=trends.quality_charts(
            page.nights, marks, output, declared.currency if declared else None
        ),
        drift_charts=trends.data_charts(page.nights, marks),
        run_charts=trends.run_charts(page.nights, marks),
        weeks=trends.weeks(page.nights, output),
        output=output,
    )


def jobs_html(lines: tuple[JobLine, ...], links: Links) -> str:
    """All jobs, one line each."""
    return _render("jobs.html", lines=lines, links=links)


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
    templates.globals.update(
        headline=wording.headline,
        status_words=wording.STATUS,
        status_signs=wording.SIGN,
        unknown=wording.UNKNOWN,
    )
    return templates
