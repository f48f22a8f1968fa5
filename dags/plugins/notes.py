"""A DAG run's note says what became of its night: taken from the task that tells it, in the scheduler."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

_NOTE = "note"
_TOLD_BY = (
    "report", "plan", "evaluate", "promote", "approve", "refit", "gate", "train", "roll_out", "answer",
)  # fmt: skip
"""The tasks that may push a note, the last word first."""

LONGEST = 1000
"""Characters of Airflow's column. A longer note ends the scheduler, and each one that is started again."""
_MORE = "\n… the rest is in the task's XCom `note`"


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:
    """Write the note of a night that ended well, or was overtaken, or only tried."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Write the note of a failed night."""
    _write(dag_run)


def _write(dag_run: DagRun) -> None:
    # Tasks have no way to write a note; the scheduler, where listeners run, may. Only in its own session:
    # another one would end the transaction that it is in.
    import sqlalchemy as sa
    from airflow.models.xcom import XComModel

    session = sa.orm.object_session(dag_run)
    if session is None:
        return
    with session.no_autoflush:
        statement = sa.select(XComModel.task_id, XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == _NOTE
        )
        notes: dict[str, Any] = {row.task_id: row.value for row in session.execute(statement)}
        told = [notes[task_id] for task_id in _TOLD_BY if task_id in notes]
        if told:
            dag_run.note = fitting(XComModel.deserialize_value(_Value(told[0])))


def fitting(note: str) -> str:
    """The note, or the first of its lines that Airflow has room for, and where the others are."""
    if len(note) <= LONGEST:
        return note
    kept = note[: LONGEST - len(_MORE)]
    return (kept.rpartition("\n")[0] or kept) + _MORE


class _Value:
    """What Airflow's decoder of XComs takes."""

    def __init__(self, value: object) -> None:
        self.value = value


class Notes(AirflowPlugin):
    """Registers this module's listeners."""

    name = "nightshift_notes"
    listeners = [sys.modules[__name__]]  # noqa: RUF012 - Airflow wants a list
