"""The public face: what a notebook types works as it stands, and importing it costs nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from transformers import LlamaForCausalLM

import probes
from probes.errors import LineageError, RunFolderError, StatisticsError, UsageError
from probes.models.hooks import residuals
from tests.measured import FAST, PROMPTS, measured_run

DRIFT = ["checkpoint", "arm", "seed", "step", "layer", "statistic", "value", "low", "high", "reason"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def run(home):
    measured_run(home)
    return probes.open(home / "runs" / "tiny")


def world(n: int = 64, d: int = 48, fraction: float = 0.4, seed: int = 0) -> dict[str, np.ndarray]:
    """A return of this fraction on harmful prompts, with noise of its own at either end."""
    rng = np.random.default_rng(seed)
    harmful = np.arange(n) < n // 2
    aligned, back = rng.standard_normal((n, d)), 3 * rng.standard_normal(d)
    noise = [0.3 * rng.standard_normal((n, d)) for _ in range(2)]
    return {
        "aligned": aligned,
        "witness": aligned + harmful[:, None] * back + noise[0],
        "tuned": aligned + fraction * harmful[:, None] * back + noise[1],
        "harmful": harmful,
    }


@pytest.mark.parametrize("code", ["import probes", "import probes; probes.open; probes.Lineage; probes.PromptSet"])
def test_importing_loads_no_torch(code):
    command = [sys.executable, "-c", f"{code}; import sys; print('torch' in sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_every_public_name_is_there_and_another_is_none():
    names = {"open", "measure", "assess", "Lineage", "PromptSet", "METHODS", "steer", "ReversionGuard"}
    assert names <= set(dir(probes))
    assert all(getattr(probes, name) is not None for name in probes.__all__)
    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        probes.mesure  # noqa: B018


def test_a_run_says_what_it_is_in_one_line(run):
    model = run.manifest.model
    assert repr(run) == (
        f"Run('tiny', finished, 3 checkpoints, {model['n_layers']} layers × {model['d_model']}, "
        f"headline layer {run.headline_layer})"
    )


def test_drift_is_a_tidy_table_and_a_figure(run):
    rows = run.drift(arm="baseline", statistic="return_fraction")
    assert list(rows) == DRIFT
    assert len(rows) == run.n_layers + 1  # the embedding too
    assert rows[rows["layer"] >= 0]["value"].between(0.3, 0.7).all()  # its weights lie half of the way
    assert isinstance(run.figure("return_fraction"), go.Figure)
    assert isinstance(run.table("drift"), pd.DataFrame)


def test_the_lineage_the_prompts_and_the_activations_are_those_measured(run):
    assert [member.id for member in run.members] == ["aligned", "witness", "baseline-s0-000010"]
    assert run.prompts == PROMPTS
    assert run.harmful.tolist() == PROMPTS.harmful.tolist()
    assert run.groups is None
    rows = run.activations("aligned", 1)
    assert rows.shape == (len(PROMPTS), run.manifest.model["d_model"])
    witness = run.activations("witness", 1).astype(np.float64)
    back = (witness - rows)[run.harmful].mean(axis=0)
    assert np.allclose(run.direction("reversion").raw[1], back, atol=1e-5)


@pytest.mark.parametrize(
    ("ask", "fault", "sentence"),
    [
        (lambda run: run.drift(statistic="return"), UsageError, "no such statistic; got 'return'; expected alignment"),
        (lambda run: run.drift(arm="basline"), UsageError, "no such arm; got 'basline'; expected .*baseline"),
        (lambda run: run.figure("return"), UsageError, "no such statistic"),
        (lambda run: run.figure(layer=9), UsageError, "no such layer; got 9"),
        (lambda run: run.activations("aligned", 9), UsageError, "no such layer; got 9; expected 0 to 2"),
        (lambda run: run.activations("aligned", -2), UsageError, "no such layer; got -2"),
        (lambda run: run.activations("alignd", 0), LineageError, "no such checkpoint; got alignd; expected aligned"),
        (lambda run: run.direction("reversion", "baseline"), LineageError, "no such checkpoint; got baseline"),
        (lambda run: run.table("nullz"), RunFolderError, "has no table 'nullz'; expected drift"),
    ],
)
def test_what_a_run_does_not_hold_is_refused_with_what_it_holds(run, ask, fault, sentence):
    """Never an empty table, an empty figure, another layer, or advice to delete a file that is whole."""
    with pytest.raises(fault, match=sentence):
        ask(run)


def test_the_lineage_goes_down_once(run, monkeypatch):
    """Whatever asks a run for its lineage, members or model gets one reading of the manifest's."""
    readings = []
    opened = probes.Lineage.opened.__func__
    monkeypatch.setattr(
        probes.Lineage,
        "opened",
        classmethod(lambda cls, *arguments: readings.append(arguments) or opened(cls, *arguments)),
    )
    fresh = probes.open(run.path)
    assert len(fresh.members) == len(fresh.measured) == len(fresh.keys) == 3
    assert len(fresh.tuned) == 1
    fresh.model()
    assert len(readings) == 1


def test_measure_takes_paths_and_lists_of_texts(home, run, tmp_path):
    places = home / "checkpoints"
    by_label = [
        [text for text, harmful in zip(PROMPTS.texts, PROMPTS.harmful, strict=True) if harmful == label]
        for label in (True, False)
    ]
    again = probes.measure(
        aligned=places / "aligned",
        witness=str(places / "witness"),
        checkpoints=[f"10={places / 'out' / 'checkpoint-10'}"],
        harmful=by_label[0],
        harmless=by_label[1],
        out=tmp_path / "run",
        **FAST.model_dump(exclude_unset=True),
    )
    mine, first = (measured.drift(statistic="return_fraction")["value"] for measured in (again, run))
    assert mine.equals(first)
    assert again.manifest.config_given["nulls"] is False


def test_prompts_may_be_a_column_of_a_table():
    harmful, harmless = np.array(["break a lock", "break a door"]), pd.Series(["paint a lock", "paint a door"])
    prompts = probes.PromptSet.of_classes(harmful, harmless)
    assert prompts.texts == (*harmful, *harmless)
    assert prompts.harmful.tolist() == [True, True, False, False]


def test_a_trainer_folder_is_a_trajectory_and_a_wrong_place_is_refused(home, run):
    places = home / "checkpoints"
    lineage = probes.Lineage.of(places / "aligned", places / "witness", places / "out")
    assert [step.step for step in lineage.trajectories[0].checkpoints] == [10]
    stepped = probes.Lineage.of(places / "aligned", places / "witness", f"7={places / 'out' / 'checkpoint-10'}")
    assert [step.step for step in stepped.trajectories[0].checkpoints] == [7]
    with pytest.raises(LineageError, match="no checkpoint"):
        probes.Lineage.of(places / "nowhere", places / "witness")


def test_a_direction_is_added_to_any_model_and_leaves_no_trace(home, run):
    """Scale 1.0 is the raw difference: the stream behind the layer moves by just that, at every token."""
    model = LlamaForCausalLM.from_pretrained(home / "checkpoints" / "aligned", dtype=torch.float32).eval()
    ids, direction, layer = torch.tensor([[5, 6, 7, 8]]), run.direction("reversion"), 0

    def stream() -> torch.Tensor:
        with torch.no_grad(), residuals(list(model.model.layers), [layer]) as streams:
            model(ids)
        return streams[layer]

    before = stream()
    with direction.add(model, layer=layer, scale=1.0):
        during = stream()
    raw = torch.tensor(direction.raw[layer], dtype=torch.float32)
    assert torch.allclose(during - before, raw.expand_as(before), atol=1e-5)
    assert torch.equal(stream(), before)
    with direction.ablate(model, layer=layer), torch.no_grad():
        assert float((stream() @ (raw / raw.norm())).abs().max()) < 1e-4
        model.generate(ids, max_new_tokens=2, do_sample=False)
    assert torch.equal(stream(), before)


def draw_shams(planted, count=39, size=1.0):
    """The aligned model's activations, moved as far as the checkpoint in directions of their own."""
    rng, harmful = np.random.default_rng(2), planted["harmful"]
    shape = planted["aligned"].shape
    own = np.linalg.norm((planted["tuned"] - planted["aligned"])[harmful].mean(axis=0))
    moves = [own / 7 * rng.standard_normal(shape[1]) + 0.3 * rng.standard_normal(shape) for _ in range(count)]
    return [planted["aligned"] + move * (size * own / np.linalg.norm(move[harmful].mean(axis=0))) for move in moves]


def test_assess_says_yes_where_a_return_is_planted_and_no_where_none_is():
    planted = probes.assess(**world(), shams=draw_shams(world()))
    assert planted.level in (4, 5)  # nothing is causal without judged behaviour
    assert planted.p is not None
    assert "towards the witness" in planted.name
    assert "layer 3" in probes.assess(**world(), layer=3).text.lower()
    rng = np.random.default_rng(1)
    stray = world()
    stray["tuned"] = stray["aligned"] + rng.standard_normal(48) + 0.1 * rng.standard_normal((64, 48))
    assert probes.assess(**stray, shams=draw_shams(stray)).level <= 3


def test_shams_are_tested_where_they_are_given():
    planted = world()
    assert not any("sham" in entry for entry in probes.assess(**planted, shams=draw_shams(planted, 19)).untested)
    without = probes.assess(**planted)
    assert any("sham_drift" in entry for entry in without.untested)
    assert without.level == 3, "what was not tested caps the level"


@pytest.mark.parametrize("size", [0.1, 1.2])
def test_shams_that_do_not_move_as_far_are_no_reference(size):
    """A cosine at another distance is another question; one draw in ten may be astray."""
    planted = world()
    verdict = probes.assess(**planted, shams=draw_shams(planted, size=size))
    assert (verdict.level, verdict.decided_by) == (3, "sham_drift")
    assert any(
        "39 of 39 shams do not move the activations as far as the fine-tuning" in why for why in verdict.untested
    )
    assert any(f"{size:.2f} to {size:.2f} times as far" in why for why in verdict.untested)
    few = [*draw_shams(planted, size=size)[:3], *draw_shams(planted)[3:]]
    assert probes.assess(**planted, shams=few).level >= 4


def test_assess_goes_by_groups_and_refuses_too_few():
    assert probes.assess(**world(), groups=np.arange(64) % 16, shams=draw_shams(world())).level >= 4
    with pytest.raises(StatisticsError, match="too few groups"):
        probes.assess(**world(), groups=np.arange(64) % 4)


def test_arrays_that_do_not_belong_together_are_refused():
    planted = world()
    with pytest.raises(StatisticsError, match="do not belong together"):
        probes.assess(**{**planted, "harmful": planted["harmful"][:-1]})


def test_assess_takes_arrays_of_any_origin():
    """Tensors, lists, a mask of 0 and 1, and shams stacked in one array or drawn one by one, give the same verdict."""
    planted = world()
    shams = draw_shams(planted, 19)
    plain = probes.assess(**planted, shams=shams)
    tensors = {name: torch.tensor(rows) for name, rows in planted.items()}
    assert probes.assess(**tensors, shams=np.stack(shams)) == plain
    lists = {name: rows.tolist() for name, rows in planted.items()}
    assert probes.assess(**lists, shams=iter(shams)) == plain
    assert probes.assess(**{**planted, "harmful": planted["harmful"].astype(int)}, shams=shams) == plain


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"harmful": np.arange(64)}, "must be said of each"),
        ({name: np.zeros(64) for name in ("aligned", "witness", "tuned")}, "do not belong together"),
        ({"shams": [np.full((64, 48), np.nan)] * 19}, "sham's activations are not finite"),
        ({"shams": [world()["aligned"]] * 19}, "A sham equals the aligned model"),
        ({"shams": world()["tuned"]}, "do not belong together"),
    ],
)
def test_assess_says_what_does_not_fit(changes, sentence):
    with pytest.raises(StatisticsError, match=sentence):
        probes.assess(**{**world(), **changes})


def test_activations_that_were_changed_are_refused(tmp_path):
    run = measured_run(tmp_path)
    path = run.activations_path("witness")
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(RunFolderError, match="has changed since it was written"):
        probes.open(run.path).activations("witness", 0)


def test_steer_answers_with_and_without_a_direction(run):
    steered = probes.steer(run.path, "reversion", "break lock 01", max_new_tokens=3, layers=[1])
    assert len(steered.answers) == 3
    assert probes.steer(run, "reversion", "break lock 01", max_new_tokens=3, layers=1) == steered
    with pytest.raises(UsageError, match="no such setting; got max_tokens"):
        probes.steer(run, "reversion", "break lock 01", max_tokens=3)
