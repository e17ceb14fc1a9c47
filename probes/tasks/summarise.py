"""The documented, stable JSON of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from probes.drift import WITHOUT_WITNESS
from probes.lineage import NO_WITNESS, ROLES
from probes.run import Run
from probes.stages.weights import total_drift
from probes.statistics import STATISTICS
from probes.store import FORMAT_VERSION
from probes.tasks.safety import safety_answers

if TYPE_CHECKING:
    import pandas as pd


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Null(_Record):
    """One null at one checkpoint and layer.

    `limit` is what its statistic reaches: the 99th percentile, or of fewer than 199 `draws` the largest; 0 draws are an
    exact law.
    """

    limit: float | None
    draws: int
    p: float | None


class Probe(_Record):
    """The refusal probe of one checkpoint after one block: the difference of class means, at the run's own token.

    `cosine` to the aligned model's; `auroc` of the aligned model's probe on this checkpoint, `refit` of its own, both
    on the fold that they were not fitted on; `norm` is the gap between the class means.
    """

    cosine: float | None
    auroc: float | None
    refit: float | None
    norm: float | None


class Layer(_Record):
    """The statistics of one checkpoint after one block; None where a statistic is not defined.

    `probe` is None in runs of earlier versions.
    """

    layer: int
    alignment: float | None
    alignment_crossfit: float | None
    return_fraction: float | None
    off_axis: float | None
    did_alignment: float | None
    did_return_fraction: float | None
    displacement_norm: float | None
    share_moved: float | None
    nulls: dict[str, Null]
    probe: Probe | None = None


_STATISTICS = tuple(name for name in Layer.model_fields if name in STATISTICS)


class Behaviour(_Record):
    """Rates in [0, 1], refusal scores in log odds, the task loss in nats per token; None where it was not measured.

    `over_refusal` is on look-alikes, `unjudged` the share of completions that no judge could judge. What begins with
    `corrected_` is corrected for the judge's known errors (Rogan-Gladen).
    """

    refusal_harmful: float | None = None
    refusal_harmless: float | None = None
    task_loss: float | None = None
    harmful_compliance: float | None = None
    over_refusal: float | None = None
    incoherent: float | None = None
    unjudged: float | None = None
    refusal_score_harmful: float | None = None
    refusal_score_harmless: float | None = None
    corrected_refusal_harmful: float | None = None
    corrected_harmful_compliance: float | None = None
    corrected_refusal_harmless: float | None = None
    corrected_over_refusal: float | None = None


class Checkpoint(_Record):
    """One step of a trajectory; `weight_drift` is ‖θ_T − θ_S‖ over all tensors, None where it was not measured."""

    step: int
    weight_drift: float | None = None
    layers: tuple[Layer, ...]
    behaviour: Behaviour


class Safety(_Record):
    """What the answers of a trajectory's last judged checkpoint say (METHODS, section 7); rates are fractions."""

    answer: str
    refusal_before: float | None
    refusal_after: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    prompts: int
    base_flip_rate: float | None


class TrajectorySummary(_Record):
    """One fine-tuning run; `safety` is None where its behaviour was not judged."""

    arm: str
    seed: int
    safety: Safety | None
    checkpoints: tuple[Checkpoint, ...]


class Summary(_Record):
    """What `gravity-probe summary RUN --json` prints.

    `witness` is what the witness is called, e.g. `witness (base model stands in)`; `no witness` where there is none,
    and then `not_defined` says so of every statistic that needs one, which is null at every layer. `headline_rule` says
    what chose the headline layer; null where it was declared, or where an earlier version chose it.
    """

    format_version: int
    witness: str
    not_defined: dict[str, str]
    lineage: str
    headline_layer: int
    headline_rule: str | None
    trajectories: tuple[TrajectorySummary, ...]


def summarise(run: Run) -> Summary:
    """Gather a run's tables into its summary.

    Raises:
        RunFolderError: the run has no drift table yet, or one of its tables is damaged.
    """
    drift = run.drift()
    drift = drift[(drift["layer"] >= 0) & ~drift["arm"].isin(ROLES)]
    layers = _by_step(drift, ["layer", "statistic"], "value")
    nulls, probes, moved = _nulls(run), _probes(run), total_drift(run)
    behaviours = behaviour_by_step(run)
    answers = safety_answers(run)
    names = {(member.arm, member.seed, member.step): member.id for member in run.tuned}
    trajectories = []
    for (arm, seed), frame in drift.groupby(["arm", "seed"], sort=False):
        steps = sorted(frame["step"].unique())
        checkpoints = tuple(
            Checkpoint(
                step=step,
                weight_drift=moved.get(names.get((arm, seed, step), "")),
                layers=_layers(
                    layers[arm, seed, step], nulls.get((arm, seed, step), {}), probes.get((arm, seed, step), {})
                ),
                behaviour=Behaviour(**behaviours.get((arm, seed, step), {})),
            )
            for step in map(int, steps)
        )
        answer = answers.get((arm, seed))
        safety = None if answer is None else Safety(**answer.to_json())
        trajectories.append(TrajectorySummary(arm=str(arm), seed=int(seed), safety=safety, checkpoints=checkpoints))
    return Summary(
        format_version=FORMAT_VERSION,
        witness=run.lineage.witness_label,
        not_defined={}
        if run.has_witness
        else {name: f"not defined: {NO_WITNESS}" for name in _STATISTICS if name not in WITHOUT_WITNESS},
        lineage=run.lineage.name,
        headline_layer=run.headline_layer,
        headline_rule=run.headline_rule,
        trajectories=tuple(trajectories),
    )


def behaviour_by_step(run: Run) -> dict[tuple[str, int, int], dict[str, float]]:
    """Behaviour of every checkpoint by (arm, seed, step); the roles stand under their own name, seed 0 and step 0."""
    if not run.has_table("behaviour"):
        return {}
    frame = run.table("behaviour")
    by_step = _by_step(frame[frame["measure"].isin(list(Behaviour.model_fields))], ["measure"], "value")
    return {
        key: {name: value for (name,), value in values.items() if value is not None} for key, values in by_step.items()
    }


def _by_step(
    frame: pd.DataFrame, inner: list[str], value: str
) -> dict[tuple[str, int, int], dict[tuple, float | None]]:
    """Values by (arm, seed, step), then by the `inner` columns; NaN becomes None."""
    table: dict[tuple[str, int, int], dict[tuple, float | None]] = {}
    for *key, number in frame[["arm", "seed", "step", *inner, value]].itertuples(index=False, name=None):
        place = (str(key[0]), int(key[1]), int(key[2]))
        table.setdefault(place, {})[tuple(key[3:])] = None if number != number else float(number)
    return table


def _nulls(run: Run) -> dict[tuple[str, int, int], dict[int, dict[str, Null]]]:
    if not run.has_table("nulls"):
        return {}
    frame = run.nulls()[["arm", "seed", "step", "layer", "null", "limit", "draws", "p"]]
    table: dict[tuple[str, int, int], dict[int, dict[str, Null]]] = {}
    for arm, seed, step, layer, name, limit, draws, p in frame.itertuples(index=False, name=None):
        rows = table.setdefault((str(arm), int(seed), int(step)), {})
        rows.setdefault(int(layer), {})[name] = Null(limit=_number(limit), draws=int(draws), p=_number(p))
    return table


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _probes(run: Run) -> dict[tuple[str, int, int], dict[int, Probe]]:
    """The refusal probe by (arm, seed, step), then layer; empty in runs of earlier versions."""
    if not run.has_table("probe"):
        return {}
    table: dict[tuple[str, int, int], dict[int, Probe]] = {}
    columns = ["arm", "seed", "step", "layer", "cosine", "auroc", "refit", "norm"]
    for arm, seed, step, layer, *numbers in run.read_table("probe", columns=columns).itertuples(index=False, name=None):
        cosine, auroc, refit, norm = map(_number, numbers)
        probe = Probe(cosine=cosine, auroc=auroc, refit=refit, norm=norm)
        table.setdefault((str(arm), int(seed), int(step)), {})[int(layer)] = probe
    return table


def probes_of_roles(run: Run, layer: int) -> dict[str, Probe]:
    """The refusal probe of the aligned model, and of the roles beside it, at a layer."""
    return {
        arm: by_layer[layer] for (arm, _, _), by_layer in _probes(run).items() if arm in ROLES and layer in by_layer
    }


def _layers(
    values: Mapping[tuple, float | None], nulls: Mapping[int, dict[str, Null]], probes: Mapping[int, Probe]
) -> tuple[Layer, ...]:
    numbers = sorted({layer for layer, _ in values})
    return tuple(
        Layer(
            layer=layer,
            nulls=nulls.get(layer, {}),
            probe=probes.get(layer),
            **{name: values.get((layer, name)) for name in _STATISTICS},  # type: ignore[arg-type]
        )
        for layer in numbers
    )
