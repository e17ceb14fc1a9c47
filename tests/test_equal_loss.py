"""Ways of fine-tuning beside each other: arms by their names, and everything read at the loss that all have reached."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from probes.errors import UsageError
from probes.experiments.equal_loss import Curve, equal_loss_table
from probes.experiments.experiment import Experiment, arm_order, split_way
from probes.run import Run
from probes.terminal.show_arms import ways_markdown, ways_table


@pytest.mark.parametrize(
    ("arm", "plain", "way"),
    [
        ("baseline", "baseline", ""),
        ("baseline-lora", "baseline", "lora"),
        ("block:subspace-answers", "block:subspace-answers", ""),
        ("safe-lora", "safe-lora", ""),
        ("safe-lora-lora-adamw_torch", "safe-lora", "lora-adamw_torch"),
        ("control:random:3-ia3", "control:random:3", "ia3"),
        ("my-own-arm", "my-own-arm", ""),
    ],
)
def test_an_arm_carries_its_way_behind_its_name(arm: str, plain: str, way: str) -> None:
    assert split_way(arm) == (plain, way)


def test_every_method_meets_every_optimiser_and_the_first_way_keeps_plain_names() -> None:
    experiment = Experiment(
        arms=("block", "mirror"),
        method="full",
        optimizer="AdamW",
        more_methods=("lora",),
        more_optimizers=("SGD",),
        way_options={"lora.r": 4, "SGD.momentum": 0.9, "learning_rate": 1e-3, "lora-SGD.learning_rate": 0.5},
    )
    assert experiment.arms_in_order == (
        *("baseline", "baseline-full-SGD", "baseline-lora-AdamW", "baseline-lora-SGD"),
        *("block", "block-full-SGD", "block-lora-AdamW", "block-lora-SGD"),
        "mirror",
    )
    experiment.check_ways()
    way = experiment.way_of("block-lora-SGD")
    assert (way.method, way.optimizer, way.learning_rate) == ("lora", "SGD", 0.5)
    assert (way.method_options, way.optimizer_options) == ({"r": 4}, {"momentum": 0.9})
    assert experiment.way_of("baseline").learning_rate == 1e-3
    assert sorted(["block-lora", "baseline-lora", "block"], key=arm_order) == ["baseline-lora", "block", "block-lora"]
    assert Experiment(more_methods=("lora",)).ways[1].suffix == "lora"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"more_methods": ("full",)}, "named twice"),
        ({"more_methods": ("lorra",)}, "did you mean 'lora'"),
        ({"more_methods": ("lora",), "way_options": {"r": 4}}, "full has no option 'r'"),
        ({"way_options": {"ia3.r": 4}}, "for nothing that is trained here"),
        ({"more_methods": ("ia3",), "record_path": True}, "path of this way of fine-tuning is not recorded; got ia3"),
        (
            {"method": "lora", "way_options": {"lora_dropout": 0.1}, "record_path": True},
            "got lora; expected full, or plain lora without dropout",
        ),
        ({"optimizer": "LBFGS"}, "asks for the loss"),
    ],
)
def test_ways_that_there_are_not(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Experiment(**changes).check_ways()


def test_a_curve_is_read_where_it_first_falls_to_the_loss() -> None:
    points = [
        {"step": 0.0, "task_loss": 2.0, "return_fraction": 0.0},
        {"step": 10.0, "task_loss": 1.0, "return_fraction": 0.4, "task_kl": 3.0},
        {"step": 20.0, "task_loss": 1.5, "return_fraction": 0.9, "task_kl": 3.0},
    ]
    curve = Curve("baseline", 0, tuple(points))
    assert curve.at_loss(1.25) == pytest.approx({"step": 7.5, "task_loss": 1.25, "return_fraction": 0.3})
    assert curve.at_loss(1.0) == pytest.approx({"step": 10.0, "task_loss": 1.0, "return_fraction": 0.4})
    assert curve.at_loss(0.9) is None
    assert curve.best_loss == 1.0
    assert Curve("baseline", 0, ({"task_loss": 1.0}, {"task_loss": 1.2})).fall == 0


def write_run(path: Path, curves: dict[str, list[tuple[float, float]]]) -> Run:
    """A run with the loss and return of each `arm@seed` at steps 1, 2, …, from a loss of 2."""
    behaviour, drift = [_measure("aligned", "aligned", 0, 0, "task_loss", 2.0)], []
    behaviour.append(_measure("aligned", "aligned", 0, 0, "harmful_compliance", 0.1))
    for name, points in curves.items():
        arm, _, seed = name.partition("@")
        for step, (loss, value) in enumerate(points, start=1):
            about = (f"{arm}-s{seed or 0}-{step:06d}", arm, int(seed or 0), step)
            behaviour += [_measure(*about, "task_loss", loss), _measure(*about, "harmful_compliance", 0.5)]
            drift.append({**_measure(*about, "", value), "layer": 0, "statistic": "return_fraction", "reason": None})
    with Run.writing(path) as run:
        run.manifest.lineage, run.manifest.config = {"name": "made up"}, {"headline_layer": 0}
        run.write_table("behaviour", pd.DataFrame(behaviour).astype({"low": float, "high": float}))
        frame = pd.DataFrame(drift).drop(columns=["measure", "n"])
        run.write_table("drift", frame.astype({"low": float, "high": float}))
        run.finish()
    return Run(path)


def _measure(name: str, arm: str, seed: int, step: int, measure: str, value: float) -> dict[str, Any]:
    about = {"checkpoint": name, "arm": arm, "seed": seed, "step": step, "measure": measure, "value": value}
    return {**about, "low": None, "high": None, "n": 8}


def test_ways_stand_beside_each_other_at_the_loss_that_all_have_reached(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        {
            "baseline": [(1.0, 0.2), (0.5, 0.6)],
            "baseline-lora": [(1.5, 0.1), (1.0, 0.5)],
            "baseline-ia3": [(2.1, 0.9)],
            "baseline-adalora": [(1.9, 0.9)],
            "control:text": [(0.1, 0.9)],
        },
    )
    table = equal_loss_table(run)
    assert table is not None
    assert table["goals"] == {"0": 1.0}
    assert sorted(table["behind"]) == ["baseline-adalora", "baseline-ia3"], "a tenth of what another's loss has fallen"
    rows = {row["way"]: row for row in table["arms"]}
    assert set(rows) == {"", "lora"}
    assert rows[""]["return_fraction"]["mean"] == pytest.approx(0.2)
    assert rows["lora"]["return_fraction"]["mean"] == pytest.approx(0.5)
    assert rows["lora"]["return_beside_first"]["mean"] == pytest.approx(0.3)
    assert (rows[""]["step"]["mean"], rows["lora"]["step"]["mean"]) == (1.0, 2.0)
    assert rows[""]["return_beside_first"]["mean"] is None
    assert rows[""]["task_kl"]["mean"] is None
    console = Console(file=io.StringIO(), width=100)
    console.print(ways_table(table))
    assert re.search("Left out, since the task's loss hardly fell: .*baseline-ia3", ways_markdown(table))
    assert "baseline" in console.file.getvalue()  # type: ignore[attr-defined]


def test_one_way_alone_has_nothing_to_stand_beside(tmp_path: Path) -> None:
    assert equal_loss_table(write_run(tmp_path / "run", {"baseline": [(1.0, 0.2)], "block": [(1.0, 0.1)]})) is None
