"""The alerts that a year of flights would have raised, beside the list of nights that were not clean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from pipeline.job import Monitor
from pipeline.monitoring.false_alarms import Rate, alerts_of, rate
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import judge

JUDGED_FROM = date(2013, 1, 29)
"""Before, the features themselves have no four weeks to look back on."""
UNCLEAN = Path(__file__).with_name("unclean_nights.yaml")
EXPLAINED = Path(__file__).with_name("explained_nights.yaml")


@dataclass(frozen=True)
class Alarms:
    """The year's alerts, why their nights are listed, and how often an alert came on a night that is not.

    `explained` are nights that are not listed and that data explain; they count as false alarms.
    """

    alerts: list[Finding]
    reasons: Mapping[date, list[str]]
    explained: Mapping[date, str]
    false_alarms: Rate

    def table(self) -> str:
        """A line an alert, then promise and measure."""
        lines = [
            f"{alert.day}  since {alert.since}  {alert.kind:9}  {alert.cause} ({len(alert.columns)} columns)"
            f"  <- {self._reason(alert.day)}"
            for alert in self.alerts
        ]
        told = self.false_alarms
        return "\n".join(
            [
                *lines,
                f"false alarms a year: {told.promised:g} promised, {told.measured:.1f} measured "
                f"({told.alerts} in {told.nights} clean nights, 95 % {told.low:.1f} to {told.high:.1f})",
            ]
        )

    def _reason(self, day: date) -> str:
        if day in self.reasons:
            return "; ".join(self.reasons[day])
        return f"UNLISTED, {'explained: ' + self.explained[day] if day in self.explained else 'unexplained'}"


def alarms(metrics: pd.DataFrame, monitor: Monitor) -> Alarms:
    """From the metrics of every night of 2013; each night is judged by those before it alone."""
    reasons: dict[date, list[str]] = YAML(typ="safe").load(UNCLEAN)
    explained: dict[date, str] = YAML(typ="safe").load(EXPLAINED)
    judged = judge(metrics, monitor)
    alerts = [alert for alert in alerts_of("flight_delays", judged) if alert.day >= JUDGED_FROM]
    days = {day.date() for day in judged.watched.days if day.date() >= JUDGED_FROM} - reasons.keys()
    false = {alert.day for alert in alerts} & days
    return Alarms(alerts, reasons, explained, rate(len(false), len(days), monitor))
