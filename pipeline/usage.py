"""What a stage used: CPU seconds of this process and its peak memory so far."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field

_UNITS_PER_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10


@dataclass
class Meter:
    """Counts from its making on; threads count, child processes do not."""

    _started: float = field(default_factory=time.process_time)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process since the meter was made."""
        return time.process_time() - self._started

    @property
    def peak_memory_mb(self) -> float:
        """The process's peak resident memory since it started, in MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MB
