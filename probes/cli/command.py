"""What all verbs share: old spellings that still work, finite numbers, and a last catch for what went wrong."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import itertools
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from probes.cli.remote_runs import bring_runs, send_runs
from probes.errors import GravityError, UsageError

_LOG = "gravity-probe-error.log"
Json = Annotated[bool, typer.Option("--json", help="Print the documented JSON instead of tables.")]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|slurm|ray",
        help="Train, read and ask checkpoints in this many processes, each with one model in memory and one thread "
        "(or OMP_NUM_THREADS); or on a cluster: slurm[:NAME=VALUE,...], ray[:ADDRESS]. Without it: in this process, "
        "with every core.",
    ),
]
JsonLines = Annotated[
    bool,
    typer.Option("--json-lines", help="Report progress as JSON lines: share, seconds left, jobs done and failed."),
]


class Verb(TyperCommand):
    """A verb; a number that is not finite is wrong usage, and a run may be given by its URL."""

    renamed: ClassVar[dict[str, str]] = {}  # old spelling of an option → its name now

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        """A command whose help flows: lines of a paragraph end where the terminal does, not where the source does."""
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(text.split()) for text in paragraphs) or None, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, old spellings among them, each with a notice."""
        remaining = super().parse_args(ctx, [self._current(word) for word in args])
        for name, value in ctx.params.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            unfit = [number for number in numbers if isinstance(number, float) and not math.isfinite(number)]
            if unfit:
                raise UsageError(f"--{name.replace('_', '-')} must be a finite number", got=unfit[0])
        ctx.params.update(bring_runs(str(self.name), ctx.params))
        return remaining

    def invoke(self, ctx: Any) -> Any:
        """Do it; what it has left in a run behind a URL is then sent."""
        result = super().invoke(ctx)
        send_runs(ctx.params)
        return result

    def _current(self, word: str) -> str:
        name, sign, value = word.partition("=")
        if name not in self.renamed:
            return word
        notice(f"{name} is called {self.renamed[name]} now; the old spelling goes with the next version.")
        return self.renamed[name] + sign + value


class TrainingVerb(Verb):
    """A verb that fine-tunes, whose options have taken the names that trainers use."""

    renamed: ClassVar[dict[str, str]] = {
        "--rows": "--batch-size",
        "--accumulation": "--gradient-accumulation-steps",
        "--lr": "--learning-rate",
        "--strength": "--penalty-weight",
        "--match": "--gradient-ratio",
        "--last": "--final-step-only",
    }


class Group(TyperGroup):
    """Verbs of one kind. `GROUP RUN VERB`, as it was once, still works with a notice."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, in the old place too."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = self._in_new_order(str(ctx.info_name), args)
        return super().resolve_command(ctx, args)

    def _in_new_order(self, group: str, args: list[str]) -> list[str]:
        """`RUN VERB …` or `RUN …` as `VERB RUN …`; without a verb it was `list`."""
        first, *remaining = args
        is_run, has_verb = Path(first).is_dir(), bool(remaining) and not remaining[0].startswith("-")
        verb = remaining.pop(0) if has_verb else "list"
        if verb not in self.commands or not (is_run or has_verb):
            unknown = verb if is_run else first
            raise UsageError("There is no such command", got=repr(unknown), expected=", ".join(self.commands))
        notice(f"Write it so now: gravity-probe {group} {verb} {first}. The old order goes with the next version.")
        return [verb, first, *remaining]


def with_json_lines(verb: Callable[..., None]) -> Callable[..., None]:
    """The same verb with `--json-lines` beside its own options."""

    @functools.wraps(verb)
    def report_so(*args: Any, json_lines: bool = False, **options: Any) -> None:
        from probes.terminal.json_lines import use_json_lines

        with use_json_lines() if json_lines else contextlib.nullcontext():
            verb(*args, **options)

    signature = inspect.signature(verb, eval_str=True)
    lines = inspect.Parameter("json_lines", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonLines)
    parameters = [*signature.parameters.values(), lines]
    report_so.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    report_so.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return report_so


def notice(sentence: str) -> None:
    """Say something on the error stream that is no error."""
    typer.secho(f"gravity-probe: {sentence}", err=True, fg=typer.colors.YELLOW if sys.stderr.isatty() else None)


def stop(error: BaseException) -> None:
    """End with one sentence and an exit code; what was not foreseen leaves its traceback in a log file."""
    if isinstance(error, GravityError):
        _exit(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        _exit("Stopped. The same command goes on where it stopped.", 130)
    if isinstance(error, MemoryError):
        _exit("The machine's memory is full. Take fewer prompts, a smaller --batch-tokens, or a larger machine.", 1)
    if isinstance(error, OSError) and error.errno in _ROOM and (error.errno != errno.ENOENT or _is_of_out(error)):
        _exit(f"{_ROOM[error.errno]} ({error.filename or 'while writing'}). {_THEN[error.errno]}", 1)
    lines = str(error).strip().splitlines()
    summary = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    summary = ", in ".join([summary, *getattr(error, "__notes__", [])])
    _exit(f"Something unforeseen went wrong ({summary}). {_keep_traceback(error)}", 1)


_ROOM = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The file system is read-only",
    errno.EACCES: "This may not be written or read",
    errno.EPERM: "This may not be written or read",
    errno.ENOENT: "Nothing can be made here",
    errno.ENOTDIR: "A file stands where a folder has to be",
    errno.EISDIR: "A folder stands where a file has to be",
    errno.EEXIST: "A file stands where a folder has to be",
}
_THEN = dict.fromkeys(_ROOM, "Give --out another place.") | {
    errno.ENOSPC: "Free some room; the same command goes on.",
    errno.EDQUOT: "Free some room; the same command goes on.",
}


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback beside the run that the command was about, else here; says where, in a sentence."""
    path = _log_file(sys.argv[1:])
    text = "".join(traceback.format_exception(error))
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {' '.join(sys.argv)}\n{text}\n")
    except OSError:
        return "Its traceback could not be written."
    return f"Its traceback is in {path}; please report it."


def _is_of_out(error: OSError) -> bool:
    """Whether it is about what --out names, what lies in it or what it lies in; other absent files are our fault."""
    if not error.filename:
        return False
    file, places = Path(str(error.filename)).absolute(), [place.absolute() for place in _outs(sys.argv[1:])]
    return any(file.is_relative_to(place) or place.is_relative_to(file) for place in places)


def _outs(words: list[str]) -> list[Path]:
    """What --out names."""
    apart = [after for word, after in itertools.pairwise(words) if word in ("--out", "-o")]
    return [Path(place) for place in (*apart, *(word[6:] for word in words if word.startswith("--out=")))]


def _log_file(words: list[str]) -> Path:
    places = _outs(words)
    places += [Path(word) for word in words if (Path(word) / "run.json").is_file()]
    beside = next((place.parent for place in places if place.parent.is_dir()), Path())
    return beside / _LOG


def _exit(sentence: str, code: int) -> None:
    typer.secho(f"gravity-probe: {sentence}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(code)
