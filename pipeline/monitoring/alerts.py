"""What an owner is told of a failed or a late night and of a change: values in, a notice out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from pipeline import errors
from pipeline.errors import NightshiftError
from pipeline.monitoring.findings import Finding, FindingKind
from pipeline.partition import Partition
from pipeline.run import Status

Kind = Literal["failed", "late"] | FindingKind
Visible = Mapping[str, Any] | Literal["unknown"] | None
"""The runs row that readers see, with its `published_at`; "unknown" where nobody could be asked."""

LATE = "publish_by"
"""The one cause of a late day."""

NIGHTS: tuple[Kind, ...] = ("failed", "late")
"""Kinds that end once their day is published; the others last while their change is seen."""

_LONGEST = 1000  # characters of an error's message: chat services take about 2,000 in all
_SHORT = 100  # characters of a cause or of an error's name
_UNKNOWN_ERROR = "The process ended by a fault of no known kind: look at the task log, then {again}."
_TODO: Mapping[type[NightshiftError], str] = {
    errors.DeclarationError: "Mend the files named above, `nightshift check {job}`, then {again}.",
    errors.ExtractError: "Repair the source or the suite, then {again}.",
    errors.ValidationError: "Repair the source or the suite, then {again}.",
    errors.FeatureError: "Mend features/{job}.py and train, or `nightshift rollback {job}`, then {again}.",
    errors.ModelError: "`nightshift rollback {job}` returns to the champion before; then {again}.",
    errors.RegistryError: "Give the job a champion: `nightshift promote {job} VERSION`, then {again}.",
    errors.SealError: "Tell the pipeline's engineers, who find the run's files kept; then {again}.",
    errors.TransientError: "Check that the database answers, then {again}.",
    NightshiftError: "Do what the message says, then {again}.",
}
_LATE_TODO: Mapping[Status | None, str] = {
    None: "No run was planned: check that the scheduler works and that the job is not paused, then {again}.",
    "running": "A run is at work or was cut off: look at its task log, and if it is dead, {again}.",
    "failed": "The newest run failed: do what its own alert says, then {again}.",
    "superseded": "The newest run was overtaken by a newer publish, since taken back: {again}.",
    "published": "The day was published and taken back: {again} once it may be read again.",
    "withdrawn": "The day was published and taken back: {again} once it may be read again.",
}


@dataclass(frozen=True)
class Subject:
    """The job that an alert is of, and who answers for it."""

    job: str
    team: str
    on_call: str


@dataclass(frozen=True)
class Notice:
    """One alert as its owner reads it."""

    job: str
    day: date | None
    kind: Kind
    cause: str
    team: str
    on_call: str
    failed: str
    meanwhile: str
    todo: str

    @property
    def title(self) -> str:
        """One line: which job and day, what kind, which cause."""
        return title(self.job, self.day, self.kind, self.cause)

    @property
    def owner(self) -> str:
        """Team and on-call address."""
        return f"{self.team}, {self.on_call}"

    @property
    def text(self) -> str:
        """The whole notice, a paragraph a question."""
        return "\n\n".join(
            (
                f"What {'failed' if self.kind in NIGHTS else 'changed'}: {self.failed}",
                f"What readers see meanwhile: {self.meanwhile}",
                f"What to do: {self.todo}",
                f"Owner: {self.owner}",
            )
        )


def title(job: str, day: date | None, kind: str, cause: str) -> str:
    """The line above a notice."""
    return f"{job} {day} {kind}: {cause}" if day else f"{job} {kind}: {cause}"


def failure_notice(
    subject: Subject,
    partition: Partition | None,
    cause: str,
    error_type: str,
    error_message: str,
    visible: Visible,
) -> Notice:
    """What is told of a night that failed at `cause`; without a partition, of the job itself.

    Only the messages of our own errors are quoted, bounded: another error's may hold rows.
    """
    kind = _kind(error_type)
    told = (
        _bounded(error_message, _LONGEST) if kind else "its message may hold rows and stands in the task log"
    )
    todo = next(_TODO[base] for base in kind.__mro__ if base in _TODO) if kind else _UNKNOWN_ERROR
    return Notice(
        job=subject.job,
        day=partition.day if partition else None,
        kind="failed",
        cause=_bounded(cause, _SHORT),
        team=subject.team,
        on_call=subject.on_call,
        failed=f"{_bounded(cause, _SHORT)}, {_bounded(error_type, _SHORT)}: {told}",
        meanwhile=_meanwhile(partition, visible),
        todo=todo.format(job=subject.job, again=_again(subject.job, partition)),
    )


def late_notice(
    subject: Subject, partition: Partition, due: datetime, now: datetime, last_status: Status | None
) -> Notice:
    """What is told of a day that nobody can read although it was `due`; `last_status` of its newest run."""
    return Notice(
        job=subject.job,
        day=partition.day,
        kind="late",
        cause=LATE,
        team=subject.team,
        on_call=subject.on_call,
        failed=f"the day must be published by {_shown(due)}; it is {_shown(now)} and it is not",
        meanwhile=_meanwhile(partition, None),
        todo=_LATE_TODO[last_status].format(again=_again(subject.job, partition)),
    )


def finding_notice(subject: Subject, finding: Finding, visible: Visible) -> Notice:
    """What is told of a change of data or quality; the day is the first of its episode."""
    return Notice(
        job=subject.job,
        day=finding.since or finding.day,
        kind=finding.kind,
        cause=_bounded(finding.cause, _SHORT),
        team=subject.team,
        on_call=subject.on_call,
        failed=_bounded(finding.evidence, _LONGEST),
        meanwhile=_meanwhile(Partition(finding.day), visible),
        todo=f"{finding.todo} `nightshift alerts {subject.job}` takes it on (--acknowledge) or ends it.",
    )


def _kind(error_type: str) -> type[NightshiftError] | None:
    found = getattr(errors, error_type, None)
    return found if isinstance(found, type) and issubclass(found, NightshiftError) else None


def _meanwhile(partition: Partition | None, visible: Visible) -> str:
    if partition is None:
        return "every day that was published before"
    if visible is None:
        return f"nothing for this day, {partition}"
    if isinstance(visible, str):
        return "what was published before; the warehouse could not be asked"
    return f"run {visible['run_id']}, published {_shown(visible['published_at'])}"


def _again(job: str, partition: Partition | None) -> str:
    if partition is None:
        return "run it again"
    return f"clear the run in Airflow or run `nightshift score {job} --day {partition}`"


def _shown(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _bounded(text: str, longest: int) -> str:
    # Neither a database's text nor a channel takes zero bytes and halves of characters.
    clean = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"
