"""Planted challengers: what the gate says of better, worse and equal ones, and how often it is wrong.

    make bench-gate ARGS="--runs 1000 --json"

Nights are drawn as the flights of April have them: 28 of 900 rows in 8 slices, a champion that costs 880 per
1,000 rows with a sd of 33 % from night to night, and a difference whose sd is 9.7 % of that cost, half of its
variance common to all slices. `heavy` noise is Student's t with 3 degrees of freedom: differences of real
nights have outliers.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from pipeline.job_life import Gate
from pipeline.lifecycle.gate import Evidence, Night, Outcome, Pair, Part, decide, running_bounds

COST, OF_NIGHTS, ROWS = 880.0, 0.33, 900
SHARES = (0.2, 0.18, 0.17, 0.15, 0.1, 0.08, 0.07, 0.05)
NOISE = 0.097
OUTCOMES: tuple[Outcome, ...] = ("accept", "refuse", "not_enough_evidence")


@dataclass(frozen=True)
class Plant:
    """A challenger as it truly is: by how much of the champion's cost it is worse, in all and on slices."""

    worse: float
    slices: Mapping[int, float] = field(default_factory=dict)
    """By number, slices on which it is worse by another share; the rest makes up for them."""
    noise: float = NOISE
    heavy: bool = False
    nights: int = 28


PLANTS = {
    "10 % better": Plant(-0.10),
    "5 % better": Plant(-0.05),
    "2 % better": Plant(-0.02),
    "equal": Plant(0.0),
    "equal, another seed's noise": Plant(0.0, noise=0.035),
    "2 % worse": Plant(0.02),
    "5 % worse": Plant(0.05),
    "worse by the margin": Plant(0.08),
    "5 % better, 40 % worse on a tenth": Plant(-0.05, {4: 0.4}),
    "5 % better, heavy noise": Plant(-0.05, heavy=True),
    "worse by the margin, heavy noise": Plant(0.08, heavy=True),
    "5 % better, 6 nights": Plant(-0.05, nights=6),
}


@dataclass(frozen=True)
class Line:
    """What the gate said of one plant: how often each outcome, and 95 % intervals of their shares."""

    plant: str
    runs: int
    said: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    ever_accepted: int
    """Runs in which any look, night after night to the last one, would have been an acceptance by quality."""


def drawn(plant: Plant, seed: int) -> Evidence:
    """The evidence of one run."""
    random = np.random.default_rng(seed)
    nights = [
        _night(plant, date(2013, 1, 1) + timedelta(days=number), random) for number in range(plant.nights)
    ]
    return Evidence(
        loss="cost in USD per 1,000 rows",
        output="probability",
        nights=nights,
        tests=[],
        cpu_seconds=Pair(1.0, 1.0),
        memory_mb=Pair(1.0, 1.0),
    )


def _night(plant: Plant, day: date, random: np.random.Generator) -> Night:
    shares = np.array(SHARES)
    champion = COST * max(0.2, 1 + OF_NIGHTS * random.standard_normal())
    rest = [number for number in range(len(shares)) if number not in plant.slices]
    taken = sum(shares[number] * worse for number, worse in plant.slices.items())
    true = np.full(len(shares), (plant.worse - taken) / shares[rest].sum())
    for number, worse in plant.slices.items():
        true[number] = worse
    noise = plant.noise * np.sqrt(0.5)
    difference = true + noise * (
        _standard(plant, random, 1) + _standard(plant, random, len(shares)) / shares**0.5
    )
    lost = champion + COST * difference
    slices = {
        ("carrier", str(number)): Part(round(ROWS * share), Pair(champion, float(lost[number])))
        for number, share in enumerate(shares)
    }
    whole = Part(ROWS, Pair(champion, float(lost @ shares)))
    return Night(day, 0.2, Pair(0.2, 0.2), whole, slices)


def _standard(plant: Plant, random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Noise of mean 0 and variance 1."""
    if plant.heavy:
        return np.asarray(random.standard_t(3, count) / np.sqrt(3), dtype=np.float64)
    return random.standard_normal(count)


def line(name: str, plant: Plant, settings: Gate, runs: int) -> Line:
    """Many runs of one plant."""
    found = [drawn(plant, seed) for seed in range(runs)]
    said = Counter(decide(evidence, settings).outcome for evidence in found)
    return Line(
        plant=name,
        runs=runs,
        said={outcome: said[outcome] for outcome in OUTCOMES},
        intervals={outcome: _interval(said[outcome], runs) for outcome in OUTCOMES},
        ever_accepted=sum(_ever_accepted(evidence, settings) for evidence in found),
    )


def _ever_accepted(evidence: Evidence, settings: Gate) -> bool:
    size = np.cumsum([night.whole.loss.champion for night in evidence.nights])
    size /= np.arange(1, len(size) + 1)
    after = running_bounds(evidence, settings)
    return any(b.mean <= 0 and b.upper <= settings.margin * s for b, s in zip(after, size, strict=True))


def _interval(count: int, runs: int) -> tuple[float, float]:
    found = binomtest(count, runs).proportion_ci()
    return float(found.low), float(found.high)


def shown(lines: Sequence[Line], title: str) -> Table:
    """Plants down, outcomes across."""
    table = Table("plant", title=title, box=None, title_justify="left")
    for outcome in (*OUTCOMES, "accepted at any of the looks"):
        table.add_column(outcome.replace("_", " "), justify="right")
    for each in lines:
        cells = [
            f"{each.said[outcome] / each.runs:.1%} ({low:.1%}–{high:.1%})"
            for outcome, (low, high) in each.intervals.items()
        ]
        table.add_row(each.plant, *cells, f"{each.ever_accepted / each.runs:.1%}")
    return table


def main(
    runs: Annotated[int, typer.Option(help="Runs of each plant.")] = 400,
    nights: Annotated[int, typer.Option(help="Nights of each run.")] = 28,
    error: Annotated[float, typer.Option(help="gate.error.")] = 0.1,
    margin: Annotated[float, typer.Option(help="gate.margin.")] = 0.08,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Judge planted challengers and print how often each outcome was said; the settings of the flights."""
    settings = Gate(nights=nights, error=error, margin=margin)
    made = []
    for name, plant in PLANTS.items():
        fitting = plant if plant.nights < nights else replace(plant, nights=nights)
        worse = margin if plant.worse == PLANTS["worse by the margin"].worse else plant.worse
        made.append(line(name, replace(fitting, worse=worse), settings, runs))
    if as_json:
        told: dict[str, Any] = {"settings": settings.model_dump(mode="json")}
        sys.stdout.write(json.dumps(told | {"plants": [asdict(each) for each in made]}) + "\n")
    else:
        title = f"{runs} runs of each, {nights} nights, error {error:g}, margin {margin:g}"
        Console(width=170).print(shown(made, title))


if __name__ == "__main__":
    typer.run(main)
