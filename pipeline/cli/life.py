"""Commands of a model's life: train, promote, roll back, take a day back, end old runs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import guarded
from pipeline.cli.options import Approver, AsJson, Day, First, JobName, Last, Reason, environment

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
def unpublish(
    job: JobName,
    day: Day,
    approved_by: Annotated[
        str | None, typer.Option("--approved-by", metavar="WHO", help="A declared approver who agreed.")
    ] = None,
    reason: Reason = "unpublished",
    as_json: AsJson = False,
) -> None:
    """Take a day's published run back: readers see the one before it, or no rows where there is none."""
    from pipeline.cli.models import run_unpublish

    run_unpublish(environment(), job, day, approved_by, reason, as_json=as_json)


@app.command()
@guarded
def prune(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All jobs by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove rows and files of old runs, as the declaration's `retention` says.

    What readers see, what `unpublish` would restore, what is not judged yet and what is at work stays.
    """
    from pipeline.cli.prune import run_prune

    run_prune(environment(), job, dry_run=dry_run, as_json=as_json)
