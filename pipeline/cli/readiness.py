"""`nightshift readiness`: whether a job is ready for its nights, and how that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import emit, err, expected_warnings, progress
from pipeline.cli.supervisor import interrupted_by_signals
from pipeline.partition import Partition
from pipeline.readiness.assess import assess, choose, is_ready
from pipeline.readiness.page import write_page
from pipeline.readiness.rubric import RUBRIC, Assessed

if TYPE_CHECKING:
    from pipeline.environment import Environment

_SHOWN = {"pass": ("pass", "green"), "fail": ("fail", "red"), "not_applicable": ("n/a", "dim")}


def run_readiness(env: Environment, job: str, day: str | None, version: int | None, *, as_json: bool) -> None:
    """Assess, print each item with its evidence, write the page; exit code 1 where a required item fails."""
    chosen = choose(env, job, Partition.parse(day) if day else None, version)
    # The scratch PostgreSQL would outlive a command that just ends.
    with interrupted_by_signals(), progress(quiet=as_json) as bar, expected_warnings():
        task = bar.add_task(f"{job}: assessing", total=len(RUBRIC))
        assessed = assess(env, chosen, lambda _: bar.advance(task))
    page = str(write_page(env, chosen, assessed))
    ready = is_ready(assessed)
    items = [
        {
            "id": each.item.id,
            "title": each.item.title,
            "required": each.item.required,
            "status": each.answer.status,
            "evidence": each.answer.evidence,
            "fix": each.answer.fix,
        }
        for each in assessed
    ]
    emit({"ready": ready, "page": page, "items": items}, as_json=as_json, shown=_table(job, assessed))
    if not as_json:
        err.print(f"{job} is {'ready' if ready else 'not ready'}; page: {page}", markup=False)
    if not ready:
        raise typer.Exit(1)


def _table(job: str, assessed: list[Assessed]) -> Table:
    table = Table(title=f"Readiness of {job}", title_justify="left")
    for name in ("item", "asked for", "status", "evidence and what to do"):
        table.add_column(name, overflow="fold")
    for each in assessed:
        status = Text.assemble(_SHOWN[each.answer.status], " (required)" if each.item.required else "")
        told = each.answer.evidence + (f"\n→ {each.answer.fix}" if each.answer.fix else "")
        table.add_row(each.item.id, each.item.title, status, told)
    return table
