"""Answers to the probe prompts: they are what each checkpoint says, made once, and count in no rate."""

from dataclasses import replace

import pytest

from probes.behaviour.ask import ask_checkpoint
from probes.behaviour.refusal_text import RULES, Reading
from probes.stages.probe_answers import COLUMNS
from probes.tasks.evaluate import Asking, evaluate
from tests.behaviour.test_stage import ASKED, NAMES, PROBES, tiny_lineage


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    run = tiny_lineage(tmp_path_factory.mktemp("probe-answers"))
    plain = evaluate(run.path, ASKED).read_table("behaviour")
    return plain, evaluate(run.path, ASKED, Asking(probe_prompts=True))


def test_every_checkpoint_answers_every_probe_prompt_and_no_rate_changes(judged):
    plain, run = judged
    for name in NAMES:
        table = run.read_table(f"probe_answers/{name}")
        assert tuple(table.columns) == COLUMNS
        assert list(table["prompt"]) == list(PROBES.ids)
        assert table["completion"].notna().all()
    assert run.read_table("behaviour").equals(plain)
    assert not set(run.read_table("completions")["prompt"]) & set(PROBES.ids)


def test_an_answer_is_what_the_model_generates(judged):
    """Held against each prompt asked alone, of the checkpoint opened anew."""
    _, run = judged
    host = run.model("cpu")
    member = next(member for member in run.members if member.id == NAMES[2])
    host.put(member.ref)
    table = run.read_table(f"probe_answers/{member.id}").set_index("prompt")["completion"]
    for place in (0, 17):
        single = ask_checkpoint(host, [run.rendered.token_ids[place]], max_new_tokens=ASKED.max_new_tokens)
        assert table[PROBES.ids[place]] == single.completions[0]


def test_nothing_is_asked_twice_and_another_length_is_another_answer(judged):
    _, run = judged
    before = {name: run.path.joinpath("probe_answers", f"{name}.parquet").stat().st_mtime_ns for name in NAMES}
    evaluate(run.path, ASKED, Asking(probe_prompts=True))
    after = {name: run.path.joinpath("probe_answers", f"{name}.parquet").stat().st_mtime_ns for name in NAMES}
    assert after == before
    longer = evaluate(run.path, replace(ASKED, max_new_tokens=5), Asking(probe_prompts=True))
    assert longer.path.joinpath("probe_answers", "aligned.parquet").stat().st_mtime_ns != before["aligned"]


def test_other_rules_of_the_judge_judge_again(judged, monkeypatch):
    _, run = judged
    evaluate(run.path, ASKED, Asking(probe_prompts=True))
    before = run.read_table("probe_answers/aligned")

    def refuse(*_args, **_keywords):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("probes.models.host.ModelHost.__init__", refuse)
    monkeypatch.setattr("probes.behaviour.judges.wording.read_completion", lambda *_: Reading("refusal", "new rules"))
    monkeypatch.setattr("probes.stages.probe_answers.RULES", RULES + 1)
    for asking in (Asking(), Asking(probe_prompts=True)):  # with the first they are judged, by the second they stay
        after = evaluate(run.path, ASKED, asking).read_table("probe_answers/aligned")
        assert after[["prompt", "completion", "cut_off"]].equals(before[["prompt", "completion", "cut_off"]])
        assert set(after["verdict"]) == {"refusal"} != set(before["verdict"])
