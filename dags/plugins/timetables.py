"""Lets the scheduler read the timetable of nights back."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dags.timetable import BusinessDays


class Timetables(AirflowPlugin):
    """Registers BusinessDays."""

    name = "nightshift_timetables"
    timetables = [BusinessDays]  # noqa: RUF012 - Airflow wants a list
