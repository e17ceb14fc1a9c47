"""How much memory a process held at once.

`getrusage` will not do: on Linux a started process inherits its parent's high-water mark over `exec`.
"""

import resource
import sys
from pathlib import Path


def peak_memory(pid: int | str = "self") -> int:
    """The largest resident memory of a process so far, in bytes; of another process on Linux only."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
