"""Commands of a model's life: train, promote, roll back."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import guarded
from pipeline.cli.options import Approver, AsJson, First, JobName, Last, Reason, environment

app = typer.Typer()


@app.command()
@guarded
def train(
    job: JobName,
    first: First,
    last: Last,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="INSTANT", help="Labels known later are absent; now by default."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; the declared one by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay nights, fit a model on what they would have seen, and register a version."""
    from pipeline.cli.models import run_train

    run_train(environment(), job, (first, last), as_of, seed, as_json=as_json)


@app.command()
@guarded
def promote(
    job: JobName,
    version: Annotated[int, typer.Argument(help="A registered version.", show_default=False)],
    approved_by: Approver,
    reason: Reason,
    effective_from: Annotated[
        str | None,
        typer.Option("--effective-from", metavar="INSTANT", help="When it is in force; now by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion; appends to the promotion history."""
    from pipeline.cli.models import run_promote

    run_promote(environment(), job, version, approved_by, reason, effective_from, as_json=as_json)


@app.command()
@guarded
def rollback(
    job: JobName,
    approved_by: Annotated[
        str | None,
        typer.Option(
            "--approved-by",
            metavar="WHO",
            help="A declared approver; else the version's own approval stands.",
        ),
    ] = None,
    reason: Reason = "roll-back",
    as_json: AsJson = False,
) -> None:
    """Return to the previous champion; appends to the promotion history."""
    from pipeline.cli.models import run_rollback

    run_rollback(environment(), job, approved_by, reason, as_json=as_json)


@app.command()
@guarded
def readiness(
    job: JobName,
    day: Annotated[
        str | None,
        typer.Option("--day", metavar="YYYY-MM-DD", help="On whose inputs; the newest published by default."),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", help="The champion by default.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a job is ready for its nights, each item with evidence from running it.

    Asks the 28 items of the ML Test Score as far as they apply, and load, latency, robustness, regression,
    fallback, owner, alert channel and output contract. Nights run in a scratch PostgreSQL and store; a trial
    notice goes to the declared channel. Exit code 1 where a required item fails.
    """
    from pipeline.cli.readiness import run_readiness

    run_readiness(environment(), job, day, version, as_json=as_json)
