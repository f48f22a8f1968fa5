"""`nightshift demo`: a whole real night on real flights; a second call changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, err, out, pairs
from pipeline.cli.models import train_version
from pipeline.cli.nights import report
from pipeline.errors import UsageError
from pipeline.partition import Partition, between

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.environment import Environment

JOB = "flight_delays"


@dataclass(frozen=True)
class Nights:
    """By how many weeks the flights of 2013 are moved, the nights to learn from, and the one to score.

    The nights of `next` are those that the summary proposes to run after it.
    """

    weeks: int
    trained: tuple[Partition, Partition]
    scored: Partition
    next: tuple[Partition, Partition]

    @property
    def since(self) -> Partition:
        """The night from which on the version is champion: it learned from labels known then, none later."""
        return self.trained[1].next()


OF_2013 = Nights(
    weeks=0,
    trained=(Partition.parse("2013-01-08"), Partition.parse("2013-04-30")),
    scored=Partition.parse("2013-05-01"),
    next=(Partition.parse("2013-05-02"), Partition.parse("2013-05-07")),
)


@dataclass(frozen=True)
class Done:
    """What the demo left: the run that readers see, its quarantine's reasons, its Parquet file."""

    record: Any
    reasons: list[tuple[str, str, int]]
    parquet: str

    def report(self) -> dict[str, Any]:
        """The demo as `--json` prints it."""
        return {**report(self.record), "quarantine": self.reasons, "parquet": self.parquet}


def run_demo(env: Environment, *, as_json: bool) -> None:
    """Load, train, promote, score; each only where it is not done yet.

    Raises UsageError in the state folder of a live demo, whose flights it would replace.
    """
    if moved_weeks_file(env.settings.state).exists():
        raise UsageError(
            f"the demo of 2013 must have a state folder of its own; {env.settings.state} holds the live one. "
            "Run nightshift demo --live, or unset NIGHTSHIFT_HOME and NIGHTSHIFT_PROJECT"
        )
    done = perform(env, OF_2013, quiet=as_json)
    emit(done.report(), as_json=as_json)
    if not as_json:
        show_summary(OF_2013, done)


def moved_weeks_file(state: Path) -> Path:
    """Holds by how many weeks the flights of a live demo are moved; in no other state folder."""
    return state / "moved_weeks"


def perform(env: Environment, nights: Nights, *, quiet: bool) -> Done:
    """Do what is not done yet, and find what readers see."""
    from pipeline import planning, steps
    from pipeline.adapters import ledger
    from pipeline.adapters.migrate import migrate
    from pipeline.cli.flights import load_flights
    from pipeline.declaration import load_jobs

    with err.status("loading the flights of 2013 into the warehouse"):
        load_flights(env.warehouse_url, nights.weeks)
        migrate(env.engine, load_jobs(env.project))
    _champion(env, nights, quiet=quiet)
    with env.engine.connect() as connection:
        record = ledger.visible_run(connection, JOB, nights.scored)
    if record is None:
        with err.status(f"scoring {nights.scored}"):
            record = steps.night(env, planning.Request(JOB, nights.scored))
    with env.engine.connect() as connection:
        reasons = ledger.quarantine_reasons(connection, record["run_no"])
    return Done(record, reasons, str(env.store.current_file(JOB, nights.scored)))


def _champion(env: Environment, nights: Nights, *, quiet: bool) -> None:
    from pipeline import training
    from pipeline.adapters import versions
    from pipeline.declaration import load_job
    from pipeline.lifecycle import promote as decide

    with env.engine.connect() as connection:
        history = versions.promotion_history(connection, JOB)
        numbers = versions.numbers(connection, JOB)
    if decide.in_force(history, datetime.now(UTC)) is not None:
        return
    since = load_job(env.project, JOB).instants(nights.since).cutoff
    if not numbers:
        days = list(between(*nights.trained))
        numbers = [train_version(env, JOB, days, since, None, quiet=quiet).version]
    training.promote(
        env, JOB, numbers[-1], approved_by="ana", reason="first version of the demo", effective_from=since
    )


def show_summary(nights: Nights, done: Done) -> None:
    """What people read: the night's counts, where its rows are, and what to run next."""
    record = done.record
    rows = [
        ("rows in", record["rows_in"]),
        ("scored", record["rows_scored"]),
        ("fallback", record["rows_fallback"]),
        ("withheld", record["rows_withheld"]),
        ("quarantined", record["rows_quarantined"]),
        *((f"  {rule}", f"{count} {verdict}") for verdict, rule, count in done.reasons),
        ("model version", record["model_version"]),
        ("table", f"predictions.{JOB} where day = '{nights.scored}'"),
        ("Parquet", done.parquet),
    ]
    out.print(pairs(f"{JOB} {nights.scored}: {record['status']}", rows), markup=False)
    out.print("\nWorth trying next:")
    for command in (
        'psql "$(.venv/bin/nightshift url --role analyst)" '
        f'-c "select * from predictions.{JOB} order by score desc limit 5"',
        f".venv/bin/nightshift backfill {JOB} --from {nights.next[0]} --to {nights.next[1]}",
        f".venv/bin/nightshift status {JOB} --from {min(nights.scored, nights.next[0])} "
        f"--to {max(nights.scored, nights.next[1])}",
    ):
        out.print(f"  {command}", markup=False)
