"""What a stage used, CPU seconds and peak memory, and what memory is left for the next."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_UNITS_PER_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10

_OUTSIDE_MB = 100
"""What a database takes beside the memory that it counts: readers' buffers, threads."""
_LEAST_MB = 128


def spare_memory_mb(total: int) -> int:
    """What a process that may use `total` MiB can leave to a database within it, MiB; at least 128."""
    return max(_LEAST_MB, total - int(resident_mb()) - _OUTSIDE_MB)


def resident_mb() -> float:
    """Resident memory of this process now, MiB; where the system does not tell, the peak so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return Meter().peak_memory_mb
    return pages * resource.getpagesize() / (1 << 20)


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
