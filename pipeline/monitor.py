"""The morning after: a published night's metrics, from its profile and those of training and recent nights.

What they show against the nights before is told to the owner. Nothing here moves what readers see.
Superseded and failed runs have no metrics.
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import structlog

from pipeline import guardrails
from pipeline.adapters import ledger, metrics, registry, run_files, versions
from pipeline.adapters.store import Store
from pipeline.adapters.versions import ModelVersion
from pipeline.alerting import SILENT, alert_findings
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import FatalError
from pipeline.job import Job
from pipeline.monitoring.causes import findings
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.limits import MOST_NIGHTS
from pipeline.monitoring.metrics import Metric, RowCounts, profile_metrics, row_metrics
from pipeline.monitoring.nightly import nightly_metrics
from pipeline.monitoring.profile import Profile, merge
from pipeline.monitoring.profile_file import loads
from pipeline.monitoring.surprise import LEFT_OUT, WINDOW
from pipeline.partition import Partition
from pipeline.run import Run
from pipeline.usage import Meter

log = structlog.get_logger()

LEAST_NIGHTS = 7
"""So many nights make a rolling baseline; fewer would tell of themselves more than of tonight."""


def monitor(env: Environment, run: Run) -> None:
    """Write the metrics of a published run, in place of those it had, and tell its owner what changed.

    Later days that look back on this one get theirs anew, unless a backfill does, which runs them itself. A
    backfill and a training have metrics too, and never tell anybody.

    Raises what went wrong, after it was recorded as a warning of the run: the day stays published.
    """
    with structlog.contextvars.bound_contextvars(run_id=run.run_id, job=run.job, day=run.partition.key):
        with env.engine.connect() as connection:
            record = ledger.record(connection, run.run_no)
        if record["status"] != "published":
            return
        meter = Meter()
        try:
            found = _measured(env, run, record)
        except Exception as error:
            _warn(env, run, error)
            raise
        with env.engine.begin() as connection:
            ledger.add_usage(connection, run.run_no, meter.cpu_seconds, meter.peak_memory_mb)
        log.info("monitored", metrics=len(found))


def _measured(env: Environment, run: Run, record: ledger.Record) -> list[Metric]:
    try:
        found = _metrics(env, ledger.as_run(record), record)
        with env.engine.begin() as connection:
            metrics.replace(connection, run, found)
        if record["trigger"] not in SILENT:
            _again(env, run)
        _alert(env, run, record)
        return found
    finally:
        # A bad challenger is stopped on a night whose metrics fail too.
        guardrails.watch(env, ledger.as_run(record))


def _again(env: Environment, run: Run) -> None:
    """Metrics of the days whose baseline has that night, as a rerun of an old day changes it."""
    days = load_job(env.project, run.job).declaration.monitor.rolling_days
    with env.engine.connect() as connection:
        later = ledger.visible_after(connection, run.job, run.partition, days)
    for record in later:
        found = _metrics(env, ledger.as_run(record), record)
        with env.engine.begin() as connection:
            metrics.replace(connection, ledger.as_run(record), found)


def _warn(env: Environment, run: Run, error: Exception) -> None:
    warning = f"monitoring did not end: {type(error).__name__}: {error}"
    log.warning("not monitored", error_type=type(error).__name__, error=str(error))
    with env.engine.begin() as connection:
        ledger.add_warnings(connection, run.run_no, [env.settings.masked(warning)])


def _metrics(env: Environment, run: Run, record: ledger.Record) -> list[Metric]:
    job = load_job(env.project, run.job)
    with env.engine.connect() as connection:
        version = versions.version(connection, run.job, run.model_version)
    profile = _profile(env.store, run, record["parts"])
    if profile is None:
        raise FatalError(
            f"the profile of run {run.run_id} must be sealed with its parts; it is not in the store"
        )
    counts = RowCounts(
        rows_in=record["rows_in"],
        quarantined=record["rows_quarantined"],
        withheld=record["rows_withheld"],
        fallback=record["rows_fallback"],
    )
    nights = _nights_before(env, job, run)
    rolling = merge(list(nights.values())) if len(nights) >= LEAST_NIGHTS else None
    output = job.declaration.model.output
    found = [*row_metrics(counts), *profile_metrics(profile, training_profile(env, version), rolling, output)]
    if rolling is not None:
        found += nightly_metrics(profile, rolling, nights.get(run.partition.previous()))
    return found


def night_findings(env: Environment, job: Job, partition: Partition) -> list[Finding]:
    """What the metrics of that day, as readers see it, show against those of the nights before."""
    first = Partition(partition.day - timedelta(days=MOST_NIGHTS + WINDOW + LEFT_OUT))
    with env.engine.connect() as connection:
        history = metrics.of_visible_runs(connection, job.name, first, partition)
    if partition.day not in set(history["day"]):
        return []
    return findings(job.name, history, job.declaration.monitor)


def _alert(env: Environment, run: Run, record: ledger.Record) -> None:
    if record["trigger"] in SILENT:
        return
    found = night_findings(env, load_job(env.project, run.job), run.partition)
    alert_findings(env, run.job, run.partition.day, found, record["trigger"], run_id=run.run_id)


def _nights_before(env: Environment, job: Job, run: Run) -> dict[Partition, Profile]:
    """The nights that readers see of the `monitor.rolling_days` days before, in order.

    Nights without a profile, as those before profiles were kept, do not count.
    """
    with env.engine.connect() as connection:
        days = job.declaration.monitor.rolling_days
        before = ledger.visible_before(connection, run.job, run.partition, days)
    runs = [(ledger.as_run(record), record["parts"]) for record in before]
    found = {earlier.partition: _profile(env.store, earlier, parts) for earlier, parts in runs}
    return {partition: profile for partition, profile in found.items() if profile is not None}


def training_profile(env: Environment, version: ModelVersion) -> Profile | None:
    """The profile of the rows that a version learned from; None of versions from before profiles were kept.

    Raises FatalError when the file is not the registered one, ModelError when it cannot be had.
    """
    if version.profile_uri is None or version.profile_sha256 is None:
        return None
    return _training_profile(version.profile_uri, version.profile_sha256, env.registry_url)


@lru_cache(maxsize=4)
def _training_profile(uri: str, sha256: str, registry_url: str) -> Profile:
    with tempfile.TemporaryDirectory() as folder:
        content = registry.fetch(uri, Path(folder), registry_url).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise FatalError(f"the training profile {uri} must be the registered one; its sha256 is another")
    return loads(content)


@lru_cache(maxsize=64)
def _profile(store: Store, run: Run, parts: int) -> Profile | None:
    # Sealed files never change; the nights of a backfill share all but one of their baselines.
    return run_files.load_profile(store, run, parts)
