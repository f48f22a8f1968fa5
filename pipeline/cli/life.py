"""Commands of a model's life: train, judge, promote, roll back, roll out, take back, prune."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipeline.cli.console import guarded
from pipeline.cli.options import (
    Approver,
    AsJson,
    AsOf,
    Day,
    EffectiveFrom,
    First,
    JobName,
    Last,
    Reason,
    SomeFirst,
    SomeLast,
    environment,
)  # fmt: skip

app = typer.Typer()


@app.command()
@guarded
def train(
    job: JobName,
    first: First,
    last: Last,
    as_of: AsOf = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; the declared one by default.")] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="NAME", help="Names this training: repeated, it registers no second."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay nights, fit a model on what they would have seen, and register a version."""
    from pipeline.cli.models import run_train

    run_train(environment(), job, (first, last), as_of, seed, key, as_json=as_json)


@app.command()
@guarded
def gate(
    job: JobName,
    version: Annotated[int, typer.Argument(help="The challenger, a registered version.", show_default=False)],
    champion: Annotated[
        int | None, typer.Option("--champion", metavar="VERSION", help="The one in force by default.")
    ] = None,
    first: SomeFirst = None,
    last: SomeLast = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Judge a challenger against the champion on nights that it has not seen; prints the verdict.

    Without a range: all nights since its training whose labels are mature.
    """
    from pipeline.cli.gate import run_gate

    run_gate(environment(), job, version, champion, (first, last), as_of, as_json=as_json)


@app.command()
@guarded
def promote(
    job: JobName,
    version: Annotated[int, typer.Argument(help="A registered version.", show_default=False)],
    approved_by: Approver,
    reason: Reason,
    effective_from: EffectiveFrom = None,
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
def rollout(
    job: JobName,
    action: Annotated[
        Literal["shadow", "canary", "ab", "stop", "status"],
        typer.Argument(help="How the version runs; or end it, or compare.", show_default=False),
    ],
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="A registered version; else the one that runs goes on."),
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", metavar="0.1", help="Its share of the keys: canary, ab.")
    ] = None,
    approved_by: Annotated[
        str | None,
        typer.Option("--approved-by", metavar="WHO", help="A declared approver; canary and ab need one."),
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept for ever.")] = None,
    effective_from: EffectiveFrom = None,
    as_json: AsJson = False,
) -> None:
    """Let a version run beside the champion, end it, or compare the two.

    shadow: it scores the same inputs into predictions.JOB_shadow; no reader is answered by it. canary, ab: it
    answers a share of the keys, the same keys every night. A guardrail stops a canary that is worse.
    """
    from pipeline.cli.rollout import Asked, run_rollout, run_rollout_status, run_rollout_stop

    asked = Asked(version, share, approved_by, reason, effective_from)
    if action == "status":
        run_rollout_status(environment(), job, asked, as_json=as_json)
    elif action == "stop":
        run_rollout_stop(environment(), job, asked, as_json=as_json)
    else:
        run_rollout(environment(), job, action, asked, as_json=as_json)


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
    """Remove rows and files of old runs and old scoring requests, as the declaration's `retention` says.

    What readers see, what `unpublish` would restore, what is not judged yet, what is at work and what waits
    for its answer stays.
    """
    from pipeline.cli.prune import run_prune

    run_prune(environment(), job, dry_run=dry_run, as_json=as_json)


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
