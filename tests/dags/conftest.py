"""What DAGs need: the toy project, and an Airflow over it."""

from __future__ import annotations

from support.airflow_here import airflow, airflow_metadata, airflow_template
from support.toy import toy, toy_template

__all__ = ["airflow", "airflow_metadata", "airflow_template", "toy", "toy_template"]
