"""Stage `headline.json`: the layer declared in advance, chosen from aligned and witness on fold A of the prompts."""

from __future__ import annotations

from probes.errors import StatisticsError
from probes.lineage import NO_WITNESS
from probes.run import HEADLINE, Run
from probes.stages import stage
from probes.store import ALIGNED, activations_stage
from probes.verdict.headline import AT_DEPTH, RULES, HeadlineLayer, choose_headline_layer, nominal_layer


def write_headline(run: Run) -> None:
    """Choose the layer, unless one was declared; a layer that was chosen stays while its inputs do."""
    if run.settings.headline_layer is None or HEADLINE in run.manifest.stages:
        _write_headline(run)


@stage(
    HEADLINE,
    version=1,
    needs=(activations_stage(ALIGNED), "witness", "prompts"),
    settings=("seed",),
)
def _write_headline(run: Run) -> None:
    document: dict[str, object]
    try:
        chosen = _choose(run)
        layer = chosen.layer
        by_block = {"d_prime": chosen.d_prime, "error": chosen.error, "auroc": chosen.auroc}
        document = {**{name: list(values.values()) for name, values in by_block.items()}, "ties": chosen.ties}
        rule = chosen.rule
    except StatisticsError as error:
        layer, rule, document = nominal_layer(run.n_layers), AT_DEPTH, {"reason": error.what}
    run.write_json(HEADLINE, {"layer": layer, "rule": rule, "says": RULES[rule], **document})
    run.manifest.config["headline_layer"] = layer
    run.save()
    run.refresh()


def _choose(run: Run) -> HeadlineLayer:
    if not run.has_witness:
        raise StatisticsError(NO_WITNESS)
    aligned, witness = run.activation_file(ALIGNED), run.activation_file("witness")
    blocks = ((aligned.layer(layer), witness.layer(layer)) for layer in range(run.n_layers))
    return choose_headline_layer(blocks, run.harmful, run.fold, groups=run.groups, seed=run.settings.seed)
