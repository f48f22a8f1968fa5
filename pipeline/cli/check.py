"""`nightshift check`: everything that can be told before a night runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.console import emit, err, out
from pipeline.declaration import declaration_file, feature_file, job_names, load_job
from pipeline.errors import DeclarationError, Fault, NightshiftError, RegistryError, UsageError, nearest
from pipeline.partition import Partition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.environment import Environment
    from pipeline.job import Job

_CODE_OF_FAULTS = 2
_FEATURES_NAMED = (
    ("retrain", "far_from_training", "seasonal"),
    *(("gate", "behaviour", how) for how in ("rising", "falling", "invariant")),
)
"""Where a declaration names features."""


def run_check(env: Environment, job: str | None, *, leaks: bool, day: str | None, as_json: bool) -> None:
    """All jobs or one; exit code 2 where a declaration, a suite, a feature module or a leak is wrong."""
    if day and not leaks:
        raise UsageError("--day must stand beside --leaks, which probes it; got it alone")
    names = [job] if job else list(job_names(env.project))
    if not names:
        raise UsageError(f"{env.project / 'dags'} must hold a declaration, JOB.yaml; got none")
    results = [_check_job(env, name, leaks=leaks, day=day) for name in names]
    code = max(map(_exit_code, results))
    emit({"ok": code == 0, "jobs": results}, as_json=as_json)
    if not as_json:
        _show(results)
    if code:
        raise typer.Exit(code)


def _exit_code(result: dict[str, Any]) -> int:
    if result["faults"] or result["leaks"]:
        return _CODE_OF_FAULTS
    return int(result["leaks_error"]["exit_code"]) if result["leaks_error"] else 0


def _check_job(env: Environment, name: str, *, leaks: bool, day: str | None) -> dict[str, Any]:
    from pipeline.scoring.feature_code import feature_faults

    faults: list[Fault] = []
    job: Job | None = None
    try:
        job = load_job(env.project, name)
    except DeclarationError as error:
        faults += error.faults
    source = feature_file(env.project, name)
    if source.is_file() and not any(fault.file == source for fault in faults):
        faults += [
            Fault(source, fault.line, fault.message)
            for fault in feature_faults(name, source.read_text(encoding="utf-8"))
        ]
    if job is not None and not faults:
        faults += _unknown_features(env, job)
    sound = job if job is not None and not faults else None
    return {
        "job": name,
        "faults": [str(fault) for fault in sorted(set(faults))],
        "notes": _registry_notes(env, sound) if sound else [],
        **_probed(env, sound if leaks else None, day),
    }


def _probed(env: Environment, job: Job | None, day: str | None) -> dict[str, Any]:
    """What the probe found, or why it could not look: another job's is made all the same."""
    if job is None:
        return {"leaks": [], "leaks_probed": False, "leaks_error": None}
    try:
        return {"leaks": _leaks(env, job, day), "leaks_probed": True, "leaks_error": None}
    except NightshiftError as error:
        told = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        return {"leaks": [], "leaks_probed": False, "leaks_error": told}


def _unknown_features(env: Environment, job: Job) -> Iterator[Fault]:
    """Features that the declaration names and the module does not make."""
    from pipeline.document import read_document
    from pipeline.replay import tree_code

    made, document = (
        sorted(tree_code(env, job).schema),
        read_document(declaration_file(env.project, job.name)),
    )
    for place in _FEATURES_NAMED:
        for name in document.part(*place) or ():
            if name not in made:
                told = f"must name features of features/{job.name}.py; got {name!r}; {nearest(name, made)}"
                yield document.fault(place, told)


def _registry_notes(env: Environment, job: Job) -> list[str]:
    """What champion, tree and MLflow disagree about."""
    from sqlalchemy.exc import DBAPIError

    from pipeline.adapters import versions
    from pipeline.monitor import training_profile
    from pipeline.replay import tree_code
    from pipeline.training import registry_of

    try:
        with env.engine.connect() as connection:
            history = versions.promotion_history(connection, job.name)
            if not history:
                return [f"no version of {job.name} is promoted yet"]
            champion = versions.version(connection, job.name, versions.in_force(connection, job.name).version)
    except (DBAPIError, NightshiftError) as error:
        reason = str(error).splitlines()[0]
        return [f"the champion could not be looked at: {reason}. Run: nightshift migrate"]
    notes = []
    try:
        notes += versions.alias_faults(job.name, champion.version, registry_of(env).alias(job.name))
    except RegistryError as error:
        notes.append(f"MLflow's alias could not be looked at: {error}")
    try:
        training_profile(env, champion)
    except NightshiftError as error:
        notes.append(f"nights of version {champion.version} cannot be compared with its training: {error}")
    tree = tree_code(env, job).version
    if tree != champion.feature_version:
        notes.append(
            f"champion version {champion.version} uses features {champion.feature_version}, "
            f"the tree has {tree}: nights run the champion's own code. "
            "Train and promote a version to adopt the tree's"
        )
    return notes


def _leaks(env: Environment, job: Job, day: str | None) -> list[str]:
    from pipeline.leaks import probe

    partition = Partition.parse(day) if day else _middle(job)
    with err.status(f"{job.name}: probing {partition} for leaks"):
        return [str(leak) for leak in probe(env, job, partition)]


def _middle(job: Job) -> Partition:
    """A day with others before and behind it, whose rows are later knowledge."""
    start, newest = job.declaration.schedule.start, job.newest_partition(datetime.now(UTC)).day
    return Partition(start + max(newest - start, timedelta()) / 2)


def _show(results: list[dict[str, Any]]) -> None:
    for result in results:
        for fault in result["faults"]:
            err.print(fault, markup=False)
        for leak in result["leaks"]:
            err.print(f"{result['job']}: leak: {leak}", markup=False)
        if result["leaks_error"]:
            err.print(
                f"{result['job']}: not probed for leaks: {result['leaks_error']['message']}", markup=False
            )
        for note in result["notes"]:
            out.print(f"{result['job']}: note: {note}", markup=False)
        if not _exit_code(result):
            probed = ", no leak found" if result["leaks_probed"] else ""
            out.print(f"{result['job']}: ok{probed}", markup=False)
