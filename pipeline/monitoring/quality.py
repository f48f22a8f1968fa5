"""Realised quality: published scores and decisions against what became true, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.job import Costs

Floats: TypeAlias = npt.NDArray[np.float64]
Output: TypeAlias = Literal["probability", "value"]

ALL = "all"
"""Arm, slice column and slice value of every row."""
OTHER = "(other)"
"""The value of a slice that stands for all but its most frequent ones."""
UNKNOWN = "(none)"
"""The value of a slice that stands for null."""

CHAMPION = "champion"
"""The arm of the version that a run is pinned to."""
CHALLENGER = "challenger"
"""The arm of the version beside it."""

BUCKET = "(key bucket)"
"""The slice column of an arm's groups of keys."""

_BINS = 10
_MOST_VALUES = 50


@dataclass(frozen=True)
class Answers:
    """n published rows of one run and what became of them.

    score (n,); decision bool (n,), None without a threshold; label (n,), NaN where it is not known, else 0 or
    1 for probabilities; slices: a column's name to its text values, object (n,).
    """

    score: Floats
    decision: npt.NDArray[np.bool_] | None
    label: Floats
    arm: npt.NDArray[np.object_]
    slices: Mapping[str, npt.NDArray[np.object_]]
    bucket: npt.NDArray[np.int64] | None = None
    """Each row's group of keys, where a rollout draws keys into arms."""

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which rows have a label, (n,)."""
        return ~np.isnan(self.label)

    @property
    def of_champion(self) -> Answers:
        """The rows but those of the challenger's arm: all of them where there are no arms."""
        return self.take(self.arm != CHALLENGER)

    def take(self, chosen: npt.NDArray[Any]) -> Answers:
        """The rows at these positions, or of this mask."""
        return Answers(
            self.score[chosen],
            None if self.decision is None else self.decision[chosen],
            self.label[chosen],
            self.arm[chosen],
            {name: values[chosen] for name, values in self.slices.items()},
            None if self.bucket is None else self.bucket[chosen],
        )


@dataclass(frozen=True)
class Measured:
    """One metric of one slice; `rows` are its predictions, `labelled` those whose label was known."""

    arm: str
    slice_column: str
    slice_value: str
    metric: str
    value: float
    rows: int
    labelled: int


def measure(answers: Answers, output: Output, costs: Costs | None) -> list[Measured]:
    """Quality of all rows, of each arm, and of each value of each slice; `coverage` is always there.

    A slice with more than 50 values is measured by its 50 most frequent ones, the rest together. Of each
    arm's groups of keys, only the metric that arms are compared by.
    """
    compared = comparison_metric(output, costs)
    return [
        Measured(arm, column, value, metric, figure, len(part.score), int(part.known.sum()))
        for arm, column, value, part in (*_parts(answers), *_groups(answers))
        for metric, figure in _with_coverage(part, output, costs).items()
        if column != BUCKET or metric == compared
    ]


def comparison_metric(output: Output, costs: Costs | None) -> str:
    """By which mean over rows arms are compared, the lower the better: cost, else Brier score or error."""
    if costs:
        return "cost_per_1000"
    return "brier" if output == "probability" else "mae"


def _parts(answers: Answers) -> Iterator[tuple[str, str, str, Answers]]:
    yield ALL, ALL, ALL, answers
    for arm in sorted({arm for arm in answers.arm if arm is not None}):
        yield arm, ALL, ALL, answers.take(answers.arm == arm)
    for column, values in answers.slices.items():
        named = grouped(values)
        for value in sorted(set(named)):
            yield ALL, column, value, answers.take(named == value)


def _groups(answers: Answers) -> Iterator[tuple[str, str, str, Answers]]:
    if answers.bucket is None:
        return
    for arm in sorted({arm for arm in answers.arm if arm is not None}):
        of_arm = answers.arm == arm
        for number in np.unique(answers.bucket[of_arm]):
            yield arm, BUCKET, f"{number:02d}", answers.take(of_arm & (answers.bucket == number))


def grouped(values: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """The slice of each row, as text: its value, UNKNOWN of null, OTHER beyond the 50 most frequent."""
    named = np.array([UNKNOWN if value is None else str(value) for value in values], dtype=object)
    found, counts = np.unique(named, return_counts=True)
    if len(found) <= _MOST_VALUES:
        return named
    kept = found[np.argsort(-counts, kind="stable")[:_MOST_VALUES]]
    return np.where(np.isin(named, kept), named, OTHER)


def _with_coverage(answers: Answers, output: Output, costs: Costs | None) -> dict[str, float]:
    known = answers.take(answers.known)
    coverage = len(known.label) / len(answers.label) if len(answers.label) else 0.0
    return {"coverage": coverage} | quality(known.score, known.decision, known.label, output, costs)


def quality(
    score: Floats,
    decision: npt.NDArray[np.bool_] | None,
    label: Floats,
    output: Output,
    costs: Costs | None,
) -> dict[str, float]:
    """Each metric of n labelled rows by its name; one that is not defined for them is left out, never 0.

    Of probabilities: base_rate, mean_score, calibration_gap (mean_score - base_rate), calibration_error,
    calibration_slope, auc, log_loss, brier; of their decisions: hits, false_alarms, misses, passes,
    decision_rate, precision, recall. Of values: mean_label, mean_score, calibration_slope, mae, rmse, bias
    (mean of score - label). With costs: cost and cost_per_1000 rows, in money; of decisions also
    cost_no_model, that of never deciding yes.
    """
    if len(label) == 0:
        return {}
    if output == "value":
        return _of_values(score, label, costs)
    made = {
        "base_rate": float(label.mean()),
        "mean_score": float(score.mean()),
        "calibration_gap": float(score.mean() - label.mean()),
        "calibration_error": calibration_error(score, label),
        "log_loss": log_loss(score, label),
        "brier": float(np.square(score - label).mean()),
    }
    if 0 < label.sum() < len(label):
        made["auc"] = auc(score, label)
        rate = label.mean()
        from scipy.special import logit

        made |= _slope(logit(_kept(score)), label / (rate * (1 - rate)))
    return made if decision is None else made | _of_decisions(decision, label, costs)


def losses(
    score: Floats,
    decision: npt.NDArray[np.bool_] | None,
    label: Floats,
    output: Output,
    costs: Costs | None,
) -> Floats:
    """What each of n labelled rows cost, float64 (n,): money where costs are declared, as in `quality`.

    Else the negative log-likelihood of a probability, the squared error of a value: they add up over rows.
    """
    if output == "value":
        error = score - label
        if costs is None:
            return np.square(error)
        return np.where(error > 0, costs.over * error, -costs.under * error)
    if costs is None or decision is None:
        return _log_losses(score, label)
    of_yes = np.where(label > 0, costs.hit, costs.false_alarm)
    of_no = np.where(label > 0, costs.miss, costs.pass_)
    return np.where(decision, of_yes, of_no)


def auc(score: Floats, label: Floats) -> float:
    """Area under the ROC curve, the Mann-Whitney statistic over its largest value; ties count half.

    Both classes must be there.
    """
    positive = label > 0
    yes, no = int(positive.sum()), int((~positive).sum())
    from scipy.stats import rankdata

    return float((rankdata(score)[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def log_loss(score: Floats, label: Floats) -> float:
    """Mean negative log-likelihood; scores are kept off 0 and 1 by the machine epsilon."""
    return float(_log_losses(score, label).mean())


def _log_losses(score: Floats, label: Floats) -> Floats:
    kept = _kept(score)
    from scipy.special import xlogy

    return np.asarray(-(xlogy(label, kept) + xlogy(1 - label, 1 - kept)), dtype=np.float64)


def _kept(score: Floats) -> Floats:
    epsilon = np.finfo(np.float64).eps
    kept: Floats = np.clip(score, epsilon, 1 - epsilon)
    return kept


def _slope(score: Floats, label: Floats) -> dict[str, float]:
    """The calibration_slope: 1 where a score means what it says, 0 where it means nothing.

    By least squares. Of log-odds and of labels over their variance it is the first step, from no meaning,
    towards Cox's logistic slope (Two Further Applications of a Model for Binary Regression, 1958).
    """
    around = score - score.mean()
    spread = float(around @ around)
    return {"calibration_slope": float(around @ label) / spread} if spread > 0 else {}


def calibration_error(score: Floats, label: Floats) -> float:
    """Expected calibration error over ten bins of equal width (Naeini, Cooper and Hauskrecht 2015)."""
    bins = np.minimum((score * _BINS).astype(np.int64), _BINS - 1)
    difference = np.bincount(bins, weights=score - label, minlength=_BINS)
    return float(np.abs(difference).sum() / len(score))


def _of_decisions(decision: npt.NDArray[np.bool_], label: Floats, costs: Costs | None) -> dict[str, float]:
    positive = label > 0
    counts = Decided(
        hits=float((decision & positive).sum()),
        false_alarms=float((decision & ~positive).sum()),
        misses=float((~decision & positive).sum()),
        passes=float((~decision & ~positive).sum()),
    )
    return vars(counts) | counts.rates() | (counts.money(costs) if costs else {})


@dataclass(frozen=True)
class Decided:
    """How many decisions of each kind, in rows; estimated ones are no whole numbers."""

    hits: float
    false_alarms: float
    misses: float
    passes: float

    @property
    def rows(self) -> float:
        """All of them."""
        return self.hits + self.false_alarms + self.misses + self.passes

    def rates(self) -> dict[str, float]:
        """decision_rate, precision, recall; those without a denominator are left out."""
        alarms, positives = self.hits + self.false_alarms, self.hits + self.misses
        made = {"decision_rate": alarms / self.rows}
        if alarms:
            made["precision"] = self.hits / alarms
        if positives:
            made["recall"] = self.hits / positives
        return made

    def money(self, costs: Costs) -> dict[str, float]:
        """The cost and cost_per_1000 of these decisions, and cost_no_model: of no decision ever being yes."""
        cost = (
            costs.hit * self.hits
            + costs.false_alarm * self.false_alarms
            + costs.miss * self.misses
            + costs.pass_ * self.passes
        )
        never = costs.miss * (self.hits + self.misses) + costs.pass_ * (self.false_alarms + self.passes)
        return {"cost": cost, "cost_per_1000": 1000 * cost / self.rows, "cost_no_model": never}


def _of_values(score: Floats, label: Floats, costs: Costs | None) -> dict[str, float]:
    error = score - label
    made = {
        "mean_label": float(label.mean()),
        "mean_score": float(score.mean()),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "bias": float(error.mean()),
    } | _slope(score, label)
    if costs:
        over, under = error[error > 0].sum(), -error[error < 0].sum()
        cost = float(costs.over * over + costs.under * under)
        made |= {"cost": cost, "cost_per_1000": 1000 * cost / len(error)}
    return made
