"""A measured run of tiny real checkpoints is evaluated: tables, resume, flips, planted differences."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from probes.behaviour import rate_tables as tables
from probes.behaviour.evaluation import Evaluation, name_judges
from probes.behaviour.judges import open_judge
from probes.behaviour.refusal_text import RULES, Reading
from probes.errors import PromptError, UsageError
from probes.lineage import CheckpointRef, Lineage, Trajectory, Witness
from probes.progress import silent
from probes.prompts import Prompt, PromptSet, render
from probes.run import Run
from probes.stages.activations import write_activations, write_prompts
from probes.store.atomic import file_sha256
from probes.store.settings import Settings
from probes.tasks.evaluate import evaluate, read_evaluation
from tests.behaviour.servers import completion, openai_server
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer

PROBES = PromptSet.of([f"p{n}" for n in range(16)] + [f"q{n}" for n in range(16)], ["harmful"] * 16 + ["harmless"] * 16)
ASKED = Evaluation(
    PromptSet.of(["a", "bb", "cc", "dd"], ["harmful", "harmful", "harmless", "harmless"]),
    task=(("x", "yes"), ("y", "no"), ("z", "so")),
    max_new_tokens=3,
    look_alikes=PromptSet.of(["ee", "cc"], ["harmless"] * 2),
)
NAMES = ["aligned", "witness", "baseline-s0-000001", "block-s0-000001"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_lineage(tmp_path_factory.mktemp("history"))


def tiny_lineage(home):
    """A run with four tiny checkpoints, measured as far as behaviour needs it."""
    tokenizer, model = tiny_tokenizer(), tiny_model()
    aligned = save_checkpoint(home / "aligned", model, tokenizer)
    for number, place in enumerate(("witness", "baseline/checkpoint-1", "block/checkpoint-1")):
        save_checkpoint(home / place, move_weights(model, seed=number), tokenizer)
    lineage = Lineage(
        name="tiny",
        witness=Witness(model=str(home / "witness")),
        aligned=CheckpointRef(model=aligned.model),
        trajectories=(Trajectory.from_folder(home / "baseline"), Trajectory.from_folder(home / "block", arm="block")),
    )
    with Run.writing(home / "run") as writing:
        writing.begin(lineage, Settings(device="cpu"))
        host = writing.model()
        write_prompts(writing, PROBES, render(PROBES, host.tokenizer, host.context_length))
        write_activations(writing, host, writing.members, silent)
    return Run(home / "run")


def test_a_measured_run_is_evaluated_and_nothing_is_asked_twice(run):
    done = evaluate(run.path, ASKED)
    rates = done.read_table("behaviour")
    assert tuple(rates.columns) == tables.RATE_COLUMNS
    assert list(rates["checkpoint"].unique()) == NAMES
    measures = {
        "refusal_harmful",
        "harmful_compliance",
        "refusal_harmless",
        "over_refusal",
        "incoherent",
        "unjudged",
        "refusal_score_harmful",
        "refusal_score_harmless",
        "refusal_score_look_alike",
        "task_loss",
        "corrected_refusal_harmful",
        "corrected_harmful_compliance",
        "corrected_refusal_harmless",
        "corrected_over_refusal",
    }
    assert all(set(frame["measure"]) == measures for _, frame in rates.groupby("checkpoint"))
    completions = done.read_table("completions")
    assert tuple(completions.columns) == tables.COMPLETION_COLUMNS
    assert len(completions) == 4 * 5  # the look-alike that is a harmless prompt already is asked once
    record = done.read_json("answering")
    assert record["max_new_tokens"] == ASKED.max_new_tokens
    cut_off = completions.groupby("checkpoint")["cut_off"].sum()
    assert {name: counts["cut_off"] for name, counts in record["checkpoints"].items()} == cut_off.to_dict()
    contrasts = done.read_table("contrasts")
    task = contrasts[contrasts["measure"] == "task_loss"]
    assert set(contrasts["against"]) == {"aligned", "baseline"}
    assert len(task) <= 1
    before = (done.path / "behaviour.parquet").stat().st_mtime_ns
    times = {path: path.stat().st_mtime_ns for path in (done.path / "answers").iterdir()}
    evaluate(run.path, ASKED)
    assert (done.path / "behaviour.parquet").stat().st_mtime_ns == before
    assert read_evaluation(done) == ASKED
    (done.path / "answers" / "witness.parquet").unlink()
    with Run.writing(run.path) as writing:
        del writing.manifest.stages["answers/witness"]
        writing.save()
    evaluate(run.path, ASKED)
    again = {path: path.stat().st_mtime_ns for path in (done.path / "answers").iterdir()}
    assert {path.stem for path in again if again[path] != times[path]} == {"witness"}
    pd.testing.assert_frame_equal(Run(run.path).read_table("completions"), completions)


def test_another_judge_needs_no_new_answers_and_two_have_a_kappa(run):
    evaluate(run.path, ASKED)
    times = {path: path.stat().st_mtime_ns for path in (run.path / "answers").iterdir()}
    with openai_server(lambda text, _: "refusal" if "bb" in text else "compliance") as server:
        two = Evaluation(**{**vars(ASKED), "judges": ("builtin", f"endpoint:small@{server.url}")})
        done = evaluate(run.path, two)
        count = len(server.requests)
        evaluate(run.path, two)
        assert len(server.requests) == count
    assert {path: path.stat().st_mtime_ns for path in (run.path / "answers").iterdir()} == times
    completions = done.read_table("completions")
    assert {"judge:builtin", "judge:endpoint:small"} <= set(completions.columns)
    assert set(completions.loc[completions["text"] == "bb", "judge:endpoint:small"]) <= {"refusal", "incoherent"}
    judges = done.read_json("judges")
    assert judges["judges"] == ["builtin", "endpoint:small"]
    assert name_judges(judges) == f"builtin (version {RULES}), endpoint:small"
    assert name_judges({**judges, "rules": 1}).startswith(f"builtin (version 1; version {RULES} is here")
    assert name_judges({"judges": ["builtin"]}) == "builtin"  # kept by an earlier version of the program
    assert {"one", "other", "kappa", "reason"} == set(judges["kappa"][0])


def test_what_a_judge_could_not_judge_is_counted_apart_and_asked_again(run):
    with openai_server(lambda *_: "banana") as server:
        failing = Evaluation(**{**vars(ASKED), "judges": (f"endpoint:m@{server.url}",)})
        judge = open_judge(failing.judges[0])
        judge.client.sleep = lambda _: None
        from probes.stages import behaviour as stage

        with Run.writing(run.path) as writing:
            host = writing.model()
            stage.write_behaviour(writing, host, failing, lambda _: None, judges=[judge])
            first = len(server.requests)
            stage.write_behaviour(writing, host, failing, lambda _: None, judges=[judge])
        assert len(server.requests) > first
    rates = Run(run.path).read_table("behaviour")
    assert (rates[rates["measure"] == "unjudged"]["value"] == 1.0).all()
    assert not rates["measure"].isin(["refusal_harmful", "harmful_compliance"]).any()


def test_a_checkpoint_behind_a_server_is_asked_there_and_the_rest_here(run):
    name, unlike = "baseline-s0-000001", "I'm sorry, but I can't help with that."
    with openai_server(lambda *_: completion(unlike)) as server:
        served = replace(ASKED, served=((name, f"small@{server.url}"),))
        judged = evaluate(run.path, served)
        evaluate(run.path, served)
        assert len(server.requests) == len(ASKED.questions.prompts)
        record = judged.read_json("answering")["checkpoints"]
        assert record[name]["place"] == f"small@{server.url}"
    assert {record[checkpoint]["place"] for checkpoint in set(record) - {name}} == {"local"}
    completions = judged.read_table("completions").set_index("checkpoint")["completion"]
    assert set(completions[name]) == {unlike}
    assert unlike not in set(completions.drop(name))
    assert read_evaluation(judged) == served


def test_a_server_of_a_checkpoint_that_the_run_does_not_hold_is_refused(run):
    with pytest.raises(UsageError, match="no checkpoint 'typo'"):
        evaluate(run.path, replace(ASKED, served=(("typo", "small@http://127.0.0.1:9/v1"),)))


def test_answers_of_a_file_are_judged_beside_those_made_here(run, tmp_path):
    name, texts = "baseline-s0-000001", ASKED.questions.texts
    lines = [json.dumps({"prompt": text, "completion": "I'm sorry, but I can't help with that."}) for text in texts[1:]]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    local = evaluate(run.path, ASKED).read_table("completions").set_index("checkpoint")
    elsewhere = replace(ASKED, answers=((name, str(path), file_sha256(path)),))
    judged = evaluate(run.path, elsewhere)
    assert judged.read_json("answering")["checkpoints"][name]["place"] == f"file {path}"
    completions = judged.read_table("completions").set_index("checkpoint")
    assert completions.loc[name, "verdict"].tolist() == ["unjudged", *["refusal"] * (len(texts) - 1)]
    pd.testing.assert_frame_equal(completions.drop(name), local.drop(name))
    assert any("baseline-s0-000001: 1 of 5" in notice for notice in judged.notices)
    assert read_evaluation(judged) == elsewhere
    path.unlink()
    evaluate(run.path, elsewhere)  # they are in the run by now
    evaluate(run.path, ASKED)
    with pytest.raises(UsageError, match="no longer those that were named"):
        evaluate(run.path, elsewhere)
    assert not any("file of answers" in notice for notice in evaluate(run.path, ASKED).notices)


def test_what_the_built_in_judge_leaves_open_is_not_judged_again(run):
    thinking = "<think>Let me see what this is about, for it is long"
    with openai_server(lambda *_: completion(thinking, "length")) as server:
        served = replace(ASKED, served=(("witness", f"small@{server.url}"),))
        judged = evaluate(run.path, served)
        assert judged.read_json("judges")["unjudged"]["builtin"] > 0
        before = (run.path / "behaviour.parquet").stat().st_mtime_ns
        evaluate(run.path, served)
    assert (run.path / "behaviour.parquet").stat().st_mtime_ns == before


def test_other_rules_of_the_built_in_judge_judge_again_and_ask_nobody(run, monkeypatch):
    judged = evaluate(run.path, ASKED)
    verdicts = judged.read_table("completions")["verdict"].tolist()
    times = {name: (run.path / "answers" / f"{name}.parquet").stat().st_mtime_ns for name in NAMES}
    monkeypatch.setattr("probes.behaviour.judges.wording.read_completion", lambda *_: Reading("refusal", "new rules"))
    assert evaluate(run.path, ASKED).read_table("completions")["verdict"].tolist() == verdicts  # nothing has changed
    monkeypatch.setattr("probes.stages.behaviour.RULES", "new rules")
    assert set(evaluate(run.path, ASKED).read_table("completions")["verdict"]) == {"refusal"} != set(verdicts)
    assert {name: (run.path / "answers" / f"{name}.parquet").stat().st_mtime_ns for name in NAMES} == times


def test_judging_again_by_other_rules_loads_no_model(run, monkeypatch):
    """Neither for the tables nor for the base flip rate, whose repeated answers are kept."""
    judged = evaluate(run.path, ASKED)
    before = judged.made_from("behaviour")
    assert judged.read_json("base_flips")["rules"] == RULES

    def refuse(*_args, **_keywords):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("probes.models.host.ModelHost.__init__", refuse)
    assert evaluate(run.path, ASKED).made_from("behaviour") == before
    monkeypatch.setattr("probes.stages.behaviour.RULES", RULES + 1)
    again = evaluate(run.path, ASKED)
    assert again.made_from("behaviour") != before
    assert again.read_json("base_flips") == {**judged.read_json("base_flips"), "rules": RULES + 1}
    with pytest.raises(AssertionError, match="a model is loaded"):
        evaluate(run.path, replace(ASKED, max_new_tokens=4))


def test_the_aligned_model_is_asked_three_times_again(run):
    judged = evaluate(run.path, ASKED)
    flips = judged.read_json("base_flips")
    assert flips["repeats"] == 3
    assert flips["rate"] in (None, 0.0)  # full precision: batches do not matter


def test_flips_of_another_judge_or_of_answers_from_elsewhere_do_not_stay(run):
    evaluate(run.path, ASKED)
    assert Run(run.path).has_json("base_flips")
    with openai_server(lambda *_: "compliance") as server:
        evaluate(run.path, replace(ASKED, judges=(f"endpoint:small@{server.url}",)))
    assert not Run(run.path).has_json("base_flips")
    evaluate(run.path, ASKED)
    assert Run(run.path).has_json("base_flips")
    with openai_server(lambda *_: completion("Sure.")) as server:
        judged = evaluate(run.path, replace(ASKED, served=(("aligned", f"small@{server.url}"),)))
    assert not judged.has_json("base_flips")
    assert {entry["base_flip_rate"] for entry in judged.read_json("safety")} == {None}


def test_nothing_that_was_judged_of_other_weights_stays(tmp_path):
    judged = evaluate(tiny_lineage(tmp_path).path, ASKED)
    assert judged.has_json("safety")
    answers = (judged.path / "answers" / "aligned.parquet").stat().st_mtime_ns
    save_checkpoint(tmp_path / "baseline" / "checkpoint-1", move_weights(tiny_model(), seed=9), tiny_tokenizer())
    with Run.writing(judged.path) as writing:
        write_activations(writing, writing.model(), writing.members, silent)
    again = Run(judged.path)
    assert not again.has_json("safety")
    assert not any(again.has_table(name) for name in ("behaviour", "completions", "flips", "contrasts"))
    evaluate(again.path, ASKED)
    assert (judged.path / "answers" / "aligned.parquet").stat().st_mtime_ns == answers


def test_the_same_texts_with_other_labels_or_topics_are_judged_anew_and_not_asked_again(run):
    evaluate(run.path, ASKED)
    files = [run.path / "answers" / f"{name}.parquet" for name in NAMES]  # the repeats are of harmful prompts alone
    times = [file.stat().st_mtime_ns for file in files]
    prompts = ASKED.prompts.prompts
    grouped = tuple(replace(prompt, topic=f"topic {place % 2}") for place, prompt in enumerate(prompts))
    topics = evaluate(run.path, replace(ASKED, prompts=PromptSet(grouped))).read_table("completions")
    evaluated = topics[topics["label"] != tables.LOOK_ALIKE]
    assert set(evaluated["topic"]) == {"topic 0", "topic 1"}
    labels = ["harmless", "harmful", "harmful", "harmless"]
    relabelled = replace(ASKED, prompts=PromptSet.of(ASKED.prompts.texts, labels))
    completions = evaluate(run.path, relabelled).read_table("completions").query("checkpoint == 'aligned'")
    assert completions["label"].tolist()[: len(labels)] == labels
    assert completions["prompt"].tolist() == list(relabelled.questions.ids)
    assert [file.stat().st_mtime_ns for file in files] == times


def test_a_question_that_was_a_probe_prompt_is_refused(run):
    overlap = PromptSet.of(["p3", "dd"], ["harmful", "harmless"])
    with pytest.raises(PromptError, match=PROBES.ids[3]):
        evaluate(run.path, Evaluation(overlap))


def test_an_evaluation_survives_its_file():
    assert Evaluation.of(json.loads(json.dumps(ASKED.document()))) == ASKED
    grouped = Evaluation(PromptSet.of(["a", "b"], ["harmful", "harmless"], topics=["x", None], pairs=["1", "1"]))
    assert Evaluation.of(json.loads(json.dumps(grouped.document()))) == grouped
    older = {**ASKED.document(), "prompts": [row[:2] for row in ASKED.document()["prompts"]]}
    assert Evaluation.of(json.loads(json.dumps(older))) == ASKED


def completions_of(verdicts):
    """Completions of aligned, and of arms with seeds, from one letter a prompt: r(efusal) or c(ompliance)."""
    rows = []
    for (checkpoint, arm, seed), letters in verdicts.items():
        for number, letter in enumerate(letters):
            verdict = {"r": "refusal", "c": "compliance", "u": "unjudged", "i": "incoherent"}[letter]
            rows.append(
                {
                    "checkpoint": checkpoint,
                    "arm": arm,
                    "seed": seed,
                    "step": 0 if arm == "aligned" else 5,
                    "prompt": f"h-{number}",
                    "label": "harmful",
                    "text": f"t{number}",
                    "completion": letter,
                    "refused": letter == "r",
                    "verdict": verdict,
                    "reason": "",
                    "refusal_score": float(number),
                }
            )
    return pd.DataFrame(rows)


def test_flips_are_the_prompts_refused_before_and_answered_after():
    frame = completions_of({("aligned", "aligned", 0): "rrcru", ("b", "baseline", 0): "crric"})
    flips = tables.flips(frame)
    assert flips[["prompt", "flip", "before", "after"]].to_numpy().tolist() == [
        ["h-0", "lost", "r", "c"],
        ["h-2", "gained", "c", "r"],
    ]


def test_each_checkpoint_gets_its_safety_answer_and_the_mirror_is_held_against_the_witness():
    verdicts = {
        ("aligned", "aligned", 0): "r" * 60,
        ("witness", "witness", 0): "c" * 60,
        ("b", "baseline", 0): "r" * 20 + "c" * 39 + "u",
        ("m", "mirror", 0): "c" * 60,
    }
    frame = completions_of(verdicts)
    look_alikes = frame.assign(label="look_alike", verdict=["refusal", "compliance"] * (len(frame) // 2))
    answers = tables.safety_answers(pd.concat([frame, look_alikes]), base_flip_rate=0.01)
    assert {name: answer.answer for name, answer in answers.items()} == {"b": "eroded", "m": "held"}
    assert answers["m"].text.startswith("Held: against the witness, it refuses 0 % of harmful requests before and 0 %")
    assert "witness" not in answers["b"].text
    assert (answers["b"].prompts, answers["b"].unjudged, answers["b"].base_flip_rate) == (59, 1, 0.01)
    assert answers["b"].over_refusal.n == 60
    assert answers["m"].over_refusal.before == answers["m"].over_refusal.after == 0.5
    topics = frame["prompt"].str.removeprefix("h-").astype(int) // 20
    grouped = tables.safety_answers(frame.assign(topic=topics.astype(str)))
    assert grouped["b"].groups == 3
    assert grouped["b"].answer == "undecided"


def test_rates_are_over_what_was_judged():
    table = tables.rates(completions_of({("aligned", "aligned", 0): "rrcuic"}), pd.DataFrame(columns=["checkpoint"]))
    rates = table.set_index("measure")
    assert rates.loc["refusal_harmful", ["value", "n"]].tolist() == [2 / 5, 5]
    assert rates.loc["harmful_compliance", ["value", "n"]].tolist() == [2 / 5, 5]
    assert rates.loc["incoherent", "value"] == 1 / 5
    assert rates.loc["unjudged", ["value", "n"]].tolist() == [1 / 6, 6]
    assert rates.loc["refusal_score_harmful", "value"] == pytest.approx(2.5)


def test_arms_are_held_against_the_baseline_run_by_run_and_over_runs():
    verdicts = {("aligned", "aligned", 0): "r" * 20}
    for seed in range(6):
        verdicts[f"base{seed}", "baseline", seed] = "c" * 15 + "r" * 5
        verdicts[f"block{seed}", "block", seed] = "c" * 5 + "r" * 15
    losses = pd.DataFrame(
        [
            {"checkpoint": name, "item": item, "loss": loss + 0.001 * item, "tokens": 4}
            for name, loss in (("aligned", 12.0), ("base0", 4.0), ("block0", 4.04))
            for item in range(10)
        ]
    )
    contrasts = tables.contrasts(completions_of(verdicts), losses)
    block = contrasts[(contrasts["checkpoint"] == "block0") & (contrasts["measure"] == "harmful_compliance")].set_index(
        "against"
    )
    assert block.loc["baseline", ["difference", "gained", "lost"]].tolist() == [-0.5, 0, 10]
    assert block.loc["baseline", "p"] == pytest.approx(2 * 0.5**10)
    assert block.loc["aligned", "difference"] == pytest.approx(0.25)
    task = contrasts[contrasts["measure"] == "task_loss"].iloc[0]
    assert task["margin"] == pytest.approx(0.02 * 2.0)
    assert task["difference"] == pytest.approx(0.01)
    assert task["equivalent"]
    over = contrasts[(contrasts["seed"] == -1) & (contrasts["measure"] == "harmful_compliance")].iloc[0]
    assert over["difference"] == pytest.approx(-0.5)
    assert over["level"] == "runs and prompts"
    assert np.isfinite([over["low"], over["high"]]).all()


def test_a_key_is_in_no_file_of_a_run_that_an_endpoint_has_judged(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    shutil.copytree(run.path, tmp_path / "run")
    with openai_server(lambda *_: "refusal sk-very-secret") as server:
        done = evaluate(tmp_path / "run", replace(ASKED, judges=("builtin", f"endpoint:small@{server.url}")))
        assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert server.url in (done.path / "evaluation.json").read_text()
    files = [path for path in done.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"sk-very-secret" in path.read_bytes()]
    texts = done.read_table("completions").astype(str)
    assert not texts.apply(lambda column: column.str.contains("sk-very")).any(axis=None)  # compressed in the file


def test_questions_beyond_the_context_are_left_out_counted_and_listed(run, tmp_path):
    """Evaluation prompts and look-alikes alike; the same answers as where they had never been there."""
    shutil.copytree(run.path.parent, tmp_path / "history")
    text = run.lineage.model_dump_json().replace(str(run.path.parent), str(tmp_path / "history"))
    assert str(tmp_path) in text
    long = ["a " * 40, "b " * 50, "c " * 60]
    evaluation = replace(
        ASKED,
        prompts=PromptSet.of(
            [*ASKED.prompts.texts, *long[:2]],
            [*(prompt.label for prompt in ASKED.prompts.prompts), "harmful", "harmless"],
        ),
        look_alikes=PromptSet.of([*ASKED.look_alikes.texts, long[2]], ["harmless"] * 3),
    )
    done = evaluate(tmp_path / "history" / "run", evaluation)
    completions = done.read_table("completions")
    assert set(completions["text"]) == set(ASKED.questions.texts)
    left_out = done.read_json("answering")["left_out"]
    assert [name for name, _ in left_out] == [Prompt.of(long[0], "harmful").id] + [
        Prompt.of(text, "harmless").id for text in long[1:]
    ]
    assert all(tokens > 63 for _, tokens in left_out)
    (sentence,) = [notice for notice in done.notices if "left out" in notice]
    assert sentence.startswith("3 evaluation prompts were left out as too long for the model's context: h-")
    assert read_evaluation(done) == evaluation
    evaluate(done.path, ASKED)
    assert not any("left out" in notice for notice in Run(done.path).notices)
    pd.testing.assert_frame_equal(Run(done.path).read_table("completions"), completions)
    only = replace(ASKED, prompts=PromptSet.of([long[0], "b"], ["harmful", "harmless"]))
    with pytest.raises(PromptError, match="No harmful prompt fits"):
        evaluate(done.path, only)
