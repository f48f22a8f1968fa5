"""`nightshift …`: the same steps as the DAGs, without Airflow."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from pipeline.cli import life
from pipeline.cli.console import configure_logging, emit, guarded
from pipeline.cli.options import (
    AsJson,
    AsOf,
    Day,
    First,
    JobName,
    Last,
    Model,
    SomeFirst,
    SomeLast,
    environment,
    policy,
)  # fmt: skip

app = typer.Typer(
    name="nightshift",
    help="Nightly batch scoring that conserves every row: extract, validate, featurize, score, publish.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step on stderr.")] = False,
) -> None:
    gc.set_threshold(100_000)  # imports make hundreds of thousands of objects that stay
    configure_logging(verbose=verbose)


@app.command()
@guarded
def demo(
    live: Annotated[
        bool, typer.Option("--live", help="Move the flights so that today lies in them, and score today.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole real night: load flights, train, promote version 1, score and publish 2013-05-01.

    With --live: the newest night of the moved flights, in a state folder of its own.
    """
    from pipeline.cli.demo import run_demo
    from pipeline.cli.live import newest_day, run_live

    env = environment()
    if live:
        run_live(env, newest_day(env.project, datetime.now(UTC)), as_json=as_json)
    else:
        run_demo(env, as_json=as_json)


@app.command()
@guarded
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL (every command that needs it does so by itself)."""
    env = environment()
    env.server.start()
    emit(
        {"running": True}, as_json=as_json, shown="embedded PostgreSQL is up; `nightshift url` prints its URL"
    )


@app.command()
@guarded
def down(as_json: AsJson = False) -> None:
    """Stop the embedded PostgreSQL; nothing is lost."""
    stopped = environment().server.stop()
    emit(
        {"running": False, "stopped": stopped},
        as_json=as_json,
        shown="embedded PostgreSQL is stopped" if stopped else "embedded PostgreSQL was not running",
    )


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@guarded
def airflow(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="A command of Airflow's own, such as: backfill create …"),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="End one that runs, with every process of it.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the web page is.")] = 8080,
    as_json: AsJson = False,
) -> None:
    """Run Airflow on this machine until Ctrl-C, with the embedded PostgreSQL; prints the login once.

    With a command: run that one of Airflow's own over the same database.
    """
    from pipeline.cli.airflow import run_airflow, run_command

    if words:
        raise typer.Exit(run_command(environment(), port, words))
    run_airflow(environment(), port, stop=stop, as_json=as_json)


@app.command()
@guarded
def url(
    role: Annotated[Literal["owner", "analyst"], typer.Option(help="Whose login.")] = "owner",
) -> None:
    """Print the warehouse's connection URL, password included, for psql and BI tools."""
    from pipeline.errors import UsageError

    env = environment()
    if env.settings.warehouse_url is None:
        env.server.start()
        typer.echo(env.server.url(role=role))
    elif role == "owner":
        typer.echo(env.warehouse_url)
    else:
        raise UsageError(
            "the analyst's login of a warehouse given by NIGHTSHIFT_WAREHOUSE_URL must come from its "
            "administrator: grant nightshift_analyst to a login of your own"
        )


@app.command()
@guarded
def migrate(as_json: AsJson = False) -> None:
    """Create or update control tables, each job's tables, views, comments and roles; idempotent."""
    from pipeline.adapters.migrate import migrate as run_migrations
    from pipeline.declaration import load_jobs

    env = environment()
    jobs = load_jobs(env.project)
    run_migrations(env.engine, jobs)
    names = [job.name for job in jobs]
    emit({"jobs": names}, as_json=as_json, shown=f"control tables and {', '.join(names)} are up to date")


@app.command()
@guarded
def check(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All jobs by default.")] = None,
    leaks: Annotated[
        bool, typer.Option("--leaks", help="Probe features for what was not known at the cut-off.")
    ] = False,
    day: Annotated[
        str | None, typer.Option("--day", metavar="YYYY-MM-DD", help="Day that --leaks probes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Validate declarations, suites and feature modules; report all faults at once, with file and line."""
    from pipeline.cli.check import run_check

    run_check(environment(), job, leaks=leaks, day=day, as_json=as_json)


@app.command()
@guarded
def score(
    job: JobName,
    day: Day,
    model: Model = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="Go on with the run of that name, or name a new one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score one night and publish it; prints the run."""
    from pipeline.validator import Validator

    with Validator(once=True) as validator:
        from pipeline.cli.nights import run_score

        run_score(environment(), job, day, policy(model, "current"), run_id, validator, as_json=as_json)


@app.command()
@guarded
def backfill(
    job: JobName,
    first: First,
    last: Last,
    reprocess: Annotated[
        Literal["none", "failed", "completed"],
        typer.Option(help="Also days that failed, or that are published already."),
    ] = "failed",
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Score many nights in one process; goes on after a failed night and lists the failures."""
    from pipeline.validator import Validator

    with Validator() as validator:
        from pipeline.cli.nights import run_backfill
        from pipeline.declaration import load_job

        env = environment()
        declared = load_job(env.project, job).declaration.model.backfill_policy
        chosen = policy(model, declared)
        run_backfill(env, job, (first, last), reprocess, chosen, validator, as_json=as_json)


@app.command()
@guarded
def outcomes(
    job: JobName,
    first: SomeFirst = None,
    last: SomeLast = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Judge published predictions by what became true, and show quality and cost by week.

    A day is judged once its labels are mature (outcomes.mature_after_days), and again when they change:
    without a range, days never judged and the last 35. What is judged is the run that readers saw at
    outcomes.decided_at, so no backfill rewrites the past; a run published later is judged apart, marked as
    hindsight. Every evaluation is kept in nightshift.outcomes; nightshift.quality shows the newest ones, by
    day, arm and declared slice.
    """
    from pipeline.cli.outcomes import run_outcomes

    run_outcomes(environment(), job, first, last, as_of, as_json=as_json)


@app.command()
@guarded
def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All jobs by default.")] = None,
    first: SomeFirst = None,
    last: SomeLast = None,
    as_json: AsJson = False,
) -> None:
    """Show what readers see of each expected day, and the newest runs."""
    from pipeline.cli.status import run_status

    run_status(environment(), job, first, last, as_json=as_json)


@app.command()
@guarded
def alerts(
    job: JobName,
    lasting: Annotated[bool, typer.Option("--open", help="Only those that are not resolved.")] = False,
    acknowledge: Annotated[
        int | None, typer.Option("--acknowledge", metavar="NUMBER", help="Take an open alert on.")
    ] = None,
    resolve: Annotated[
        int | None, typer.Option("--resolve", metavar="NUMBER", help="End an alert's episode.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who takes it on or ends it.")] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="False alarms, promised and measured; what each column can show.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the owners were told and what became of it; take an alert on, or end its episode."""
    from pipeline.cli.alerts import Change, run_alerts, run_change, run_limits
    from pipeline.errors import UsageError

    env = environment()
    change = Change.asked(acknowledge, resolve, by)
    if limits and (change or lasting):
        raise UsageError("--limits must stand alone; got it beside a change or --open")
    if limits:
        run_limits(env, job, as_json=as_json)
    elif change is None:
        run_alerts(env, job, lasting=lasting, as_json=as_json)
    else:
        run_change(env, job, change, as_json=as_json)


@app.command()
@guarded
def report(
    job: JobName,
    day: Annotated[
        str | None,
        typer.Option("--day", metavar="YYYY-MM-DD", help="Its run; the job's index by default."),
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's page, the job's index and its data dictionary as HTML; prints the path."""
    from pipeline.cli.report import run_report

    run_report(environment(), job, day, opened=opened, as_json=as_json)


@app.command()
@guarded
def requests(
    job: JobName,
    answer: Annotated[bool, typer.Option("--answer", help="Answer what is queued now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what other systems asked for in nightshift.scoring_requests, and what became of it."""
    from pipeline.cli.requests import run_requests

    run_requests(environment(), job, answer=answer, as_json=as_json)


app.add_typer(life.app)
