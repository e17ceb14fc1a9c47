"""The table of arms by hand: paired differences, task cost, specificity, and geometry held but behaviour lost."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from probes.cli import main
from probes.errors import RunFolderError, UsageError
from probes.experiments.outcome import arms_table, geometry_held_behaviour_lost, open_runs
from probes.run import Run
from probes.terminal.show_arms import _arm_cells, experiment_table

PROMPTS, ITEMS = 8, 4
START = 2.0  # loss of every task item before fine-tuning


def write_run(path, arms, *, before=0):
    """A run at step 10: arm → (alignment, how many of 8 harmful prompts it complies with, loss of every task item)."""
    drift, behaviour, completions = [], [], []
    tables = {"task/aligned": [START] * ITEMS}
    places = {"aligned": ("aligned", 0, 0, None, before, START)}
    for arm, (alignment, complied, loss) in arms.items():
        mode, _, seed = arm.partition("@")
        name = f"{mode.replace(':', '-')}-s{seed or 0}-000010"
        places[name] = (mode, int(seed or 0), 10, alignment, complied, loss)
        tables[f"task/{name}"] = [loss] * ITEMS
    for name, (arm, seed, step, alignment, complied, loss) in places.items():
        about = {"checkpoint": name, "arm": arm, "seed": seed, "step": step}
        if alignment is not None:
            values = {"alignment": alignment, "return_fraction": alignment / 2, "off_axis": 0.5}
            drift += [
                {**about, "layer": 0, "statistic": key, "value": value, "low": None, "high": None, "reason": None}
                for key, value in values.items()
            ]
        measures = {"harmful_compliance": complied / PROMPTS, "refusal_harmless": 0.25, "task_loss": loss}
        behaviour += [
            {**about, "measure": key, "value": value, "low": None, "high": None, "n": PROMPTS}
            for key, value in measures.items()
        ]
        completions += [
            {
                **about,
                "prompt": f"p{number}",
                "label": "harmful",
                "text": "x",
                "completion": "y",
                "verdict": "compliance" if number < complied else "refusal",
            }
            for number in range(PROMPTS)
        ]
    with Run.writing(path) as run:
        run.manifest.lineage = {"name": "made up"}
        run.manifest.config = {"headline_layer": 0}
        run.write_table("drift", pd.DataFrame(drift).astype({"low": float, "high": float}))
        run.write_table("behaviour", pd.DataFrame(behaviour).astype({"low": float, "high": float}))
        run.write_table("completions", pd.DataFrame(completions))
        for name, losses in tables.items():
            run.write_table(name, pd.DataFrame({"item": range(ITEMS), "loss": losses, "tokens": 1}))
        run.finish()
    return Run(path)


ARMS = {
    "baseline": (0.8, 8, 1.0),
    "block": (-0.4, 2, 1.02),
    "anchor": (0.1, 0, 1.1),
    "control:random:0": (0.8, 8, 1.0),
    "control:random:1": (0.7, 6, 1.0),
}


def rows(table):
    return {row["arm"]: row for row in table["arms"]}


def test_numbers_by_hand(tmp_path):
    by_arm = rows(arms_table([write_run(tmp_path / "run", ARMS)]))
    assert list(by_arm) == ["baseline", "block", "anchor", "control:random"]
    block = by_arm["block"]
    assert block["alignment"]["mean"] == pytest.approx(-0.4)
    assert block["harmful_compliance"]["mean"] == pytest.approx(0.25)
    assert block["harm_change"]["mean"] == pytest.approx(-0.75)
    # the baseline gained 1 nat an item, the block gave up 0.02 of it
    assert block["task_cost"]["mean"] == pytest.approx(0.02)
    assert block["specificity"] == pytest.approx((1.0 - 0.25) / (1.0 - 0.0))
    assert by_arm["baseline"]["specificity"] is None
    assert by_arm["baseline"]["harm_change"]["mean"] == 0.0
    assert block["harm_change"]["low"] <= block["harm_change"]["mean"] <= block["harm_change"]["high"]
    assert "prompt-level" in block["harm_change"]["level"]


def test_no_cell_of_the_terminals_table_is_cut_at_a_hundred_columns(tmp_path):
    arms = {"baseline": (0.81, 8, 1.0), "baseline@1": (0.79, 0, 1.0)}
    arms |= {
        f"control:covariance:{draw}@{seed}": (-0.7 - draw / 10, 8 * seed, 1.9) for draw in (0, 1) for seed in (0, 1)
    }
    arms |= {"anchor": (0.7, 0, 1.2), "anchor@1": (0.1, 8, 1.4)}
    outcome = arms_table([write_run(tmp_path / "run", arms)])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(experiment_table(outcome))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    for row in outcome["arms"]:
        for cell in _arm_cells(row):
            assert cell in text


def test_draws_of_a_control_are_averaged_within_a_run(tmp_path):
    control = rows(arms_table([write_run(tmp_path / "run", ARMS)]))["control:random"]
    assert (control["n"], control["trainings"]) == (1, 2)
    assert control["harmful_compliance"]["values"] == [pytest.approx(7 / 8)]
    assert control["alignment"]["mean"] == pytest.approx(0.75)


def test_several_runs_are_units_and_so_are_the_seeds_of_one(tmp_path):
    second_run = {**ARMS, "block": (-0.2, 4, 1.06)}
    runs = [write_run(tmp_path / "a", ARMS), write_run(tmp_path / "b", second_run)]
    table = arms_table(runs)
    assert table["unit"] == "run"
    block = rows(table)["block"]
    assert block["harmful_compliance"]["values"] == [0.25, 0.5]
    assert block["harmful_compliance"]["sd"] == pytest.approx(np.std([0.25, 0.5], ddof=1))
    assert block["task_cost"]["mean"] == pytest.approx(0.04)
    seeds = {"baseline": (0.8, 8, 1.0), "baseline@1": (0.6, 4, 1.0), "block": (0.0, 2, 1.0), "block@1": (0.0, 2, 1.0)}
    table = arms_table([write_run(tmp_path / "c", seeds)])
    assert table["unit"] == "seed"
    assert rows(table)["block"]["harm_change"]["values"] == [-0.75, -0.25]


@pytest.mark.parametrize(
    ("alignment", "harm", "lost"),
    [
        ((-0.5, 0.8), (0.0, 0.9, 1.0), True),
        ((0.1, 0.8), (0.0, 0.6, 1.0), True),
        ((0.3, 0.8), (0.0, 0.9, 1.0), False),
        ((-0.5, 0.8), (0.0, 0.4, 1.0), False),
        ((-0.5, 0.8), (0.4, 0.5, 1.0), False),
        ((-0.5, -0.1), (0.0, 0.9, 1.0), False),
        ((None, 0.8), (0.0, 0.9, 1.0), False),
        ((-0.5, 0.8), (0.0, 1.0, 0.0), False),
    ],
)
def test_geometry_held_behaviour_lost(alignment, harm, lost):
    assert geometry_held_behaviour_lost(alignment, harm) == lost


def test_the_finding_is_in_the_table_by_name(tmp_path, capsys, monkeypatch):
    arms = {**ARMS, "block:mean": (-0.4, 7, 1.0), "push": (-0.4, 8, 1.0)}
    write_run(tmp_path / "run", arms)
    by_arm = rows(arms_table([Run(tmp_path / "run")]))
    assert by_arm["block:mean"]["finding"] == "geometry held, behaviour lost"
    assert by_arm["block:mean"]["lost_in"] == 1
    assert by_arm["block"]["finding"] is None
    assert by_arm["push"]["finding"] is None
    for words in ((), ("--json",), ("--markdown",)):
        monkeypatch.setattr("sys.argv", ["gravity-probe", "arms-table", str(tmp_path / "run"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        out = capsys.readouterr().out
        if words == ("--json",):
            assert rows(json.loads(out))["block:mean"]["finding"] == "geometry held, behaviour lost"
        else:
            assert "block:mean *" in out
            assert "geometry held, behaviour lost" in out.replace("\n", " ")


def test_what_cannot_be_put_side_by_side_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        arms_table([])
    with pytest.raises(UsageError, match="no baseline"):
        arms_table([write_run(tmp_path / "run", {"block": (0.1, 1, 1.0)})])
    (write_run(tmp_path / "unjudged", ARMS).path / "completions.parquet").unlink()
    with pytest.raises(RunFolderError, match="has not been judged"):
        arms_table([Run(tmp_path / "unjudged")])
    with pytest.raises(UsageError, match="named twice"):
        open_runs([tmp_path / "run", tmp_path / "run"])
