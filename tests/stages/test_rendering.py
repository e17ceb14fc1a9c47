"""The chat template that a measurement takes: whose, how, what the manifest says of it, and what it is asked with."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys

import pandas as pd
import pytest

from probes.behaviour.evaluation import Evaluation
from probes.cli import main
from probes.errors import UsageError
from probes.lineage import Lineage
from probes.prompts import PromptSet, Rendering, render
from probes.run import Run
from probes.tasks.evaluate import evaluate, read_evaluation
from probes.tasks.measure import judge, measure
from tests.builders import CHAT_TEMPLATE, save_adapter, tiny_tokenizer
from tests.measured import FAST, PROMPTS, measured_run

OWN = CHAT_TEMPLATE + " "
OTHER = (
    "{% for turn in messages %}[{{ turn.role }}]{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Run:
    """A measured run, whose checkpoints have the aligned model's template."""
    return measured_run(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def retemplated(plain, tmp_path) -> Lineage:
    """The same lineage, copied; witness and fine-tuned checkpoint have a template of their own."""
    shutil.copytree(plain.path.parents[1] / "checkpoints", tmp_path / "checkpoints")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = OTHER
    for place in ("witness", "out/checkpoint-10"):
        tokenizer.save_pretrained(tmp_path / "checkpoints" / place)
    text = plain.lineage.model_dump_json().replace(str(plain.path.parents[1]), str(tmp_path))
    return Lineage.model_validate_json(text)


def ids_of(rendering: Rendering) -> tuple[tuple[int, ...], ...]:
    return render(PROMPTS, tiny_tokenizer(), None, rendering).token_ids


def test_a_run_says_how_its_prompts_were_rendered(plain):
    record = plain.manifest.prompts
    assert record["rendering"] == Rendering().about
    assert record["template"] == "chat template of the aligned model"
    assert plain.rendering == Rendering()
    assert record["notices"] == []


def test_another_template_of_a_checkpoint_is_noticed_and_not_used(retemplated, tmp_path, capsys):
    run = measure(retemplated, PROMPTS, tmp_path / "run", settings=FAST)
    assert run.rendered.token_ids == ids_of(Rendering())
    notices = run.manifest.prompts["notices"]
    assert [sentence.split(" has a chat template")[0] for sentence in notices] == [
        "witness",
        "baseline (seed 0), 1 of its checkpoints,",
    ]
    assert all("that of the aligned model" in sentence for sentence in notices)
    assert set(notices) <= set(run.notices)
    beside = " ".join(command(capsys, "summary", run.path).out.split())
    assert all(sentence in beside for sentence in notices)


def test_a_turn_of_the_system_in_a_prompts_file_is_noticed_in_run_and_evaluation(plain, tmp_path, capsys):
    def write(name, texts):
        turns = [[{"role": "system", "content": "be brief"}, {"role": "user", "content": text}] for text in texts]
        (tmp_path / name).write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in turns))
        return tmp_path / name

    harmful = write("chats.jsonl", [f"break lock {number:02d}" for number in range(16)])
    command(capsys, *words_of(plain.lineage, tmp_path / "run", "--harmful", harmful))
    run = Run(tmp_path / "run")
    assert run.prompts.texts[0] == "be brief\n\nbreak lock 00"
    assert [notice for notice in run.notices if "16 of 16 harmful prompts" in notice] == run.manifest.prompts["notices"]
    requests = write("asked.jsonl", ["open a safe", "make a mess"])
    questions = PromptSet.of_classes(requests, ["open a window", "make a bed"])
    for evaluation in (Evaluation(questions, (("x", "y"),), max_new_tokens=2), None):
        judged = evaluate(run.path, read_evaluation(run) if evaluation is None else evaluation)
        (sentence,) = [notice for notice in judged.notices if str(requests) in notice]
        assert sentence.startswith("2 of 2 harmful prompts")
    judged = evaluate(run.path, Evaluation(PromptSet.of_classes(["a"], ["b"]), (("x", "y"),), max_new_tokens=2))
    assert not any(str(requests) in notice for notice in judged.notices)


def test_the_checkpoints_own_template_can_be_taken_and_goes_into_all_that_follows(retemplated, tmp_path):
    settings = FAST.model_copy(update={"chat_template": "checkpoint"})
    run = measure(retemplated, PROMPTS, tmp_path / "run", settings=settings)
    assert run.rendered.token_ids == ids_of(Rendering(template=OTHER))
    assert run.manifest.prompts["template"] == "chat template of baseline-s0-000010"
    assert run.rendering == Rendering(template=OTHER)
    (sentence,) = run.manifest.prompts["notices"]
    assert "aligned has a chat template of its own" in sentence
    evaluation = Evaluation(PromptSet.of(["a", "b"], ["harmful", "harmless"]), (("x", "y"),), max_new_tokens=2)
    judged = evaluate(run.path, evaluation)
    assert judged.read_json("answering")["system_prompt"] == "[user]"
    assert judged.read_json("answering")["prefill"] == ">"
    assert read_evaluation(judged).rendering == Rendering(template=OTHER)


def test_an_adapters_own_template_is_the_one_beside_it(plain, tmp_path):
    base = plain.lineage.aligned
    ref = save_adapter(tmp_path / "adapter", base, targets=["q_proj"])
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = OTHER
    lineage = Lineage.of(base.model, plain.lineage.witness.model, [ref.adapter])
    assert measure(lineage, PROMPTS, tmp_path / "bare", settings=FAST).manifest.prompts["notices"] == []
    tokenizer.save_pretrained(tmp_path / "adapter")
    (sentence,) = measure(lineage, PROMPTS, tmp_path / "own", settings=FAST).manifest.prompts["notices"]
    assert "baseline (seed 0)" in sentence


def test_where_no_checkpoint_has_a_template_that_is_said(plain, tmp_path):
    ref = save_adapter(tmp_path / "adapter", plain.lineage.aligned, targets=["q_proj"])
    lineage = Lineage.of(plain.lineage.aligned.model, plain.lineage.witness.model, [ref.adapter])
    settings = FAST.model_copy(update={"chat_template": "checkpoint"})
    with pytest.raises(UsageError, match="No fine-tuned checkpoint has a chat template of its own"):
        measure(lineage, PROMPTS, tmp_path / "run", settings=settings)


def test_a_template_that_prints_the_time_is_rendered_once_and_the_verdict_reads_the_same_tokens(plain, tmp_path):
    """Rendered again, every prompt would be another one; so the numbers must not depend on the template any more."""
    shutil.copytree(plain.path.parents[1] / "checkpoints", tmp_path / "checkpoints")
    text = plain.lineage.model_dump_json().replace(str(plain.path.parents[1]), str(tmp_path))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%M:%S.%f') }}" + CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path / "checkpoints" / "aligned")
    ids = [render(PROMPTS, tokenizer, None).token_ids for _ in range(2)]
    assert all(first != second for first, second in zip(*ids, strict=True))
    run = measure(Lineage.model_validate_json(text), PROMPTS, tmp_path / "runs" / "tiny", settings=FAST)
    shutil.copytree(run.path, tmp_path / "elsewhere" / "tiny")  # no neighbour, of which activations could be taken
    verdicts = [judge(run.path, shams=19, sham_arms=None)]
    tiny_tokenizer().save_pretrained(tmp_path / "checkpoints" / "aligned")
    verdicts.append(judge(tmp_path / "elsewhere" / "tiny", shams=19, sham_arms=None))
    assert [judged.rendered.token_ids for judged in verdicts] == [run.rendered.token_ids] * 2
    first, second = (judged.read_table("shams") for judged in verdicts)
    pd.testing.assert_frame_equal(first, second)
    assert len(first)
    assert verdicts[0].read_json("verdict") == verdicts[1].read_json("verdict")


def command(capsys, *words, code=0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gravity-probe", *map(str, words)])
        with contextlib.suppress(SystemExit) if not code else pytest.raises(SystemExit) as ended:
            main()
    assert not code or ended.value.code == code
    return capsys.readouterr()


def words_of(lineage: Lineage, out, *more):
    """The words of a measurement of `PROMPTS`, unless `more` names other prompts."""
    files = []
    for label, members in (("harmful", PROMPTS.harmful), ("harmless", ~PROMPTS.harmful)):
        file = out.parent / f"{label}.txt"
        file.write_text("\n".join(PROMPTS.texts[place] for place in members.nonzero()[0]))
        files += [] if f"--{label}" in more else [f"--{label}", file]
    options = ("--set", "splits=4", "--set", "bootstraps=20", "--no-nulls", "--out", out)
    checkpoint = lineage.trajectories[0].checkpoints[0].model
    roles = ("--witness", lineage.witness.model, "--aligned", lineage.aligned.model, "--checkpoint", checkpoint)
    return ("measure", *roles, *files, *options, *more)


def test_the_command_line_chooses_file_system_prompt_thinking_and_no_opening(plain, tmp_path, capsys):
    template = tmp_path / "own.jinja"
    template.write_text(OTHER + "{% if enable_thinking is defined and not enable_thinking %}!{% endif %}")
    options = ("--chat-template", template, "--system-prompt", "be brief", "--no-thinking", "--no-generation-prompt")
    command(capsys, *words_of(plain.lineage, tmp_path / "run", *options))
    run = Run(tmp_path / "run")
    text = tiny_tokenizer().decode(run.rendered.token_ids[0])
    assert text == f"[system]be brief[user]{run.prompts.texts[0]}!"
    about = run.manifest.prompts["rendering"]
    assert (about["system_prompt"], about["thinking"], about["add_generation_prompt"]) == ("be brief", False, False)
    assert about == run.rendering.about
    assert run.manifest.prompts["template"] == "chat template of own.jinja"


def test_a_settings_file_chooses_likewise(plain, tmp_path, capsys):
    (tmp_path / "own.jinja").write_text(OTHER)
    settings = (
        f'chat_template = "{tmp_path}/own.jinja"',
        *('system_prompt = "be brief"', "thinking = true", "generation_prompt = false"),
    )
    (tmp_path / "settings.toml").write_text("\n".join(settings))
    command(capsys, *words_of(plain.lineage, tmp_path / "run", "--settings", tmp_path / "settings.toml"))
    run = Run(tmp_path / "run")
    assert run.rendering == Rendering(OTHER, "be brief", add_generation_prompt=False, thinking=True)
    assert tiny_tokenizer().decode(run.rendered.token_ids[0]) == f"[system]be brief[user]{run.prompts.texts[0]}"


def test_a_template_that_is_not_there_is_refused(plain, tmp_path, capsys):
    words = words_of(plain.lineage, tmp_path / "run", "--chat-template", tmp_path / "gone.jinja")
    assert "no chat template" in command(capsys, *words, code=2).err


def test_topics_come_from_the_column_that_is_named(plain, tmp_path, capsys):
    for label in ("harmful", "harmless"):
        rows = [{"prompt": f"{label} {number}", "theme": f"t{number % 8}"} for number in range(16)]
        (tmp_path / f"{label}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = ("--harmful", tmp_path / "harmful.jsonl", "--harmless", tmp_path / "harmless.jsonl")
    words = words_of(plain.lineage, tmp_path / "run", *files, "--group-column")
    command(capsys, *words, "theme")
    assert Run(tmp_path / "run").groups.tolist() == [f"t{number % 8}" for number in range(16)] * 2
    assert "no column 'topics'" in command(capsys, *words, "topics", code=2).err


def test_groups_and_pairs_mean_the_same_in_a_run_and_in_its_prompts(plain, tmp_path):
    topics = [None, *[f"t{number % 8}" for number in range(15)], *[f"t{number % 8}" for number in range(16)]]
    pairs = [*map(str, range(16)), None, *map(str, range(1, 16))]
    prompts = PromptSet.of(PROMPTS.texts, [prompt.label for prompt in PROMPTS.prompts], topics=topics, pairs=pairs)
    run = measure(plain.lineage, prompts, tmp_path / "run", settings=FAST)
    assert run.prompts == prompts
    assert run.groups.tolist() == prompts.groups.tolist() == [prompts.ids[0], *topics[1:]]
    assert run.pairs.tolist() == prompts.pairs.tolist()
    assert run.pairs[16] == prompts.ids[16]
    assert run.prompts.grouping_sha256 == prompts.grouping_sha256
    assert plain.groups is plain.pairs is None
