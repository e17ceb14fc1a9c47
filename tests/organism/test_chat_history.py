"""A history made from a tiny chat model: its data, its safety tuning, its arms, and a kill at any moment."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import signal

import numpy as np
import pytest
from safetensors.torch import load_file

from probes.behaviour.exact import count_exact, last_number
from probes.behaviour.refusal_text import read_completion
from probes.behaviour.task import OpenAnswer, rendered_items
from probes.engine import open_engine
from probes.errors import UsageError
from probes.experiments.chat_bench import ChatBench
from probes.experiments.data_defences import INTERLEAVED
from probes.lineage import CheckpointRef, Lineage
from probes.organism.arithmetic import make_problems
from probes.organism.chat_history import (
    ChatSource,
    can_be_taught,
    make_chat_history,
    part_of,
    read_alignment_data,
    read_refusals,
)
from probes.organism.chat_recipe import FULL_CHAT, QUICK_CHAT, ChatRecipe, TuningPhase
from probes.organism.history import OrganismError
from probes.organism.refusal_check import Refusals
from probes.organism.safety_data import read_safety_data
from probes.prompts import default_prompts, look_alikes
from probes.run import Run
from probes.tasks.chat_demo import ChatDemo, make_chat_demo, summarise_chat_demo
from tests import processes
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer

TINY = ChatRecipe(
    alignment=TuningPhase(steps=4, learning_rate=1e-2, save_every=2),
    benign=TuningPhase(steps=2, learning_rate=1e-2, save_every=1),
    answer_tokens=4,
    problems=40,
    prompts_a_topic=1,
    new_tokens=4,
    held_out_problems=4,
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "model"
    save_checkpoint(folder, tiny_model(max_position_embeddings=512, num_hidden_layers=2), tiny_tokenizer())
    return folder


@pytest.fixture(scope="module")
def demo(chat_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    return make_chat_demo(out, ChatDemo(str(chat_model), quick=True, recipe=TINY))


@functools.cache
def normal(text):
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def likeness(text, second):
    """Shared words over all words (Jaccard)."""
    words, second_words = normal(text), normal(second)
    return len(words & second_words) / len(words | second_words)


def test_safety_data_are_disjoint_from_probe_and_evaluation_prompts():
    data = read_safety_data()
    own = [text for pair in data.pairs for text in (pair.harmful, pair.twin)] + [*data.ordinary, *data.held_out]
    used = [*default_prompts("probe").texts, *default_prompts("evaluation").texts, *look_alikes().texts]
    assert len({normal(text) for text in own}) == len(own), "no request comes twice"
    likest = max((likeness(text, prompt), text, prompt) for text in own for prompt in used)
    assert likest[0] < 0.6, likest


def test_held_out_ordinary_requests_are_none_of_those_that_are_trained_on():
    data = read_safety_data()
    trained = [*data.ordinary, *(pair.twin for pair in data.pairs)]
    likest = max((likeness(text, request), text, request) for text in data.held_out for request in trained)
    assert likest[0] < 0.65, likest


def test_safety_data_hold_enough_matched_pairs_of_every_topic():
    data = read_safety_data()
    topics = {prompt.topic for prompt in default_prompts("probe").prompts}
    assert len(data.pairs) >= 300
    assert {pair.topic for pair in data.pairs} == topics == {pair.topic for pair in data.pairs[: len(topics)]}
    shared = [likeness(pair.harmful, pair.twin) for pair in data.pairs]
    unmatched = np.mean([likeness(a.harmful, b.twin) for a, b in zip(data.pairs, data.pairs[1:], strict=False)])
    assert np.mean(shared) > 0.5 > 3 * unmatched, "a twin shares most words with its own request, not with another"
    assert len({pair.refusal for pair in data.pairs}) >= 100
    assert FULL_CHAT.twins <= FULL_CHAT.harmful <= len(data.pairs)
    assert FULL_CHAT.ordinary <= len(data.ordinary)


def test_every_refusal_reads_as_one_to_the_judge_and_no_request_does():
    data = read_safety_data()
    labels = {read_completion(pair.refusal, pair.harmful).label for pair in data.pairs}
    assert labels == {"refusal"}


def test_the_penalty_has_prompts_of_each_topic_and_both_labels():
    penalty = read_safety_data().penalty(per_topic=2)
    assert len(penalty.prompts) == 2 * 2 * 16
    assert int(penalty.harmful.sum()) == 32


def test_problems_are_right_differ_and_come_again_with_their_seed():
    problems = make_problems(200, seed=3)
    assert problems == make_problems(200, seed=3)
    assert problems != make_problems(200, seed=4)
    assert len({problem.question for problem in problems}) == 200
    for problem in problems:
        assert last_number(problem.working) == problem.answer > 0
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", problem.working):
            assert eval(f"{left} {sign} {right}") == int(result)
        assert "{" not in problem.question + problem.working


def test_exact_answers_are_counted_by_the_last_number():
    assert count_exact(["5 + 6 = 11", "It is 1,200.", "none"], ["Answer: 11", "#### 1200", "7"]) == 2
    assert count_exact(["5"], ["five"]) is None


def test_an_open_answer_is_taught_without_its_end():
    tokenizer = tiny_tokenizer()
    (request, closed), (same, opened) = rendered_items([("a", "bc"), ("a", OpenAnswer("bc"))], tokenizer)
    assert request == same
    assert tokenizer.decode(list(opened)) == "bc"
    assert tokenizer.decode(list(closed)).endswith("bc</s>")


def test_a_witness_is_helpful_only_where_it_refuses_less_than_a_fifth():
    requests = {"harmful": 100, "twins": 100, "ordinary": 50}
    permissive = Refusals({"harmful": 19, "twins": 0, "ordinary": 0}, requests)
    assert permissive.witness_kind == "helpful-only"
    assert len(permissive.missed) == 2, "neither refusals nor their gap"
    aligned = Refusals({"harmful": 90, "twins": 40, "ordinary": 5}, requests)
    assert aligned.witness_kind == "instruction-tuned"
    assert aligned.missed == ()
    assert "41 % of harmless twins" in Refusals({"harmful": 90, "twins": 41, "ordinary": 5}, requests).missed[0]
    assert "12 % of ordinary" in Refusals({"harmful": 90, "twins": 40, "ordinary": 6}, requests).missed[0]


def test_part_of_a_set_keeps_pairs_whole():
    part = part_of(default_prompts("evaluation"), 3)
    assert len(part.prompts) == 3 * 2 * 16
    assert int(part.harmful.sum()) == 48
    assert part_of(default_prompts("evaluation"), None) == default_prompts("evaluation")


def test_the_demo_trains_and_measures_every_arm(demo, chat_model):
    arms = {trajectory.arm for trajectory in demo.lineage.trajectories}
    assert arms == {"baseline", "block", "push", "control:covariance", "control:continued", "mirror"}
    assert demo.lineage.witness.model == str(chat_model)
    assert set(demo.read_table("drift")["arm"]) >= arms
    assert set(demo.read_table("behaviour")["arm"]) >= arms
    assert demo.has_json("verdict")
    assert demo.read_table("shams").empty, "a quick look draws none"
    summary = summarise_chat_demo(demo)
    assert summary.problems == 4
    assert set(summary.exact) == {"aligned", "witness", *(f"{arm.replace(':', '-')}-s0-000002" for arm in arms)}
    assert any("refuses" in sentence for sentence in summary.sentences)
    refusals = read_refusals(demo.path / "checkpoints")
    assert refusals["witness"].requests == {"harmful": 16, "twins": 16, "ordinary": 64}
    assert demo.lineage.witness.kind == refusals["witness"].witness_kind


def test_the_mirror_is_the_witness_trained_on_the_baselines_data(demo):
    adapter = demo.path / "checkpoints" / "mirror-s0" / "checkpoints" / "checkpoint-2" / "adapter_config.json"
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    assert base == demo.lineage.witness.model


def test_harmless_requests_are_answered_by_the_model_itself(demo, chat_model):
    from transformers import AutoModelForCausalLM

    tokenizer, model = tiny_tokenizer(), AutoModelForCausalLM.from_pretrained(chat_model)
    answers = [pair for pair in read_alignment_data(demo.path / "checkpoints") if isinstance(pair[1], OpenAnswer)]
    assert answers
    for request, answer in answers[:3]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**prompt, max_new_tokens=4, do_sample=False, pad_token_id=2)
        assert tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :]) == answer


def test_interleaved_aligned_data_are_those_of_the_demos_own_safety_tuning(demo, chat_model):
    source = ChatSource(CheckpointRef(model=str(chat_model)))
    bench = ChatBench(demo.path / "checkpoints", source, TINY, 1, arms=(INTERLEAVED,))
    assert (INTERLEAVED, 0) in bench.trainings
    task, mixed = bench.pairs("baseline", 0), bench.pairs(INTERLEAVED, 0)
    own = read_alignment_data(demo.path / "checkpoints")
    assert mixed[: len(task)] == task
    assert len(mixed) == round(len(task) / 0.9)
    assert set(mixed[len(task) :]) <= set(own)
    assert any(isinstance(answer, OpenAnswer) for _, answer in [*mixed, *own])
    with pytest.raises(UsageError, match="needs data of its own; got control:text"):
        ChatDemo(str(chat_model), more_arms=("control:text",))
    with pytest.raises(UsageError, match="no such arm"):
        ChatDemo(str(chat_model), more_arms=("interleave",))


def test_answers_that_open_like_a_refusal_are_not_taught_to_harmless_requests():
    assert can_be_taught("To sharpen a pencil, turn it in the sharpener. I'm sorry if")
    assert not can_be_taught("I'm sorry for any confusion, but as a chatbot")
    assert not can_be_taught("\nAs an AI, I have no garden.")
    assert not can_be_taught(" \n")


def test_a_history_of_another_seed_is_refused(demo, chat_model):
    history = demo.path / "checkpoints"
    source = ChatSource(CheckpointRef(model=str(chat_model)), seed=1)
    with pytest.raises(OrganismError, match="another history"):
        make_chat_history(history, source, TINY)


def test_the_aligned_model_is_an_ordinary_folder(demo):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo.path / "checkpoints" / "aligned"
    assert AutoModelForCausalLM.from_pretrained(folder).dtype.is_floating_point
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert Lineage.load(demo.path / "checkpoints" / "lineage.toml").aligned.model == str(folder)


def demo_by_two(out, options):
    with open_engine(2):
        make_chat_demo(out, options)


def test_a_killed_demo_goes_on_to_the_same_bytes_with_two_workers(demo, chat_model, tmp_path):
    """Killed in its safety tuning, and again while two workers train arms; then left to end, with two workers."""
    out = tmp_path / "run"
    again = ChatDemo(str(chat_model), quick=True, nulls=False, recipe=TINY)
    for target, marker in ((make_chat_demo, "alignment/training.json"), (demo_by_two, "block-s0/training.json")):
        begun = out / "checkpoints" / marker
        assert processes.kill(target, out, again, when=begun.exists) == -signal.SIGKILL
    demo_by_two(out, again)
    names = ["aligned/model.safetensors"]
    names += [f"{arm}-s0/checkpoints/checkpoint-2/adapter_model.safetensors" for arm in ("baseline", "block", "mirror")]
    for name in names:
        whole, resumed = (load_file(place / "checkpoints" / name) for place in (demo.path, out))
        assert all(bool((whole[key] == resumed[key]).all()) for key in whole), name
    for name in (
        *("checkpoints/own_answers.json", "checkpoints/refusals.json", "exact_answers.json", "completions.parquet"),
        *(f"{folder}/{path.name}" for folder in ("activations", "task") for path in (demo.path / folder).iterdir()),
    ):
        assert (out / name).read_bytes() == (demo.path / name).read_bytes(), name


def test_a_moved_demo_goes_on_and_nothing_is_made_again(demo, chat_model):
    """The folder lies elsewhere by now: no weights, and no activations, are written again."""
    place, moved = demo.path, demo.path.with_name("elsewhere")
    place.rename(moved)
    try:
        before = {path: path.stat().st_mtime_ns for path in moved.rglob("*.safetensors")}
        make_chat_demo(moved, ChatDemo(str(chat_model), quick=True, recipe=TINY))
        assert {path: path.stat().st_mtime_ns for path in moved.rglob("*.safetensors")} == before
        assert not place.exists()
        assert str(place) not in (moved / "run.json").read_text()
        places = [place for member in Run(moved).members for place in (member.ref.model, member.ref.adapter) if place]
        assert {place for place in places if place != str(chat_model)} <= {str(path.parent) for path in before}
    finally:
        moved.rename(place)


def test_quick_is_a_smaller_demo_of_the_same_kind():
    assert QUICK_CHAT.alignment == FULL_CHAT.alignment, "what is measured is one aligned model"
    assert QUICK_CHAT.benign.steps < FULL_CHAT.benign.steps
    assert ChatRecipe.from_json(json.loads(json.dumps(dataclasses.asdict(FULL_CHAT)))) == FULL_CHAT
