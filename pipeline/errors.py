"""What can go wrong, as a tree: the class says whether a retry can help.

NightshiftError
├── UsageError               wrong use of a command; exit code 2
│   └── DeclarationError     a job's files are wrong; every fault with its place; exit code 2
├── ChannelError             a notice did not go through its channel; exit code 1
└── RunError                 a run failed; exit code 1; the last good publish stays readable
    ├── FatalError           a retry cannot help
    │   ├── ExtractError     SourceLate, EmptyPartition, MissingTable, ChangedColumn, InconsistentRead
    │   ├── ValidationError  the suite refuses the snapshot, or too many rows do
    │   ├── FeatureError     a feature module broke its contract
    │   ├── ModelError       a model could not be loaded, was refused, or gave no usable score
    │   ├── RegistryError    no such version, no champion in force, not an approver
    │   └── SealError        conservation could not be proved
    └── TransientError       connection lost, time-out: retried
        └── TimeLimit        the database ended a statement that took too long
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


class NightshiftError(Exception):
    """Base of every error that Nightshift raises on purpose."""

    exit_code = 1


class UsageError(NightshiftError):
    """A command was used wrongly; the message says what would be accepted."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong in one place of a declaration or one of its sibling files."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class DeclarationError(UsageError):
    """A job's files are wrong; carries all faults at once, sorted by place."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ChannelError(NightshiftError):
    """A notice did not go through its channel; the message holds nothing of the channel's URL."""


class RunError(NightshiftError):
    """A run failed; readers keep the last good publish."""


class FatalError(RunError):
    """A failure that a retry cannot mend."""


class TransientError(RunError):
    """A failure that may pass by itself: connection lost, lock or statement time-out."""


class ExtractError(FatalError):
    """The source does not give what the declaration promises."""


class SourceLate(ExtractError):
    """The source did not get the partition's rows in time."""


class EmptyPartition(ExtractError):
    """The partition has no rows and the declaration does not call that normal."""


class MissingTable(ExtractError):
    """A query names a table or column that the source does not have."""


class ChangedColumn(ExtractError):
    """A declared column is gone or has another type than declared."""


class InconsistentRead(ExtractError):
    """What was read differs from `count(*)` in the same transaction."""


class ValidationError(FatalError):
    """The suite refuses the snapshot, a rule could not be evaluated, or too many rows are bad."""


class TimeLimit(TransientError):
    """The database ended a statement that took longer than it allows."""


class FeatureError(FatalError):
    """A feature module broke its contract."""


class ModelError(FatalError):
    """A model could not be loaded, was refused, or gave no usable score."""


class RegistryError(FatalError):
    """The registry or the promotion history does not hold what was asked for."""


class SealError(FatalError):
    """A run's output does not conserve its snapshot's rows; it stays unpublished."""


def nearest(name: str, accepted: Sequence[str]) -> str:
    """Say which accepted name is nearest, or list them all when none is near."""
    close = get_close_matches(name, accepted, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "accepted: " + ", ".join(sorted(accepted))
