"""Rollouts simulated: how often equal models are called different, and how soon a bad canary is stopped.

    make bench-rollout ARGS="--tests 2000 --json"

Each test has its own keys, drawn into arms once, as a rollout draws them; a key has its own rate of costly
rows, and a night its own shock. The usual rules look at the same nights: a z-test over all rows so far, a
confidence sequence over rows (mixture SPRT), and one over nights that forgets that keys stay in their arm.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from statistics import median
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.special import expit, logit

from pipeline.job_life import Rollout
from pipeline.lifecycle.arms import JudgedNight, compare
from pipeline.lifecycle.rollout import BUCKETS
from pipeline.lifecycle.sequence import mean_bounds

Floats = npt.NDArray[np.float64]

NIGHTS = 60
FIRST = date(2013, 5, 1)
RULES = ("ours", "nights alone", "rows, sequence", "rows, z")
DECLARED = Rollout(max_nights=NIGHTS)


@dataclass(frozen=True)
class World:
    """What the arms meet: keys a night, the challenger's share, rates of costly rows, and what varies."""

    keys: int
    share: float
    rate: float = 0.10
    worse_by: float = 0.0
    """How much the challenger adds to the rate."""
    night_spread: float = 0.3
    """Standard deviation of a night's shock, on the logit; the challenger has a third as much of its own."""
    key_spread: float = 0.7
    """Standard deviation of the keys' own rates, on the logit."""


@dataclass(frozen=True)
class Line:
    """One world over many tests: by rule, how many were called different, and the median night of it."""

    world: World
    tests: int
    called: Mapping[str, int]
    worse: Mapping[str, int]
    nights: Mapping[str, float | None]


@dataclass(frozen=True)
class Played:
    """One test's nights: costly rows and rows, float64 (nights, 2, BUCKETS), champion first."""

    sums: Floats
    counts: Floats

    @property
    def rates(self) -> Floats:
        """Share of costly rows by night and arm, (nights, 2)."""
        rates: Floats = self.sums.sum(axis=2) / self.counts.sum(axis=2)
        return rates


def played(world: World, random: np.random.Generator) -> Played:
    """One test of sixty nights."""
    challenger = random.random(world.keys) < world.share
    bucket = random.integers(BUCKETS, size=world.keys) + BUCKETS * challenger
    base = logit(world.rate) + world.key_spread * random.standard_normal(world.keys)
    # The mean over keys is the declared rate again, as if the spread were none.
    base += logit(world.rate) - logit(expit(base).mean())
    added = logit(world.rate + world.worse_by) - logit(world.rate)
    counts = np.bincount(bucket, minlength=2 * BUCKETS).reshape(2, BUCKETS).astype(np.float64)
    sums = np.empty((NIGHTS, 2, BUCKETS))
    for night in range(NIGHTS):
        shock, own = world.night_spread * random.standard_normal(2)
        rates = expit(base + shock + challenger * (added + own / 3))
        costly = random.random(world.keys) < rates
        sums[night] = np.bincount(bucket, costly, minlength=2 * BUCKETS).reshape(2, BUCKETS)
    return Played(sums, np.broadcast_to(counts, sums.shape))


def looks(test: Played) -> dict[str, tuple[int, bool] | None]:
    """By rule, the night on which the arms were first called different, and whether the challenger worse."""
    found: dict[str, tuple[int, bool] | None] = dict.fromkeys(RULES)
    rates, differences = test.rates, np.diff(test.rates, axis=1)[:, 0]
    nights = [
        JudgedNight(
            FIRST + timedelta(days=number),
            float(rates[number, 0]),
            float(rates[number, 1]),
            test.sums[number],
            test.counts[number],
        )
        for number in range(NIGHTS)
    ]
    totals, rows = test.sums.sum(axis=2).cumsum(axis=0), test.counts.sum(axis=2).cumsum(axis=0)
    for night in range(DECLARED.min_nights, NIGHTS + 1):
        ours = compare(nights[:night], DECLARED)
        alone = mean_bounds(differences[:night], DECLARED.error, NIGHTS)
        bounds = {
            "ours": (ours.lower, ours.upper),
            "nights alone": (alone.lower, alone.upper),
            "rows, sequence": _row_bounds(totals[night - 1], rows[night - 1], rows[-1], sequence=True),
            "rows, z": _row_bounds(totals[night - 1], rows[night - 1], rows[-1], sequence=False),
        }
        for rule, (lower, upper) in bounds.items():
            if found[rule] is None and (lower > 0 or upper < 0):
                found[rule] = (night, lower > 0)
    return found


def _row_bounds(totals: Floats, rows: Floats, last: Floats, *, sequence: bool) -> tuple[float, float]:
    rates = totals / rows
    variance = float((rates * (1 - rates) / rows).sum())
    difference = float(rates[1] - rates[0])
    if not sequence:
        half = float(stats.norm.ppf(1 - DECLARED.error / 2)) * math.sqrt(variance)
    else:
        # Johari et al. 2022, "Always valid inference", (8); the mixture as wide as the last look's error.
        mixture = variance * float((rows / last).mean())
        scale = variance * (variance + mixture) / mixture
        half = math.sqrt(scale * (math.log((variance + mixture) / variance) - 2 * math.log(DECLARED.error)))
    return difference - half, difference + half


def simulated(world: World, tests: int, seed: int) -> Line:
    """Many tests of one world."""
    random = np.random.default_rng(seed)
    found = [looks(played(world, random)) for _ in range(tests)]
    called: dict[str, list[tuple[int, bool]]] = {rule: [] for rule in RULES}
    for one in found:
        for rule, first in one.items():
            if first is not None:
                called[rule].append(first)
    return Line(
        world,
        tests,
        {rule: len(firsts) for rule, firsts in called.items()},
        {rule: sum(worse for _, worse in firsts) for rule, firsts in called.items()},
        {rule: float(median(n for n, _ in firsts)) if firsts else None for rule, firsts in called.items()},
    )


def idealised(tests: int, seed: int = 0) -> dict[float, int]:
    """How often equal arms are called different where both errors are Gaussian: by the keys' spread.

    The spread is in standard deviations of a night's difference; groups of keys know it with 38 degrees of
    freedom, as those of a rollout do.
    """
    random = np.random.default_rng(seed)
    looked = range(DECLARED.min_nights, NIGHTS + 1)
    found = {}
    for spread in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0):
        found[spread] = 0
        for _ in range(tests):
            nights = random.standard_normal(NIGHTS) + spread * random.standard_normal()
            freedom = 2 * (BUCKETS - 1)
            known = spread * math.sqrt(random.chisquare(freedom) / freedom)
            keys = float(stats.t.ppf(1 - DECLARED.error / 4, freedom)) * known
            for count in looked:
                bounds = mean_bounds(nights[:count], DECLARED.error, DECLARED.min_nights)
                if abs(bounds.mean) > math.hypot(bounds.upper - bounds.mean, keys):
                    found[spread] += 1
                    break
    return found


WORLDS = (
    *(World(keys, share) for keys in (900, 20_000) for share in (0.1, 0.5)),
    World(20_000, 0.5, night_spread=0.0, key_spread=0.0),
    *(World(20_000, share, worse_by=by) for share in (0.1, 0.5) for by in (0.01, 0.02, 0.04)),
    *(World(900, share, worse_by=by) for share in (0.1, 0.5) for by in (0.04, 0.10)),
)


def interval(count: int, tests: int) -> str:
    """A share with its exact 95 % interval."""
    bounds = stats.binomtest(count, tests).proportion_ci()
    return f"{count / tests:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def shown(lines: list[Line]) -> Table:
    """A line a world."""
    title = "called different within 60 nights, exact 95 % intervals; by ours: worse, and the median night"
    table = Table(box=None, title_justify="left", title=title)
    for head in ("keys", "share", "rate", "challenger", "spreads", *RULES, "ours: worse", "ours: night"):
        table.add_column(head)
    for line in lines:
        world = line.world
        table.add_row(
            str(world.keys), f"{world.share:.0%}", f"{world.rate:.0%}",
            "equal" if not world.worse_by else f"{world.rate + world.worse_by:.0%}",
            f"{world.night_spread} / {world.key_spread}",
            *(interval(line.called[rule], line.tests) for rule in RULES),
            interval(line.worse["ours"], line.tests), str(line.nights["ours"] or ""),
        )  # fmt: skip
    return table


def main(
    tests: Annotated[int, typer.Option(help="Tests of each world.")] = 1000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Print the table, or one JSON line."""
    with ProcessPoolExecutor(workers) as pool:
        lines = list(pool.map(simulated, WORLDS, [tests] * len(WORLDS), range(len(WORLDS))))
    gaussian = idealised(tests)
    if as_json:
        report = {"worlds": [asdict(line) for line in lines], "gaussian": gaussian, "tests": tests}
        sys.stdout.write(json.dumps(report) + "\n")
        return
    out = Console(width=240)
    out.print(shown(lines))
    held = ", ".join(f"{spread}: {interval(count, tests)}" for spread, count in gaussian.items())
    out.print(f"Gaussian nights and keys, equal arms called different by ours, by the keys' spread: {held}")


if __name__ == "__main__":
    typer.run(main)
