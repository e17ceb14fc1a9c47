"""What the terminal shows of directions: which there are, how they turn, how they lie, what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from probes.prompts.tokens import visible
from probes.terminal.table import number, plain_table, share

if TYPE_CHECKING:
    import pandas as pd

    from probes.directions.selection import Selection
    from probes.tasks.steer import Steered

_SHORT = {
    "reversion": "rev",
    "reversion_did": "did",
    "refusal": "ref",
    "logistic": "log",
    "mass_mean": "mass",
    "lda": "lda",
    "paired_pca": "pca",
    "response_mean": "resp",
    "leace": "lea",
    "subspace": "sub",
    "control:random": "rand",
    "control:covariance": "cov",
    "control:permuted-labels": "perm",
    "control:drift": "drif",
}

_FILTERS = {"max_kl": "--max-kl", "min_induce": "--min-induce", "depth": "--depth", "finite": "to be a number"}


def list_table(rows: Sequence[Mapping[str, Any]], layer: int) -> Table:
    """Every direction of a run, at one layer of the aligned model."""
    table = plain_table(f"Directions of the aligned model, layer {layer}")
    table.add_column("direction", no_wrap=True)
    for name in ("norm", "d′", "AUROC", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for row in rows:
        between = "–" if row["refit"] is None else f"{row['refit_low']:.2f} to {row['refit_high']:.2f}"
        table.add_row(
            Text(row["direction"], "dim" if row["control"] else ""),
            number(row["norm"]),
            number(row["d_prime"]),
            number(row["refit"]),
            between,
            Text(row["says"], "dim"),
        )
    table.caption = Text(
        "norm: gap of the class means along it; AUROC: fitted on either fold, read on the other; controls: what an "
        "arbitrary direction reads in this space",
        "dim",
    )
    return table


def track_table(name: str, layer: int, rows: Sequence[Mapping[str, Any]]) -> Table:
    """How one direction turns, and what it still reads, checkpoint by checkpoint."""
    table = plain_table(f"{name}, layer {layer}, checkpoint by checkpoint")
    table.add_column("checkpoint", no_wrap=True)
    for column in ("cosine", "angle", "norm", "d′", "kept", "refitted", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        between = "–" if row["refit"] is None else f"{row['refit_low']:.2f} to {row['refit_high']:.2f}"
        angle = "–" if row["angle"] is None else f"{row['angle']:.0f}°"
        table.add_row(
            row["checkpoint"],
            number(row["cosine"]),
            angle,
            number(row["norm"]),
            number(row["d_prime"]),
            number(row["auroc"]),
            number(row["refit"]),
            between,
        )
    table.caption = Text(
        "cosine, angle: to the aligned model's; kept: AUROC of the aligned model's probe read there, refitted: of one "
        "fitted there, each on the fold that it was not fitted on",
        "dim",
    )
    return table


def readout_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Tokens that a direction raises at either sign, a line each layer and sign."""
    table = plain_table("Tokens through the final norm and the unembedding")
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("sign", no_wrap=True)
    table.add_column("tokens", overflow="fold")
    for row in rows:
        tokens = "  ".join(map(visible, row["tokens"]))
        table.add_row(str(row["layer"]), "+" if row["sign"] > 0 else "−", Text(tokens))
    return table


def cosine_table(frame: pd.DataFrame, checkpoint: str, layer: int) -> Table:
    """Cosine of every two directions at one checkpoint and layer."""
    matrix = frame.pivot(index="one", columns="other", values="cosine")
    names = [name for name in dict.fromkeys(frame["one"]) if matrix.loc[name].notna().any()]
    table = plain_table(f"Cosines at {checkpoint}, layer {layer}")
    table.padding = 0
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(_SHORT.get(name, name[:4]), justify="right", no_wrap=True)
    for name in names:
        table.add_row(name.replace("control:", "c:"), *(_two(matrix.loc[name, column]) for column in names))
    return table


def selection_lines(selection: Selection) -> list[str]:
    """What a selection rule says, in lines."""
    if selection.chosen is not None:
        best = selection.chosen
        return [
            f"position {best.position}, layer {best.layer}: bypass {best.bypass:.3f}, induce {best.induce:.3f}, "
            f"KL {best.kl:.4f}",
            f"{selection.passing} of {selection.candidates} candidates pass every filter; this has the lowest bypass.",
        ]
    lines = [f"No candidate passes, of {selection.candidates}. The nearest:"]
    for candidate, fails in selection.nearest:
        lines.append(
            f"  position {candidate.position}, layer {candidate.layer}: bypass {candidate.bypass:.3f}, "
            f"induce {candidate.induce:.3f}, KL {candidate.kl:.4f}; "
            f"fails {', '.join(_FILTERS.get(name, name) for name in fails)}"
        )
    offers = [f"One would pass with {offer}." for offer in selection.relax]
    if not offers and any("finite" not in fails for _, fails in selection.nearest):
        offers = ["No single filter keeps them out: it takes more than one change."]
    return [*lines, *offers]


def steered_table(steered: Steered) -> Table:
    """Three answers under each other."""
    place = "every block" if steered.mode == "ablate" else f"layer {', '.join(map(str, steered.layers))}"
    norm = ", ".join(f"{length:.3g}" for length in steered.norms)
    table = plain_table(f"{steered.checkpoint}: {steered.mode} {steered.direction} at {place}")
    table.add_column("", no_wrap=True)
    table.add_column("refusal", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold")
    for answer in steered.answers:
        table.add_row(answer.under, number(answer.score), Text(answer.text or "(nothing)"))
    strength = "" if steered.mode == "ablate" else f"coefficient {steered.coefficient:g} × norm {norm}; "
    table.caption = Text(f"{strength}refusal: score of the first token, nats of log odds; random: same norm", "dim")
    return table


def effect_table(effect: Mapping[str, Any]) -> Table:
    """What a direction does to behaviour, a line each intervention, the random directions as their range."""
    table = plain_table(f"{effect['checkpoint']} under {effect['direction']}, layer {effect['layer']}")
    table.add_column("", no_wrap=True)
    for name in ("refuses harmful", "refuses harmless", "incoherent"):
        table.add_column(name, justify="right", no_wrap=True)
    rates = ("refusal", "over_refusal", "incoherent")
    kinds: dict[tuple[str, float, bool], list[Mapping[str, Any]]] = {}
    for row in effect["rows"]:
        kinds.setdefault((row["mode"], row["coefficient"], row["along"].startswith("random:")), []).append(row)
    for (mode, coefficient, random), rows in sorted(kinds.items(), key=lambda item: (item[0][0] != "none", item[0])):
        how = {"none": "as it is", "ablate": "ablated at every block"}.get(mode, f"added, {coefficient:g} × norm")
        cells = [_range([row[name] for row in rows]) for name in rates]
        table.add_row(Text(f"{how}, {len(rows)} random" if random else how, "dim" if random else ""), *cells)
    table.caption = Text(
        f"over {effect['rows'][0]['n']} harmful requests of the evaluation, and its harmless ones", "dim"
    )
    return table


def mediation_table(mediation: Mapping[str, Any]) -> Table:
    """Necessity and sufficiency, beside the control directions."""
    layers = ", ".join(map(str, mediation["layers"]))
    table = plain_table(
        f"{mediation['checkpoint']}: is the motion along the reversion what changes behaviour? layer {layers}"
    )
    table.add_column("test", no_wrap=True)
    for name in ("comply", "after", "effect", "random", "covariance", "p", "over", "after", "answer"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in mediation["effects"]:
        table.add_row(
            row["test"],
            *(share(row[name]) for name in ("before", "after", "effect", "random", "covariance")),
            number(row["p"]),
            *(share(row[f"over_refusal_{when}"]) for when in ("before", "after")),
            row["answer"].replace("_", " "),
        )
    table.caption = Text(_mediation_caption(mediation["effects"]), "dim")
    return table


def _mediation_caption(effects: Sequence[Mapping[str, Any]]) -> str:
    reasons = dict.fromkeys(f"{row['test']} cannot decide: {row['reason']}" for row in effects if row["reason"])
    words = (
        "necessity: the fine-tuned model with each prompt's projection clamped to its value in the aligned model; "
        "sufficiency: the other way round; comply: harmful requests complied with; random, covariance: mean effect of "
        f"control directions; p: against all {effects[0]['controls']} of them; over: harmless ones refused"
    )
    return "; ".join([words, *reasons])


def _range(values: Sequence[float]) -> str:
    low, high = share(min(values)), share(max(values))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _two(value: float) -> str:
    if value != value:
        return "–"
    shown = f"{value:.2f}".replace("-", "−")
    return shown.removesuffix(".00") if abs(value) > 0.99 and shown.endswith(".00") else shown.replace("0.", ".", 1)
