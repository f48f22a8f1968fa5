"""`nightshift gate`: judges a challenger and shows each reason."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import emit, out, progress, table
from pipeline.errors import UsageError
from pipeline.partition import Partition, instant

if TYPE_CHECKING:
    from pipeline.environment import Environment


def run_gate(
    env: Environment,
    job: str,
    version: int,
    champion: int | None,
    span: tuple[str | None, str | None],
    as_of: str | None,
    *,
    as_json: bool,
) -> None:
    """Judge under a progress bar; print the outcome, each reason, and where the page is."""
    from pipeline.gate import judge

    nights = _span(span)
    known = instant(as_of, "--as-of") if as_of else None
    with progress(quiet=as_json) as bar:
        task = bar.add_task(f"{job}: replaying nights with both", total=None)
        judged = judge(env, job, version, champion, nights, known, lambda _: bar.advance(task))
    page = str(Path(judged.page.path).resolve()) if env.store.is_local else str(judged.page)
    report = {
        "job": job,
        "verdict_no": judged.verdict_no,
        "challenger": judged.challenger,
        "champion": judged.champion,
        "first": str(judged.first),
        "last": str(judged.last),
        "outcome": judged.verdict.outcome,
        "reasons": [asdict(reason) for reason in judged.verdict.reasons],
        "page": page,
    }
    emit(report, as_json=as_json)
    if not as_json:
        said = judged.verdict.outcome.replace("_", " ")
        title = f"{job} version {judged.challenger} against {judged.champion}: {said}"
        rows = [
            (reason.check.replace("_", " "), reason.outcome.replace("_", " "), reason.evidence)
            for reason in judged.verdict.reasons
        ]
        out.print(table(title, ("check", "outcome", "evidence"), rows), markup=False)
        out.print(page, markup=False)


def _span(given: tuple[str | None, str | None]) -> tuple[Partition, Partition] | None:
    first, last = given
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise UsageError("--from and --to must be given together; got only one of them")
    return Partition.parse(first), Partition.parse(last)
