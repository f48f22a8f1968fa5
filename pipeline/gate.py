"""`nightshift gate`: challenger and champion answer the same replayed nights; what came of it is kept."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog
from upath import UPath

from pipeline import probe
from pipeline.adapters import verdict_book, versions
from pipeline.adapters.versions import ModelVersion
from pipeline.compare import Answered, Compared, Contender, compared
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.errors import FatalError, UsageError
from pipeline.job import Job
from pipeline.labels import declared_outcomes
from pipeline.lifecycle.gate import Evidence, Night, Pair, Probe, Verdict, decide, figures
from pipeline.monitoring.decided import matured
from pipeline.partition import Partition, between
from pipeline.reporting import write_verdict
from pipeline.scoring.score import predict

log = structlog.get_logger()


@dataclass(frozen=True)
class Judged:
    """A recorded verdict, the nights it rests on, and where its page is."""

    verdict_no: int
    job: str
    challenger: int
    champion: int
    first: Partition
    last: Partition
    verdict: Verdict
    page: UPath


def judge(
    env: Environment,
    job_name: str,
    challenger: int,
    champion: int | None = None,
    span: tuple[Partition, Partition] | None = None,
    as_of: datetime | None = None,
    on_night: Callable[[Partition], None] = lambda _: None,
) -> Judged:
    """Judge a version against the champion in force at `as_of`, or another one, and record the verdict.

    Both answer all nights, or those of a span, that the challenger was not trained on and whose labels are
    mature at `as_of`, now by default. Without a span the first night stays the same however often it is
    asked, as the bounds need it: a window that moves on begins a new sequence with each night. Raises
    UsageError where asked for what cannot be compared, FatalError where there is no such night, ModelError or
    FeatureError where one of them cannot even be loaded.
    """
    job, now = load_job(env.project, job_name), datetime.now(UTC)
    declared_outcomes(job, "judged by the gate")
    known = as_of or now
    if known > now:
        raise UsageError(f"--as-of must not lie in the future; got {known.isoformat()}")
    pair = _pair(env, job, challenger, champion, known)
    days = _days(job, pair[1], span, known)
    settings = job.declaration.gate
    with env.store.workspace() as folder:
        first, second = (
            Contender.of(each, folder / f"version-{each.version}", env.registry_url) for each in pair
        )
        probe.check_behaviour(second.code, settings.behaviour, challenger)
        made = _replayed(env, job, (first, second), days, known, folder, on_night)
        evidence = _evidence(env, job, made, folder)
    return _recorded(env, job, pair, made, known, evidence)


def _pair(
    env: Environment, job: Job, challenger: int, champion: int | None, as_of: datetime
) -> tuple[ModelVersion, ModelVersion]:
    """The champion, then the challenger."""
    with env.engine.connect() as connection:
        second = versions.version(connection, job.name, challenger)
        number = versions.in_force(connection, job.name, as_of).version if champion is None else champion
        first = versions.version(connection, job.name, number)
    if number == challenger:
        raise UsageError(
            f"a challenger of {job.name} must be another version than the champion; got {challenger} for "
            "both. Name another champion: --champion N"
        )
    return first, second


def _days(
    job: Job, challenger: ModelVersion, span: tuple[Partition, Partition] | None, as_of: datetime
) -> list[Partition]:
    """The days that may be judged, the newest first."""
    seen = Partition(challenger.trained_to)
    first, last = span or (seen.next(), job.newest_partition(as_of))
    if first > last and span is None:
        raise FatalError(_no_night(job, challenger, as_of))
    if first <= seen:
        raise UsageError(
            f"nights to judge version {challenger.version} by must lie after {seen}, as it has seen the "
            f"labels up to that one; got {first} to {last}. Leave --from out, or ask from {seen.next()} on"
        )
    begin = max(first, Partition(job.declaration.schedule.start))
    mature = [day for day in between(begin, last) if matured(job, day) <= as_of]
    if not mature:
        raise FatalError(_no_night(job, challenger, as_of))
    return mature[::-1]


def _no_night(job: Job, challenger: ModelVersion, as_of: datetime) -> str:
    days = declared_outcomes(job, "judged by the gate").mature_after_days
    return (
        f"nights to judge version {challenger.version} of {job.name} by must lie after "
        f"{challenger.trained_to}, the last that it was trained on, and have mature labels, {days} days "
        f"later; got none at {as_of.isoformat()}. Train it without the newest nights, or wait"
    )


@dataclass
class _Replay:
    """What the replayed nights gave so far; `sample` is the newest that both answered."""

    nights: list[Night] = field(default_factory=list)
    failed: list[Probe] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    sample: Compared | None = None

    def add(self, one: Compared) -> None:
        """Take in a night, older than those before."""
        if one.night is not None:
            self.nights.insert(0, one.night)
            self.sample = self.sample or one
        elif one.challenger_failed:
            told = f"scores of {one.partition}"
            self.failed.append(Probe("robustness", told, one.challenger_failed, one.challenger_failed))
        if one.left_out:
            self.left_out[one.partition.key] = one.left_out


def _replayed(
    env: Environment,
    job: Job,
    contenders: tuple[Contender, Contender],
    days: Sequence[Partition],
    as_of: datetime,
    folder: Path,
    on_night: Callable[[Partition], None],
) -> _Replay:
    """The days, the newest first; only the sample's files stay in `folder`."""
    made = _Replay()
    for one in compared(env, job, contenders, days, as_of, folder):
        made.add(one)
        if one is not made.sample:
            shutil.rmtree(folder / one.partition.key)
        on_night(one.partition)
    if not made.nights and not made.failed:
        reasons = sorted(set(made.left_out.values()))
        raise FatalError(
            f"nights to judge {job.name} by must be such as would have been published, with labels; got none "
            f"of {len(days)}: {'; '.join(reasons[:3])}"
        )
    return made


def _evidence(env: Environment, job: Job, made: _Replay, folder: Path) -> Evidence:
    output, costs = job.declaration.model.output, declared_outcomes(job, "judged by the gate").costs
    loss = {"probability": "log loss", "value": "squared error"}[output]
    tests, cpu_seconds, memory_mb = made.failed, Pair(0.0, 0.0), Pair(0.0, 0.0)
    if made.sample is not None and made.sample.answers is not None:
        answers = made.sample.answers
        tests = [*tests, *_tests(env, job, made.sample.partition, answers[1], folder)]
        cpu_seconds = probe.cpu_seconds(answers, output)
        memory_mb = probe.memory_mb(answers, output, folder)
    return Evidence(
        loss=f"cost in {costs.currency} per 1,000 rows" if costs else loss,
        output=output,
        nights=made.nights,
        tests=tests,
        cpu_seconds=cpu_seconds,
        memory_mb=memory_mb,
    )


def _tests(
    env: Environment, job: Job, partition: Partition, challenger: Answered, folder: Path
) -> Iterator[Probe]:
    contender, frame = challenger.contender, challenger.features
    score = partial(predict, contender.model, output=job.declaration.model.output)
    yield from probe.behaviour_tests(score, frame, job.declaration.gate.behaviour)
    yield from probe.robustness_tests(score, contender.code, frame)
    yield from probe.golden_tests(env, job, partition, challenger, folder / "golden")


def _recorded(
    env: Environment,
    job: Job,
    pair: tuple[ModelVersion, ModelVersion],
    made: _Replay,
    as_of: datetime,
    evidence: Evidence,
) -> Judged:
    champion, challenger = pair
    settings = job.declaration.gate
    verdict = decide(evidence, settings)
    days = sorted([*(one.day.isoformat() for one in made.nights), *made.left_out])
    first, last = Partition.parse(days[0]), Partition.parse(days[-1])
    known = {
        "left_out": made.left_out,
        "champion_has_seen": sum(one.day <= champion.trained_to for one in made.nights),
        "champion_trained_to": champion.trained_to.isoformat(),
        "challenger_trained_to": challenger.trained_to.isoformat(),
    }
    with env.engine.begin() as connection:
        number = verdict_book.append(
            connection,
            challenger,
            champion,
            verdict,
            span=(first.day, last.day),
            nights=len(made.nights),
            labels_as_of=as_of,
            figures=figures(evidence, settings) | known,
            settings=settings.model_dump(mode="json"),
            actor=getpass.getuser(),
        )
    log.info(
        "judged", job=job.name, challenger=challenger.version, outcome=verdict.outcome, verdict_no=number
    )
    page = write_verdict(env, job.name, number)
    return Judged(number, job.name, challenger.version, champion.version, first, last, verdict, page)
