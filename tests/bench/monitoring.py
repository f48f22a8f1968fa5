"""Planted faults on real nights: what our limits find and how soon, beside the usual rules.

    make bench-monitoring ARGS="--data parcels --half tuning --json"

Rules were tuned on the nights of March to June; the table is of July to December. A fault lasts five nights.
Found: an alert, or a column that a rule flags, which the same nights do not give without the fault; what
labels show counts from when they are there. A score shift is a fault of the scorer: known rows show it.
False alarms: nights with an alert among those that tests/soak/unclean_nights.yaml does not list. Each usual
rule stands twice: with its usual threshold, and with the one that gives it no more false alarms than ours on
these very nights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from bench import parcels
from bench.faults import FAULTS, NIGHTS, Fault
from bench.nights import replayed
from bench.planting import Bench, fitted, known_answers
from bench.scoreboard import NIGHT_ALONE, OURS, PEERS, Planted, Year, clean_year, flagged, plant
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from pipeline.cli.flights import csv_files
from pipeline.environment import Environment
from pipeline.job import Monitor
from pipeline.monitoring.control_charts import MEANING
from pipeline.monitoring.false_alarms import Rate, alerts_of, rate
from pipeline.settings import Settings

JOB = "flight_delays"
YEAR = (date(2013, 1, 1), date(2013, 12, 31))
LEARNED = (date(2013, 1, 8), date(2013, 4, 30))
UNCLEAN = Path(__file__).parents[1] / "soak" / "unclean_nights.yaml"
err = Console(stderr=True)


@dataclass(frozen=True)
class Line:
    """One rule on one half: false alarms a year, and by fault how often and how soon it was found."""

    rule: str
    threshold: float | None
    alarmed_nights: int
    false_alarms: Rate
    found: dict[str, int]
    nights: dict[str, float | None]


def temperatures() -> pd.DataFrame:
    """°F by night and airport: the last reading before the cut-off, at most six hours old."""
    read = pd.read_csv(csv_files()["weather"], usecols=["origin", "time_hour", "temp"])
    read["at"] = pd.to_datetime(read["time_hour"], utc=True)
    hourly = read.pivot_table(index="at", columns="origin", values="temp").resample("h").last().ffill(limit=6)
    days = pd.date_range(*YEAR)
    cutoffs = (days + pd.Timedelta(hours=3)).tz_localize("America/New_York").tz_convert("UTC")
    return hourly.reindex(cutoffs).set_axis(days)


def prepared() -> Bench:
    """The year, replayed once, and the model of the demonstration."""
    nights = replayed(Environment(Settings()), JOB, *YEAR)
    learned = [nights.read(day) for day in nights.days if LEARNED[0] <= day <= LEARNED[1]]
    frames = {night.day: nights.features(night, night.rows) for night in learned}
    model = fitted(nights, frames)
    known = known_answers(nights, model, frames)
    return Bench(nights, model, temperatures(), LEARNED[1] + timedelta(days=1), known)


@dataclass(frozen=True)
class Data:
    """A year of nights, the faults that suit it, and its halves."""

    bench: Callable[[], Bench | parcels.ParcelBench]
    faults: Mapping[str, Fault]
    halves: Mapping[str, tuple[date, date]]
    unclean: Callable[[], set[date]]
    is_still: bool
    """Whether labels keep their meaning, so that all drift that they show is a false alarm."""


def unclean_nights() -> set[date]:
    """The nights of 2013 on which an alert is no false one."""
    return set(YAML(typ="safe").load(UNCLEAN))


DATA = {
    "flights": Data(
        prepared,
        FAULTS,
        {"tuning": (date(2013, 3, 20), date(2013, 6, 30)), "test": (date(2013, 7, 1), date(2013, 12, 30))},
        unclean_nights,
        # In September and December the world moved; scores had a meaning throughout.
        is_still=False,
    ),
    # Nothing was tuned on parcels: both of their halves are tests.
    "parcels": Data(
        parcels.bench,
        parcels.FAULTS,
        {"tuning": (date(2024, 3, 20), date(2024, 7, 31)), "test": (date(2024, 8, 1), date(2024, 12, 31))},
        set,
        is_still=True,
    ),
}


def starts(year: Year, half: tuple[date, date], seeds: int) -> dict[int, date]:
    """For each seed the first night of its faults, drawn from those with NIGHTS nights left in the half."""
    first, last = half
    possible = [each.day for each in year.seen if first <= each.day <= last][: -NIGHTS + 1]
    draw = np.random.default_rng(2013)
    return {seed: possible[at] for seed, at in enumerate(draw.choice(len(possible), seeds, replace=False))}


def lines(
    year: Year, planted: Sequence[Planted], half: tuple[date, date], unclean: set[date], *, is_still: bool
) -> Iterator[Line]:
    """Ours, then each usual rule, as usual and with our false alarms."""
    first, last = half
    clean = [at for at, each in enumerate(year.seen) if first <= each.day <= last and each.day not in unclean]
    days = {year.seen[at].day for at in clean}
    of_data = {finding.day for finding in alerts_of(JOB, year.judged)} & days
    of_labels = set(_concept_alerts(year, is_still)) & days
    alerts = len(of_data | of_labels)
    yield _line(OURS, None, alerts, len(clean), planted)
    yield _line(NIGHT_ALONE, None, len(of_data), len(clean), planted)
    for rule, (kind, usual) in PEERS.items():
        largest = sorted(max(year.objections[at].peers[kind].values(), default=0.0) for at in clean)
        for threshold in (usual, largest[-alerts - 1]):
            alarmed = sum(bool(flagged(year.objections[at], rule, threshold)) for at in clean)
            yield _line(rule, threshold, alarmed, len(clean), planted)


def _concept_alerts(year: Year, is_still: bool) -> Iterator[date]:
    """First nights of the episodes that outcomes show; of a world that moves, those of lost meaning alone."""
    by_cause: dict[str, set[date]] = {}
    for finding in year.concept:
        if is_still or finding.cause == MEANING.cause:
            by_cause.setdefault(finding.cause, set()).add(finding.day)
    for days in by_cause.values():
        yield from (day for day in days if day - timedelta(days=1) not in days)


def _line(rule: str, threshold: float | None, alarmed: int, nights: int, planted: Sequence[Planted]) -> Line:
    names = dict.fromkeys(each.fault for each in planted)
    taken = {name: [each.found(rule, threshold) for each in planted if each.fault == name] for name in names}
    found = {name: [night for night in each if night is not None] for name, each in taken.items()}
    return Line(
        rule=rule,
        threshold=threshold,
        alarmed_nights=alarmed,
        false_alarms=rate(alarmed, nights, Monitor()),
        found={name: len(each) for name, each in found.items()},
        nights={name: median(each) if each else None for name, each in found.items()},
    )


def shown(made: Sequence[Line], seeds: int, half: str) -> Table:
    """Rules across, faults down: found of how many, and the median night."""
    table = Table(title=f"{half} half, {seeds} plantings of each fault", box=None, title_justify="left")
    table.add_column("fault")
    for line in made:
        at = "" if line.threshold is None else f"\n> {line.threshold:.3g}"
        table.add_column(f"{line.rule}{at}", justify="right")
    for name in made[0].found:
        table.add_row(name, *(_cell(line.found[name], line.nights[name]) for line in made))
    table.add_row("found in all", *(f"{sum(line.found.values())}" for line in made))
    table.add_row("false alarms a year", *(f"{line.false_alarms.measured:.1f}" for line in made))
    table.add_row(
        "95 % interval", *(f"{line.false_alarms.low:.0f}–{line.false_alarms.high:.0f}" for line in made)
    )
    return table


def _cell(found: int, nights: float | None) -> str:
    return f"{found}" if nights is None else f"{found}, night {nights:g}"


def main(
    data: Annotated[str, typer.Option(help="flights or parcels.")] = "flights",
    half: Annotated[str, typer.Option(help="tuning or test.")] = "test",
    seeds: Annotated[int, typer.Option(help="Plantings of each fault.")] = 20,
    processes: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Plant the faults and print the scoreboard; flights need the warehouse that `nightshift demo` loads."""
    given = DATA[data]
    nights = given.halves[half]
    with err.status("the clean year"):
        year = clean_year(given.bench(), Monitor())
    drawn = starts(year, nights, seeds).items()
    asked = [(name, start, seed) for name in given.faults for seed, start in drawn]
    with (
        err.status(f"{len(asked)} plantings"),
        ProcessPoolExecutor(processes, initializer=_share, initargs=(year,)) as pool,
    ):
        planted = list(pool.map(_plant, [data] * len(asked), *zip(*asked, strict=True), chunksize=10))
    made = list(lines(year, planted, nights, given.unclean(), is_still=given.is_still))
    if as_json:
        told = {"data": data, "half": half, "seeds": seeds, "rules": [asdict(each) for each in made]}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        Console(width=160).print(shown(made, seeds, f"{data}, {half}"))


_shared: list[Year] = []  # of a worker process: a year is too large to be sent with each planting


def _share(year: Year) -> None:
    _shared.append(year)


def _plant(data: str, name: str, start: date, seed: int) -> Planted:
    return plant(_shared[0], DATA[data].faults, name, start, seed)


if __name__ == "__main__":
    typer.run(main)
