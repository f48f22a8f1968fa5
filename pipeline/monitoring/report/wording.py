"""Numbers, instants and states as pages write them. None is never 0: it says that something is not known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.monitoring.report.axes import figure
from pipeline.monitoring.report.facts import RunFacts, Status, VerdictFacts

UNKNOWN = "–"

STATUS: Mapping[Status, str] = {
    "ok": "published",
    "warned": "published, with a warning",
    "degraded": "published, degraded",
    "failed": "failed",
    "running": "running",
    "superseded": "superseded",
    "missing": "missing",
}
SIGN: Mapping[Status, str] = {
    "ok": "✓", "warned": "!", "degraded": "~",
    "failed": "×", "running": "…", "superseded": "»", "missing": "○",
}  # fmt: skip
"""What tells states apart beside their colour."""

OUTCOME: Mapping[str, str] = {
    "accept": "✓ accepted", "refuse": "× refused", "not_enough_evidence": "… not enough evidence",
}  # fmt: skip
CHECKED: Mapping[str, str] = {
    "accept": "✓ holds", "refuse": "× refuses", "not_enough_evidence": "… not enough",
}  # fmt: skip
"""The same of one check."""
CHECK: Mapping[str, str] = {
    "quality": "Quality and cost",
    "slices": "Slices",
    "calibration": "Calibration",
    "behaviour": "Declared behaviour",
    "robustness": "Strange inputs",
    "golden_rows": "Golden rows",
    "latency": "Latency",
    "memory": "Memory",
}


def count(value: float | None) -> str:
    """Rows, with thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share in percent; a small one is not shown as none."""
    if value is None:
        return UNKNOWN
    return "< 0.1 %" if 0 < value < 0.0005 else figure(value, "%")


def change(value: float | None) -> str:
    """A relative difference in percent, with its sign."""
    if value is None:
        return UNKNOWN
    shown = f"{100 * value:+.1f} %"
    return "0.0 %" if shown[1:] == "0.0 %" else shown.replace("-", "−")


def part_of(part: int | None, whole: int | None) -> str:
    """A part of a whole in percent."""
    return share(part / whole if part is not None and whole else None)


def number(value: float | None) -> str:
    """A figure of about three digits."""
    return UNKNOWN if value is None else figure(value)


def seconds(value: float | None) -> str:
    """A duration in its largest two units."""
    if value is None:
        return UNKNOWN
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(value: float | None) -> str:
    """Bytes in powers of 1024."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if value >= 100 or unit == "B" else f"{value:,.1f} {unit}"


def local(value: datetime, timezone: str) -> datetime:
    """An instant on the business day's clock; UTC where this machine does not know the zone."""
    try:
        return value.astimezone(ZoneInfo(timezone))
    except (ZoneInfoNotFoundError, ValueError):
        return value.astimezone(UTC)


def instant(value: datetime | None, timezone: str) -> str:
    """An instant on the business day's clock, with its zone."""
    return UNKNOWN if value is None else f"{local(value, timezone):%Y-%m-%d %H:%M %Z}"


def weekday(day: date) -> str:
    """A day with its weekday."""
    return f"{day} {day:%a}"


def short(value: str | None) -> str:
    """The first twelve letters of a hash or of a name as long as one."""
    return UNKNOWN if not value else value[:12]


def headline(run: RunFacts) -> str:
    """What became of a run, in a sentence."""
    if run.status == "failed":
        return f"The run failed after the stage “{run.stage}”: nothing of it was published."
    if run.status == "running":
        return f"The run is at work, or was cut off; the last finished stage is “{run.stage}”."
    if run.status == "superseded":
        return "A newer run of the day was published first, so this one was not: no failure."
    answered = (
        f"{count(run.rows_scored)} of {count(run.rows_in)} rows were scored by version {run.model_version}"
    )
    others = [
        f"{count(rows)} {how}"
        for rows, how in ((run.rows_fallback, "answered by a fallback"), (run.rows_withheld, "withheld"))
        if rows
    ]
    return (
        f"{answered}; {' and '.join(others) if others else 'no fallback was needed and no row was withheld'}."
    )


def verdict_headline(verdict: VerdictFacts) -> str:
    """What the gate said, in a sentence."""
    against = f"version {verdict.challenger} against champion {verdict.champion}, on {verdict.nights} nights"
    if verdict.outcome == "accept":
        return f"Accepted: {against}. An owner may promote it."
    refusing = [CHECK[one["check"]].lower() for one in verdict.reasons if one["outcome"] == "refuse"]
    if refusing:
        return f"Refused: {against}, by {', '.join(refusing)}."
    return f"Not enough evidence yet: {against}. More nights may tell."
