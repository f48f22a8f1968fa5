"""`nightshift demo --live`: the flights of 2013, moved so that today lies in them: tonight is real.

The live demo keeps to a state folder of its own, `<home>/live`, with a server of its own and a copy of the
job's three files in `<home>/live/project`: nothing of it touches the demo of 2013 or the clone. Outcomes
arrive by the clock: each stands in the source with its `known_at`, and no read goes beyond its cut-off.
"""

from __future__ import annotations

import shlex
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import emit, out
from pipeline.cli.demo import JOB, OF_2013, Nights, moved_weeks_file, perform, show_summary
from pipeline.declaration import declaration_file, feature_file, load_job, suite_file
from pipeline.errors import UsageError
from pipeline.partition import Partition
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.environment import Environment

FIRST, LAST = date(2013, 1, 1), date(2013, 12, 31)
LEAST_NIGHTS = 28
"""Fewer nights than these are too few to learn from, and to hold 14 of them out."""


def newest_day(project: Path, now: datetime) -> date:
    """The day that the live demo calls today: the newest one whose cut-off has passed at `now`."""
    job = load_job(project, JOB)
    today = Partition(now.astimezone(job.timezone).date())
    return today.day if job.instants(today).cutoff <= now else today.previous().day


def weeks_to(today: date) -> int:
    """By how many weeks 2013 moves so that `today` lies in it, as near to its own date as weeks allow.

    At most 4 days off the season, the turn of the year included; of two equally near, the one with more past.
    """
    least, most = -((LAST - today).days // 7), (today - FIRST).days // 7
    return min(range(least, most + 1), key=lambda weeks: _days_off(today, today - timedelta(weeks=weeks)))


def _days_off(today: date, of_2013: date) -> int:
    """How far `today` is from the nearest day with the other one's date."""
    years = (today.year - 1, today.year, today.year + 1)
    return min(abs((today - of_2013.replace(year=year)).days) for year in years)


def nights_until(today: date) -> Nights:
    """The moved nights of the demo: those of 8 January to 30 April, or as many of them as have passed.

    Raises UsageError while fewer than LEAST_NIGHTS have.
    """
    weeks = weeks_to(today)
    first, last = (Partition(day.day + timedelta(weeks=weeks)) for day in OF_2013.trained)
    scored = Partition(today)
    if scored.minus(first) < LEAST_NIGHTS:
        raise UsageError(
            f"demo --live must have {LEAST_NIGHTS} nights to learn from, which this season has from "
            f"{first.day + timedelta(days=LEAST_NIGHTS)} on; got {max(scored.minus(first), 0)} on {today}. "
            "Until then: nightshift demo"
        )
    week_before = (Partition(today - timedelta(days=7)), scored.previous())
    return Nights(weeks, (first, min(last, scored.previous())), scored, week_before)


def run_live(given: Environment, today: date, *, as_json: bool) -> None:
    """Load, train, promote, and score `today`; each only where it is not done yet."""
    from pipeline.environment import Environment

    nights = nights_until(today)
    env = Environment(prepare(given.settings, nights.weeks))
    done = perform(env, nights, quiet=as_json)
    variables = {
        "NIGHTSHIFT_HOME": str(env.settings.state),
        "NIGHTSHIFT_PROJECT": str(env.settings.project),
    }
    emit({**done.report(), "moved_weeks": nights.weeks, "environment": variables}, as_json=as_json)
    if not as_json:
        out.print(f"The flights of 2013, {nights.weeks} weeks later. To work with them:", markup=False)
        for name, value in variables.items():
            out.print(f"  export {name}={shlex.quote(value)}", markup=False)
        out.print()
        show_summary(nights, done)


def prepare(given: Settings, weeks: int) -> Settings:
    """The live demo's settings; its project is written if there is none.

    Raises UsageError where databases or a store are set, as it has its own, or where it was made for another
    shift.
    """
    _refuse_elsewhere(given)
    state = given.state if moved_weeks_file(given.state).exists() else given.state / "live"
    live = Settings(home=state, project=state / "project")
    file = moved_weeks_file(state)
    if not file.exists():
        _make_folders(given.state, state)
        write_project(given.project, live.project, weeks)
        # Last and whole: a first call that was cut off is taken up by the next one.
        draft = file.with_suffix(".draft")
        draft.write_text(f"{weeks}\n", encoding="utf-8")
        draft.replace(file)
    found = int(file.read_text(encoding="utf-8"))
    if found != weeks:
        where = shlex.quote(str(state))
        raise UsageError(
            f"the live demo must hold the flights of 2013 moved by {weeks} weeks; got {found}: it was made "
            f"for another year. Make it anew: NIGHTSHIFT_HOME={where} nightshift down && rm -r {where}; "
            "then nightshift demo --live with the clone's own NIGHTSHIFT_HOME and NIGHTSHIFT_PROJECT"
        )
    return live


def _refuse_elsewhere(given: Settings) -> None:
    names = ("warehouse_url", "source_url", "registry_url", "store")
    if found := [f"NIGHTSHIFT_{name.upper()}" for name in names if getattr(given, name) is not None]:
        raise UsageError(
            f"demo --live must keep to a server and a store of its own; got {', '.join(found)}; unset that"
        )


def _make_folders(*states: Path) -> None:
    from pipeline.adapters.embedded.layout import Layout, own_state

    for state in states:
        with own_state(state):
            Layout(state).make_state()


def write_project(source: Path, target: Path, weeks: int) -> None:
    """Copy the job's three files from one project folder to another, its schedule moved."""
    for place in (declaration_file, feature_file, suite_file):
        text = place(source, JOB).read_text(encoding="utf-8")
        if place is declaration_file:
            text = moved_schedule(text, weeks)
        written = place(target, JOB)
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text, encoding="utf-8")


def moved_schedule(declaration: str, weeks: int) -> str:
    """The declaration's text with start and end of its schedule moved; all else, comments too, stays.

    Raises UsageError unless these two say the year 2013, each once.
    """
    for key, day in (("start", FIRST), ("end", LAST)):
        line = f"{key}: {day}"
        if declaration.count(line) != 1:
            raise UsageError(
                f"dags/{JOB}.yaml must say `{line}` once, to be moved; got it {declaration.count(line)} times"
            )
        declaration = declaration.replace(line, f"{key}: {day + timedelta(weeks=weeks)}")
    return declaration
