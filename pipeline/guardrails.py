"""What the arms of a rollout did: kept by night, compared over nights, stopped by a guardrail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import structlog

from pipeline.adapters import rollouts, versions
from pipeline.adapters.loading import shadow_rows
from pipeline.alerting import alert_findings
from pipeline.answers import predictions_of, slices_of
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.frames import key_index
from pipeline.job import Job
from pipeline.lifecycle import arms
from pipeline.lifecycle.arms import Answered, Comparison, JudgedNight
from pipeline.lifecycle.rollout import BUCKETS, SHARED, Rollout, series, timeline
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.quality import ALL, BUCKET, comparison_metric, grouped
from pipeline.run import Run

log = structlog.get_logger()

GUARD = "nightshift"
"""The actor of a stop that a guardrail made."""
_ARMS = ("champion", "challenger")


def watch(env: Environment, run: Run) -> None:
    """Keep how the arms of a published run answered, and stop a rollout that no label need condemn."""
    with env.engine.connect() as connection:
        beside = rollouts.challenger(connection, run)
    if beside is None:
        return
    job = load_job(env.project, run.job)
    with env.store.workspace() as folder:
        rows = predictions_of(env, run, folder)
        made = (
            list(_shadowed(env, job, run, rows, folder))
            if beside.rollout.kind == "shadow"
            else [_answered(rows)]
        )
    with env.engine.begin() as connection:
        rollouts.replace_night(connection, run, made)
    if beside.rollout.kind in SHARED:
        faults = arms.night_faults(_as_answered(made[0]), job.declaration.rollout)
        if faults:
            _stop(env, job, beside.rollout, run.partition.day, f"On {run.partition}, {'; '.join(faults)}.")


def _answered(rows: pa.Table) -> dict[str, Any]:
    """What the arms of a canary or an A/B test answered."""
    frame = rows.select(["arm", "score_source", "score", "decision"]).to_pandas()
    of_arm = {arm: frame[frame["arm"] == arm] for arm in _ARMS}
    return _figures(
        assigned={arm: len(held) for arm, held in of_arm.items()},
        answered={arm: held[held["score_source"] == arm] for arm, held in of_arm.items()},
        # Where the champion failed too, a fallback answered everybody: no fault of the challenger.
        failed=int((of_arm["challenger"]["score_source"] == "champion").sum()),
    ) | {"slice_column": ALL, "slice_value": ALL, "changed": None}


def _shadowed(env: Environment, job: Job, run: Run, rows: pa.Table, folder: Path) -> Iterator[dict[str, Any]]:
    """What a shadow would have answered, over all rows that both scored and by each declared slice.

    Rows of the champion's that it did not answer are its failed ones, of all rows together.
    """
    key, outcomes = job.declaration.extract.key, job.declaration.outcomes
    said = shadow_rows(env.warehouse_url, run, key)
    position = key_index(said, key).get_indexer(key_index(rows, key))
    by_champion = rows.column("score_source").to_numpy(zero_copy_only=False) == "champion"
    both = by_champion & (position >= 0)
    failed = {ALL: int((by_champion & (position < 0)).sum())}
    shown = rows.filter(pa.array(both))
    pair = {
        "champion": shown.select(["score", "decision"]).to_pandas(),
        "challenger": said.select(["score", "decision"]).take(pa.array(position[both])).to_pandas(),
    }
    decides = job.declaration.model.threshold is not None
    changed = (pair["champion"]["decision"] != pair["challenger"]["decision"]).to_numpy()
    cut = slices_of(env, job, run, shown, outcomes.slices if outcomes else (), folder)
    for column, values in {ALL: np.full(len(changed), ALL, dtype=object), **cut}.items():
        named = values if column == ALL else grouped(values)
        for value in [ALL] if column == ALL else sorted(set(named)):
            chosen = named == value
            held = {arm: frame[chosen] for arm, frame in pair.items()}
            counts = dict.fromkeys(_ARMS, int(chosen.sum()))
            yield _figures(assigned=counts, answered=held, failed=failed.get(column, 0)) | {
                "slice_column": column,
                "slice_value": str(value),
                "changed": int(changed[chosen].sum()) if decides else None,
            }


def _figures(
    assigned: Mapping[str, int], answered: Mapping[str, pd.DataFrame], failed: int
) -> dict[str, Any]:
    made: dict[str, Any] = {"failed_rows": failed}
    for arm, frame in answered.items():
        made |= {
            f"{arm}_assigned": assigned[arm],
            f"{arm}_rows": len(frame),
            f"{arm}_decisions": int(frame["decision"].eq(True).sum()),
            f"{arm}_mean": float(frame["score"].mean()) if len(frame) else None,
            f"{arm}_std": float(frame["score"].std()) if len(frame) > 1 else None,
        }
    return made


def _as_answered(row: Mapping[str, Any]) -> Answered:
    return Answered(**{field.name: row[field.name] for field in fields(Answered)})


@dataclass(frozen=True)
class Night:
    """One night of a rollout as its comparison shows it; what is not known or does not apply is None."""

    day: date
    run_id: str
    kind: str
    share: float | None
    answered: Answered
    changed: int | None
    sample_ratio_p: float | None
    faults: tuple[str, ...]
    """What a guardrail has against the challenger on this night, before any label."""
    champion: float | None
    challenger: float | None
    """What each arm cost by `Standing.metric`, once its labels are there."""


@dataclass(frozen=True)
class Standing:
    """How a rollout stands: the newest of a job, whether it runs or has ended."""

    rollout: Rollout
    running: bool
    ended: str | None
    """Why it ended; None while it runs, and where a change of the champion ended it."""
    metric: str
    nights: tuple[Night, ...]
    comparison: Comparison | None
    """None without outcomes, and of a shadow."""
    decides: bool = True
    """Whether the job decides at a threshold; else nobody's decisions are shown."""
    begins: datetime | None = None
    """When it begins; None where it has begun, or ended before."""


def standing(env: Environment, job_name: str) -> Standing | None:
    """How the newest rollout of a job stands, from the runs that readers see; None where there was none."""
    job = load_job(env.project, job_name)
    with env.engine.connect() as connection:
        history = rollouts.history(connection, job.name)
        running = rollouts.running(connection, job.name)
        now = versions.now(connection)
        newest = running or _last(history, now)
        if newest is None:
            return None
        rows = {row.rollout_no: row for row in series(history, newest)}
        answered = rollouts.nights(connection, job.name, list(rows))
        outcomes = job.declaration.outcomes
        metric = comparison_metric(job.declaration.model.output, outcomes.costs if outcomes else None)
        judged = rollouts.judged_arms(connection, [row["run_no"] for row in answered], metric)
    of_run: dict[int, list[dict[str, Any]]] = {}
    for one in judged:
        of_run.setdefault(one["run_no"], []).append(one)
    compared = {row["run_no"]: _judged_night(row, of_run.get(row["run_no"], [])) for row in answered}
    nights = tuple(_night(job, row, rows[row["rollout_no"]], compared[row["run_no"]]) for row in answered)
    ended = next((row.reason for row in history if row.stops in rows), None)
    return Standing(
        rollout=newest,
        running=running is not None,
        ended=ended,
        decides=job.declaration.model.threshold is not None,
        begins=newest.effective_from if ended is None and newest.effective_from > now else None,
        metric=metric,
        nights=nights,
        comparison=_comparison(job, newest, nights, compared) if outcomes else None,
    )


def _last(history: Sequence[Rollout], now: datetime) -> Rollout | None:
    """What ran last; where nothing ever did, what is the first to begin."""
    started = [row for row in timeline(history) if row.version is not None]
    begun = [row for row in started if row.effective_from <= now]
    return next(iter([*reversed(begun), *started]), None)


def _night(job: Job, row: Mapping[str, Any], rollout: Rollout, judged: JudgedNight | None) -> Night:
    answered = _as_answered(row)
    has_arms = rollout.kind in SHARED
    return Night(
        day=row["day"],
        run_id=row["run_id"],
        kind=rollout.kind,
        share=rollout.share,
        answered=answered,
        changed=row["changed"],
        sample_ratio_p=arms.sample_ratio_p(answered, rollout.share) if rollout.share else None,
        faults=tuple(arms.night_faults(answered, job.declaration.rollout)) if has_arms else (),
        champion=judged.champion if judged else None,
        challenger=judged.challenger if judged else None,
    )


def _judged_night(row: Mapping[str, Any], judged: Sequence[Mapping[str, Any]]) -> JudgedNight | None:
    """What the arms of a night cost; None without labels in both, or where each did not answer its own."""
    own = row["champion_rows"] and row["challenger_rows"] and not row["failed_rows"]
    whole = {one["arm"]: one["value"] for one in judged if one["slice_column"] == ALL}
    if not own or set(whole) != set(_ARMS):
        return None
    sums, counts = np.zeros((2, BUCKETS)), np.zeros((2, BUCKETS))
    for one in judged:
        if one["slice_column"] == BUCKET:
            place = _ARMS.index(one["arm"]), int(one["slice_value"])
            sums[place], counts[place] = one["value"] * one["labelled"], one["labelled"]
    return JudgedNight(row["day"], whole["champion"], whole["challenger"], sums, counts)


def _comparison(
    job: Job, newest: Rollout, nights: Sequence[Night], compared: Mapping[int, JudgedNight | None]
) -> Comparison | None:
    if newest.kind not in SHARED:
        return None
    judged = [night for night in compared.values() if night is not None]
    holds = all(
        night.sample_ratio_p is None or night.sample_ratio_p >= arms.SAMPLE_RATIO_P for night in nights
    )
    return arms.compare(judged, job.declaration.rollout, ratio_holds=holds)


def judge(env: Environment, job_name: str) -> Standing | None:
    """Stop a canary whose outcomes are surely worse than the champion's; how the rollout stands."""
    found = standing(env, job_name)
    if found is None or found.comparison is None or not found.nights:
        return found
    compared = found.comparison
    if found.rollout.kind == "canary" and compared.stops:
        job, last = load_job(env.project, job_name), found.nights[-1].day
        evidence = (
            f"Over {compared.nights} nights, {found.metric} of the challenger was {compared.challenger:.4g}, "
            f"of the champion {compared.champion:.4g}; the difference lies between {compared.lower:.4g} and "
            f"{compared.upper:.4g}, looking every night."
        )
        _stop(env, job, found.rollout, last, evidence)
    return found


def _stop(env: Environment, job: Job, judged: Rollout, day: date, evidence: str) -> None:
    """End a rollout that still answers readers, and tell its owner: the champion answers alone from then on.

    Tried again after a crash in between, the stop stands and its owner is told.
    """
    with env.engine.begin() as connection:
        versions.lock(connection, job.name)
        running = rollouts.running(connection, job.name)
        history = {row.rollout_no: row for row in rollouts.history(connection, job.name)}
        made = [row for row in history.values() if row.actor == GUARD and row.reason == evidence]
        if running and running.salt == judged.salt and running.kind in SHARED:
            at = versions.now(connection)
            made = [rollouts.stop(connection, running, effective_from=at, actor=GUARD, reason=evidence)]
            log.warning("rollout stopped", job=job.name, rollout_no=running.rollout_no)
    stopped = next((history[row.stops] for row in made if row.stops), None)
    if stopped is None:
        return
    finding = Finding(
        job=job.name,
        day=day,
        kind="rollout",
        cause=f"{stopped.kind} of version {stopped.version} stopped, rollout {stopped.rollout_no}",
        evidence=f"{evidence} The champion answers alone from the next night on.",
        todo=f"Look at both with `nightshift rollout {job.name} status`.",
    )
    alert_findings(env, job.name, day, [finding], "scheduled", kinds=("rollout",))
