"""One layer of a run: every method fitted at every checkpoint, and every direction read at every other.

Nothing here knows where activations come from. Directions are compared in the common basis of one lineage; a probe is
scored on prompts that it was not fitted on: fitted on either fold, read on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.directions import METHODS
from probes.directions.contrast import Contrast, Scene
from probes.directions.controls import Isotropic, TopDrift
from probes.directions.estimator import ContrastName, Estimator, mean_difference
from probes.directions.logistic import Logistic
from probes.directions.scores import auroc, calibration_error, chance, separation
from probes.errors import StatisticsError

_WHOLE = 2  # place of the fit on all prompts, behind those on either fold


@dataclass(frozen=True)
class Fit:
    """One method at one layer.

    Attributes:
        vectors: unit directions of the fits on the first fold, the second, and all prompts; NaN where there is none.
        norm: gap between the class means along the direction of all prompts.
        line: of the fits on either fold, what turns a projection into a chance: slope, threshold, prior log odds.
        reasons: why a checkpoint has no direction; None where it has.
    """

    vectors: Float[np.ndarray, "three checkpoint d_model"]
    norm: Float[np.ndarray, " checkpoint"]
    line: Float[np.ndarray, "two checkpoint three"]
    reasons: list[str | None]

    @classmethod
    def empty(cls, checkpoints: int, width: int) -> Fit:
        """Nothing fitted yet."""
        return cls(
            vectors=np.full((3, checkpoints, width), np.nan),
            norm=np.full(checkpoints, np.nan),
            line=np.full((2, checkpoints, 3), np.nan),
            reasons=[None] * checkpoints,
        )

    def put(self, place: int, view: _View | str, method: type[Estimator], options: Sequence[Mapping[str, Any]]) -> None:
        """Fit a method on either fold and on all rows of one checkpoint's view, or keep why that cannot be."""
        if isinstance(view, str):
            self.reasons[place] = view
            return
        parts = _parts(view.contrast.fold)
        try:
            fits = [view.fit(method, settings, chosen) for settings, chosen in zip(options, parts, strict=True)]
        except StatisticsError as error:
            self.reasons[place] = error.what
            return
        for part, (estimator, vector) in enumerate(fits):
            self.vectors[part, place] = vector
            if part < _WHOLE:
                self.line[part, place] = estimator.line_
        self.norm[place] = fits[_WHOLE][0].norm_


@dataclass(frozen=True)
class Reading:
    """One method's probes, read at every checkpoint of one layer.

    Attributes:
        auroc: [i, j]: the probe fitted at i on the activations of j, other fold; mean of both folds.
        d_prime: separation of the classes by a checkpoint's own probe, other fold.
        accuracy: at the fitted threshold, other fold.
        calibration: expected calibration error, other fold.
        classes: how many rows of either class a fold has, which is what an interval counts.
    """

    auroc: Float[np.ndarray, "checkpoint checkpoint"]
    d_prime: Float[np.ndarray, " checkpoint"]
    accuracy: Float[np.ndarray, " checkpoint"]
    calibration: Float[np.ndarray, " checkpoint"]
    classes: Int[np.ndarray, "checkpoint two"]


def fit_layer(
    scenes: Mapping[str, Scene],
    methods: Mapping[str, type[Estimator]] = METHODS,
    *,
    seed: int = 0,
    layer: int = 0,
    n_layers: int = 1,
) -> dict[str, Fit]:
    """Fit every method at every checkpoint.

    What is chosen from data is chosen once, at the aligned model (the penalty of the logistic regression, from the
    rows that the probe is fitted on; what the drift control is orthogonal to), so that a direction turns because
    activations do, and for no other reason.

    Args:
        scenes: of every checkpoint by name, `aligned` among them.
        methods: which ones.
        seed: of controls and folds.
        layer: which of the model's layers this is, and
        n_layers: of how many: the isotropic control has a vector of its own at each.
    """
    options = {name: _options(method, scenes["aligned"], seed) for name, method in methods.items()}
    for name, method in methods.items():
        if method is Isotropic:
            options[name] = [{"seed": seed, "layer": layer, "n_layers": n_layers}] * 3
    fits = {name: Fit.empty(len(scenes), scenes["aligned"].own.shape[1]) for name in methods}
    for place, scene in enumerate(scenes.values()):
        views: dict[tuple[ContrastName, bool], _View | str] = {}
        for name, method in methods.items():
            kind = (method.contrast, method.spanned)
            if kind not in views:
                views[kind] = _View.of(scene, method.contrast, spanned=method.spanned)
            fits[name].put(place, views[kind], method, options[name])
    return fits


def read_layer(scenes: Mapping[str, Scene], fits: Mapping[str, Fit]) -> dict[str, Reading]:
    """Read every method's probes at every checkpoint."""
    return {name: _read(scenes, METHODS[name].contrast, fit) for name, fit in fits.items()}


def cosines(fits: Mapping[str, Fit], checkpoint: int) -> Float[np.ndarray, "direction direction"]:
    """Cosine of each direction with each at one checkpoint; NaN where one is not defined."""
    rows = np.stack([fit.vectors[_WHOLE, checkpoint] for fit in fits.values()])
    return np.clip(rows @ rows.T, -1.0, 1.0)


@dataclass(frozen=True)
class _View:
    """A contrast, and its rows rotated into their own span where that has fewer dimensions than the model."""

    contrast: Contrast
    rows: Float[np.ndarray, "row coordinate"]
    axes: Float[np.ndarray, "d_model coordinate"] | None

    @classmethod
    def of(cls, scene: Scene, name: ContrastName, *, spanned: bool = True) -> _View | str:
        """The view, or the reason why there is none; rotated only for what is `spanned`."""
        try:
            contrast = scene.contrast(name)
        except StatisticsError as error:
            return error.what
        if contrast.rows.shape[1] <= contrast.rows.shape[0]:
            return cls(contrast, contrast.rows, None)
        if not spanned:
            return cls(contrast, contrast.rows, None)
        axes, corner = np.linalg.qr(contrast.rows.T)
        return cls(contrast, corner.T, axes)

    def fit(
        self, method: type[Estimator], options: Mapping[str, Any], chosen: Bool[np.ndarray, " row"]
    ) -> tuple[Estimator, Float[np.ndarray, " d_model"]]:
        """The estimator on some of the rows, and its direction in the model's own basis."""
        contrast, axes = self.contrast, self.axes if method.spanned else None
        settings = dict(options)
        if axes is not None and settings.get("off") is not None:
            settings["off"] = axes.T @ settings["off"]
        rows = contrast.rows if axes is None else self.rows
        pairs = None if contrast.pairs is None else contrast.pairs[chosen]
        estimator = method(**settings).fit(rows[chosen], contrast.positive[chosen], pairs)
        return estimator, estimator.direction_ if axes is None else axes @ estimator.direction_

    def strength(self, seed: int, chosen: Bool[np.ndarray, " row"]) -> dict[str, float]:
        """The penalty that cross-validation within some of the rows chooses; nothing where none can be fitted."""
        try:
            return {"strength": Logistic(seed=seed).fit(self.rows[chosen], self.contrast.positive[chosen]).strength_}
        except StatisticsError:
            return {}


def _parts(fold: Bool[np.ndarray, " row"]) -> tuple[Bool[np.ndarray, " row"], ...]:
    """The rows of the three fits: either fold, and all."""
    return ~fold, fold, np.ones_like(fold)


def _options(method: type[Estimator], aligned: Scene, seed: int) -> list[dict[str, Any]]:
    """What a method is told at every checkpoint alike, for each of the three fits."""
    if method is TopDrift:
        return [{"seed": seed, "off": _reversion(aligned)}] * 3
    if method is Logistic:
        view = _View.of(aligned, Logistic.contrast)
        if isinstance(view, _View):
            return [{"seed": seed, **view.strength(seed, chosen)} for chosen in _parts(view.contrast.fold)]
    return [{"seed": seed}] * 3


def _read(scenes: Mapping[str, Scene], name: ContrastName, fit: Fit) -> Reading:
    count = len(scenes)
    reading = Reading(
        auroc=np.full((count, count), np.nan),
        d_prime=np.full(count, np.nan),
        accuracy=np.full(count, np.nan),
        calibration=np.full(count, np.nan),
        classes=np.zeros((count, 2), dtype=np.int64),
    )
    for place, scene in enumerate(scenes.values()):
        try:
            contrast = scene.contrast(name)
        except StatisticsError:
            continue
        # Both folds' scores hang on the same two probes: together they say little more than one fold's rows do.
        reading.classes[place] = [
            min(int((contrast.positive == side)[fold].sum()) for fold in (contrast.fold, ~contrast.fold))
            for side in (True, False)
        ]
        folds = [
            (contrast.rows[fold] @ fit.vectors[part].T, contrast.positive[fold], fit.line[part])
            for part, fold in ((0, contrast.fold), (1, ~contrast.fold))
        ]
        reading.auroc[:, place] = np.mean([auroc(scores, positive) for scores, positive, _ in folds], axis=0)
        if fit.reasons[place] is None:
            own = [(scores[:, place], positive, line[place]) for scores, positive, line in folds]
            reading.d_prime[place] = np.mean([separation(scores, positive) for scores, positive, _ in own])
            reading.accuracy[place] = np.mean(
                [((np.sign(line[0]) * (z - line[1]) > 0) == positive).mean() for z, positive, line in own]
            )
            chances = np.concatenate([chance(scores, *line) for scores, _, line in own])
            reading.calibration[place] = calibration_error(
                chances, np.concatenate([positive for _, positive, _ in own])
            )
    return reading


def _reversion(aligned: Scene) -> Float[np.ndarray, " d_model"] | None:
    """The way back from the aligned model, as the other directions see it; None where there is none."""
    try:
        contrast = aligned.contrast("models")
    except StatisticsError:
        return None
    return mean_difference(contrast.rows, contrast.positive)
