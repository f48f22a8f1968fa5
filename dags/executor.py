"""The executor of `make airflow`: its workers have a night's libraries in memory before a task needs them."""

from __future__ import annotations

import logging
from importlib import import_module

from airflow.executors.local_executor import LocalExecutor

_LIBRARIES = (
    "airflow.sdk.execution_time.supervisor", "airflow.sdk.execution_time.task_runner", "pandas", "sqlglot",
    "psycopg", "sqlalchemy.dialects.postgresql", "duckdb", "great_expectations", "sklearn.pipeline",
    "skops.io",
)  # fmt: skip
"""What every task or a long one imports. None starts threads that a fork would lose (Polars does)."""


class WarmLocalExecutor(LocalExecutor):
    """Airflow's LocalExecutor, which forks its workers after the libraries are imported, not before."""

    def start(self) -> None:
        """Import the libraries, then start the workers: each task is forked from one of them."""
        # Great Expectations logs each of its functions while it is imported.
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        for name in _LIBRARIES:
            import_module(name)
        super().start()
