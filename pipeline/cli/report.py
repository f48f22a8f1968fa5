"""`nightshift report`: a run's or a job's pages, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.cli.console import emit
from pipeline.errors import UsageError
from pipeline.partition import Partition
from pipeline.reporting import write_report

if TYPE_CHECKING:
    from pipeline.environment import Environment


def run_report(env: Environment, job: str, day: str | None, *, opened: bool, as_json: bool) -> None:
    """Write the pages and print where they are; `opened` shows them in the browser."""
    if opened and not env.store.is_local:
        raise UsageError(f"--open must have the pages in a local folder; they are in {env.store.root}")
    path = write_report(env, job, Partition.parse(day) if day else None)
    shown = str(Path(path.path).resolve()) if env.store.is_local else str(path)
    emit({"path": shown}, as_json=as_json, shown=shown)
    if opened:
        typer.launch(Path(shown).as_uri())
