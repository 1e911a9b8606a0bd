"""Memory of this process."""

from __future__ import annotations

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, MiB, with files that it maps.

    ``resource.getrusage`` returns the peak of the process that started this one, if that is larger.
    It is read only in containers without VmHWM (gVisor).
    """
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
