"""What whole nights need: the toy project, and an Airflow for those that run as DAGs."""

from __future__ import annotations

from support.airflow_here import airflow_metadata, airflow_template
from support.toy import toy, toy_template

__all__ = ["airflow_metadata", "airflow_template", "toy", "toy_template"]
