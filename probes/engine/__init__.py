"""Independent tasks on an Executor: in this process, in processes of this machine, as jobs of SLURM, or on Ray.

A task takes references and returns a status; what it makes are files under their content key, so that one that is done
twice, or by two, leaves the same bytes. The number of threads belongs to the task and never to the number of workers.
A task that fails leaves the others at work. Whoever drives the tasks keeps the lock and the manifest.

How many workers there are, and where, changes no result, so it is no argument of what is computed: `with
open_engine(2):`. Nothing here schedules, retries or ships work: `processes`, `slurm` and `ray` hand it to what does.
"""

from probes.engine.board import EngineError, Task
from probes.engine.driver import Engine, InProcess, current_engine
from probes.engine.opening import open_engine
from probes.engine.worker import hold_model, limit_threads, release_model

__all__ = [
    "Engine",
    "EngineError",
    "InProcess",
    "Task",
    "current_engine",
    "hold_model",
    "limit_threads",
    "open_engine",
    "release_model",
]
