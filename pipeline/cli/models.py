"""`nightshift train`, `promote`, `rollback` and `unpublish`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, err, pairs, progress
from pipeline.partition import Partition, between, instant

if TYPE_CHECKING:
    from pipeline.adapters.versions import ModelVersion
    from pipeline.environment import Environment
    from pipeline.lifecycle.promote import Promotion


def train_version(
    env: Environment,
    job: str,
    days: list[Partition],
    as_of: datetime,
    seed: int | None,
    key: str | None = None,
    *,
    quiet: bool,
) -> ModelVersion:
    """Train under a progress bar, and say which nights were left out."""
    from pipeline import training

    with progress(quiet=quiet) as bar:
        task = bar.add_task(f"{job}: replaying nights", total=len(days))
        cause = training.Cause(key=key)
        made = training.train(env, job, days, as_of, seed, lambda _: bar.advance(task), cause)
    for day, reason in made.metrics["nights_left_out"].items():
        err.print(f"{day} was left out: {reason}", markup=False)
    if reused := made.metrics["nights_reused"]:
        err.print(f"{len(reused)} of {len(days)} nights were read from the snapshots of their runs")
    return made


def run_train(
    env: Environment,
    job: str,
    span: tuple[str, str],
    as_of: str | None,
    seed: int | None,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    """Train and report the version with its hold-out metrics."""
    days = list(between(Partition.parse(span[0]), Partition.parse(span[1])))
    known = instant(as_of, "--as-of") if as_of else datetime.now(UTC)
    made = train_version(env, job, days, known, seed, key, quiet=as_json)
    summary = version_report(made)
    held = made.metrics["holdout"]
    rows = [(name, value) for name, value in summary.items() if name != "metrics"]
    rows += [(f"hold-out {name}", f"{value:.4f}") for name, value in held["model"].items()]
    rows += [(f"hold-out {name}, baseline", f"{value:.4f}") for name, value in held["baseline"].items()]
    emit(summary, as_json=as_json, shown=pairs(f"{job} version {made.version}", rows))


def version_report(made: ModelVersion) -> dict[str, Any]:
    """A version as the commands print it."""
    names = (
        "job", "version", "feature_version", "trained_from", "trained_to", "labels_as_of", "rows", "seed",
        "data_fingerprint", "code_version", "environment_sha256", "model_sha256", "challenger_of",
        "training_key", "metrics",
    )  # fmt: skip
    return {name: getattr(made, name) for name in names}


def run_promote(
    env: Environment,
    job: str,
    version: int,
    approved_by: str,
    reason: str,
    effective_from: str | None,
    *,
    as_json: bool,
) -> None:
    """Promote and report the new row of the history."""
    from pipeline import training

    since = instant(effective_from, "--effective-from") if effective_from else None
    promotion, warnings = training.promote(
        env, job, version, approved_by=approved_by, reason=reason, effective_from=since
    )
    _report(promotion, warnings, as_json=as_json)


def run_rollback(env: Environment, job: str, approved_by: str | None, reason: str, *, as_json: bool) -> None:
    """Roll back and report the new row of the history."""
    from pipeline import training

    promotion, warnings = training.rollback(env, job, approved_by=approved_by, reason=reason)
    _report(promotion, warnings, as_json=as_json)


def _report(promotion: Promotion, warnings: list[str], *, as_json: bool) -> None:
    for warning in warnings:
        err.print(warning, markup=False)
    since = f"{promotion.effective_from:%Y-%m-%d %H:%M %Z}"
    title = f"{promotion.job}: version {promotion.version} is champion from {since} on"
    shown = pairs(title, list(vars(promotion).items()))
    emit({**vars(promotion), "warnings": warnings}, as_json=as_json, shown=shown)


def run_unpublish(
    env: Environment, job: str, day: str, approved_by: str | None, reason: str, *, as_json: bool
) -> None:
    """Take a day's run back and report what readers see now."""
    from pipeline.unpublish import unpublish

    partition = Partition.parse(day)
    done = unpublish(env, job, partition, approved_by=approved_by, reason=reason)
    if not done.parquet:
        err.print("the Parquet file could not follow; the next command mends it", markup=False)
    seen = done.restored_run_id or "no rows: no earlier run was published"
    shown = f"{job} {partition}: run {done.run_id} is withdrawn; readers see {seen}"
    emit({"job": job, "day": partition.key, **vars(done)}, as_json=as_json, shown=shown)
