"""What changed over the nights: quality, money, drift, rows and machine, as charts and by the week."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from pipeline.monitoring.report.lines import LineChart, Mark, Series, line_chart
from pipeline.monitoring.report.values import Night, PromotionFacts


def promotion_marks(promotions: Iterable[PromotionFacts]) -> list[Mark]:
    """Each promotion and roll-back on the day from which it was in force."""
    return [Mark(one.effective_from.date(), f"v{one.version}") for one in promotions]


def quality_charts(
    nights: Sequence[Night], marks: Sequence[Mark], output: str | None, currency: str | None
) -> list[LineChart]:
    """Realised quality beside its estimate from before the labels, and what decisions cost."""
    judged = "mae" if output == "value" else "auc"
    title = "Mean absolute error" if judged == "mae" else "Area under the ROC curve (AUC)"
    charts = (
        line_chart(title, _realised_and_estimated(nights, judged), marks),
        line_chart(
            f"Cost per 1,000 rows, {currency or 'as declared'}",
            _realised_and_estimated(nights, "cost_per_1000"),
            marks,
            from_zero=True,
        ),
    )
    return [chart for chart in charts if chart]


def _realised_and_estimated(nights: Sequence[Night], metric: str) -> list[Series]:
    return [
        series("realised", nights, f"realised/{metric}"),
        series("estimated before labels", nights, f"estimate/{metric}", "dashed"),
    ]


def data_charts(nights: Sequence[Night], marks: Sequence[Mark]) -> list[LineChart]:
    """Drift of inputs, features and scores; the scores themselves."""
    both = (("training", "solid"), ("rolling", "dashed"))
    names = {"training": "against training", "rolling": "against recent nights"}
    charts = (
        line_chart(
            "Farthest column, Jensen–Shannon bits",
            [series(names[base], nights, f"drift/js/{base}", look) for base, look in both],
            marks,
            from_zero=True,
        ),
        line_chart(
            "Scores, Jensen–Shannon bits",
            [series(names[base], nights, f"score/js/{base}", look) for base, look in both],
            marks,
            from_zero=True,
        ),
        line_chart("Mean score", [series("mean score", nights, "score/mean")], marks),
        line_chart(
            "Rows over the threshold",
            [series("share", nights, "score/share_over_threshold")],
            marks,
            unit="%",
            from_zero=True,
        ),
    )
    return [chart for chart in charts if chart]


def run_charts(nights: Sequence[Night], marks: Sequence[Mark]) -> list[LineChart]:
    """Rows, what no model answered, and what the runs used of the machine."""
    charts = (
        line_chart(
            "Rows in", [Series("rows in", [(n.day, _number(n.run.rows_in)) for n in nights])], from_zero=True
        ),
        line_chart(
            "Not answered by the model",
            [
                Series("by a fallback", [(n.day, share(n.run.rows_fallback, n.run.rows_in)) for n in nights]),
                Series(
                    "withheld", [(n.day, share(n.run.rows_withheld, n.run.rows_in)) for n in nights], "dashed"
                ),
            ],
            marks,
            unit="%",
            from_zero=True,
        ),
        line_chart(
            "CPU seconds", [Series("CPU s", [(n.day, n.run.cpu_seconds) for n in nights])], from_zero=True
        ),
        line_chart(
            "Peak memory, MiB",
            [Series("MiB", [(n.day, n.run.peak_memory_mb) for n in nights])],
            from_zero=True,
        ),
    )
    return [chart for chart in charts if chart]


def series(name: str, nights: Sequence[Night], metric: str, look: str = "solid") -> Series:
    """One metric over the nights, with gaps where it was not measured."""
    return Series(name, [(night.day, night.metrics.get(metric)) for night in nights], look)


def share(part: int | None, whole: int | None) -> float | None:
    """A part of a whole; None where either is unknown or the whole is nothing."""
    return part / whole if part is not None and whole else None


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True)
class WeekLine:
    """The nights of one week together: sums, or means of the nights that were measured."""

    monday: date
    nights: int
    degraded: int
    rows_in: int
    fallback_share: float | None
    mean_score: float | None
    drift_training: float | None
    drift_rolling: float | None
    realised: float | None
    estimated: float | None
    cost_per_1000: float | None
    cpu_seconds: float


def weeks(nights: Sequence[Night], output: str | None) -> list[WeekLine]:
    """The weeks that have nights, the newest first: the charts as a table."""
    quality = "mae" if output == "value" else "auc"
    grouped = groupby(nights, key=lambda night: night.day - timedelta(days=night.day.weekday()))
    return [_week(monday, list(group), quality) for monday, group in grouped][::-1]


def _week(monday: date, nights: Sequence[Night], quality: str) -> WeekLine:
    rows = sum(night.run.rows_in or 0 for night in nights)
    return WeekLine(
        monday=monday,
        nights=len(nights),
        degraded=sum(night.run.degraded for night in nights),
        rows_in=rows,
        fallback_share=share(sum(night.run.rows_fallback or 0 for night in nights), rows),
        mean_score=_mean(nights, "score/mean"),
        drift_training=_mean(nights, "drift/js/training"),
        drift_rolling=_mean(nights, "drift/js/rolling"),
        realised=_mean(nights, f"realised/{quality}"),
        estimated=_mean(nights, f"estimate/{quality}"),
        cost_per_1000=_mean(nights, "realised/cost_per_1000"),
        cpu_seconds=sum(night.run.cpu_seconds for night in nights),
    )


def _mean(nights: Sequence[Night], metric: str) -> float | None:
    known = [(night.metrics[metric], night.run.rows_in or 0) for night in nights if metric in night.metrics]
    total = sum(rows for _, rows in known)
    return sum(value * rows for value, rows in known) / total if total else None
