"""Alerts of failed and late nights and of changes: recorded first, each once, then sent to the job's channel.

What is not delivered stays on record with its reason. Backfills and training never page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import structlog
from pydantic import SecretStr

from pipeline.adapters import alerts, channels, episodes, ledger
from pipeline.declaration import declaration_file, load_job
from pipeline.document import read_document
from pipeline.environment import Environment
from pipeline.errors import ChannelError, NightshiftError, TransientError, UsageError, nearest
from pipeline.monitoring.alerts import Notice, Subject, Visible, failure_notice, finding_notice, late_notice
from pipeline.monitoring.findings import Finding, FindingKind
from pipeline.partition import Partition
from pipeline.run import Trigger
from pipeline.settings import Settings

log = structlog.get_logger()

SILENT: tuple[Trigger, ...] = ("backfill", "train")
"""Triggers that never page."""

_RETRIED = timedelta(hours=24)

QUIET_NIGHTS = 3
"""An episode ends by itself after so many published nights that do not show its cause."""


def alert_failed(
    env: Environment,
    job_name: str,
    partition: Partition | None,
    cause: str,
    trigger: Trigger,
    error_type: str,
    error_message: str,
    run_id: str | None = None,
) -> bool:
    """Tell the owner that a night failed at `cause`; whether that is an alert which was not raised before.

    Works where the declaration is broken. Where the alert cannot be recorded, it is sent all the same and
    the error raised.
    """
    if trigger in SILENT:
        return False
    declared, channel = _declared(env.project, job_name)
    subject, visible = _known(env, job_name, partition)
    notice = failure_notice(
        declared or subject or Subject(job_name, "unknown team", "unknown address"),
        partition,
        cause,
        error_type,
        env.settings.masked(error_message),
        visible,
    )
    return _raise(env, notice, run_id, channel)


def alert_late(env: Environment, job_name: str, partition: Partition, now: datetime) -> bool:
    """Tell the owner that a day is not published though it was due; whether an alert was raised now.

    Nothing is late that is published, not due yet, outside of the schedule, or without `alerts.publish_by`.
    Raises DeclarationError where the declaration is broken.
    """
    job = load_job(env.project, job_name)
    due = job.due(partition)
    if due is None or now < due:
        return False
    with env.engine.connect() as connection:
        if ledger.visible_run(connection, job_name, partition):
            return False
        last_status = ledger.last_status(connection, job_name, partition)
    owners = job.declaration.owners
    subject = Subject(job_name, owners.team, owners.on_call)
    notice = late_notice(subject, partition, due, now, last_status)
    return _raise(env, notice, None, job.declaration.alerts.channel)


def alert_findings(
    env: Environment,
    job_name: str,
    day: date,
    findings: Sequence[Finding],
    trigger: Trigger,
    *,
    kinds: Sequence[FindingKind] = ("structure", "drift"),
    run_id: str | None = None,
) -> int:
    """Tell the owner what changed, once an episode; how many alerts were raised now.

    `findings` are all that `day` shows of `kinds`: an episode of these that is not among them has a quiet
    night. Raises DeclarationError where the declaration is broken.
    """
    if trigger in SILENT:
        return 0
    job = load_job(env.project, job_name)
    owners, channel = job.declaration.owners, job.declaration.alerts.channel
    subject = Subject(job_name, owners.team, owners.on_call)
    with env.engine.begin() as connection:
        episodes.lock(connection, job_name)
        visible = ledger.visible_run(connection, job_name, Partition(day))
        notices = [(finding_notice(subject, finding, visible), finding.since) for finding in findings]
        raised = [
            alerts.raise_once(connection, notice, run_id, channel, day)
            for notice, since in notices
            if not episodes.is_known(connection, notice, since, day)
        ]
        episodes.resolve_quiet(connection, job_name, kinds, day, QUIET_NIGHTS)
        episodes.resolve_published(connection, job_name)
    new = [alert_no for alert_no in raised if alert_no is not None]
    for alert_no in new:
        _deliver(env, alert_no, channel)
    return len(new)


def retry_undelivered(env: Environment, job_name: str) -> int:
    """Send again what no channel took within the last 24 hours; how many were taken now."""
    _, channel = _declared(env.project, job_name)
    with env.engine.connect() as connection:
        waiting = alerts.undelivered(connection, job_name, _RETRIED)
    return sum(_deliver(env, alert_no, channel, again=True) for alert_no in waiting)


def _declared(project: Path, job_name: str) -> tuple[Subject | None, str | None]:
    """Owners and channel as declared; of a broken declaration only the channel, if it can be read."""
    try:
        declaration = load_job(project, job_name).declaration
    except (UsageError, TransientError) as error:
        log.warning("declaration not used", job=job_name, error_type=type(error).__name__)
        written = read_document(declaration_file(project, job_name)).part("alerts", "channel")
        return None, written if isinstance(written, str) else None
    owners = declaration.owners
    return Subject(job_name, owners.team, owners.on_call), declaration.alerts.channel


def _known(env: Environment, job_name: str, partition: Partition | None) -> tuple[Subject | None, Visible]:
    """The owners on record and what readers see; both unknown where the warehouse is away."""
    try:
        with env.engine.connect() as connection:
            subject = alerts.recorded_subject(connection, job_name)
            visible = ledger.visible_run(connection, job_name, partition) if partition else None
    except NightshiftError as error:
        log.warning("warehouse not asked", job=job_name, error_type=type(error).__name__)
        return None, "unknown"
    return subject, visible


def _raise(env: Environment, notice: Notice, run_id: str | None, channel: str | None) -> bool:
    try:
        with env.engine.begin() as connection:
            alert_no = alerts.raise_once(connection, notice, run_id, channel)
    except Exception:
        # Told once too often rather than not at all: the cause counts as not raised.
        _sent(env.settings, channel, notice)
        raise
    if alert_no is None:
        return False
    _deliver(env, alert_no, channel)
    return True


def _deliver(env: Environment, alert_no: int, channel: str | None, *, again: bool = False) -> bool:
    """Send a recorded alert while nobody else can; whether its channel took it now."""
    with env.engine.begin() as connection:
        raised = alerts.claim(connection, alert_no, wait=not again)
        if raised is None:
            return False
        error = _sent(env.settings, channel, _delayed(raised) if again else raised)
        if error is None:
            alerts.delivered(connection, alert_no)
        else:
            alerts.not_delivered(connection, alert_no, f"{type(error).__name__}: {error}")
    return error is None


def _delayed(raised: alerts.Raised) -> alerts.Raised:
    at = raised.raised_at.astimezone(UTC)
    return replace(raised, text=f"Raised {at:%Y-%m-%d %H:%M} UTC and not delivered then.\n\n{raised.text}")


def _sent(settings: Settings, channel: str | None, message: channels.Message) -> ChannelError | None:
    """Send once; why that did not work, which is logged and no fault of the caller."""
    try:
        channels.send(_url(settings, channel), message)
    except ChannelError as error:
        log.warning("alert not delivered", title=message.title, channel=channel, error=str(error))
        return error
    log.info("alert delivered", title=message.title, channel=channel)
    return None


def _url(settings: Settings, channel: str | None) -> SecretStr:
    if channel is None:
        raise ChannelError("alerts.channel must be declared for a notice to go out; got none")
    if channel not in settings.channels:
        hint = nearest(channel, tuple(settings.channels)) if settings.channels else "there is none"
        raise ChannelError(f"channel {channel!r} must be among those of NIGHTSHIFT_CHANNELS; {hint}")
    return settings.channels[channel]
