"""Verbs that look ahead: `plan` what a measurement takes, list the `lineages` that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from probes.cli.command import Json, Verb
from probes.cli.output import print_json
from probes.errors import UsageError


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(plan)
    app.command(cls=Verb)(lineages)


def plan(
    lineage: Annotated[
        str | None, typer.Argument(help="A lineage file (TOML), or the aligned model: folder or hub id.")
    ] = None,
    effect: Annotated[
        float | None, typer.Option(min=0, help="A fall of refusals, in points: how many prompts find it?")
    ] = None,
    power: Annotated[float, typer.Option(help="Probability with which it is found.")] = 0.8,
    flips: Annotated[float, typer.Option(min=0, help="Prompts that flip by themselves, in per cent.")] = 2.0,
    checkpoints: Annotated[
        int | None, typer.Option(min=1, help="Fine-tuned checkpoints, if not those of the lineage.")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=2, help="Probe prompts, if not our own.")] = None,
    shams: Annotated[int | None, typer.Option(min=0, help="Sham draws, if not the settings'.")] = None,
    gpu: Annotated[str, typer.Option(help="The GPU beside this machine: a100, h100, h200 or l40s.")] = "a100",
    gpus: Annotated[int, typer.Option(min=1, help="How many of it.")] = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the run would be written.")] = Path("runs"),
    json_: Json = False,
) -> None:
    """Say what a measurement takes in memory, disk and time, and how many prompts an answer takes; load nothing."""
    if lineage is None and effect is None:
        raise UsageError("There is nothing to plan", expected="a lineage, --effect POINTS, or both")
    document: dict[str, Any] = {}
    if lineage is not None:
        scope = {"checkpoints": checkpoints, "prompts": prompts, "shams": shams, "gpu": gpu, "gpus": gpus}
        document |= _plan_lineage(lineage, out, scope, as_json=json_)
    if effect is not None:
        from probes.behaviour.sample_size import prompts_for_answer

        size = prompts_for_answer(effect / 100, power, flips=flips / 100)
        document["answer"] = {**vars(size), "text": size.text}
        if not json_:
            typer.echo(size.text)
    if json_:
        print_json(document)


def lineages(json_: Json = False) -> None:
    """List public models whose base, and instruction-tuned partner, may stand in for a witness."""
    from probes.tasks.lineages import known_lineages
    from probes.terminal import console
    from probes.terminal.show_plan import lineage_table

    known = known_lineages()
    if json_:
        print_json([entry.to_json() for entry in known])
    else:
        console().print(lineage_table(known))


def _plan_lineage(place: str, out: Path, scope: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    from probes.lineage import Lineage
    from probes.tasks.plan import Scope
    from probes.tasks.plan import plan as look_ahead
    from probes.terminal import console
    from probes.terminal.show_plan import plan_table

    is_file = place.endswith(".toml")
    # A model alone: it, and one checkpoint that was trained from it.
    history = Lineage.load(place) if is_file else Lineage.of(place, None, [place])
    result = look_ahead(history, out, scope=Scope(**scope))
    if not as_json:
        console().print(plan_table(result))
    return result.model_dump(mode="json")
