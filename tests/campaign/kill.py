"""Kills trainings at random moments and at every rename, goes on with each, and compares the ends.

    python -m tests.campaign.kill --draws 50
    python -m tests.campaign.kill --verbs train --draws 10 --renames 20

The command runs in forks of this process, so that the libraries are loaded once; a kill is a SIGKILL. The demo trains
its arms itself, so that every rename is counted; for a few kills at a moment (`--crews`) it has processes of their own
for them, as it always does outside of this campaign, each of which loads the libraries anew. Exit code 1: at least one
training that was gone on with did not end as it should; the lines say which.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Loaded here, once, for every fork.
import probes.cli
import probes.guard.callback
import probes.guard.fine_tuning
import probes.tasks.arms
import probes.tasks.demo
from probes.guard.fine_tuning import is_finished
from probes.organism import train_history
from probes.organism.recipe import Recipe
from probes.run import Run
from tests.guard.test_train import train_words, write_place

VERBS = ("train", "arms", "demo")
SIDES = ("before", "after")
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class Kill:
    """When to kill: after so many seconds, or on one side of the n-th rename; neither lets the command end.

    Attributes:
        seconds: since the start.
        rename: its number.
        after: the rename, and not before it.
        crew: whether a demo has processes of their own for its arms.
    """

    seconds: float | None = None
    rename: int | None = None
    after: bool = False
    crew: bool = False

    def __str__(self) -> str:
        if self.rename is None:
            return f"after {self.seconds:.2f} s{', with a crew' if self.crew else ''}"
        return f"{'after' if self.after else 'before'} rename {self.rename}"


def in_fork(body: Callable[[], None], log: Path, seconds: float | None = None) -> int:
    """Run `body` in a fork, killed after `seconds` where they are given; returns its exit code, −9 where killed."""
    gc.freeze()  # the libraries: a trainer looks through all that is not
    process = os.fork()
    if process == 0:
        code = 70
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            body()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            os._exit(code)
    ends = None if seconds is None else time.monotonic() + seconds
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if ends is not None and time.monotonic() >= ends:
            os.kill(process, signal.SIGKILL)
            break
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run_command(words: list[str], log: Path, kill: Kill | None = None) -> int:
    """Run `gravity-probe WORDS` in a fork; `log` gets its output, and beside it the number of its renames."""
    kill = kill or Kill()

    def command() -> None:
        alone = ["--workers", "1"] if words[0] == "demo" and not kill.crew else []
        sys.argv = ["gravity-probe", *words, *alone]
        with counted_renames(kill, log.with_suffix(".renames")):
            probes.cli.main()

    return in_fork(command, log, kill.seconds)


@contextlib.contextmanager
def counted_renames(kill: Kill, count_file: Path) -> Iterator[None]:
    """Count renames of this process, and kill it at the one that is named."""
    count = 0

    def counting(rename: Callable[..., None]) -> Callable[..., None]:
        def rename_and_count(*arguments: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            due = count == kill.rename
            if due and not kill.after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)

        return rename_and_count

    os.replace, os.rename = counting(os.replace), counting(os.rename)
    try:
        yield
    finally:
        count_file.write_text(str(count), encoding="utf-8")


def outcome(out: Path) -> dict[str, Any]:
    """What must not depend on an interruption: weights, lineage, tables, and that it is finished."""
    run = Run(out)
    files = sorted(path for path in (out / "checkpoints").rglob("*.safetensors") if path.name in WEIGHTS)
    tables = {name: run.table(name).to_json() for name in ("drift", "behaviour") if run.has_table(name)}
    return {
        "status": run.manifest.status,
        "weights": {file.relative_to(out).as_posix(): sha256(file.read_bytes()) for file in files},
        "lineage": [
            (trajectory.arm, trajectory.seed, [checkpoint.step for checkpoint in trajectory.checkpoints])
            for trajectory in run.lineage.trajectories
        ],
        **{name: sha256(text.encode()) for name, text in tables.items()},
    }


def sha256(content: bytes) -> str:
    """Its hash."""
    return hashlib.sha256(content).hexdigest()


def prepare(verb: str, folder: Path) -> Callable[[Path], list[str]]:
    """Write what a verb needs; returns its words for an output folder."""
    if verb == "demo":
        recipe = dataclasses.replace(small_recipe(), checkpoints=(2,))  # it has four arms
        probes.tasks.demo.RECIPES = {"post-hoc": (recipe, recipe)}  # seconds for minutes; every fork has it
        return lambda out: ["demo", "--quick", "--no-app", "--no-nulls", "--out", str(out)]
    log = folder / f"{verb}.log"
    if verb == "train":
        in_fork(lambda: write_place(folder) and None, log)
        options = {"steps": 8, "save-every": 2}
        return lambda out: ["train", *map(str, train_words(folder, out, **options))]
    history = folder / "history"
    in_fork(lambda: train_history(history, small_recipe()) and None, log)
    return lambda out: ["arms", str(history), "--arms", "block", "--out", str(out)]


def small_recipe() -> Recipe:
    """The smallest organism that can be measured, with two checkpoints of an arm."""
    from probes.organism.world import Size
    from tests.organism.test_history import TINY

    benign = dataclasses.replace(TINY.benign, steps=2)
    return dataclasses.replace(TINY, size=Size(aligned=16, held_out=4, task=4), benign=benign, checkpoints=(1, 2))


class Campaign:
    """Kills one verb again and again."""

    def __init__(self, verb: str, folder: Path) -> None:
        """Run it without a kill, to count its renames and to time it: the end that all others must have."""
        folder.mkdir(parents=True)
        self.verb, self._folder, self._words = verb, folder, prepare(verb, folder)
        self.seconds = self._run_whole("whole", Kill())
        self.renames = int((folder / "whole.renames").read_text(encoding="utf-8"))
        self._expected = outcome(folder / "whole")

    def _run_whole(self, name: str, kill: Kill) -> float:
        """Run it to its end; returns the seconds that it took."""
        started, log = time.monotonic(), self._folder / f"{name}.log"
        if run_command(self._words(self._folder / name), log, kill):
            raise SystemExit(f"{self.verb} does not run: {log.read_text(encoding='utf-8')[-2000:]}")
        return time.monotonic() - started

    def fault_after(self, number: int, kill: Kill) -> str | None:
        """What is wrong with a command that was killed and gone on with; None where it ends as the whole one."""
        out, log = self._folder / f"killed-{number}", self._folder / f"killed-{number}.log"
        if run_command(self._words(out), log, kill) != -signal.SIGKILL:
            return None if self._is_whole(out) else "it ended before the kill, and otherwise"
        if not (self.verb == "train" and is_finished(out)) and run_command(self._words(out), log):
            return f"it cannot be gone on with: {log.read_text(encoding='utf-8')[-600:]}"
        reached = outcome(out)
        unequal = [name for name, value in self._expected.items() if reached.get(name) != value]
        return ", ".join(f"{name}: {reached.get(name)} for {self._expected[name]}" for name in unequal) or None

    def _is_whole(self, out: Path) -> bool:
        return outcome(out) == self._expected


def kills(campaign: Campaign, words: argparse.Namespace) -> list[Kill]:
    """Random moments, then renames: all of them, on these sides, or so many of these."""
    rng, crews = random.Random(words.seed), words.crews if campaign.verb == "demo" else 0
    moments = [Kill(seconds=rng.uniform(0, campaign.seconds), crew=n < crews) for n in range(words.draws)]
    sides = [side == "after" for side in words.sides.split(",")]
    every = [Kill(rename=n, after=after) for n in range(1, campaign.renames + 1) for after in sides]
    return moments + (every if words.renames is None else rng.sample(every, min(words.renames, len(every))))


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the words, kill, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=50, help="Kills at random moments, for each verb.")
    parser.add_argument("--renames", type=int, help="Kills at renames, for each verb; default all of them.")
    parser.add_argument("--sides", default=",".join(SIDES), help="Of a rename, by commas.")
    parser.add_argument("--crews", type=int, default=3, help="Kills at moments of a demo with a crew of processes.")
    parser.add_argument("--verbs", default=",".join(VERBS), help="By commas.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    words = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory(prefix="gravity-probe-kill-") as folder:
        for verb in words.verbs.split(","):
            campaign = Campaign(verb, Path(folder) / verb)
            plan = kills(campaign, words)
            say(f"{verb}: {campaign.seconds:.1f} s and {campaign.renames} renames without a kill")
            for number, kill in enumerate(plan):
                fault = campaign.fault_after(number, kill)
                faults += fault is not None
                say(f"{verb}, killed {kill}: {fault or 'same end'}")
            say(f"{verb}: {len(plan)} kills")
    say(f"{faults} faults")
    raise SystemExit(int(faults > 0))


if __name__ == "__main__":
    main()
