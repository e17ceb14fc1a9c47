"""The statistics of one checkpoint at one layer, each with its interval over prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from probes.drift.grams import (
    MIN_GROUPS,
    Grams,
    Groups,
    Products,
    cosine,
    count_groups,
    fold_entropy,
    group_codes,
    remembered_weights,
    splits_of_seed,
)
from probes.drift.inner_products import sums_over_other_groups
from probes.errors import StatisticsError
from probes.lineage import NO_WITNESS
from probes.statistics import STATISTICS, Estimate

MIN_PROMPTS = 16
NOISE_FACTOR = 5.0
WITHOUT_WITNESS = ("displacement_norm", "reliability", "did_reliability")  # what is defined where there is none


def check(
    aligned: Float[np.ndarray, "prompt d_model"],
    reversions: Float[np.ndarray, "prompt d_model"] | None,
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
) -> None:
    """Refuse input from which no statistic of drift can be computed.

    Raises:
        StatisticsError: a class is missing or has fewer than 16 prompts, a value is not finite, the witness
            equals the aligned model, or the checkpoint does (its displacement is zero). A stage that measures
            step 0, where the last one is expected, writes `undefined(reason)` instead.
    """
    check_prompts(harmful)
    for name, rows in (("aligned", aligned), ("witness", reversions), ("fine-tuned", tuned)):
        if rows is None:
            continue
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise StatisticsError(
                f"The {name} checkpoint's activations are not finite",
                got=f"NaN or infinity at prompt {int(np.argmax(bad))} and {int(bad.sum()) - 1} others",
                next_step="Measure it again in float32, or leave these prompts out.",
            )
    if reversions is not None and not reversions[harmful].any():
        raise StatisticsError(
            "The witness equals the aligned model on every harmful prompt, so there is no way back",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    if np.array_equal(tuned[harmful], aligned[harmful]):
        raise StatisticsError(
            "The checkpoint equals the aligned model on every harmful prompt, so it has no displacement",
            next_step="Give a checkpoint after at least one optimiser step.",
        )


def check_prompts(harmful: Bool[np.ndarray, " prompt"]) -> None:
    """Refuse a set of prompts that is too small for any statistic of drift.

    Raises:
        StatisticsError: a class is missing or has fewer than 16 prompts.
    """
    for label, count in (("harmful", int(harmful.sum())), ("harmless", int((~harmful).sum()))):
        if count < MIN_PROMPTS:
            raise StatisticsError(
                f"There are {'no' if count == 0 else 'too few'} {label} prompts",
                got=count,
                expected=f"at least {MIN_PROMPTS} of each class",
                next_step=f"Give more with --{label}.",
            )


def undefined_statistics(reason: str) -> dict[str, Estimate]:
    """Every statistic of `measure`, not defined for this reason."""
    return {name: Estimate(None, reason=reason) for name in STATISTICS}


def measure(
    aligned: Float[np.ndarray, "prompt d_model"],
    reversions: Float[np.ndarray, "prompt d_model"] | None,
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    groups: Groups | None = None,
    noise: float | None = None,
    splits: int = 50,
    bootstraps: int = 500,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every statistic of one checkpoint at one layer, each with a 95 % interval over prompts.

    Displacement and reversion direction are means over the harmful prompts; the `did_` statistics use
    harmful minus harmless means, which cancels a shift common to all prompts.

    Args:
        aligned: the aligned model's activations.
        reversions: witness − aligned of the same prompts, as of `directions.reversion.reversions_at_layer`; None where
            there is no witness, and what needs one is not defined.
        tuned: the checkpoint's activations on the same prompts.
        harmful: which prompts are harmful.
        groups: the topic of each prompt: halves and bootstraps then go by topic; with fewer than six topics of a
            class there are no intervals.
        noise: norm of the mean displacement that a repeated pass of the same checkpoint in another batch
            order shows at this layer; alignments of a displacement within five times of it are not defined.
        splits: number of random halvings, stratified by class.
        bootstraps: number of bootstrap draws of prompts, stratified by class; 0 for no intervals.
        seed: of splits and bootstraps.

    Returns:
        An estimate per name in `probes.statistics.STATISTICS`. Cosines lie in [-1, 1], save the disattenuated one,
        which is not bounded; norms are in units of the residual stream; `return_fraction` and `off_axis` in units of
        the reversion's norm; `share_moved` is the share of harmful prompts whose own displacement points towards the
        mean reversion of the other harmful prompts.

    Raises:
        StatisticsError: see `check`; or the prompts of a class are all of one group.
    """
    check(aligned, reversions, tuned, harmful)
    back = np.zeros(aligned.shape) if reversions is None else reversions
    grams = Grams.of(aligned, back, tuned, harmful)
    estimates = measure_grams(grams, groups=groups, noise=noise, splits=splits, bootstraps=bootstraps, seed=seed)
    return estimates if reversions is not None else without_witness(estimates)


def without_witness(estimates: dict[str, Estimate]) -> dict[str, Estimate]:
    """The same statistics; those that need a witness are not defined."""
    return {
        name: estimate if name in WITHOUT_WITNESS else Estimate(None, reason=NO_WITNESS)
        for name, estimate in estimates.items()
    }


def measure_grams(
    grams: Grams,
    *,
    groups: Groups | None = None,
    noise: float | None = None,
    splits: int = 50,
    bootstraps: int = 500,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`measure`, from Gram matrices that are there already. The caller has run `check`."""
    few = too_few_groups(grams.harmful, groups)
    halves, resampled = remembered_weights(grams.harmful, splits, 0 if few else bootstraps, fold_entropy(seed), groups)
    values, draws = _values_and_draws(grams, halves, resampled, groups)
    estimates = {name: _estimate(name, value, draws.get(name)) for name, value in values.items()}
    if noise is not None and values["displacement_norm"] <= NOISE_FACTOR * noise:
        why = (
            f"the displacement ({values['displacement_norm']:.3g}) is within {NOISE_FACTOR:g} times "
            f"the noise of a repeated pass ({noise:.3g})"
        )
        estimates |= {name: Estimate(None, reason=why) for name in estimates if "alignment" in name}
    if few:
        estimates = {
            name: estimate if estimate.reason else replace(estimate, reason=few) for name, estimate in estimates.items()
        }
    return {name: estimates[name] for name in STATISTICS}


def too_few_groups(harmful: Bool[np.ndarray, " prompt"], groups: Groups | None) -> str | None:
    """Why nothing can be tested by group; None where there are groups enough, or none at all."""
    if groups is None or (count := count_groups(harmful, groups)) >= MIN_GROUPS:
        return None
    return f"too few groups ({count}; at least {MIN_GROUPS} of each class are needed)"


def crossfit(
    aligned: Float[np.ndarray, "prompt d_model"],
    reversions: Float[np.ndarray, "prompt d_model"],
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    groups: Groups | None = None,
    splits: int = 50,
    seed: int = 0,
) -> float:
    """The cross-fitted alignment alone; a sham's is computed with it, so that it compares with `measure`'s.

    Returns:
        What `measure` gives as `alignment_crossfit` at the same seed and splits; NaN where a half is at rest.
    """
    keep = np.ones(int(harmful.sum()), dtype=bool)
    grams = Grams.of(aligned[harmful], reversions[harmful], tuned[harmful], keep)
    return crossfit_grams(grams, harmful, groups=groups, splits=splits, seed=seed)


def crossfit_grams(
    grams: Grams,
    harmful: Bool[np.ndarray, " prompt_of_both_classes"],
    *,
    groups: Groups | None = None,
    splits: int = 50,
    seed: int = 0,
) -> float:
    """`crossfit` from Gram matrices of the harmful prompts alone; `harmful` marks them among all prompts."""
    first, second = splits_of_seed(harmful, splits, seed, groups)
    return float(Products.of(grams, first[:, harmful], second[:, harmful]).crossfit().mean())


def _values_and_draws(
    grams: Grams,
    halves: tuple[np.ndarray, np.ndarray],
    resampled: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray | None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Values from the whole sample and the splits; draws of the same from the bootstrap."""
    inside = grams.only_harmful()
    mask = grams.harmful
    sign = np.where(mask, 1.0, -1.0)
    whole = mask / mask.sum() - ~mask / (~mask).sum()
    values = _values(inside, [half[:, mask] for half in halves], whole[mask])
    did = _values(grams, [half * sign for half in halves], whole)
    draws = _draws(Products.of(inside, *(half[:, mask] for half in resampled)))
    did_draws = _draws(Products.of(grams, *(half * sign for half in resampled)))
    towards = (_leave_one_out(inside, None if groups is None else group_codes(groups)[mask]) > 0).astype(float)
    values["share_moved"] = float(towards.mean())
    draws["share_moved"] = ((resampled[0] + resampled[1])[:, mask] / 2) @ towards
    names = ("alignment", "alignment_crossfit", "return_fraction", "reliability")
    values |= {f"did_{name}": did[name] for name in names}
    draws |= {f"did_{name}": did_draws[name] for name in names}
    return values, draws


def _values(grams: Grams, halves: list[np.ndarray], whole: np.ndarray) -> dict[str, float]:
    products = Products.of(grams, *halves)
    dd, dv, vv = (np.array([whole @ gram @ whole]) for gram in (grams.moved, grams.cross, grams.back))
    return {
        **{name: float(value[0]) for name, value in _whole(dd, dv, vv).items()},
        "alignment_crossfit": float(products.crossfit().mean()),
        "alignment_disattenuated": float(_disattenuated_alignment(products)[0]),
        "reliability": float(products.agreement().mean()),
    }


def _draws(products: Products) -> dict[str, np.ndarray]:
    return {
        **_whole(products.dd, products.dv, products.vv),
        "alignment_crossfit": products.crossfit(),
        "reliability": products.agreement(),
        "alignment_disattenuated": cosine(
            (products.davb + products.dbva) / 2, np.maximum(products.dab, 0), np.maximum(products.vab, 0)
        ),
    }


def _whole(dd: np.ndarray, dv: np.ndarray, vv: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.sqrt(np.maximum(dd - dv**2 / vv, 0) / vv)
        fraction = dv / vv
    return {
        "alignment": cosine(dv, dd, vv),
        "return_fraction": fraction,
        "off_axis": off,
        "displacement_norm": np.sqrt(np.maximum(dd, 0)),
        "reversion_norm": np.sqrt(np.maximum(vv, 0)),
    }


def _disattenuated_alignment(products: Products) -> np.ndarray:
    """Products are averaged over the splits before the division, which is steadier than averaging ratios."""
    shared = (products.davb.mean(keepdims=True) + products.dbva.mean(keepdims=True)) / 2
    lengths = [np.maximum(squared.mean(keepdims=True), 0) for squared in (products.dab, products.vab)]
    return cosine(shared, *lengths)


def _leave_one_out(inside: Grams, codes: np.ndarray | None) -> np.ndarray:
    """Each prompt's displacement times the summed reversion of the other prompts, or of those of other groups."""
    if codes is None:
        return inside.cross.sum(axis=1) - inside.cross.diagonal()
    return sums_over_other_groups(inside.cross, codes)


def _estimate(name: str, value: float, draws: np.ndarray | None) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, reason=_WHY_NOT.get(name, "a mean vector is zero, so it has no direction"))
    low, high = interval(value, draws)
    return Estimate(value, low, high)


_WHY_NOT = {
    "alignment_disattenuated": "the displacement or the reversion does not agree with itself across folds, "
    "so there is no noise-free length to divide by",
}


def interval(value: float, draws: Float[np.ndarray, " draw"] | None) -> tuple[float | None, float | None]:
    """95 % percentile interval of bootstrap draws, moved so that their median lies on the estimate.

    Drawing prompts again adds prompt noise, which pulls every cosine off the estimate; the spread is what counts.
    No interval (None, None) without draws, or where more than 5 % of them are not defined.
    """
    if draws is None or draws.size == 0 or np.isfinite(draws).mean() < 0.95:
        return None, None
    finite = draws[np.isfinite(draws)]
    low, middle, high = np.quantile(finite, [0.025, 0.5, 0.975])
    return float(value + low - middle), float(value + high - middle)
