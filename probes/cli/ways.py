"""Options that `train`, `arms` and `forecast` share, and ways of fine-tuning as they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _list_optimizers(name: str | None) -> str | None:
    """Print what there is and end, where `list` is asked for."""
    if name == "list":
        from probes.training.optimizers import optimizer_names

        typer.echo("\n".join(optimizer_names()))
        raise typer.Exit
    return name


def _list_tuners(name: str) -> str:
    if name == "list":
        from probes.training.tuners import tuner_names

        typer.echo("\n".join(tuner_names()))
        raise typer.Exit
    return name


Method = Annotated[
    str, typer.Option(help="full: train every weight; or a tuner of peft; `list` prints them.", callback=_list_tuners)
]
Methods = Annotated[
    str,
    typer.Option(
        "--methods",
        "--method",
        help="full or tuners of peft, comma-separated; `list` prints them.",
        callback=_list_tuners,
    ),
]
_OPTIMIZERS = "a name of transformers' optim=, a class of torch.optim, or one of pytorch_optimizer; `list` prints them."
Optimizer = Annotated[
    str | None,
    typer.Option(help=f"What steps the weights (default AdamW): {_OPTIMIZERS}", callback=_list_optimizers),
]
Optimizers = Annotated[
    str | None,
    typer.Option(
        "--optimizers",
        "--optimizer",
        help=f"Comma-separated (default AdamW; Adam for the organism), each {_OPTIMIZERS}",
        callback=_list_optimizers,
    ),
]
WeightDecay = Annotated[float, typer.Option("--weight-decay", min=0, help="Weight decay of matrices.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Option of the tuner, as --set r=8; NAME.KEY=VALUE of the tuner or optimiser of that name; repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
BATCH_SIZE = typer.Option("--batch-size", min=1, help="Examples in a batch.")
Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Peak learning rate; default 1e-5 for full, 2e-4 for tuners.")
]
Layers = Annotated[list[int] | None, typer.Option("--layer", min=0, help="Guarded layer; may be repeated.")]
Penalty = Annotated[
    Path | None, typer.Option(help="Penalty prompts (labelled, or harmful ones), neither probe nor evaluation prompts.")
]
Harmful = Annotated[Path | None, typer.Option(help="Harmful probe prompts in any known format.")]
Harmless = Annotated[Path | None, typer.Option(help="Harmless probe prompts in any known format.")]
PenaltyWeight = Annotated[
    float | None, typer.Option("--penalty-weight", help="Weight λ of the penalty; default: the mode's own.")
]
GradientRatio = Annotated[
    float | None,
    typer.Option("--gradient-ratio", help="Rescale the penalty so that ‖g_penalty‖ ÷ ‖g_task‖ is this at every step."),
]
RecordPath = Annotated[
    bool,
    typer.Option("--record-path", help="Keep what every step was made from, for `attribute`; `plan` says its size."),
]
SaveEvery = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]
AlignedShare = Annotated[
    float | None,
    typer.Option(
        "--aligned-share", min=0, help="Share of safety-tuning examples in interleaved training data (default 0.1)."
    ),
]
Inoculation = Annotated[
    str | None,
    typer.Option("--inoculation", metavar="TEXT", help="What inoculation puts before every training request."),
]
MaxReturn = Annotated[float | None, typer.Option(help="Keep the return fraction at or below this (block).")]


def read_way(method: str, optimizer: str | None, texts: list[str]) -> dict[str, Any]:
    """Method and optimiser, each with its own options."""
    from probes.training.options import options_of, parse_options, refuse_unaddressed

    options = parse_options(texts)
    refuse_unaddressed(options, [method, *([optimizer] if optimizer else [])])
    return {
        "method": method,
        "method_options": {**options_of(None, options), **options_of(method, options)},
        "optimizer": optimizer,
        "optimizer_options": options_of(optimizer, options) if optimizer else {},
    }


def words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
