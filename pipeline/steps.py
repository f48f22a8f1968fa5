"""The night, step by step: the only module that knows the order and does the I/O between the stages.

plan → extract → validate → score → publish. Each step reads what the step before it left (runs table and
sealed files), may run in a process of its own, and does nothing when its work is done already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipeline.adapters import ledger, models, publishing, rollouts, run_files
from pipeline.adapters.source import open_reader
from pipeline.adapters.versions import ModelVersion, with_predecessor
from pipeline.dataset import repair, show_parquet
from pipeline.declaration import load_job, suite_file
from pipeline.environment import Environment
from pipeline.errors import (
    ExtractError,
    ModelError,
    TimeLimit,
    TransientError,
    UsageError,
    ValidationError,
)
from pipeline.job import Job
from pipeline.lifecycle.rollout import SHARED
from pipeline.monitor import monitor
from pipeline.planning import Request, new_run_id, parse_policy, plan, preview, source_ready
from pipeline.run import Run, Snapshot, Stage
from pipeline.scorers import ANSWERED, history_name, score_part, shadow_part
from pipeline.scoring.conserve import prove
from pipeline.scoring.extract import ExtractPlan, questions
from pipeline.scoring.extract import extract as read_partition
from pipeline.scoring.suite import load_suite
from pipeline.scoring_requests import answer_requests
from pipeline.shard import shards
from pipeline.usage import Meter, spare_memory_mb
from pipeline.validator import Judge, Validator, judge_here

log = structlog.get_logger()
T = TypeVar("T")
R = TypeVar("R")


__all__ = [
    "Request",
    "event",
    "extract",
    "night",
    "note",
    "parse_policy",
    "parts",
    "plan",
    "preview",
    "publish",
    "repair",
    "run_named",
    "score",
    "show_parquet",
    "source_ready",
    "validate",
]

_ATTEMPTS = 5  # within 15 s: a PostgreSQL that restarts is back after 2 to 4 s
_STAGES: tuple[Stage, ...] = ("planned", "extracted", "validated", "scored", "sealed", "published")


def run_named(env: Environment, run_id: str) -> Run:
    """The planned run of that name."""
    with env.engine.connect() as connection:
        found = ledger.find(connection, run_id)
    if found is None:
        raise UsageError(f"run {run_id!r} must have been planned; there is none of that name")
    ledger.refuse_pruned(found)
    return ledger.as_run(found)


def extract(env: Environment, run: Run, *, sharded: bool = False) -> None:
    """Read the partition once and seal the snapshot; one that an earlier attempt has sealed stays.

    `sharded` divides large partitions among workers, as `resources.rows_per_shard` says.
    """
    with _step(env, run, "extracted") as wanted:
        if not wanted:
            return
        with env.store.workspace() as folder:
            snapshot = run_files.load_snapshot(env.store, run, folder) or _snapshot(env, run, folder)
            resources = load_job(env.project, run.job).declaration.resources
            parts = shards(snapshot.path, resources.rows_per_shard) if sharded else 1
        with env.engine.begin() as connection:
            ledger.add_warnings(connection, run.run_no, snapshot.warnings)
            ledger.advance(
                connection,
                run.run_no,
                "extracted",
                snapshot_uri=str(env.store.run_folder(run)),
                snapshot_fingerprint=snapshot.fingerprint,
                proved=snapshot.proved,
                bytes_read=snapshot.bytes,
                rows_in=snapshot.rows,
                parts=parts,
            )
        log.info("extracted", rows=snapshot.rows, fingerprint=snapshot.fingerprint[:12])


def _snapshot(env: Environment, run: Run, folder: Path) -> Snapshot:
    job = load_job(env.project, run.job)
    with env.engine.connect() as connection:
        pinned, *behind = _versions(connection, run)
        challenger = rollouts.challenger(connection, run)
    beside = [challenger.version] if challenger else []
    # Nobody's queries but the pinned version's fail a night: read with all, then without one, then alone.
    choices = [[*behind, *beside], beside, behind, []]
    plans = [extract_plan(job, [pinned, *others]) for others in choices]
    *some, alone = [each for number, each in enumerate(plans) if each not in plans[:number]]
    for number, wanted in enumerate(some):
        try:
            return _read(env, job, run, wanted, folder / f"read-{number}", *_left_out(wanted, plans[0]))
        except (ExtractError, TimeLimit) as error:
            log.warning("queries failed, reading without some of them", error=str(error))
            if isinstance(error, TimeLimit):  # may be the pinned version's own: asked once more, not thrice
                break
    return _read(env, job, run, alone, folder / "alone", *_left_out(alone, plans[0]))


def _left_out(plan: ExtractPlan, whole: ExtractPlan) -> list[str]:
    names = [name for name in whole.history if name not in plan.history]
    told = f"not read, as queries failed: {', '.join(names)}; the version that needs them cannot answer"
    return [told] if names else []


def _versions(connection: sa.Connection, run: Run) -> list[ModelVersion]:
    """The pinned version and the champion behind it, whatever is promoted while the run is at work."""
    record = ledger.record(connection, run.run_no)
    planned = record["started_at"]
    at = record["cutoff"] if record["model_policy"] == "as-of" else planned
    return with_predecessor(connection, run.job, run.model_version, at=at, known=planned)


def _read(
    env: Environment, job: Job, run: Run, wanted: ExtractPlan, folder: Path, *warnings: str
) -> Snapshot:
    folder.mkdir(exist_ok=True)
    binds = job.instants(run.partition).binds()
    with open_reader(env.source_url, binds) as reader:
        snapshot = read_partition(reader, wanted, folder)
    told = replace(snapshot, warnings=(*snapshot.warnings, *warnings), questions=questions(wanted, binds))
    run_files.seal_snapshot(env.store, run, told, folder)
    return run_files.sealed_snapshot(env.store, run, folder)


def extract_plan(job: Job, versions: list[ModelVersion]) -> ExtractPlan:
    """What a run of these versions reads: the first one's rows, every one's history, the tree's bounds."""
    history = {
        history_name(version, name): query for version in versions for name, query in version.history.items()
    }
    declaration = job.declaration
    return ExtractPlan(
        extract=versions[0].extract,
        sources=declaration.sources,
        history=history,
        parameters=declaration.validate_.parameters,
    )


def validate(env: Environment, run: Run, judge: Judge = judge_here) -> None:
    """Judge the snapshot by the suite; what no model may see goes to the quarantine."""
    with _step(env, run, "validated") as wanted:
        if not wanted:
            return
        job = load_job(env.project, run.job)
        declaration = job.declaration
        suite = load_suite(suite_file(env.project, run.job))
        with env.store.workspace() as folder:
            snapshot = run_files.sealed_snapshot(env.store, run, folder)
            target = folder / "verdicts.parquet"
            try:
                verdicts = judge(
                    snapshot,
                    suite,
                    declaration.extract,
                    declaration.validate_,
                    run.partition,
                    job.instants(run.partition),
                    target,
                    memory_mb=declaration.resources.memory_mb,
                    threads=declaration.resources.cpus,
                )
            except ValidationError:
                if target.is_file():
                    publishing.load_quarantine(env.warehouse_url, run, target)
                raise
            publishing.load_quarantine(env.warehouse_url, run, target)
            run_files.seal_verdicts(env.store, run, verdicts)
        with env.engine.begin() as connection:
            ledger.add_warnings(connection, run.run_no, verdicts.warnings)
            ledger.advance(
                connection,
                run.run_no,
                "validated",
                suite_sha256=suite.sha256,
                suite_results=run_files.results_json(verdicts.results),
                rows_quarantined=verdicts.quarantined + verdicts.withheld,
            )
        log.info(
            "validated", good=verdicts.good, quarantined=verdicts.quarantined, withheld=verdicts.withheld
        )


def parts(env: Environment, run: Run) -> list[int]:
    """The numbers of the shards that a run's snapshot was divided into."""
    with env.engine.connect() as connection:
        # None where a newer run overtook this one before its extract: then no shard has anything to do.
        return list(range(ledger.record(connection, run.run_no)["parts"] or 1))


def score(env: Environment, run: Run, part: int = 0) -> None:
    """Score each row of a shard, with the pinned version or by a fallback chain, and load the rows unseen.

    The run is scored when the last of its shards is.
    """
    with _step(env, run, "scored") as wanted:
        if not wanted:
            return
        job = load_job(env.project, run.job)
        with env.engine.connect() as connection:
            loaded = ledger.part_loaded(connection, run.run_no, part)
            versions = _versions(connection, run)
            beside = rollouts.challenger(connection, run)
            count = ledger.record(connection, run.run_no)["parts"]
        # First: the run is scored with its last part, and nobody comes back for a shadow that was cut off.
        if loaded is None and beside and beside.rollout.kind == "shadow":
            warnings = shadow_part(env, job, run, beside.version, part, count)
            with env.engine.begin() as connection:
                ledger.add_warnings(connection, run.run_no, warnings)
        if loaded is None:
            shared = beside if beside and beside.rollout.kind in SHARED else None
            warnings = score_part(env, job, run, versions, part, count, shared)
            with env.engine.begin() as connection:
                ledger.add_warnings(connection, run.run_no, warnings)
        with env.engine.begin() as connection:
            if len(ledger.parts(connection, run.run_no)) == count:
                ledger.advance(connection, run.run_no, "scored")
        log.info("scored", part=part, parts=count)


def publish(env: Environment, run: Run) -> ledger.Record:
    """Prove conservation, seal, and let readers see the run unless a newer one is published."""
    job = load_job(env.project, run.job)
    with _step(env, run, "sealed") as wanted:
        if wanted:
            _seal(env, job, run)
    with _step(env, run, "published") as wanted:
        if wanted:
            with env.engine.begin() as connection:
                result = publishing.flip(connection, run)
            log.info(result, token=run.token)
    with env.engine.begin() as connection:
        publishing.retire_older(connection, run)
    if job.declaration.publish.parquet:
        show_parquet(env, run.job, run.partition)
    with env.engine.connect() as connection:
        return ledger.record(connection, run.run_no)


def event(record: ledger.Record) -> dict[str, Any]:
    """What a publish announces to whoever waits for the day."""
    names = ("run_id", "status", "degraded", "rows_in", "rows_scored", "rows_fallback", "model_version")
    return {"day": record["day"].isoformat(), **{name: record[name] for name in names}}


def note(env: Environment, run: Run, report: str) -> str:
    """What became of a run, in a few lines for people; `report` says where its page is."""
    with env.engine.connect() as connection:
        record = ledger.record(connection, run.run_no)
        reasons = ledger.quarantine_reasons(connection, run.run_no)
    degraded = ", degraded" if record["degraded"] else ""
    lines = [
        f"{record['job']} {record['day']}: {record['status']}{degraded}, model version "
        f"{record['model_version']} ({record['model_policy']})",
        f"{record['rows_in']} rows in: {record['rows_scored']} scored, {record['rows_fallback']} by a "
        f"fallback, {record['rows_withheld']} withheld; {record['rows_quarantined']} in quarantine",
        f"run {record['run_id']}, {record['cpu_seconds']:.1f} CPU s, {record['peak_memory_mb']:.0f} MiB",
        f"report: {report}",
        # What may be long comes last: a note of Airflow's is cut at its end.
        *(f"- {verdict} by {rule}: {count}" for verdict, rule, count in reasons),
        *(f"- warning: {warning}" for warning in record["warnings"]),
    ]
    return "\n".join(lines)


def _seal(env: Environment, job: Job, run: Run) -> None:
    extract_ = job.declaration.extract
    with env.engine.connect() as connection:
        loaded = ledger.parts(connection, run.run_no)
        record = ledger.record(connection, run.run_no)
    rows_in = record["rows_in"]
    with env.store.workspace() as folder:
        files = run_files.fetch_for_proof(env.store, run, [part["part"] for part in loaded], folder)
        predicted = prove(
            extract_.key,
            files.snapshot,
            files.withheld,
            files.parts,
            rows_in=rows_in,
            spill=folder,
            memory_mb=spare_memory_mb(job.declaration.resources.memory_mb),
        )
        good = rows_in - record["rows_quarantined"]
        if good and not predicted:
            raise ModelError(
                f"one good row at least must have an answer; got none for {good}, neither by the model nor "
                "by fallback.model_failure. Nothing was published. Declare a step that can always answer, "
                "such as default"
            )
        sha256 = run_files.seal_predictions(env.store, run, files.parts, folder)
    sources: dict[str, int] = {}
    for part in loaded:
        for source, count in part["score_sources"].items():
            sources[source] = sources.get(source, 0) + count
    scored = sum(sources.get(source, 0) for source in ANSWERED)
    counts = {
        "rows_scored": scored,
        "rows_fallback": predicted - scored,
        "rows_withheld": rows_in - predicted,
        "score_sources": sources,
        "degraded": predicted > scored,
        "parquet_uri": str(run_files.predictions_file(env.store, run)),
        "parquet_sha256": sha256,
    }
    with env.engine.begin() as connection:
        if job.declaration.publish.sql:
            publishing.check_sql_counts(connection, run, sources)
        publishing.seal(connection, run, counts)


def night(env: Environment, request: Request, validator: Validator | None = None) -> ledger.Record:
    """One whole run in this process, retried where the fault may pass; raises when it failed.

    With a `validator` the snapshot is judged in that one's process.
    """
    # Named before the first attempt: a lost answer must not plan it twice.
    named = replace(request, run_id=request.run_id or new_run_id(request.job, request.partition))
    run = _retried(plan, env, named)
    _retried(repair, env, load_job(env.project, request.job))
    if run.stage == "planned":
        # No daemon: one that is cut off at exit aborts the process.
        threading.Thread(target=models.warm_up, name="warm-up").start()
    try:
        for step in (extract, partial(validate, judge=validator or judge_here), score):
            _retried(step, env, run)
    finally:
        if validator is not None:
            with env.engine.begin() as connection:
                ledger.add_usage(connection, run.run_no, *validator.used())
    _retried(publish, env, run)
    try:
        monitor(env, run)
    except Exception as error:  # noqa: BLE001 - the night is published, whatever is wrong with its metrics
        log.warning("published without metrics", run_id=run.run_id, error_type=type(error).__name__)
    job = load_job(env.project, run.job)
    if job.declaration.requests is not None:
        try:
            answer_requests(env, job)
        except Exception as error:  # noqa: BLE001 - the night is published, whatever is wrong with its queue
            log.warning("requests stay queued", run_id=run.run_id, error_type=type(error).__name__)
    with env.engine.connect() as connection:
        return ledger.record(connection, run.run_no)


def _retried(step: Callable[[Environment, T], R], env: Environment, subject: T) -> R:
    attempts = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=1, max=30),
        reraise=True,
    )
    return attempts(step, env, subject)


@contextmanager
def _step(env: Environment, run: Run, stage: Stage) -> Iterator[bool]:
    """Whether the stage is still to be done; what it used and how it failed goes into the runs table."""
    with structlog.contextvars.bound_contextvars(
        run_id=run.run_id, job=run.job, day=run.partition.key, stage=stage
    ):
        with env.engine.begin() as connection:
            ledger.resume(connection, run.run_no)
            record = ledger.record(connection, run.run_no)
        if record["status"] != "running":
            yield False
            return
        meter = Meter()
        try:
            yield _STAGES.index(record["stage"]) < _STAGES.index(stage)
        except BaseException as error:
            if _failed(env, run, error) or not isinstance(error, Exception):
                raise
        finally:
            with env.engine.begin() as connection:
                ledger.add_usage(connection, run.run_no, meter.cpu_seconds, meter.peak_memory_mb)


def _failed(env: Environment, run: Run, error: BaseException) -> bool:
    """Whether the error ends the run: not if it was superseded, or published and the answer was lost."""
    with env.engine.begin() as connection:
        ledger.finish(connection, run.run_no, "failed", error)
        status = ledger.record(connection, run.run_no)["status"]
    log.warning("failed", error_type=type(error).__name__, status=status)
    return bool(status == "failed")
