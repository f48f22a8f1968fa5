"""What changed over the nights: quality, money, drift, scores, rows, machine; as charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.monitoring.report.lines import LineChart, Mark, Series, line_chart
from pipeline.monitoring.report.values import Declared, Night, PromotionFacts
from pipeline.monitoring.report.wording import local

_BASELINES = (("training", "against training", "solid"), ("rolling", "against recent nights", "dashed"))


def promotion_marks(promotions: Iterable[PromotionFacts], timezone: str) -> list[Mark]:
    """Each promotion and roll-back on the business day from which it was in force."""
    return [Mark(local(one.effective_from, timezone).date(), f"v{one.version}") for one in promotions]


def quality_metric(declared: Declared | None) -> str:
    """The metric that stands for quality in trends: of values another one than of probabilities."""
    return "mae" if declared and declared.output == "value" else "auc"


def quality_charts(
    nights: Sequence[Night], marks: Sequence[Mark], declared: Declared | None
) -> list[LineChart]:
    """Realised quality beside its estimate from before the labels, and what decisions cost."""
    judged = quality_metric(declared)
    truth = "realised/mean_label" if judged == "mae" else "realised/base_rate"
    currency = declared.currency if declared and declared.currency else "as declared"
    charts = (
        line_chart(
            "Mean absolute error" if judged == "mae" else "Area under the ROC curve (AUC)",
            _with_estimate(nights, judged),
            marks,
        ),
        line_chart(
            f"Cost per 1,000 rows, {currency}",
            [*_with_estimate(nights, "cost_per_1000"), _without_model(nights)],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Predicted and true, means of labelled rows",
            [_series("predicted", nights, "realised/mean_score"), _series("true", nights, truth, "dashed")],
            marks,
            from_zero=judged == "auc",
        ),
    )
    return [chart for chart in charts if chart]


def _with_estimate(nights: Sequence[Night], metric: str) -> list[Series]:
    estimate = f"estimate/{metric}"
    errors = [night.metrics.get(f"{estimate}_error") for night in nights]
    values = [(night.day, night.metrics.get(estimate)) for night in nights]
    return [
        Series("estimated before labels", values, "dashed", errors),
        _series("realised", nights, f"realised/{metric}"),
    ]


def _without_model(nights: Sequence[Night]) -> Series:
    costs = [(night, night.metrics.get("realised/cost_no_model")) for night in nights]
    return Series(
        "no model",
        [
            (night.day, None if cost is None or not night.labelled else 1000 * cost / night.labelled)
            for night, cost in costs
        ],
        "dotted",
    )


def drift_charts(nights: Sequence[Night], marks: Sequence[Mark]) -> list[LineChart]:
    """Drift of inputs and features, drift of scores, and the scores themselves."""
    charts = (
        line_chart(
            "Columns, mean Jensen–Shannon bits",
            [_series(name, nights, f"drift/js/{base}", look) for base, name, look in _BASELINES],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Scores, Jensen–Shannon bits",
            [_series(name, nights, f"score/js/{base}", look) for base, name, look in _BASELINES],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Scores, middle half and mean",
            [
                _series("a quarter lies above", nights, "score/q75", "dotted"),
                _series("mean", nights, "score/mean"),
                _series("a quarter lies below", nights, "score/q25", "dotted"),
            ],
            marks,
        ),
    )
    return [chart for chart in charts if chart]


def run_charts(nights: Sequence[Night], marks: Sequence[Mark]) -> list[LineChart]:
    """Rows, what no model answered, and what the runs used of the machine."""
    rows = [(night.day, _number(night.run.rows_in)) for night in nights]
    fallback = [(night.day, share(night.run.rows_fallback, night.run.rows_in)) for night in nights]
    withheld = [(night.day, share(night.run.rows_withheld, night.run.rows_in)) for night in nights]
    cpu = [(night.day, night.run.cpu_seconds) for night in nights]
    charts = (
        line_chart("Rows in", [Series("rows", rows)], from_zero=True),
        line_chart(
            "Rows that the model did not answer",
            [Series("by a fallback", fallback), Series("withheld", withheld, "dashed")],
            marks,
            unit="%",
            from_zero=True,
        ),
        line_chart("CPU seconds of a run", [Series("seconds", cpu)], from_zero=True),
    )
    return [chart for chart in charts if chart]


def _series(name: str, nights: Sequence[Night], metric: str, look: str = "solid") -> Series:
    return Series(name, [(night.day, night.metrics.get(metric)) for night in nights], look)


def share(part: int | None, whole: int | None) -> float | None:
    """A part of a whole; None where either is unknown or the whole is nothing."""
    return part / whole if part is not None and whole else None


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)
