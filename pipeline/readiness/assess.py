"""Every item of the rubric asked of one version of a job, with evidence from running it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from pipeline.adapters import ledger, versions
from pipeline.declaration import declaration_file, feature_file, load_job, suite_file
from pipeline.environment import Environment
from pipeline.errors import NightshiftError, UsageError
from pipeline.job import Job
from pipeline.partition import EVER, Partition
from pipeline.readiness import feature_items, model_items, nights, operation_items
from pipeline.readiness.rubric import RUBRIC, Answer, Assessed, Item, failed
from pipeline.readiness.scratch import scratch
from pipeline.readiness.subject import Chosen, Subject

log = structlog.get_logger()

CHECKS: Mapping[str, nights.Check] = {
    "data-1": feature_items.expectations,
    "data-2": feature_items.beneficial,
    "data-3": feature_items.dear_inputs,
    "data-4": feature_items.as_of,
    "data-5": nights.privacy,
    "data-6": operation_items.by_hand,
    "data-7": feature_items.row_wise,
    "model-1": model_items.approved,
    "model-2": model_items.foretold,
    "model-3": operation_items.by_hand,
    "model-4": model_items.staleness,
    "model-5": model_items.baseline,
    "model-6": model_items.slices,
    "model-7": operation_items.by_hand,
    "infra-1": model_items.reproducible,
    "infra-2": model_items.fits_and_loads,
    "infra-3": nights.whole_night,
    "infra-4": model_items.gated,
    "infra-5": feature_items.alone,
    "infra-6": model_items.tried_live,
    "infra-7": nights.rollback,
    "monitor-1": nights.changed_dependency,
    "monitor-2": nights.robustness,
    "monitor-3": feature_items.skew,
    "monitor-4": operation_items.fresh,
    "monitor-5": feature_items.stable,
    "monitor-6": operation_items.no_slower,
    "monitor-7": model_items.keeps_its_promise,
    "load": nights.load,
    "latency": nights.latency,
    "regression": model_items.regression,
    "fallback": nights.fallback,
    "owner": operation_items.owned,
    "alert-channel": operation_items.notice,
    "output-contract": nights.output_contract,
}

_WITHOUT_ROW_COUNT = ("load",)
"""Items that send more rows than the suite lets pass."""


def choose(env: Environment, job_name: str, day: Partition | None, number: int | None) -> Chosen:
    """A version, the champion by default, and a day, the newest published one by default.

    Raises UsageError, DeclarationError or RegistryError where there is nothing to assess.
    """
    job = load_job(env.project, job_name)
    with env.engine.connect() as connection:
        wanted = versions.in_force(connection, job_name).version if number is None else number
        version = versions.version(connection, job_name, wanted)
        newest = ledger.visible_before(connection, job_name, EVER[1], 1)
    if day is None and not newest:
        raise UsageError(f"a day of {job_name} must be published to assess it, or be named: --day YYYY-MM-DD")
    return Chosen(job, version, day or Partition(newest[0]["day"]))


def assess(
    env: Environment, chosen: Chosen, on_item: Callable[[Assessed], None] = lambda _: None
) -> list[Assessed]:
    """Ask every item of the rubric.

    Nights run in a scratch target; nothing of the job's own warehouse or store is changed.
    """
    job, version = chosen.job, chosen.version
    assessed = []
    with TemporaryDirectory() as folder, scratch(env, job, version) as made:
        subject = Subject(env, chosen, made)
        for item in RUBRIC:
            if item.id in _WITHOUT_ROW_COUNT:
                project = _without_row_count(env, job, Path(folder))
                with scratch(env, job, version, project) as roomy:
                    answer = _answer(item, Subject(env, chosen, roomy))
            else:
                answer = _answer(item, subject)
            assessed.append(Assessed(item, answer))
            on_item(assessed[-1])
    return assessed


def _answer(item: Item, subject: Subject) -> Answer:
    try:
        return CHECKS[item.id](subject)
    except NightshiftError as error:
        log.info("item failed", item=item.id, error=type(error).__name__)
        return failed(f"{type(error).__name__}: {error}", "mend what the error names, then assess again")


def _without_row_count(env: Environment, job: Job, folder: Path) -> Path:
    """A copy of the job's three files whose suite does not judge how many rows there are."""
    for file in (declaration_file, feature_file, suite_file):
        source = file(env.project, job.name)
        target = file(folder, job.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    suite = suite_file(folder, job.name)
    declared = json.loads(suite.read_text(encoding="utf-8"))
    for rule in declared["expectations"]:
        if rule["type"].startswith("expect_table_row_count"):
            rule["type"], rule["kwargs"] = "expect_table_row_count_to_be_between", {"min_value": 1}
    suite.write_text(json.dumps(declared), encoding="utf-8")
    return folder


def is_ready(assessed: list[Assessed]) -> bool:
    """Whether no required item failed."""
    return not any(each.item.required and each.answer.status == "fail" for each in assessed)
