"""What must be true before a job's first night: the items, and how a check answers one.

The first 28 are those of Breck, Cai, Nielsen, Salib and Sculley, "The ML Test Score: A Rubric for ML
Production Readiness and Technical Debt Reduction" (IEEE Big Data 2017), by their sections: data, model,
infrastructure, monitoring. The others are what a nightly batch needs besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "not_applicable"]


@dataclass(frozen=True)
class Answer:
    """What a check found: the evidence it produced, and how to mend what is wrong."""

    status: Status
    evidence: str
    fix: str | None = None


def passed(evidence: str) -> Answer:
    """The item holds, as this evidence shows."""
    return Answer("pass", evidence)


def failed(evidence: str, fix: str) -> Answer:
    """The item does not hold."""
    return Answer("fail", evidence, fix)


def not_applicable(reason: str) -> Answer:
    """The item asks for what this job does not have, or what no machine can produce evidence of."""
    return Answer("not_applicable", reason)


def judged(holds: bool, evidence: str, fix: str) -> Answer:
    """Passed where it holds, else failed with the way to mend it."""
    return passed(evidence) if holds else failed(evidence, fix)


@dataclass(frozen=True)
class Item:
    """One thing that is asked for; a required one that fails keeps the job from being ready."""

    id: str
    title: str
    required: bool = False


@dataclass(frozen=True)
class Assessed:
    """An item and its answer."""

    item: Item
    answer: Answer


RUBRIC: tuple[Item, ...] = (
    Item("data-1", "Expectations of every input are written down", required=True),
    Item("data-2", "Every feature moves the score"),
    Item("data-3", "No input costs more than it is worth"),
    Item("data-4", "Features use only what was known at the cut-off", required=True),
    Item("data-5", "Personal values stay out of quarantine", required=True),
    Item("data-6", "A new feature is quickly added"),
    Item("data-7", "Feature code gives the same for a row alone, in halves and in any order", required=True),
    Item("model-1", "The model was reviewed and approved by an owner", required=True),
    Item("model-2", "Quality on the hold-out foretells quality in production"),
    Item("model-3", "Hyper-parameters were searched"),
    Item("model-4", "What staleness costs is known"),
    Item("model-5", "A simpler model is not better", required=True),
    Item("model-6", "Quality holds on every declared slice"),
    Item("model-7", "Groups of people are treated alike"),
    Item("infra-1", "Training twice gives the same predictions", required=True),
    Item("infra-2", "Model and baseline fit, save and load again", required=True),
    Item("infra-3", "A whole night publishes every row once", required=True),
    Item("infra-4", "The model passed the gate before it served"),
    Item("infra-5", "One row can be followed through alone", required=True),
    Item("infra-6", "The model was tried on live data before it served all"),
    Item("infra-7", "A roll-back restores the model before", required=True),
    Item("monitor-1", "A changed dependency is told", required=True),
    Item("monitor-2", "Strange inputs lose nothing: robustness", required=True),
    Item("monitor-3", "Training and serving see the same", required=True),
    Item("monitor-4", "The model is no older than declared"),
    Item("monitor-5", "Extreme and missing inputs give usable scores", required=True),
    Item("monitor-6", "Nights have not become slower or larger"),
    Item("monitor-7", "Realised quality keeps its promise"),
    Item("load", "Ten times the rows fit into the night", required=True),
    Item("latency", "A night ends before it is due", required=True),
    Item("regression", "The version is no worse than the champion before it"),
    Item("fallback", "Without its model a night still publishes what is declared", required=True),
    Item("owner", "Somebody owns the job and may approve", required=True),
    Item("alert-channel", "A notice reaches the owner's channel", required=True),
    Item("output-contract", "Tables and files are what analysts were promised", required=True),
)
