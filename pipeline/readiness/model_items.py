"""Items of the model: fitted twice, saved, compared with its baseline, its gate and its own past."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import outcomes
from pipeline.adapters import models, rollouts, verdict_book, versions
from pipeline.adapters.outcomes import realised
from pipeline.lifecycle.fit import Candidate, TrainingRows, fit
from pipeline.lifecycle.gate import Reason
from pipeline.partition import EVER
from pipeline.readiness.recent import recent_rows
from pipeline.readiness.rubric import Answer, failed, judged, not_applicable, passed
from pipeline.readiness.subject import Subject
from pipeline.replay import tree_code
from pipeline.scoring.score import predict

_LEAST_NIGHTS = 7
"""Judged nights without which nothing is said of quality."""
_LEAST_PROMISED = 2
"""Held-out nights without which nobody knows how far nights lie apart."""
_STALE_NIGHTS = 56
"""Judged nights without which nobody can tell what staleness costs."""
_LOSS = {"probability": "log_loss", "value": "rmse"}
_BETTER = {"probability": "auc", "value": "rmse"}


@dataclass(frozen=True)
class Fits:
    """The same rows fitted twice."""

    rows: TrainingRows
    first: Candidate
    second: Candidate


def reproducible(subject: Subject) -> Answer:
    """infra-1: the same replayed nights and seed, fitted twice."""
    fits = _fits(subject)
    if isinstance(fits, Answer):
        return fits
    output = subject.job.declaration.model.output
    one, other = (predict(each.model, fits.rows.features, output) for each in (fits.first, fits.second))
    differ = int((one != other).sum())
    return judged(
        differ == 0,
        f"two fits on {fits.first.nights} nights, {fits.first.rows} rows, seed {fits.first.seed}: {differ} "
        "predictions differ",
        "give every step of make_model() a random_state, and sort what it reads from sets",
    )


def fits_and_loads(subject: Subject) -> Answer:
    """infra-2: model and baseline, fitted, through the file that a night loads."""
    fits = _fits(subject)
    if isinstance(fits, Answer):
        return fits
    output, differ = subject.job.declaration.model.output, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model", "baseline"):
            estimator = getattr(fits.first, name)
            path, sha256 = models.save(estimator, Path(folder), name)
            loaded = models.load(path, sha256, models.sklearn_version())
            features = fits.rows.features
            differ += int((predict(estimator, features, output) != predict(loaded, features, output)).sum())
    return judged(
        differ == 0,
        f"model and baseline fitted on {fits.first.rows} rows, saved and loaded: {differ} predictions differ",
        "use estimators of scikit-learn that skops keeps whole",
    )


@cache
def _fits(subject: Subject) -> Fits | Answer:
    rows = recent_rows(subject)
    if isinstance(rows, Answer):
        return rows
    code, declared = tree_code(subject.env, subject.job), subject.job.declaration
    one, other = (fit(code, rows, declared.train, declared.model.output) for _ in range(2))
    return Fits(rows, one, other)


def baseline(subject: Subject) -> Answer:
    """model-5: the hold-out of the version's own training."""
    output, held = subject.job.declaration.model.output, subject.version.metrics["holdout"]
    metric = _BETTER[output]
    model, simple = held["model"][metric], held["baseline"][metric]
    return judged(
        model > simple if output == "probability" else model < simple,
        f"{metric} of the model {model:.4f}, of the baseline {simple:.4f}, on {held['nights']} held-out "
        f"nights, {held['rows']} rows",
        "publish the baseline as the model: it is cheaper to understand and to run",
    )


def approved(subject: Subject) -> Answer:
    """model-1: who promoted the version, and which file."""
    with subject.env.engine.connect() as connection:
        history = versions.promotion_history(connection, subject.job.name)
    own = [row for row in history if row.version == subject.version.version]
    fix = f"nightshift promote {subject.job.name} {subject.version.version} --approved-by WHO --reason …"
    if not own:
        return failed(f"version {subject.version.version} was never promoted", fix)
    row = own[-1]
    return judged(
        row.model_sha256 == subject.version.model_sha256
        and row.approved_by in subject.job.declaration.owners.approvers,
        f"version {row.version}, sha256 {row.model_sha256[:12]}…, approved by {row.approved_by} at "
        f"{row.recorded_at:%Y-%m-%d %H:%M} UTC",
        fix,
    )


def foretold(subject: Subject) -> Answer:
    """model-2: the metric promised by the hold-out, and what became true."""
    output = subject.job.declaration.model.output
    metric, nights = _BETTER[output], _judged_nights(subject)
    held = subject.version.metrics["holdout"]
    promised = np.array([row[metric] for row in held.get("by_night", {}).values() if metric in row])
    became = np.array([row["metrics"][metric] for row in nights if metric in row["metrics"]])
    if len(became) < _LEAST_NIGHTS or len(promised) < _LEAST_PROMISED:
        return not_applicable(
            f"version {subject.version.version} has {metric} of {len(became)} judged and {len(promised)} "
            f"held-out nights; {_LEAST_NIGHTS} and {_LEAST_PROMISED} are needed"
        )
    spread = float(promised.std(ddof=1))
    gap = float(became.mean() - promised.mean())
    return judged(
        abs(gap) <= 2 * spread,
        f"{metric} {promised.mean():.4f} on {len(promised)} held-out nights, {became.mean():.4f} on "
        f"{len(became)} judged ones; nights spread by {spread:.4f}",
        "train on more recent nights, or hold out more of them",
    )


def staleness(subject: Subject) -> Answer:
    """model-4: how the loss grew with the age of the version."""
    metric, nights = _LOSS[subject.job.declaration.model.output], _judged_nights(subject)
    nights = [row for row in nights if metric in row["metrics"]]  # a night without labels has none
    if len(nights) < _STALE_NIGHTS:
        return not_applicable(
            f"{len(nights)} nights of version {subject.version.version} are judged with labels; "
            f"{_STALE_NIGHTS} are needed"
        )
    age = np.array([(row["day"] - subject.version.trained_to).days for row in nights], dtype=np.float64)
    loss = np.array([row["metrics"][metric] for row in nights])
    slope = float(np.polyfit(age, loss, 1)[0])
    return passed(
        f"{metric} changed by {28 * slope:+.4f} in four weeks of age, over {len(nights)} judged nights"
    )


def _judged_nights(subject: Subject) -> list[dict[str, Any]]:
    with subject.env.engine.connect() as connection:
        rows = realised(connection, subject.job.name, *EVER)
    return [row for row in rows if row["model_version"] == subject.version.version]


def slices(subject: Subject) -> Answer:
    """model-6: what the gate measured on each declared slice."""
    declared = subject.job.declaration.outcomes
    if declared is None or not declared.slices:
        return not_applicable("no outcomes.slices are declared")
    return _gate(subject, "slices")


def gated(subject: Subject) -> Answer:
    """infra-4: the gate's verdict on the version."""
    return _gate(subject, None)


def regression(subject: Subject) -> Answer:
    """regression: the gate's comparison with the champion before, night by night."""
    return _gate(subject, "quality")


def _gate(subject: Subject, check: str | None) -> Answer:
    number = subject.version.judged_as
    with subject.env.engine.connect() as connection:
        verdict = verdict_book.newest(connection, subject.job.name, number)
        history = versions.promotion_history(connection, subject.job.name)
    if verdict is None:
        if not list(takewhile(lambda row: row.version != subject.version.version, history)):
            return not_applicable(f"version {number} is the first: there is no champion to compare it with")
        return failed(f"version {number} was never judged", f"nightshift gate {subject.job.name} {number}")
    told = f"verdict {verdict.verdict_no} against version {verdict.champion}, {verdict.nights} nights: "
    if check is None:
        return judged(verdict.outcome == "accept", told + verdict.outcome, _gate_fix(subject))
    reasons: list[Reason] = [reason for reason in verdict.reasons if reason.check == check]
    if not reasons:
        return not_applicable(f"{told}{check} was not among its checks")
    worst = next((each for each in reasons if each.outcome != "accept"), reasons[0])
    return judged(worst.outcome == "accept", told + worst.evidence, _gate_fix(subject))


def _gate_fix(subject: Subject) -> str:
    return f"train on other nights and judge again: nightshift gate {subject.job.name} VERSION"


def tried_live(subject: Subject) -> Answer:
    """infra-6: a shadow, canary or A/B rollout of the version."""
    number = subject.version.version
    with subject.env.engine.connect() as connection:
        history = rollouts.history(connection, subject.job.name)
        tried = [row for row in history if row.version in (number, subject.version.judged_as)]
        first = versions.promotion_history(connection, subject.job.name)[:1]
    if first and first[0].version == number and not tried:
        return not_applicable(f"version {number} is the first: there was no champion beside it")
    fix = f"nightshift rollout {subject.job.name} shadow --version {number}"
    if not tried:
        return failed(f"version {number} served all rows at once", fix)
    return passed(f"{tried[-1].kind} of version {tried[-1].version} from {tried[-1].effective_from:%Y-%m-%d}")


def keeps_its_promise(subject: Subject) -> Answer:
    """monitor-7: concept drift that stands on the newest judged night."""
    nights = _judged_nights(subject)
    if not nights:
        return not_applicable(f"no night of version {subject.version.version} is judged yet")
    newest = max(row["day"] for row in nights)
    standing = [each for each in outcomes.concept_drift(subject.env, subject.job.name) if each.day == newest]
    return judged(
        not standing,
        "; ".join(each.evidence for each in standing)
        or f"{len(nights)} judged nights up to {newest}, none of their charts is raised",
        f"train again: nightshift train {subject.job.name} --from … --to …",
    )
