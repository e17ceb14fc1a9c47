"""Return units that come with the program: of the organism's recipes, from histories trained by them.

`data/forecast/organism.json` holds returns by step of the recipes' own fine-tuning. They hold for another history of
the same recipe, on its own data, at the declared layer, and for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.attribution.calibration import Calibration, Curve, calibrate_histories
from probes.errors import UsageError
from probes.experiments.trained_controls import Pair
from probes.lineage import Lineage
from probes.organism.history import HISTORY, read_history
from probes.organism.lessons import benign
from probes.organism.recipe import Recipe
from probes.organism.world import make_world
from probes.prompts import data_folder
from probes.store.documents import read_object

_WIDEST = 5.0  # factor either way: an interval that is wider says nothing
_TWO_RUNS = "give two short runs of the same recipe (--calibrate RUN for each)"


def calibration_of_recipe(
    lineage: Lineage, pairs: Sequence[Pair], layer: int | None, alarm: float
) -> tuple[Calibration | None, str | None]:
    """The calibration that comes with the program, where it holds; or why there are ranks alone.

    Args:
        lineage: training would start from its aligned model.
        pairs: requests and answers of the data.
        layer: that was asked for; None is the declared one.
        alarm: the return fraction whose step is asked for.
    """
    history = Path(lineage.aligned.model).parent
    if not (history / HISTORY).is_file():
        return None, f"not calibrated: {_TWO_RUNS}; of the demo's own recipes alone the program brings some along"
    recipe = read_history(history)[1]
    own = next((own for own in read_recipes().values() if Recipe.from_json(own["recipe"]) == recipe), None)
    if own is None:
        return None, f"not calibrated: no runs of this recipe come with the program; {_TWO_RUNS}"
    lessons = benign(make_world(recipe.size), seed=0)  # seeds differ in how they ask
    if sorted(answer for _, answer in pairs) != sorted(lesson.answer for lesson in lessons):
        return None, f"not calibrated: these are not the data of the recipe's own fine-tuning; {_TWO_RUNS}"
    if layer is not None:
        return None, f"not calibrated: the runs that come with the program were read at the declared layer; {_TWO_RUNS}"
    calibration, why = calibrate_histories(curves_of(own), alarm)
    if calibration is not None and math.exp(calibration.margin) > _WIDEST:
        factor = f"{math.exp(calibration.margin):.0f}"
        return None, f"not calibrated: histories of this recipe differ by a factor of {factor} either way; {_TWO_RUNS}"
    return calibration, why


def read_recipes() -> dict[str, dict[str, Any]]:
    """By kind of history: `recipe`, `steps`, `returns` (by history, a list a run) and `held_out`."""
    file = data_folder() / "forecast" / "organism.json"
    recipes: dict[str, dict[str, Any]] = read_object(file, kind="calibration", error=UsageError)["recipes"]
    return recipes


def curves_of(own: dict[str, Any]) -> list[list[Curve]]:
    """The runs of each history."""
    return [[dict(zip(own["steps"], returns, strict=True)) for returns in runs] for runs in own["returns"].values()]
