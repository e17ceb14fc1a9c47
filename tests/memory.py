"""How much memory a process held at once.

`getrusage` will not do: on Linux a started process inherits its parent's high-water mark over `exec`.
"""

import os
import resource
import sys
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_PEAK = "5"  # what resets the high-water mark; see proc(5)
CAN_RESET = os.access(_CLEAR, os.W_OK)


def peak_memory(pid: int | str = "self") -> int:
    """The largest resident memory of a process so far, in bytes; of another process on Linux only."""
    if Path(f"/proc/{pid}/status").exists():
        return _status("VmHWM", pid)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def resident_memory() -> int:
    """The resident memory of this process now, in bytes; on Linux only."""
    return _status("VmRSS", "self")


def reset_peak() -> None:
    """Let `peak_memory` begin anew at what this process holds now; on Linux only."""
    _CLEAR.write_text(_PEAK, encoding="ascii")


def _status(name: str, pid: int | str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) << 10
