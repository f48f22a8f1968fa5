"""Items of operation: who owns the job, how a notice reaches them, how old and how slow it has become."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline.adapters import channels, ledger
from pipeline.errors import ChannelError
from pipeline.partition import EVER
from pipeline.readiness.rubric import Answer, failed, judged, not_applicable, passed
from pipeline.readiness.subject import Subject

_LAST, _BEFORE = 7, 28
_SLOWER = 1.5


def by_hand(_: Subject) -> Answer:
    """What no run can show."""
    return not_applicable("no run can show it: the owner's word counts")


def owned(subject: Subject) -> Answer:
    """owner: a team, an address on call, and approvers of whom one promoted the version."""
    owners = subject.job.declaration.owners
    told = f"{owners.team}, on call {owners.on_call}, approvers {', '.join(owners.approvers)}"
    return judged(
        "@" in owners.on_call or "://" in owners.on_call or owners.on_call.startswith("#"),
        told,
        "give owners.on_call an address that reaches somebody at night",
    )


@dataclass(frozen=True)
class _Trial:
    title: str
    text: str


def notice(subject: Subject) -> Answer:
    """alert-channel: a notice that says it is a trial, through the declared channel."""
    name = subject.job.declaration.alerts.channel
    if name is None:
        return failed("alerts.channel is not declared", "declare alerts: {channel: NAME}")
    url = subject.env.settings.channels.get(name)
    if url is None:
        return failed(f"channel {name} has no URL", f'set NIGHTSHIFT_CHANNELS=\'{{"{name}": "slack://…"}}\'')
    text = f"`nightshift readiness {subject.job.name}` asks whether notices arrive. Nothing is wrong."
    try:
        channels.send(url, _Trial(f"{subject.job.name}: a trial notice", text))
    except ChannelError as error:
        return failed(str(error), f"mend the URL of channel {name} in NIGHTSHIFT_CHANNELS")
    return passed(f"channel {name} took a trial notice")


def fresh(subject: Subject) -> Answer:
    """monitor-4: the age of the version's newest label against retrain.every_days."""
    declared = subject.job.declaration.retrain
    every = declared.every_days if declared else None
    age = (subject.day.day - subject.version.trained_to).days
    told = f"version {subject.version.version} learned up to {subject.version.trained_to}, {age} days before"
    if every is None:
        return not_applicable(f"{told}; no retrain.every_days is declared")
    return judged(age <= every, f"{told}, of {every} declared", f"nightshift train {subject.job.name} …")


def no_slower(subject: Subject) -> Answer:
    """monitor-6: CPU seconds per 1,000 rows of the last nights against those of four weeks before."""
    nights = _usage(subject)
    if len(nights) < 2 * _LAST:
        return not_applicable(f"{len(nights)} nights are published; {2 * _LAST} are needed")
    cpu = np.array([used for _, used in nights])
    last, before = float(np.median(cpu[-_LAST:])), float(np.median(cpu[-_LAST - _BEFORE : -_LAST]))
    return judged(
        last < _SLOWER * before,
        f"{last:.2f} CPU s per 1,000 rows in the last {_LAST} nights up to {nights[-1][0]}, "
        f"{before:.2f} before",
        "compare the versions and the history queries of both spans: nightshift report",
    )


def _usage(subject: Subject) -> list[tuple[date, float]]:
    with subject.env.engine.connect() as connection:
        records = ledger.visible_before(connection, subject.job.name, EVER[1], _LAST + _BEFORE)
    return [
        (record["day"], 1000 * record["cpu_seconds"] / record["rows_in"])
        for record in reversed(records)
        if record["rows_in"]
    ]
