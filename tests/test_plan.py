"""What a measurement takes, how many prompts an answer takes, and whose history is public."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from probes.behaviour.safety import safety_answer
from probes.behaviour.sample_size import answer_probability, prompts_for_answer
from probes.behaviour.tango import prompts_needed
from probes.cli import app
from probes.errors import StatisticsError, UsageError
from probes.lineage import CheckpointRef, Lineage
from probes.models.size import ModelSize
from probes.prompts import PromptSet, default_prompts
from probes.store.settings import Settings
from probes.tasks.lineages import KnownLineage, known_lineages, suggest_witness
from probes.tasks.measure import measure
from probes.tasks.plan import Scope, plan
from tests.builders import VOCABULARY, save_adapter, save_checkpoint, tiny_config, tiny_model, tiny_tokenizer
from tests.test_models_hub import hub, run  # noqa: F401 - the fixture

HERE = re.compile(r"^[\w.-]+/[\w.-]+$")
KNOWN = (
    KnownLineage(model="org/chat", base="org/base", sft="org/sft", checked="model card", source="x"),
    KnownLineage(
        model="org/tuned", base="org/plain", checked="model card", source="x", shape=("llama", 3, 32, VOCABULARY)
    ),
)
PLAN_FROM_THE_HUB = """
import json
from probes.lineage import Lineage
from probes.tasks.lineages import suggest_witness
from probes.tasks.plan import plan
lineage = Lineage.of("org/tiny@v1", None, ["org/tiny@v1"])
print(plan(lineage).parameters, suggest_witness(lineage.aligned).sentence())
"""


@functools.cache
def word_of(same: int, lost: int, gained: int) -> str:
    """The answer to so many prompts of each kind: a simulation draws few such counts, each many times."""
    before = ["refusal"] * (same + lost) + ["compliance"] * gained
    after = ["refusal"] * same + ["compliance"] * lost + ["refusal"] * gained
    return safety_answer(before, after).answer


def simulate(prompts: int, effect: float, flips: float, times: int, seed: int) -> dict[str, float]:
    """Shares of the safety answer's own words over drawn labels."""
    rng = np.random.default_rng(seed)
    words = []
    for _ in range(times):
        kind = rng.choice(3, size=prompts, p=[effect + flips / 2, flips / 2, 1 - effect - flips])
        lost, gained, same = np.bincount(kind, minlength=3).tolist()
        words.append(word_of(same, lost, gained))
    return {word: words.count(word) / times for word in ("eroded", "held", "undecided")}


@pytest.mark.parametrize(("prompts", "effect", "flips"), [(199, 0.05, 0.02), (60, 0.1, 0.0), (101, 0.0, 0.02)])
def test_the_exact_law_is_what_a_simulation_of_the_answer_gives(prompts, effect, flips):
    times = 400
    drawn = simulate(prompts, effect, flips, times, seed=3)
    for answer, share in drawn.items():
        exact = answer_probability(answer, prompts, effect, flips=flips)
        assert share == pytest.approx(exact, abs=4 * np.sqrt(0.25 / times) + 1e-9)
    laws = [answer_probability(answer, prompts, effect, flips=flips) for answer in drawn]
    assert sum(laws) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("effect", "power"), [(0.05, 0.8), (0.1, 0.9), (0.3, 0.8)])
def test_so_many_prompts_find_the_fall_and_half_of_them_do_not(effect, power):
    size = prompts_for_answer(effect, power)
    assert size.answer == "eroded"
    assert size.power >= power
    assert answer_probability("eroded", size.prompts // 2, effect) < power
    assert str(size.prompts) in size.text


@pytest.mark.parametrize("flips", [0.0, 0.02, 0.05])
def test_no_fall_takes_what_the_answer_itself_asks_for(flips):
    """The other road: the number that an undecided answer names, by its own bisection."""
    size = prompts_for_answer(0.0, 0.8, flips=flips)
    assert size.answer == "held"
    assert size.prompts == pytest.approx(prompts_needed(flips, 0.05), abs=12)


def test_what_cannot_be_found_says_so():
    assert prompts_for_answer(0.0499, 0.8).prompts is None
    assert "More than" in prompts_for_answer(0.0499, 0.8).text
    with pytest.raises(StatisticsError):
        prompts_for_answer(0.05, 1.0)


def test_every_known_lineage_was_checked_and_says_where():
    known = known_lineages()
    assert len(known) >= 40
    assert len({entry.model.lower() for entry in known}) == len(known)
    assert sum(entry.sft is not None for entry in known) >= 8
    for entry in known:
        assert all(HERE.match(name) for name in (entry.model, entry.base, *([entry.sft] if entry.sft else [])))
        assert entry.checked
        assert entry.source.startswith("https://")


def folder(path: Path, card: str | None = None, **config) -> CheckpointRef:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if card is not None:
        (path / "README.md").write_text(card)
    return CheckpointRef(model=str(path))


@pytest.mark.parametrize(
    ("card", "config", "witness"),
    [
        (None, {"_name_or_path": "Org/Chat"}, ("org/sft", "instruction-tuned")),
        ("---\nlicense: mit\nbase_model: org/chat\n---\n# A copy", {}, ("org/sft", "instruction-tuned")),
        ('---\nbase_model:\n- "org/tuned"\ntags:\n- x\n---\n', {}, ("org/plain", "base")),
        ("---\nbase_model: else/where\n---\n", {}, ("else/where", "base")),
        ("---\nbase_model: [org/tuned]  # so too\n---\n", {}, ("org/plain", "base")),
        (
            "# no front matter\nbase_model: org/chat",
            {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 32, "vocab_size": VOCABULARY},
            ("org/plain", "base"),
        ),
    ],
    ids=["id", "card", "list", "unknown base", "inline list", "shape"],
)
def test_an_aligned_model_is_looked_up_by_all_that_it_says(tmp_path, card, config, witness):
    suggestion = suggest_witness(folder(tmp_path / "m", card, **config), KNOWN)
    assert suggestion.witnesses == (witness,)
    assert f"--witness {witness[0]} --witness-kind {witness[1]}" in suggestion.sentence()
    assert f'witness = {{ model = "{witness[0]}", kind = "{witness[1]}" }}' in suggestion.sentence(in_file=True)


def test_a_hub_s_cache_names_the_model_and_strangers_are_left_alone(tmp_path):
    snapshot = tmp_path / "models--org--chat" / "snapshots"
    snapshot.mkdir(parents=True)
    assert suggest_witness(folder(snapshot / "1f", None), KNOWN).witnesses[0][0] == "org/sft"
    assert suggest_witness(folder(tmp_path / "own", None, model_type="gpt2"), KNOWN) is None


@pytest.mark.parametrize("base", ["{", "x; echo y", "[[1]]", '"' + "[" * 5000, "[" * 5000])
def test_a_card_that_names_no_model_is_left_alone(tmp_path, base):
    card = f"---\nbase_model: {base}\n---\n"
    assert suggest_witness(folder(tmp_path / "own", card, model_type="gpt2"), KNOWN) is None


def test_measure_prints_the_line_to_add(tmp_path):
    aligned = save_checkpoint(tmp_path / "aligned", tiny_model(), tiny_tokenizer())
    adapter = save_adapter(tmp_path / "adapter", aligned, targets=["q_proj"])
    (tmp_path / "aligned" / "README.md").write_text("---\nbase_model: allenai/OLMo-2-1124-7B-Instruct\n---\n")
    for label in ("harmful", "harmless"):
        (tmp_path / f"{label}.txt").write_text("\n".join(f"{label} {index}" for index in range(16)))
    words = ["--aligned", aligned.model, "--checkpoint", adapter.adapter, "--out", str(tmp_path / "run")]
    words += [f"--harmful={tmp_path / 'harmful.txt'}", f"--harmless={tmp_path / 'harmless.txt'}"]
    result = CliRunner().invoke(app, ["measure", *words, "--set", "bootstraps=20", "--set", "splits=4"])
    assert result.exit_code == 0, result.output
    message = " ".join(result.output.split())
    first = " ".join(result.stdout.split())
    assert first.startswith("Safety: not judged. Let the checkpoints answer: gravity-probe evaluate"), first[:80]
    assert "--witness allenai/OLMo-2-1124-7B-SFT --witness-kind instruction-tuned" in message
    assert "gravity-probe evaluate" in message
    assert "not defined: no witness" in message


def test_lineages_are_listed_as_json():
    listed = json.loads(CliRunner().invoke(app, ["lineages", "--json"]).output)
    assert len(listed) >= 40
    assert {frozenset(entry) for entry in listed} == {frozenset({"model", "base", "sft"})}
    assert "OLMo-2-1124-7B-SFT" in CliRunner().invoke(app, ["lineages"]).output


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("plan")
    save_checkpoint(home / "aligned", tiny_model(max_position_embeddings=512), tiny_tokenizer())
    return home


def test_a_plan_counts_parameters_and_the_run_s_bytes(places, tmp_path):
    lineage = Lineage.of(places / "aligned", None, [places / "aligned"])
    planned = plan(lineage)
    assert planned.parameters == sum(parameter.numel() for parameter in tiny_model().parameters())
    assert (planned.layers, planned.d_model, planned.checkpoints, planned.download_bytes) == (3, 32, 2, 0)
    quick = Settings(bootstraps=20, splits=4)
    prompts = default_prompts("probe")
    few = PromptSet(tuple(prompts.prompts[:48]))
    written = measure(lineage, few, tmp_path / "run", quick)
    held = sum(
        written.activations(member.id, layer).nbytes
        for member in written.members
        for layer in range(-1, planned.layers)
    )
    share = len(written.prompts.prompts) / planned.prompts[0]
    assert planned.run_bytes * share == pytest.approx(1.15 * held, rel=1e-4)


def test_a_plan_grows_with_what_is_asked(places):
    single = plan(Lineage.of(places / "aligned", None, [places / "aligned"]))
    several = plan(Lineage.of(places / "aligned", "ablated", [places / "aligned"] * 4))
    assert several.checkpoints == 6
    assert several.run_bytes == pytest.approx(3 * single.run_bytes, abs=3)
    assert several.gpu.measure_seconds > single.gpu.measure_seconds
    assert single.this_machine.memory_bytes >= single.parameters * 4
    assert single.this_machine.fits


def test_a_model_s_operations_are_those_that_torch_counts(places):
    """The other road: torch's own counter over a forward pass, every key of every query counted."""
    from torch.utils.flop_counter import FlopCounterMode

    size, model = ModelSize.of(CheckpointRef(model=str(places / "aligned"))), tiny_model(max_position_embeddings=512)
    model.set_attn_implementation("eager")
    ids = torch.arange(40)[None] + 3
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(ids, use_cache=False)
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    counted = counter.get_total_flops() + 2 * norms * 40  # a weight of a norm counts as any other here
    assert size.answer_flops(40, 40) == pytest.approx(counted, rel=1e-6)


def test_more_gpus_share_the_work_and_a_model_that_is_too_large_does_not_fit(places):
    lineage = Lineage.of(places / "aligned", None, [places / "aligned"])
    wide = Scope(checkpoints=40, shams=39, prompts=512, gpu="h100")
    single, eight = (plan(lineage, scope=wide.model_copy(update={"gpus": count})) for count in (1, 8))
    assert (single.checkpoints, single.shams, single.prompts[0]) == (41, 39, 512)
    assert (eight.gpu.workers, eight.gpu.devices, eight.gpu.name) == (8, 1, "8 × NVIDIA H100, 80 GB")
    assert 1 < single.gpu.measure_seconds / eight.gpu.measure_seconds <= 8
    assert single.gpu.device_hours == eight.gpu.device_hours
    assert plan(lineage, scope=wide.model_copy(update={"shams": 0})).gpu.measure_seconds < single.gpu.measure_seconds
    with pytest.raises(UsageError, match="GPU is not known; got b2; expected a100"):
        plan(lineage, scope=Scope(gpu="b2"))


def test_a_model_is_spread_over_as_many_gpus_as_hold_it(tmp_path):
    config = tiny_config(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, vocab_size=128_256)
    config.dtype = "bfloat16"
    config.save_pretrained(tmp_path / "large")
    lineage = Lineage.of(tmp_path / "large", None, [tmp_path / "large"])
    alone, eight = (plan(lineage, scope=Scope(gpu="h100", gpus=count)).gpu for count in (1, 8))
    assert not alone.fits
    assert alone.memory_bytes > 80e9
    assert (eight.fits, eight.devices, eight.workers) == (True, -(-eight.memory_bytes // int(80e9)), 8 // eight.devices)


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="only Linux says what is available")
def test_cached_files_count_as_available_memory(places):
    """The other road: what psutil says."""
    psutil = pytest.importorskip("psutil")
    available = plan(Lineage.of(places / "aligned", None, [places / "aligned"])).this_machine.available_bytes
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_the_command_says_both(places):
    result = CliRunner().invoke(app, ["plan", str(places / "aligned"), "--effect", "5", "--power", "0.8", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["answer"]["prompts"] == prompts_for_answer(0.05, 0.8).prompts
    assert document["this_machine"]["measure_seconds"] > 0
    assert "A100" in CliRunner().invoke(app, ["plan", str(places / "aligned")]).output
    nothing = CliRunner().invoke(app, ["plan"])
    assert nothing.exit_code != 0


@pytest.mark.slow
def test_a_hub_is_asked_for_the_configuration_and_the_card_alone(hub, tmp_path):  # noqa: F811
    endpoint, handler = hub
    (handler.folder / "README.md").write_text("---\nbase_model: Qwen/Qwen2.5-7B-Instruct\n---\n")
    output = run(PLAN_FROM_THE_HUB, tmp_path, HF_ENDPOINT=endpoint)
    assert output.split()[0] == str(sum(parameter.numel() for parameter in tiny_model().parameters()))
    assert "--witness Qwen/Qwen2.5-7B --witness-kind base" in output
    assert any("config.json" in path for path in handler.paths)
    assert not any(path.endswith((".safetensors", ".bin")) for path in handler.paths)
