"""Changes valid inputs at random, runs the command on them, and counts how it ends.

    python -m tests.campaign.mutate --draws 1500 --seed 0
    python -m tests.campaign.mutate --draws 1500 --seed 0 --from 596    # go on with a campaign that was stopped
    python -m tests.campaign.mutate --only prompts --draws 200
    python -m tests.campaign.mutate --draw 417          # one draw again, with its traceback

Every end is an exit code. A traceback (an error that is no refusal), a hang (by the processor's time, so that a busy
machine makes none; a command that only waits has ten minutes), and a silent change (exit code 0 with
other numbers, although the file that was changed has a hash on record) are faults; exit code 1: there was at least one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import probes.cli
from probes.errors import GravityError
from tests.campaign.inputs import CASES, Case, build
from tests.campaign.mutations import mutate

SECONDS = 60  # of the processor
WAITING = 600  # of the clock
LINE_EVERY = 30  # seconds
MEMORY = 4 << 30  # beyond what the loaded libraries take
CODES = (0, 1, 2, 3)


class Hang(BaseException):
    """A command that has not ended; nothing that is meant for errors catches it."""


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: its exit code.
        error: what was raised, where that was no refusal.
        numbers: all that it said and wrote, by place.
    """

    code: int | None
    error: BaseException | None
    numbers: dict[str, float]


@dataclass(frozen=True)
class Draw:
    """One change and its end.

    Attributes:
        number: of the draw.
        case: what was run.
        change: what was done to its file.
        end: how the command ended.
        fault: `traceback`, `hang` or `silent change`; None where it ended as it should.
    """

    number: int
    case: Case
    change: str
    end: End
    fault: str | None


def run_command(words: list[str], home: Path, out: Path) -> End:
    """Run `gravity-probe WORDS` in this process and in the folder `home`."""
    raised: list[BaseException] = []
    output, code, stop = io.StringIO(), 0, probes.cli.stop

    def keep(error: BaseException) -> None:
        raised.append(error)
        stop(error)

    probes.cli.stop = keep  # type: ignore[assignment]
    sys.argv = ["gravity-probe", *words]
    before = Path.cwd()
    os.chdir(home)
    try:
        with limits(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            probes.cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is counted
        raised.append(error)
    finally:
        probes.cli.stop = stop
        os.chdir(before)
        gc.collect()
    error = next((error for error in raised if not isinstance(error, GravityError)), None)
    return End(None if isinstance(error, Hang) else code, error, {} if code else dict(_numbers(output.getvalue(), out)))


@contextlib.contextmanager
def limits(seconds: float = SECONDS, waiting: float = WAITING) -> Iterator[None]:
    """Raise `Hang` in what takes longer than so many seconds of the processor, or of the clock."""
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, waiting))
    for timer, due, limit in timers:
        signal.signal(due, _hang)
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)


def _hang(*_: object) -> None:
    raise Hang


def _numbers(output: str, out: Path) -> Iterator[tuple[str, float]]:
    """Every number that a command printed as JSON, and every number of the direction that it wrote."""
    with contextlib.suppress(ValueError):
        yield from _leaves(json.loads(output), "")
    if out.is_file():
        from probes.directions.vectors import Vectors

        vectors = Vectors.read(out)
        yield from _leaves({"layers": list(vectors.layers), "raw": vectors.raw.tolist()}, "written")


def _leaves(node: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(inner, f"{place}.{key}")
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield place, float(node)


class Campaign:
    """Changes the inputs of some cases, again and again."""

    def __init__(self, cases: list[Case], folder: Path, seed: int) -> None:
        """Build the valid inputs and run each command on them once: an end that is not 0 is a fault of the campaign."""
        self._cases, self._folder, self._seed = cases, folder, seed
        self._valid = folder / "valid"
        build(self._valid)
        self._expected: dict[tuple[str, ...], dict[str, float]] = {}
        for case in cases:
            if case.words not in self._expected:
                gc.freeze()  # the loaded libraries stay; looking through them again after every command took most time
                self._expected[case.words] = self._valid_numbers(case)

    def _valid_numbers(self, case: Case) -> dict[str, float]:
        end = self._end(case, self._copy("baseline"))
        if end.code or end.error:
            raise SystemExit(f"{case.name} does not run: {end.error or end.code}")
        return end.numbers

    def draw(self, number: int) -> Draw:
        """One change; the same for the same number and seed."""
        rng = random.Random(f"{self._seed}:{number}")
        case = self._cases[number % len(self._cases)]
        home = self._copy(f"draw-{number}")
        change = mutate(home / case.file, rng)
        changed = (home / case.file).read_bytes() != (self._valid / case.file).read_bytes()
        end = self._end(case, home)
        shutil.rmtree(home)
        return Draw(number, case, change, end, _fault(case, end, self._expected[case.words]) if changed else None)

    def _copy(self, name: str) -> Path:
        home = self._folder / name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._valid, home)
        return home

    def _end(self, case: Case, home: Path) -> End:
        out = home / "out.safetensors"
        return run_command([word.replace("HOME", str(home)) for word in case.words], home, out)


def _fault(case: Case, end: End, expected: dict[str, float]) -> str | None:
    if isinstance(end.error, Hang):
        return "hang"
    if end.error is not None:
        return "traceback"
    silent = case.verifies or (case.hashed and end.numbers != expected)
    return "silent change" if silent and not end.code else None


def table(draws: list[Draw]) -> Iterator[str]:
    """How the draws ended, a row a case."""
    faults = ("traceback", "hang", "silent change")
    yield (
        f"{'case':44}{'draws':>7}"
        + "".join(f"{f'exit {code}':>8}" for code in CODES)
        + "".join(f"{name:>15}" for name in faults)
    )
    names = dict.fromkeys(draw.case.name for draw in draws)
    for name in (*sorted(names), "all"):
        chosen = [draw for draw in draws if name in (draw.case.name, "all")]
        ends, wrong = Counter(draw.end.code for draw in chosen), Counter(draw.fault for draw in chosen)
        yield (
            f"{name:44}{len(chosen):7}"
            + "".join(f"{ends[code]:8}" for code in CODES)
            + "".join(f"{wrong[fault]:15}" for fault in faults)
        )


def description(draw: Draw, *, whole: bool = False) -> str:
    """A fault in a line, with where it was raised; or with its whole traceback."""
    line = f"draw {draw.number}, {draw.case.name} ({draw.case.file}): {draw.change}: {draw.fault}"
    error = draw.end.error
    if error is None:
        return line
    if whole:
        return f"{line}\n{''.join(traceback.format_exception(error))}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/probes/" in frame.filename]
    place = f"{frames[-1].filename.rpartition('/probes/')[2]}:{frames[-1].lineno}" if frames else "?"
    sentence = (str(error).strip().splitlines() or [""])[0]
    return f"{line}\n    {type(error).__name__}: {sentence[:120]}, at probes/{place}"


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the words, change files, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=300, help="Changes in all.")
    parser.add_argument("--seed", type=int, default=0, help="Of the changes.")
    parser.add_argument("--only", default="", help="Cases whose name has this in it.")
    parser.add_argument("--from", type=int, default=0, dest="first", help="Number of the first draw.")
    parser.add_argument("--draw", type=int, help="This draw alone, with its traceback.")
    words = parser.parse_args()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    cases = [case for case in CASES if words.only in case.name]
    numbers = range(words.first, words.draws) if words.draw is None else [words.draw]
    draws = []
    with tempfile.TemporaryDirectory(prefix="gravity-probe-mutate-") as folder:
        campaign = Campaign(cases, Path(folder), words.seed)
        last_line = time.monotonic()
        for number in numbers:
            draws.append(campaign.draw(number))
            if draws[-1].fault:
                say(description(draws[-1], whole=words.draw is not None))
            if time.monotonic() - last_line > LINE_EVERY:
                say(f"{len(draws)} of {len(numbers)} draws")
                last_line = time.monotonic()
    for line in table(draws):
        say(line)
    raise SystemExit(int(any(draw.fault for draw in draws)))


if __name__ == "__main__":
    main()
