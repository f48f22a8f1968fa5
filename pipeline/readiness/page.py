"""The readiness of a job as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from upath import UPath

from pipeline.environment import Environment
from pipeline.monitoring.report.links import NO_LINKS
from pipeline.monitoring.report.render import readiness_html
from pipeline.monitoring.report.values import ReadinessLine, ReadinessPage
from pipeline.pages import job_facts
from pipeline.readiness.rubric import Assessed
from pipeline.readiness.subject import Chosen

_FILE = "readiness.html"


def write_page(env: Environment, chosen: Chosen, assessed: Sequence[Assessed]) -> UPath:
    """Write the page beside the job's reports; where it is."""
    lines = tuple(
        ReadinessLine(
            id=each.item.id,
            title=each.item.title,
            required=each.item.required,
            status=each.answer.status,
            evidence=each.answer.evidence,
            fix=each.answer.fix,
        )
        for each in assessed
    )
    with env.engine.connect() as connection:
        facts = job_facts(connection, chosen.job.name)
    page = ReadinessPage(facts, chosen.version.version, chosen.day.day, datetime.now(UTC), lines)
    target = env.store.root / "reports" / chosen.job.name / _FILE
    with env.store.workspace() as folder:
        local = folder / _FILE
        local.write_text(readiness_html(page, NO_LINKS), encoding="utf-8")
        env.store.seal(local, target)
    return target
