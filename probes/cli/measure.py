"""Verbs that measure: `measure` makes a run of a lineage, `verdict` holds one against its nulls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probes.cli.command import Json, Verb, Workers, notice, with_json_lines
from probes.cli.output import print_json
from probes.cli.prompt_files import GroupColumn, PromptFiles
from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.lineage import Lineage
    from probes.prompts import PromptSet
    from probes.run import Run
    from probes.store.settings import Settings


Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<lineage's name>.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the settings file, e.g. --set splits=100."),
]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(with_json_lines(measure))
    app.command(cls=Verb)(with_json_lines(verdict))


def measure(
    lineage: Annotated[
        Path | None, typer.Argument(help="A lineage file (TOML); alternatively, give the roles as options.")
    ] = None,
    witness: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id[@revision] of the earlier, more permissive state; ablated: the aligned model with "
            "its refusal direction ablated, an estimate. Left out, the way back is not defined."
        ),
    ] = None,
    witness_kind: Annotated[
        str, typer.Option(help="helpful-only, or what stands in for it: instruction-tuned, base or ablated.")
    ] = "helpful-only",
    aligned: Annotated[
        str | None, typer.Option(help="Folder or hub id[@revision] that fine-tuning starts from.")
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="Folder or hub id[@revision] of the raw base model.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(metavar="[STEP=]REF", help="A fine-tuned checkpoint; may be repeated.")
    ] = None,
    trajectory: Annotated[
        list[str] | None,
        typer.Option(metavar="[ARM[@SEED]=]FOLDER", help="A Trainer output folder with checkpoint-N; may be repeated."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Current location of the adapters' base model, if they name another: folder or hub id."),
    ] = None,
    harmful: Annotated[
        Path | None, typer.Option(help="Harmful probe prompts in any known format; default: our own.")
    ] = None,
    harmless: Annotated[
        Path | None, typer.Option(help="Harmless probe prompts in any known format; default: our own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most this many prompts of each class.")] = None,
    group_column: GroupColumn = None,
    chat_template: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="aligned (default), checkpoint (the last fine-tuned one's own), or a file or a model's folder.",
        ),
    ] = None,
    system_prompt: Annotated[str | None, typer.Option(help="System prompt in front of every prompt.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Turn thinking on or off in the chat template.")
    ] = None,
    generation_prompt: Annotated[
        bool | None,
        typer.Option(
            "--generation-prompt/--no-generation-prompt", help="End every prompt with the opening of a reply (default)."
        ),
    ] = None,
    out: Out = None,
    layer: Annotated[
        int | None,
        typer.Option(min=0, help="Headline layer, declared in advance; default: chosen from aligned and witness."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="MAP",
            help="Spread each model over several devices: auto, balanced, balanced_low_0, sequential, or a JSON file"
            " of devices by module name.",
        ),
    ] = None,
    quantize: Annotated[str | None, typer.Option(metavar="BITS", help="Read the models in 4bit or 8bit.")] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens per batch; 0 chooses it automatically.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of folds, bootstraps and draws.")] = None,
    nulls: Annotated[bool, typer.Option("--nulls/--no-nulls", help="Test the drift against its nulls.")] = True,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Let every checkpoint answer too, for the safety answer.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickle-only weights (weights_only=True).")
    ] = False,
    allow_unrelated: Annotated[
        bool,
        typer.Option(
            "--allow-unrelated", help="Accept checkpoints whose weights are unrelated to the aligned model's."
        ),
    ] = False,
    settings: Annotated[Path | None, typer.Option(help="A TOML file with any of the settings.")] = None,
    set_: Set = None,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Measure fine-tuned checkpoints, from a lineage file or from options; a witness adds the way back to it."""
    from probes.engine import open_engine

    with open_engine(workers):  # before all else: what workers begin from loads while this process loads its own
        from probes.tasks.measure import begin

        roles = {"aligned": aligned, "witness": witness, "pretrained": pretrained, "witness_kind": witness_kind}
        history = _history(lineage, roles, checkpoint or [], trajectories=trajectory or [], base=base)
        prompts = _prompts(PromptFiles(harmful, harmless, group_column), limit, seed or 0)
        flags = {
            "chat_template": chat_template,
            "system_prompt": system_prompt,
            "thinking": thinking,
            "generation_prompt": generation_prompt,
            "headline_layer": layer,
            "device": device,
            "dtype": dtype,
            "device_map": _read_device_map(device_map),
            "quantize": quantize,
            "batch_tokens": batch_tokens or None,
            "seed": seed,
            "nulls": None if nulls else False,
            "allow_pickle": allow_pickle or None,
            "allow_unrelated": allow_unrelated or None,
        }
        config = _settings(settings, set_ or [], flags)
        place = out or Path("runs") / history.name
        if evaluate:  # what people ask is answered before any geometry
            _answer_first(begin(history, prompts, place, config), limit, device)
        run = _measure(history, prompts, place, config)
        run = _evaluate(run, limit, device) if evaluate else run
    _show(run, as_json=json_)


def _history(file: Path | None, roles: dict[str, Any], checkpoints: list[str], **added: Any) -> Lineage:
    """The lineage of a file, or of options; says so where it has no witness.

    Args:
        file: a lineage file, or None.
        roles: `aligned`, `witness`, `pretrained` and `witness_kind` as options give them.
        checkpoints: fine-tuned ones.
        added: `trajectories` and `base`, as `Lineage.of` takes them.
    """
    from probes.lineage import Lineage

    if file is not None and (roles["witness"] or roles["aligned"] or roles["pretrained"]):
        raise UsageError("Give a lineage file or the roles as options, not both")
    if file is not None:
        options = Lineage.of(".", ".", checkpoints, **added)
        history = Lineage.load(file, added["base"]).with_trajectories(options.trajectories)
    elif roles["aligned"]:
        history = Lineage.of(checkpoints=checkpoints, **roles, **added)
    else:
        raise UsageError(
            "A measurement needs a lineage",
            expected="a lineage file, or --aligned and a --checkpoint, with a --witness where there is one",
            next_step="Two ready files are in data/lineages.",
        )
    if not history.trajectories:
        raise UsageError(
            "There is nothing to measure",
            expected="--checkpoint or --trajectory, or trajectories in the file",
        )
    if history.witness is None:
        _say_no_witness(history, in_file=file is not None)
    return history


def _read_device_map(text: str | None) -> str | dict[str, Any] | None:
    """A strategy's name as it is; of a JSON file, what it holds."""
    from probes.store.documents import read_object

    if text is None or not text.endswith(".json"):
        return text
    return dict(read_object(Path(text), kind="device map", error=UsageError))


def _settings(file: Path | None, texts: list[str], flags: dict[str, Any]) -> Settings:
    """Settings of a file, over them those of `--set`, and over both the flags that were given (not None)."""
    from probes.store.settings import Settings

    return Settings.load(file, _pairs(texts) | {name: value for name, value in flags.items() if value is not None})


def _measure(history: Lineage, prompts: PromptSet, out: Path, config: Settings) -> Run:
    from probes.tasks.measure import measure as run_stages
    from probes.terminal import progress_display

    with progress_display() as report:
        return run_stages(history, prompts, out, config, report)


def _answer_first(run: Run, limit: int | None, device: str | None) -> None:
    from probes.cli.behaviour import choose_evaluation
    from probes.tasks.evaluate import Asking, answer_first
    from probes.terminal import progress_display

    with progress_display() as report:
        answer_first(run.path, choose_evaluation(run, limit=limit), Asking(device), report)


def _evaluate(run: Run, limit: int | None, device: str | None) -> Run:
    from probes.cli.behaviour import choose_evaluation
    from probes.tasks.evaluate import Asking, evaluate
    from probes.terminal import progress_display

    with progress_display() as report:
        return evaluate(run.path, choose_evaluation(run, limit=limit), Asking(device), report)


def _say_no_witness(history: Lineage, *, in_file: bool) -> None:
    """Say that there is no witness, and which line would add one."""
    from probes.tasks.lineages import suggest_witness

    notice("No witness: what needs one is not defined. The safety answer needs none.")
    suggestion = suggest_witness(history.aligned)
    if suggestion is not None:
        notice(suggestion.sentence(in_file=in_file))
    estimate = 'witness = "ablated"' if in_file else "--witness ablated"
    notice(f"For an estimate of the way back without another model, add: {estimate}")


def verdict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    report: Annotated[bool, typer.Option("--report", help="99 shams instead of 39, for numbers you publish.")] = False,
    shams: Annotated[
        str | None, typer.Option(metavar="ARMS", help="Arms that get sham tests, comma-separated; default: baseline.")
    ] = None,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Test a measured run against every null, and report the evidence level that it has earned."""
    from probes.engine import open_engine

    with open_engine(workers):  # before all else, as in `measure`
        from probes.tasks.measure import judge
        from probes.terminal import console, progress_display
        from probes.terminal.show_run import verdict_lines

        arms = shams.split(",") if shams else None
        with progress_display() as tell:
            judged = judge(run, shams=99 if report else 39, report=tell, sham_arms=arms)
    document = judged.read_json("verdict")
    for sentence in judged.notices:
        notice(sentence)
    if json_:
        print_json(document)
    else:
        console().print(verdict_lines(document["trajectories"]))


def _show(run: Run, *, as_json: bool) -> Any:
    """Print a run's summary and return it."""
    from probes.cli.look import print_summary

    return print_summary(run, as_json=as_json)


def _prompts(files: PromptFiles, limit: int | None, seed: int) -> PromptSet:
    from probes.prompts import default_prompts

    return files.read(default_prompts("probe"), limit=limit, seed=seed)


def _pairs(texts: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` options, each value read as TOML."""
    import tomllib

    pairs: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise UsageError("--set takes KEY=VALUE", got=repr(text))
        try:
            pairs[key] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            pairs[key] = value
    return pairs
