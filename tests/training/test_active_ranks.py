"""BaRA's ranks in a run folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probes.lineage import Lineage, Trajectory, Witness
from probes.lineage.references import Step
from probes.plots.module_ranks import module_ranks
from probes.store.settings import Settings
from probes.tasks.measure import measure
from probes.training.active_ranks import ACTIVE_RANKS
from tests.builders import DEPTH, move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.lineages import prompts
from tests.training.test_bara import R, model_with_gates


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A lineage with a BaRA adapter and a LoRA one."""
    home = tmp_path_factory.mktemp("bara")
    base = save_checkpoint(home / "base", tiny_model(), tiny_tokenizer())
    witness = save_checkpoint(home / "witness", move_weights(tiny_model(), scale=0.2), tiny_tokenizer())
    model_with_gates().save_pretrained(home / "gated")
    plain = save_adapter(home / "plain", base, targets=["q_proj"])
    steps = [
        Step(step=step, model=base.model, adapter=adapter)
        for step, adapter in ((1, plain.adapter), (2, str(home / "gated")))
    ]
    lineage = Lineage(
        name="tiny",
        aligned=base,
        witness=Witness(model=witness.model),
        trajectories=(Trajectory(checkpoints=tuple(steps)),),
    )
    return measure(lineage, prompts(0), home / "run", Settings(nulls=False, splits=4, bootstraps=20))


def test_ranks_of_gated_checkpoints_are_kept_by_module_and_kind_of_prompt(run):
    from probes.training.bara import active_ranks

    table = run.read_table(ACTIVE_RANKS)
    assert set(table["checkpoint"]) == {"baseline-s0-000002"}, "LoRA has no gates"
    assert len(table) == 2 * DEPTH
    assert sorted(table["layer"].unique()) == list(range(DEPTH))
    expected = active_ranks(model_with_gates(), run.rendered.token_ids, run.harmful)
    expected = expected.set_index("module").loc[table["module"]]
    for name in ("terms", "open", "harmful", "harmless", "difference"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-4, atol=1e-6)


def test_a_map_has_a_cell_a_module_and_layer(run):
    table = run.read_table(ACTIVE_RANKS)
    figure = module_ranks(table, "difference", subtitle="run", headline=1)
    by_place = table.assign(part=table["module"].str.rpartition(".")[2]).set_index(["layer", "part"])["difference"]
    names = figure.layout.xaxis.ticktext
    assert set(names) == {"q_proj", "down_proj"}
    for row, layer in enumerate(range(DEPTH)):
        assert [figure.data[0].z[row][at] for at in range(2)] == [by_place[layer, name] for name in names]
    assert figure.data[0].zmax == -figure.data[0].zmin >= table["difference"].abs().max()
    assert module_ranks(table, "open", subtitle="run").data[0].zmax == R


def test_modules_of_one_name_in_a_layer_share_a_cell_with_their_mean():
    names = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.shared_expert.up_proj"]
    table = pd.DataFrame({"layer": 0, "module": names, "terms": 8, "open": [2.0, 5.0], "difference": [0.5, 0.1]})
    figure = module_ranks(table, "open", subtitle="run")
    assert figure.layout.xaxis.ticktext == ("up_proj",)
    assert figure.data[0].z[0][0] == 3.5


def test_a_checkpoint_whose_gates_are_no_numbers_has_an_empty_map():
    table = pd.DataFrame({"layer": [0, 1], "module": "mlp.up_proj", "terms": 8, "open": np.nan, "difference": np.nan})
    for rank in ("open", "difference"):
        drawn = module_ranks(table, rank, subtitle="run").data[0]
        assert [row[0] for row in drawn.text] == ["–", "–"]
        assert drawn.zmax > drawn.zmin
