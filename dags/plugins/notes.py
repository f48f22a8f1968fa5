"""A DAG run's note says what became of its night: taken from the task that tells it, in the scheduler."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

_NOTE = "note"
_TOLD_BY = ("report", "plan")
"""The tasks that may push a note, the last word first."""


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:
    """Write the note of a night that ended well, or was overtaken, or only tried."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Write the note of a failed night."""
    _write(dag_run)


def _write(dag_run: DagRun) -> None:
    # Tasks have no way to write a note; the scheduler, where listeners run, may.
    for task_instance in sorted(dag_run.task_instances, key=_rank):
        note = task_instance.xcom_pull(task_ids=task_instance.task_id, key=_NOTE)
        if note:
            dag_run.note = note
            return


def _rank(task_instance: object) -> int:
    task_id = getattr(task_instance, "task_id", "")
    return _TOLD_BY.index(task_id) if task_id in _TOLD_BY else len(_TOLD_BY)


class Notes(AirflowPlugin):
    """Registers this module's listeners."""

    name = "nightshift_notes"
    listeners = (sys.modules[__name__],)
