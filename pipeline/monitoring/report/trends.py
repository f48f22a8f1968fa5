"""What changed over the nights: quality, money, drift, scores, rows, machine; as charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.monitoring.report.lines import LineChart, Mark, Series, line_chart
from pipeline.monitoring.report.values import Declared, Night, PromotionFacts
from pipeline.monitoring.report.wording import local

_BASELINES = (("training", "against training", "solid"), ("rolling", "against recent nights", "dashed"))


@dataclass(frozen=True)
class Point:
    """The metrics of a night, or the means of a week's nights on its Monday, by the names of `Night`.

    Beside those: `rows/…` and `run/cpu_seconds` of the runs table, `realised/no_model_per_1000`.
    """

    day: date
    metrics: Mapping[str, float]


def points(nights: Iterable[Night]) -> list[Point]:
    """One a night."""
    return [Point(night.day, dict(night.metrics) | _of_run(night)) for night in nights]


def _of_run(night: Night) -> dict[str, float]:
    run, no_model = night.run, night.metrics.get("realised/cost_no_model")
    found = {
        "rows/in": run.rows_in,
        "rows/fallback_share": share(run.rows_fallback, run.rows_in),
        "rows/withheld_share": share(run.rows_withheld, run.rows_in),
        "run/cpu_seconds": run.cpu_seconds,
        "realised/no_model_per_1000": share(no_model, night.labelled / 1000),
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def share(part: float | None, whole: float | None) -> float | None:
    """A part of a whole; None where either is unknown or the whole is nothing."""
    return part / whole if part is not None and whole else None


def promotion_marks(promotions: Iterable[PromotionFacts], timezone: str) -> list[Mark]:
    """Each promotion and roll-back on the business day from which it was in force."""
    return [Mark(local(one.effective_from, timezone).date(), f"v{one.version}") for one in promotions]


def quality_metric(declared: Declared | None) -> str:
    """The metric that stands for quality in trends: of values another one than of probabilities."""
    return "mae" if declared and declared.output == "value" else "auc"


def quality_charts(
    points: Sequence[Point], marks: Sequence[Mark], declared: Declared | None
) -> list[LineChart]:
    """Realised quality beside its estimate from before the labels, and what decisions cost."""
    judged = quality_metric(declared)
    truth = "realised/mean_label" if judged == "mae" else "realised/base_rate"
    currency = declared.currency if declared and declared.currency else "as declared"
    charts = (
        line_chart(
            "Mean absolute error" if judged == "mae" else "Area under the ROC curve (AUC)",
            _with_estimate(points, judged),
            marks,
        ),
        line_chart(
            f"Cost per 1,000 rows, {currency}",
            [
                *_with_estimate(points, "cost_per_1000"),
                _series("no model", points, "realised/no_model_per_1000", "dotted"),
            ],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Predicted and true, means of labelled rows",
            [_series("predicted", points, "realised/mean_score"), _series("true", points, truth, "dashed")],
            marks,
            from_zero=judged == "auc",
        ),
    )
    return [chart for chart in charts if chart]


def _with_estimate(points: Sequence[Point], metric: str) -> list[Series]:
    estimate = f"estimate/{metric}"
    errors = [point.metrics.get(f"{estimate}_error") for point in points]
    values = [(point.day, point.metrics.get(estimate)) for point in points]
    return [
        Series("estimated before labels", values, "dashed", errors),
        _series("realised", points, f"realised/{metric}"),
    ]


def drift_charts(points: Sequence[Point], marks: Sequence[Mark]) -> list[LineChart]:
    """Drift of inputs and features, drift of scores, and the scores themselves."""
    charts = (
        line_chart(
            "Columns, mean Jensen–Shannon bits",
            [_series(name, points, f"drift/js/{base}", look) for base, name, look in _BASELINES],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Scores, Jensen–Shannon bits",
            [_series(name, points, f"score/js/{base}", look) for base, name, look in _BASELINES],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Scores, middle half and mean",
            [
                _series("a quarter lies above", points, "score/q75", "dotted"),
                _series("mean", points, "score/mean"),
                _series("a quarter lies below", points, "score/q25", "dotted"),
            ],
            marks,
        ),
    )
    return [chart for chart in charts if chart]


def run_charts(points: Sequence[Point], marks: Sequence[Mark]) -> list[LineChart]:
    """Rows, what no model answered, and what the runs used of the machine."""
    charts = (
        line_chart("Rows in a night", [_series("rows", points, "rows/in")], from_zero=True),
        line_chart(
            "Rows that the model did not answer",
            [
                _series("by a fallback", points, "rows/fallback_share"),
                _series("withheld", points, "rows/withheld_share", "dashed"),
            ],
            marks,
            unit="%",
            from_zero=True,
        ),
        line_chart("CPU seconds of a night", [_series("seconds", points, "run/cpu_seconds")], from_zero=True),
    )
    return [chart for chart in charts if chart]


def _series(name: str, points: Sequence[Point], metric: str, look: str = "solid") -> Series:
    return Series(name, [(point.day, point.metrics.get(metric)) for point in points], look)
