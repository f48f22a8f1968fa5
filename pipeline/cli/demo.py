"""`nightshift demo`: a whole real night on real flights; a second call changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, err, out, pairs
from pipeline.cli.models import train_version
from pipeline.cli.nights import report
from pipeline.partition import Partition, between

if TYPE_CHECKING:
    from pipeline.environment import Environment

JOB = "flight_delays"
NIGHT = Partition.parse("2013-05-01")
TRAINED = (Partition.parse("2013-01-08"), Partition.parse("2013-04-30"))


def run_demo(env: Environment, *, as_json: bool) -> None:
    """Load, train, promote, score; each only where it is not done yet."""
    from pipeline import planning, steps
    from pipeline.adapters import ledger
    from pipeline.adapters.migrate import migrate
    from pipeline.cli.flights import load_flights
    from pipeline.declaration import load_jobs

    with err.status("loading the flights of 2013 into the warehouse"):
        load_flights(env.warehouse_url)
        migrate(env.engine, load_jobs(env.project))
    _champion(env, quiet=as_json)
    with env.engine.connect() as connection:
        record = ledger.visible_run(connection, JOB, NIGHT)
    if record is None:
        with err.status(f"scoring {NIGHT}"):
            record = steps.night(env, planning.Request(JOB, NIGHT))
    with env.engine.connect() as connection:
        reasons = ledger.quarantine_reasons(connection, record["run_no"])
    emit({**report(record), "quarantine": reasons, "parquet": _parquet(env)}, as_json=as_json)
    if not as_json:
        _summary(env, record, reasons)


def _champion(env: Environment, *, quiet: bool) -> None:
    from pipeline import training
    from pipeline.adapters import versions
    from pipeline.lifecycle import promote as decide

    with env.engine.connect() as connection:
        history = versions.promotion_history(connection, JOB)
        numbers = versions.numbers(connection, JOB)
    if decide.in_force(history, datetime.now(UTC)) is not None:
        return
    if not numbers:
        # The labels that were known when the demo's night begins, and nothing later.
        known = _cutoff(env)
        numbers = [train_version(env, JOB, list(between(*TRAINED)), known, None, quiet=quiet).version]
    training.promote(
        env, JOB, numbers[-1], approved_by="ana", reason="first version of the demo",
        effective_from=_cutoff(env),
    )  # fmt: skip


def _cutoff(env: Environment) -> datetime:
    from pipeline.declaration import load_job

    return load_job(env.project, JOB).instants(NIGHT).cutoff


def _parquet(env: Environment) -> str:
    return str(env.store.current_file(JOB, NIGHT))


def _summary(env: Environment, record: Any, reasons: list[tuple[str, str, int]]) -> None:
    rows = [
        ("rows in", record["rows_in"]),
        ("scored", record["rows_scored"]),
        ("fallback", record["rows_fallback"]),
        ("withheld", record["rows_withheld"]),
        ("quarantined", record["rows_quarantined"]),
        *((f"  {rule}", f"{count} {verdict}") for verdict, rule, count in reasons),
        ("model version", record["model_version"]),
        ("table", f"predictions.{JOB} where day = '{NIGHT}'"),
        ("Parquet", _parquet(env)),
    ]
    out.print(pairs(f"{JOB} {NIGHT}: {record['status']}", rows), markup=False)
    out.print("\nWorth trying next:")
    for command in (
        'psql "$(.venv/bin/nightshift url --role analyst)" '
        f'-c "select * from predictions.{JOB} order by score desc limit 5"',
        f".venv/bin/nightshift backfill {JOB} --from 2013-05-02 --to 2013-05-07",
        f".venv/bin/nightshift status {JOB} --from 2013-05-01 --to 2013-05-07",
    ):
        out.print(f"  {command}", markup=False)
