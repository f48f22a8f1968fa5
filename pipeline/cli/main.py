"""`nightshift …`: the same steps as the DAGs, without Airflow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.console import configure_logging, emit, guarded

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.planning import ModelPolicy

app = typer.Typer(
    name="nightshift",
    help="Nightly batch scoring that conserves every row: extract, validate, featurize, score, publish.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Stem of dags/JOB.yaml.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")]
Day = Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The business day to score.")]
First = Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day, included.")]
Last = Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, included.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="current|as-of|VERSION", help="Which model version answers."),
]
Approver = Annotated[str, typer.Option("--approved-by", metavar="WHO", help="A declared approver.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept for ever.")]


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step on stderr.")] = False,
) -> None:
    configure_logging(verbose=verbose)


def _environment() -> Environment:
    from pipeline.environment import Environment
    from pipeline.settings import Settings

    return Environment(Settings())


def _policy(text: str | None, default: ModelPolicy) -> ModelPolicy:
    from pipeline.planning import parse_policy

    return default if text is None else parse_policy(text)


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

    environment = _environment()
    if live:
        run_live(environment, newest_day(environment.project, datetime.now(UTC)), as_json=as_json)
    else:
        run_demo(environment, as_json=as_json)


@app.command()
@guarded
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL (every command that needs it does so by itself)."""
    environment = _environment()
    environment.server.start()
    emit(
        {"running": True}, as_json=as_json, shown="embedded PostgreSQL is up; `nightshift url` prints its URL"
    )


@app.command()
@guarded
def down(as_json: AsJson = False) -> None:
    """Stop the embedded PostgreSQL; nothing is lost."""
    stopped = _environment().server.stop()
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
    port: Annotated[int, typer.Option(help="Where the web page is.")] = 8080,
    as_json: AsJson = False,
) -> None:
    """Run Airflow on this machine until Ctrl-C, with the embedded PostgreSQL; prints the login once.

    With a command: run that one of Airflow's own over the same database.
    """
    from pipeline.cli.airflow import run_airflow, run_command

    if words:
        raise typer.Exit(run_command(_environment(), port, words))
    run_airflow(_environment(), port, stop=stop, as_json=as_json)


@app.command()
@guarded
def url(
    role: Annotated[Literal["owner", "analyst"], typer.Option(help="Whose login.")] = "owner",
) -> None:
    """Print the warehouse's connection URL, password included, for psql and BI tools."""
    from pipeline.errors import UsageError

    environment = _environment()
    if environment.settings.warehouse_url is None:
        environment.server.start()
        typer.echo(environment.server.url(role=role))
    elif role == "owner":
        typer.echo(environment.warehouse_url)
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

    environment = _environment()
    jobs = load_jobs(environment.project)
    run_migrations(environment.engine, jobs)
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

    run_check(_environment(), job, leaks=leaks, day=day, as_json=as_json)


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
    from pipeline.cli.nights import run_score

    run_score(_environment(), job, day, _policy(model, "current"), run_id, as_json=as_json)


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
    from pipeline.cli.nights import run_backfill
    from pipeline.declaration import load_job

    environment = _environment()
    declared = load_job(environment.project, job).declaration.model.backfill_policy
    run_backfill(environment, job, (first, last), reprocess, _policy(model, declared), as_json=as_json)


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

    run_train(_environment(), job, (first, last), as_of, seed, as_json=as_json)


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

    run_promote(_environment(), job, version, approved_by, reason, effective_from, as_json=as_json)


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

    run_rollback(_environment(), job, approved_by, reason, as_json=as_json)


@app.command()
@guarded
def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All jobs by default.")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what readers see of each expected day, and the newest runs."""
    from pipeline.cli.status import run_status

    run_status(_environment(), job, first, last, as_json=as_json)


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

    run_report(_environment(), job, day, opened=opened, as_json=as_json)
