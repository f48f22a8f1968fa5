"""What each metric means: one sentence, its unit, and where it is kept. The one place that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

METRICS_TABLE = "nightshift.metrics"
QUALITY_VIEW = "nightshift.quality"


@dataclass(frozen=True)
class Meaning:
    """What a metric says, its unit, and the table or view that holds it."""

    metric: str
    sentence: str
    unit: str
    source: str


def _meanings(source: str, rows: Mapping[str, tuple[str, str]]) -> tuple[Meaning, ...]:
    return tuple(Meaning(metric, sentence, unit, source) for metric, (unit, sentence) in rows.items())


ROWS = _meanings(
    METRICS_TABLE,
    {
        "rows_in": ("rows", "Rows of the run's snapshot"),
        "quarantined_share": ("share", "Rows that no model was given, of all rows"),
        "withheld_share": ("share", "Rows without an answer, of all rows"),
        "copied_share": ("share", "Input columns of many values that are as the night before had them"),
        "fallback_share": ("share", "Rows answered by a step of a fallback chain, of all rows"),
    },
)
COLUMNS = _meanings(
    METRICS_TABLE,
    {
        "missing_share": ("share", "Values that are null, of all values of the column"),
        "mean": ("column's", "Mean of the values that are there"),
        "std": ("column's", "Standard deviation of the values that are there"),
        "min": ("column's", "Smallest value"),
        "max": ("column's", "Largest value"),
        **{
            f"q{percent:02d}": ("column's", f"Quantile: {percent} % of the values lie below it")
            for percent in (1, 5, 25, 50, 75, 95, 99)
        },
        "distinct": ("values", "Different values of a category"),
        "share:VALUE": ("share", "Values that are VALUE, which was frequent in the nights before"),
        "top_share": ("share", "Values that are the most frequent one"),
        "js": (
            "bits",
            "Jensen–Shannon divergence from the baseline: 0 the same distribution, 1 nothing in common",
        ),
        "psi": (
            "none",
            "Population stability index against the baseline; from 0.25 on it is usually called a shift",
        ),
        "wasserstein": (
            "baseline's standard deviations",
            "How far values moved on average from the baseline",
        ),
        "out_of_range_share": ("share", "Values outside of the baseline's smallest and largest one"),
        "unseen_share": ("share", "Values of a category that the baseline does not have"),
    },
)
SCORES = _meanings(
    METRICS_TABLE,
    {
        "share_over_threshold": ("share", "Scores that reach the declared threshold, of all scores"),
        "entropy": ("bits", "Mean entropy of the scores: 0 the model is always sure, 1 never"),
    },
)
QUALITY = _meanings(
    QUALITY_VIEW,
    {
        "coverage": ("share", "Predictions whose label is known, of all predictions"),
        "base_rate": ("share", "Labels that are yes, of the known ones"),
        "mean_score": ("score's", "Mean of the scores whose label is known"),
        "mean_label": ("label's", "Mean of the known labels"),
        "auc": (
            "none",
            "Chance that a row with label yes scores above one with label no: 0.5 guesses, 1 never errs",
        ),
        "log_loss": (
            "nats",
            "Mean negative logarithm of the probability given to what came true; lower is better",
        ),
        "brier": ("none", "Mean squared difference of probability and label; lower is better"),
        "calibration_error": ("share", "Mean distance of scores from the rate that came true, in ten bins"),
        "calibration_gap": ("share", "Mean score minus the rate that came true; above 0 promises too much"),
        "calibration_slope": (
            "none",
            "How much more came true where scores were higher: 1 as promised, 0 where scores mean nothing",
        ),
        "decision_rate": ("share", "Decisions that are yes, of the labelled rows"),
        "precision": ("share", "Labels that are yes, of the decisions that are yes"),
        "recall": ("share", "Decisions that are yes, of the labels that are yes"),
        "hits": ("rows", "Decision yes, label yes"),
        "false_alarms": ("rows", "Decision yes, label no"),
        "misses": ("rows", "Decision no, label yes"),
        "passes": ("rows", "Decision no, label no"),
        "mae": ("label's", "Mean absolute difference of value and label"),
        "rmse": ("label's", "Root of the mean squared difference of value and label"),
        "bias": ("label's", "Mean of value minus label; above 0 promises too much"),
        "cost": ("money", "What the labelled decisions cost, as outcomes.costs declares it"),
        "cost_per_1000": ("money", "Cost of 1,000 labelled rows"),
        "cost_no_model": ("money", "What the same rows had cost with every decision no"),
    },
)
_ESTIMATED = {"auc": "none", "brier": "none", "base_rate": "share", "precision": "share", "recall": "share",
              "cost": "money", "cost_per_1000": "money"}  # fmt: skip
ESTIMATES = _meanings(
    METRICS_TABLE,
    {
        "calibration_nights": (
            "nights",
            "Earlier nights whose labels the estimates of this one learned from",
        ),
        **{
            name: (
                unit,
                f"Estimate of {name} at the night's cut-off, from its scores and earlier labels; "
                "of the champion's arm in a canary or an A/B test",
            )
            for name, unit in _ESTIMATED.items()
        },
        **{
            f"{name}_error": (
                unit,
                f"By how much weekly means of estimated and realised {name} differed so far",
            )
            for name, unit in _ESTIMATED.items()
        },
    },
)
PARTS: Mapping[str, tuple[Meaning, ...]] = {
    "Rows (part rows)": ROWS,
    "Columns and scores (parts input, feature, score)": COLUMNS,
    "Scores only (part score)": SCORES,
    "Realised quality": QUALITY,
    "Estimated quality, before labels (part estimate)": ESTIMATES,
}
"""Every metric, by what it is of."""
