"""Reports: what the tables say of runs and jobs, as pages for people. Nothing here changes a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from upath import UPath

from pipeline import pages
from pipeline.environment import Environment
from pipeline.monitoring.report.links import NO_LINKS, Links
from pipeline.monitoring.report.render import dictionary_html, job_html, jobs_html, run_html, verdict_html
from pipeline.partition import COLUMN, Partition

_WRITTEN_DAYS = 14
_RUN, _INDEX, _DICTIONARY = "report.html", "index.html", "dictionary.html"
_VERDICT = "verdict-{}.html"


def run_page(env: Environment, job: str, day: Partition, links: Links = NO_LINKS) -> str:
    """The page of the run that readers see of a day, else of its newest one; UsageError where none is."""
    with env.engine.connect() as connection:
        run = pages.shown_run(connection, job, day)
        return run_html(pages.run_values(env, connection, run), links)


def run_page_of(env: Environment, run_id: str, links: Links = NO_LINKS, *, job: str | None = None) -> str:
    """The page of a run, whatever became of it; UsageError where there is none, or none of that job."""
    with env.engine.connect() as connection:
        run = pages.run_named(connection, run_id, job)
        return run_html(pages.run_values(env, connection, run), links)


def marked_run_page(env: Environment, job: str, mark: str, links: Links = NO_LINKS) -> str:
    """The page of a job's newest run whose name holds the mark; UsageError where there is none."""
    with env.engine.connect() as connection:
        run = pages.run_marked(connection, job, mark)
        return run_html(pages.run_values(env, connection, run), links)


def job_page(env: Environment, job: str, links: Links = NO_LINKS) -> str:
    """The index of a job: a calendar, quality and drift over the weeks, versions and promotions."""
    with env.engine.connect() as connection:
        return job_html(pages.job_values(env, connection, job), links)


def jobs_page(env: Environment, links: Links = NO_LINKS, *, only: Collection[str] | None = None) -> str:
    """All jobs, or only some of them, one line each."""
    with env.engine.connect() as connection:
        return jobs_html(tuple(pages.job_lines(connection, only)), links)


def dictionary_page(env: Environment, job: str, links: Links = NO_LINKS) -> str:
    """The data dictionary of a job, from its declaration and the warehouse's comments."""
    with env.engine.connect() as connection:
        return dictionary_html(pages.dictionary_values(env, connection, job), links)


def verdict_page(env: Environment, job: str, number: int, links: Links = NO_LINKS) -> str:
    """The page of what the gate said of a challenger; UsageError where the job has no such verdict."""
    with env.engine.connect() as connection:
        return verdict_html(pages.verdict_values(connection, job, number), links)


def write_verdict(env: Environment, job: str, number: int) -> UPath:
    """Write the page of a verdict; returns where it is."""
    page = env.store.root / "reports" / job / _VERDICT.format(number)
    _write(env, page, verdict_page(env, job, number, _file_links("../", job, {})))
    return page


def write_report(env: Environment, job: str, day: Partition | None = None) -> UPath:
    """Write the page of a day and of the one before, or those of the last fortnight; index and dictionary.

    Returns where the day's page is, or else the index. Pages link to those that are there.
    """
    top = env.store.root / "reports"
    folder = top / job
    with env.engine.connect() as connection:
        facts = pages.job_facts(connection, job)
        days = pages.last_days(connection, facts, pages.YEAR)
    shown = {each.day.isoformat(): each.run_id for each in days if each.run_id}
    wanted = _with_the_one_before(day.key, shown) if day else list(shown)[-_WRITTEN_DAYS:]
    there = {path.parent.name.removeprefix(f"{COLUMN}=") for path in folder.glob(f"*/{_RUN}")}
    judged = {path.name for path in folder.glob(_VERDICT.format("*"))}
    linked = {key: run_id for key, run_id in shown.items() if key in there.union(wanted)}
    below, beside = (_file_links(up, job, linked, judged) for up in ("../../", "../"))
    for key in wanted:
        _write(env, _day_file(folder, key), run_page(env, job, Partition.parse(key), below))
    _write(env, folder / _DICTIONARY, dictionary_page(env, job, beside))
    _write(env, folder / _INDEX, job_page(env, job, beside))
    indexes = {path.parent.name for path in top.glob(f"*/{_INDEX}")}
    _write(env, top / _INDEX, jobs_page(env, _top_links(indexes)))
    return _day_file(folder, day.key) if day else folder / _INDEX


def _with_the_one_before(key: str, shown: Mapping[str, str]) -> list[str]:
    before = [other for other in shown if other < key]
    return [*before[-1:], key]


def _day_file(folder: UPath, key: str) -> UPath:
    return folder / f"{COLUMN}={key}" / _RUN


def _file_links(up: str, job: str, shown: Mapping[str, str], judged: Collection[str] = ()) -> Links:
    """Links of a job's page that lies so far below the top.

    `shown` tells which run each day's page is of, `judged` which pages of verdicts are there.
    """
    return Links(
        jobs=f"{up}{_INDEX}",
        job=lambda name: f"{up}{name}/{_INDEX}" if name == job else None,
        dictionary=lambda name: f"{up}{name}/{_DICTIONARY}" if name == job else None,
        run=lambda _, run_id, key: f"{up}{job}/{COLUMN}={key}/{_RUN}" if shown.get(key) == run_id else None,
        verdict=lambda _, number: (
            f"{up}{job}/{name}" if (name := _VERDICT.format(number)) in judged else None
        ),
    )


def _top_links(jobs: Collection[str]) -> Links:
    return Links(
        jobs=None,
        job=lambda name: f"{name}/{_INDEX}" if name in jobs else None,
        dictionary=lambda name: f"{name}/{_DICTIONARY}" if name in jobs else None,
        run=lambda *_: None,
    )


def _write(env: Environment, target: UPath, html: str) -> None:
    with env.store.workspace() as folder:
        local = folder / target.name
        local.write_text(html, encoding="utf-8")
        env.store.seal(local, target)
