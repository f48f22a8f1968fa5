"""Whether a challenger may replace the champion: evidence of the same nights in, a verdict with reasons out.

The night is the unit of chance: a difference is the challenger's loss minus the champion's on one night, and
its mean has bounds that hold on every night at once (see `sequence.mean_bounds`), so the gate may be asked
each night, of nights that begin with the same one. The rule of quality:

- accept where the challenger is better on average, by `gain` at least, and its true loss is shown to lie less
  than `margin` above the champion's: one that is worse by `margin` or more passes with a chance of at most
  `error`, however often it is asked;
- refuse where it is shown to be worse, or is not better on average over the declared nights;
- else there is not enough evidence.

That it is better is not to be shown: at the noise of real nights and differences of a per cent, a month of
nights would nearly never show it, and the price of a false acceptance is bounded by `margin`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.job_life import Gate
from pipeline.lifecycle.sequence import Bounds, mean_bounds

Outcome = Literal["accept", "refuse", "not_enough_evidence"]
Floats = npt.NDArray[np.float64]
Slice = tuple[str, str]
"""A column and one of its values."""


_KEPT_SLICES = 50
"""Of a column, so many of its most frequent values stand in the figures, and those that refuse."""


@dataclass(frozen=True)
class Reason:
    """What one check says; `evidence` is a sentence for people, with the figures."""

    check: str
    outcome: Outcome
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """Refuse where any check refuses; else what the check of quality says."""

    outcome: Outcome
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Pair:
    """One figure of both versions."""

    champion: float
    challenger: float

    @property
    def difference(self) -> float:
        """How much more the challenger has."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Part:
    """So many labelled rows of one night, and both versions' mean loss on them."""

    rows: int
    loss: Pair


@dataclass(frozen=True)
class Night:
    """Both versions on the same labelled rows of one night: means of label and scores, losses, slices."""

    day: date
    label: float
    score: Pair
    whole: Part
    slices: Mapping[Slice, Part] = field(default_factory=dict)
    metrics: Mapping[str, Pair] = field(default_factory=dict)
    """What people compare too, such as auc; no check takes it."""


@dataclass(frozen=True)
class Probe:
    """One test of the challenger's answers: how many rows broke it."""

    check: Literal["behaviour", "robustness", "golden_rows"]
    name: str
    rows: int
    broken: int


@dataclass(frozen=True)
class Evidence:
    """What was measured of a challenger and the champion, side by side in one run."""

    loss: str
    """What is compared, with its unit: cost in USD per 1,000 rows, log loss, squared error."""
    output: Literal["probability", "value"]
    nights: Sequence[Night]
    """In order of their days."""
    tests: Sequence[Probe]
    cpu_seconds: Pair
    """Per 1,000 rows, features and scores."""
    memory_mb: Pair
    """MiB at the peak of loading the artifact and scoring the same rows."""


@dataclass(frozen=True)
class SliceLine:
    """One slice over all nights: mean losses, and the bounds of their difference where it is judged."""

    column: str
    value: str
    rows: int
    loss: Pair
    bounds: Bounds | None


def night(
    day: date,
    label: Floats,
    score: tuple[Floats, Floats],
    loss: tuple[Floats, Floats],
    slices: Mapping[str, npt.NDArray[np.object_]],
    metrics: Mapping[str, Pair] | None = None,
) -> Night:
    """The night of n labelled rows; score and loss float64 (n,), the champion's first; slices texts (n,)."""
    return Night(
        day=day,
        label=float(label.mean()),
        score=Pair(*(float(each.mean()) for each in score)),
        whole=Part(len(label), Pair(*(float(each.mean()) for each in loss))),
        slices=dict(_parts(loss, slices)),
        metrics=metrics or {},
    )


def _parts(
    loss: tuple[Floats, Floats], slices: Mapping[str, npt.NDArray[np.object_]]
) -> Iterator[tuple[Slice, Part]]:
    for column, texts in slices.items():
        values, codes, counts = np.unique(texts.astype(str), return_inverse=True, return_counts=True)
        sums = [np.bincount(codes, weights=each, minlength=len(values)) for each in loss]
        for at, value in enumerate(values):
            means = (float(each[at] / counts[at]) for each in sums)
            yield (column, str(value)), Part(int(counts[at]), Pair(*means))


def decide(evidence: Evidence, settings: Gate) -> Verdict:
    """The verdict on the evidence, with what each check says of it."""
    quality = _quality(evidence, settings)
    reasons = (
        quality,
        _slices(evidence, settings),
        _calibration(evidence, settings),
        _tested(evidence, "behaviour", settings.behaviour.violations),
        _tested(evidence, "robustness", 0.0),
        _tested(evidence, "golden_rows", 0.0),
        _ratio("latency", "CPU seconds per 1,000 rows", evidence.cpu_seconds, settings.latency_ratio),
        _ratio("memory", "MiB at the peak", evidence.memory_mb, settings.memory_ratio),
    )
    refused = any(reason.outcome == "refuse" for reason in reasons)
    return Verdict("refuse" if refused else quality.outcome, reasons)


def whole_loss(evidence: Evidence) -> Pair:
    """Both versions' mean loss over the rows of all nights."""
    return _pooled([one.whole for one in evidence.nights])


def running_bounds(evidence: Evidence, settings: Gate) -> list[Bounds]:
    """The bounds of the mean difference as they stood after each night."""
    parts = [one.whole for one in evidence.nights]
    return [
        mean_bounds(_differences(parts[:count]), settings.error, settings.nights)
        for count in range(1, len(parts) + 1)
    ]


def slice_lines(evidence: Evidence, settings: Gate) -> list[SliceLine]:
    """Every slice, by column and then the largest first; those with too few rows are not judged.

    Their error is shared out, so that all of them together refuse one that is nowhere worse no more often.
    """
    held: dict[Slice, list[Part]] = {}
    for one in evidence.nights:
        for name, part in one.slices.items():
            held.setdefault(name, []).append(part)
    rows = {name: sum(part.rows for part in parts) for name, parts in held.items()}
    judged = [name for name, parts in held.items() if rows[name] >= settings.slice_rows and len(parts) > 1]
    lines = []
    for (column, value), parts in sorted(held.items(), key=lambda item: (item[0][0], -rows[item[0]])):
        found = None
        if (column, value) in judged:
            error = settings.error / len(judged)
            found = mean_bounds(_differences(parts), error, settings.nights)
        lines.append(SliceLine(column, value, rows[(column, value)], _pooled(parts), found))
    return lines


def _quality(evidence: Evidence, settings: Gate) -> Reason:
    if not evidence.nights:
        return Reason("quality", "not_enough_evidence", "No labelled night was answered by both.")
    parts = [one.whole for one in evidence.nights]
    bounds = mean_bounds(_differences(parts), settings.error, settings.nights)
    loss = whole_loss(evidence)
    size = abs(loss.champion)
    wanted, most = -settings.gain * size, settings.margin * size
    told = (
        f"Over {bounds.nights} nights the challenger's {evidence.loss} is {_number(loss.challenger)} and "
        f"the champion's {_number(loss.champion)}, a difference of {_signed(bounds.mean, size)}; the true "
        f"one lies {_between(bounds, size, settings.error)}."
    )
    if bounds.lower > wanted:
        return Reason("quality", "refuse", f"{told} It is shown to be worse{_than(settings)}.")
    if bounds.mean > wanted and bounds.nights >= settings.nights:
        return Reason(
            "quality",
            "refuse",
            f"{told} It is not better{_than(settings)} over the {settings.nights} nights asked for.",
        )
    if bounds.mean <= wanted and bounds.upper <= most:
        return Reason(
            "quality",
            "accept",
            f"{told} It is better on average, and at most {settings.margin:.1%} worse.",
        )
    missing = (
        f"It may still be worse by more than {settings.margin:.1%}."
        if bounds.mean <= wanted
        else f"It is not better so far; {settings.nights} nights are asked for."
    )
    return Reason("quality", "not_enough_evidence", f"{told} {missing}")


def _than(settings: Gate) -> str:
    """Than what, where it is not the champion alone."""
    return f" than the gain of {settings.gain:+.1%} asks for" if settings.gain else ""


def _slices(evidence: Evidence, settings: Gate) -> Reason:
    lines = slice_lines(evidence, settings)
    judged = [(line, line.bounds) for line in lines if line.bounds is not None]
    if not lines:
        return Reason("slices", "accept", "No slice is declared that the rows have.")
    if not judged:
        told = f"None of {len(lines)} slices has {settings.slice_rows:,} rows, so none was judged."
        return Reason("slices", "not_enough_evidence", told)
    worse = [
        f"{line.column} {line.value} ({_signed(bounds.mean, abs(line.loss.champion))}, {line.rows:,} rows)"
        for line, bounds in judged
        if _is_worse(line, settings)
    ]
    few = len(lines) - len(judged)
    unjudged = f"; with fewer than {settings.slice_rows:,} rows and not judged: {few}" if few else ""
    told = (
        f"Worse by more than {settings.slice_margin:.1%} and beyond chance: {len(worse) or 'none'} of "
        f"{len(judged)}{''.join(f', {one}' for one in worse)}{unjudged}."
    )
    return Reason("slices", "refuse" if worse else "accept", told)


def _is_worse(line: SliceLine, settings: Gate) -> bool:
    """Whether it alone refuses the challenger."""
    bounds, size = line.bounds, abs(line.loss.champion)
    return bounds is not None and bounds.lower > 0 and bounds.mean > settings.slice_margin * size


def _calibration(evidence: Evidence, settings: Gate) -> Reason:
    if not evidence.nights:
        return Reason("calibration", "not_enough_evidence", "No labelled night was answered by both.")
    gaps = np.array(
        [
            (abs(one.score.champion - one.label), abs(one.score.challenger - one.label))
            for one in evidence.nights
        ]
    )
    unit = ""
    if evidence.output == "value":
        gaps = gaps / (abs(np.mean([one.label for one in evidence.nights])) or 1.0)
        unit = " mean labels"
    bounds = mean_bounds(gaps[:, 1] - gaps[:, 0], settings.error, settings.nights)
    champion, challenger = gaps.mean(axis=0)
    told = (
        f"By night, the challenger's mean score is {challenger:.4f}{unit} from the mean label, the "
        f"champion's {champion:.4f}{unit}; it may be {settings.calibration_margin:g} further away"
    )
    if bounds.mean <= settings.calibration_margin:
        return Reason("calibration", "accept", f"{told}.")
    if bounds.lower > 0:
        return Reason("calibration", "refuse", f"{told}, and is by more.")
    return Reason("calibration", "accept", f"{told}, and is by more, but not beyond chance.")


def _tested(evidence: Evidence, check: str, allowed: float) -> Reason:
    tests = [test for test in evidence.tests if test.check == check]
    broken = [test for test in tests if test.broken > allowed * test.rows]
    if not tests:
        return Reason(check, "accept", "Nothing is declared to be tested.")
    limit = f" by more than {allowed:.1%} of the rows" if allowed else ""
    named = ", ".join(f"{test.name} ({test.broken:,} of {test.rows:,} rows)" for test in broken)
    told = f"Tests broken{limit}: {len(broken) or 'none'} of {len(tests)}{', ' + named if broken else ''}."
    silent = ", ".join(test.name for test in tests if not test.rows)
    if silent:
        told = f"{told} No row could show: {silent}."
    return Reason(check, "refuse" if broken else "not_enough_evidence" if silent else "accept", told)


def _ratio(check: str, unit: str, used: Pair, most: float) -> Reason:
    if used.champion <= 0:
        return Reason(check, "not_enough_evidence", f"The champion's {unit} were too few to be measured.")
    ratio = used.challenger / used.champion
    told = (
        f"{unit}: the challenger {used.challenger:.3g}, the champion {used.champion:.3g}, {ratio:.2f} times "
        f"as much; at most {most:g} times is allowed."
    )
    return Reason(check, "refuse" if ratio > most else "accept", told)


def _differences(parts: Sequence[Part]) -> Floats:
    """Each night's mean difference, weighted by its rows: their mean is that of all rows."""
    rows = np.array([part.rows for part in parts], dtype=np.float64)
    found: Floats = np.array([part.loss.difference for part in parts]) * rows / rows.mean()
    return found


def _pooled(parts: Sequence[Part]) -> Pair:
    rows = sum(part.rows for part in parts)
    return Pair(
        sum(part.rows * part.loss.champion for part in parts) / rows,
        sum(part.rows * part.loss.challenger for part in parts) / rows,
    )


def _signed(difference: float, size: float) -> str:
    share = f" ({difference / size:+.1%})" if size else ""
    return f"{_number(difference, '+')}{share}"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"


def _between(bounds: Bounds, size: float, error: float) -> str:
    if math.isinf(bounds.upper):
        return "anywhere: the nights are too few to bound it"
    return (
        f"from {_signed(bounds.lower, size)} to {_signed(bounds.upper, size)}, with an error of {error:.0%}"
    )


def figures(evidence: Evidence, settings: Gate) -> dict[str, Any]:
    """The evidence as JSON holds it: what a page needs; bounds that say nothing are null."""
    after, lines = running_bounds(evidence, settings), slice_lines(evidence, settings)
    return {
        "loss": evidence.loss,
        "output": evidence.output,
        "nights": [
            {
                "day": one.day.isoformat(),
                "rows": one.whole.rows,
                "label": one.label,
                "score": vars(one.score),
                "loss": vars(one.whole.loss),
                "metrics": {name: vars(pair) for name, pair in one.metrics.items()},
                "bounds": _bounds_json(bounds),
            }
            for one, bounds in zip(evidence.nights, after, strict=True)
        ],
        "slices": [
            {
                "column": line.column,
                "value": line.value,
                "rows": line.rows,
                "loss": vars(line.loss),
                "bounds": None if line.bounds is None else _bounds_json(line.bounds),
            }
            for line in _kept_slices(lines, settings)
        ],
        "slice_values": Counter(line.column for line in lines),
        "tests": [vars(test) for test in evidence.tests],
        "cpu_seconds": vars(evidence.cpu_seconds),
        "memory_mb": vars(evidence.memory_mb),
    }


def _kept_slices(lines: Sequence[SliceLine], settings: Gate) -> Iterator[SliceLine]:
    for _, of_column in groupby(lines, key=attrgetter("column")):
        for place, line in enumerate(of_column):
            if place < _KEPT_SLICES or _is_worse(line, settings):
                yield line


def _bounds_json(bounds: Bounds) -> dict[str, float | None]:
    return {
        name: value if math.isfinite(value) else None
        for name, value in (("mean", bounds.mean), ("lower", bounds.lower), ("upper", bounds.upper))
    }
