"""A history made from a chat model that is there already: the model is the witness, and gets a short safety tuning.

The folder holds the aligned model (and the witness, where it came as a GGUF file) as ordinary Hugging Face folders, the
data of both trainings, what the two models refuse, and a lineage file. Interrupted anywhere, it goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from probes.behaviour.refusal_score import OPENINGS
from probes.behaviour.task import OpenAnswer
from probes.engine import Task, current_engine, hold_model
from probes.guard.fine_tuning import CHECKPOINTS, Training, Unguarded, fine_tune, is_finished
from probes.lineage import CheckpointRef
from probes.lineage.raw_form import written_from
from probes.models import ModelHost
from probes.models.loading import load_model, load_tokenizer, no_progress_bar
from probes.models.older_readers import write_rope_for_older_readers
from probes.models.source import folder_of
from probes.organism.arithmetic import make_problems
from probes.organism.chat_recipe import ChatRecipe
from probes.organism.checkpoints import whole
from probes.organism.history import LINEAGE, OrganismError, write_lines
from probes.organism.refusal_check import Refusals, count_refusals, greedy_answers
from probes.organism.safety_data import SafetyData, read_safety_data
from probes.progress import Progress, Report, silent, within
from probes.prompts import PromptSet, default_prompts
from probes.store import write_json, write_text
from probes.store.documents import parse_json_or_lines, read_object, read_text

CHAT_HISTORY = "chat_history.json"
ALIGNMENT_DATA, TASK_DATA, REFUSALS = "alignment.jsonl", "task.jsonl", "refusals.json"
_ANSWERS = "own_answers.json"
_CHUNK = 64  # requests that are answered before the answers are written
Answers = dict[str, tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class ChatSource:
    """What a history is made from.

    Attributes:
        model: the chat model: a folder, a hub id, or a GGUF file.
        data: requests with answers for the benign fine-tuning; None makes up arithmetic problems.
        seed: of the data, of their order and of adapters.
        bf16: train in mixed precision.
    """

    model: CheckpointRef
    data: Path | None = None
    seed: int = 0
    bf16: bool = False


def make_chat_history(folder: Path, source: ChatSource, recipe: ChatRecipe, report: Report = silent) -> Path:
    """Align a chat model, or go on where that was broken off.

    Args:
        folder: gets `aligned`, the data, `refusals.json` and the lineage file.
        source: the model and what else decides the result.
        recipe: how long and how fast.
        report: told about every step.

    Returns:
        The lineage file.

    Raises:
        OrganismError: the folder holds a history of another model, seed or recipe.
        GravityError: the model cannot be found or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_identity(folder, source, recipe)
    witness = _witness(folder, source.model)
    _write_task(folder, source, recipe)
    _write_alignment_data(folder, witness, recipe, within(report, 0.0, 0.2))
    _align(folder, witness, source, recipe, within(report, 0.2, 0.8))
    refusals = _count_refusals(folder, witness, recipe, within(report, 0.8, 1.0))
    return _write_lineage(folder, witness, refusals["witness"])


def read_refusals(folder: Path) -> dict[str, Refusals]:
    """What `witness` and `aligned` of a finished history refuse."""
    document = read_object(folder / REFUSALS, kind="count of refusals", error=OrganismError)
    return {role: Refusals.from_json(document[role]) for role in ("witness", "aligned")}


def read_alignment_data(folder: Path) -> list[tuple[str, str]]:
    """Requests and answers of the safety tuning; an answer that was cut off is open."""
    file = folder / ALIGNMENT_DATA
    lines = parse_json_or_lines(read_text(file, kind="file of a history"), str(file), error=OrganismError)
    return [
        (record["prompt"], OpenAnswer(record["completion"]) if record["open"] else record["completion"])
        for _, record in lines
    ]


def _read(file: Path) -> dict[str, Any]:
    """The object of a file of the history; an empty one where it is not there yet."""
    return read_object(file, kind="file of a history", error=OrganismError) if file.is_file() else {}


def part_of(prompts: PromptSet, pairs_a_topic: int | None) -> PromptSet:
    """The first so many pairs of each topic; None is all of them."""
    if pairs_a_topic is None:
        return prompts
    names: dict[str | None, dict[str | None, None]] = {}
    for prompt in prompts.prompts:
        names.setdefault(prompt.topic, {})[prompt.pair] = None
    pairs = {pair for of_topic in names.values() for pair in list(of_topic)[:pairs_a_topic]}
    return dataclasses.replace(prompts, prompts=tuple(prompt for prompt in prompts.prompts if prompt.pair in pairs))


def _check_identity(folder: Path, source: ChatSource, recipe: ChatRecipe) -> None:
    file = folder / CHAT_HISTORY
    about = {
        "model": str(source.model),
        "data": str(source.data) if source.data else None,
        "seed": source.seed,
        "bf16": source.bf16,
        "recipe": dataclasses.asdict(recipe),
    }
    identity = written_from(json.loads(json.dumps(about)), folder)
    if not file.is_file():
        write_json(file, identity)
        return
    before = written_from(_read(file), folder)
    differing = sorted(name for name in identity if before.get(name) != identity[name])
    if differing:
        raise OrganismError(
            f"{folder} holds another history",
            got=f"another {', '.join(differing)}",
            expected="the same model, data, seed and options",
            next_step="Give another folder, or --fresh.",
        )


def _witness(folder: Path, model: CheckpointRef) -> CheckpointRef:
    """The chat model as a reference that everything can open; a GGUF file becomes a folder."""
    place = folder_of(model.model, model.revision, allow_pickle=False)
    if place.is_dir():
        return model
    target = folder / "witness"
    if not target.is_dir():
        _save(load_model(place, "float32", pickled=False), place, target)
    return CheckpointRef(model=str(target))


def _save(model: Any, tokenizer_place: Path, target: Path) -> None:
    """Write a model with a tokenizer as an ordinary folder, whole or not at all."""
    with whole(target) as beside, no_progress_bar():
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(beside)
        write_rope_for_older_readers(beside)
        load_tokenizer(tokenizer_place).save_pretrained(beside)


def _write_task(folder: Path, source: ChatSource, recipe: ChatRecipe) -> None:
    """Write the made-up problems, unless there are data of the user's."""
    if source.data is None and not (folder / TASK_DATA).is_file():
        problems = make_problems(recipe.problems, source.seed)
        write_lines(
            folder / TASK_DATA, ({"prompt": problem.question, "completion": problem.working} for problem in problems)
        )


def _write_alignment_data(folder: Path, witness: CheckpointRef, recipe: ChatRecipe, report: Report) -> None:
    """Write `alignment.jsonl`: refusals of ours, and answers of the model itself to whatever is harmless."""
    if (folder / ALIGNMENT_DATA).is_file():
        return
    data = read_safety_data()
    requests = [*(pair.twin for pair in data.pairs[: recipe.twins]), *data.ordinary[: recipe.ordinary]]
    ask = partial(_answer_chunk, witness, recipe.answer_tokens)
    answers = _answer_requests(folder / _ANSWERS, requests, ask, report)
    refused = (
        {"prompt": pair.harmful, "completion": pair.refusal, "open": False} for pair in data.pairs[: recipe.harmful]
    )
    answered = (
        {"prompt": request, "completion": answers[request][0], "open": answers[request][1]}
        for request in requests
        if can_be_taught(answers[request][0])
    )
    write_lines(folder / ALIGNMENT_DATA, [*refused, *answered])


def can_be_taught(answer: str) -> bool:
    """Whether an answer to a harmless request can stand beside refusals: none that is empty, or opens as they do."""
    return bool(answer.strip()) and not answer.lstrip().startswith(OPENINGS)


def _answer_requests(file: Path, requests: Sequence[str], ask: Callable[..., Answers], report: Report) -> Answers:
    """The model's own answers, and whether each was cut off; they are written after every few."""
    answers = _read(file)
    missing = [request for request in requests if request not in answers]
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    tasks = [Task(f"Answers {place * _CHUNK + 1} and on", partial(ask, chunk)) for place, chunk in enumerate(chunks)]
    for _, of_chunk in current_engine(len(tasks)).complete(tasks, report):
        answers.update(of_chunk)
        write_json(file, {request: answers[request] for request in requests if request in answers})
    return {request: (str(answers[request][0]), bool(answers[request][1])) for request in requests}


def _answer_chunk(witness: CheckpointRef, max_new_tokens: int, requests: Sequence[str], report: Report) -> Answers:
    """The model's answers to some requests."""
    report(Progress("answering harmless requests", 0, len(requests)))
    host = hold_model(str(witness), partial(ModelHost, witness))
    return dict(zip(requests, greedy_answers(host, requests, max_new_tokens=max_new_tokens), strict=True))


def _align(folder: Path, witness: CheckpointRef, source: ChatSource, recipe: ChatRecipe, report: Report) -> None:
    """Train the safety tuning and write `aligned`."""
    if (folder / "aligned").is_dir():
        return
    tuned = folder / "alignment"
    training = recipe.alignment.training(recipe.method, seed=source.seed, bf16=source.bf16)

    def report_step(progress: Progress) -> None:
        report(Progress("safety tuning", progress.step, progress.steps))

    if not is_finished(tuned):
        about = {"phase": "alignment"}
        fine_tune(witness, read_alignment_data(folder), tuned, training, _without_guard, about, report=report_step)
    last = tuned / CHECKPOINTS / f"checkpoint-{recipe.alignment.steps}"
    place = folder_of(witness.model, witness.revision, allow_pickle=False)
    _save(_merge_adapter(place, last, training), place, folder / "aligned")


def _without_guard(_: Path) -> Unguarded:
    return Unguarded()


def _merge_adapter(witness: Path, checkpoint: Path, training: Training) -> Any:
    """The trained model with its adapter merged, in the precision that the witness is stored in."""
    if training.method == "full":
        return load_model(checkpoint, "auto", pickled=False)
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(witness, "auto", pickled=False), str(checkpoint)).merge_and_unload()


def _count_refusals(folder: Path, witness: CheckpointRef, recipe: ChatRecipe, report: Report) -> dict[str, Refusals]:
    """Ask witness and aligned model what neither was trained on, and write `refusals.json`."""
    file = folder / REFUSALS
    document = _read(file)
    references = {"witness": witness, "aligned": _aligned_reference(folder)}
    requests, tasks = held_out_requests(read_safety_data(), recipe), []
    for role, reference in references.items():
        if role not in document:
            tasks.append(Task(role, partial(_refusals_of, reference, role, requests, recipe.new_tokens)))
    for role, counts in current_engine(len(tasks)).complete(tasks, report):
        document[role] = counts.to_json()
        write_json(file, {name: document[name] for name in references if name in document})
    return read_refusals(folder)


def _refusals_of(
    reference: CheckpointRef, role: str, requests: Mapping[str, Sequence[str]], max_new_tokens: int, report: Report
) -> Refusals:
    host = hold_model(str(reference), partial(ModelHost, reference))
    return count_refusals(host, requests, max_new_tokens=max_new_tokens, report=report, note=role)


def held_out_requests(data: SafetyData, recipe: ChatRecipe) -> Mapping[str, Sequence[str]]:
    """Requests that no training has seen, by kind: our evaluation prompts, and ordinary ones."""
    prompts = part_of(default_prompts("evaluation"), recipe.prompts_a_topic).prompts
    return {
        "harmful": [prompt.text for prompt in prompts if prompt.label == "harmful"],
        "twins": [prompt.text for prompt in prompts if prompt.label == "harmless"],
        "ordinary": data.held_out,
    }


def _aligned_reference(folder: Path) -> CheckpointRef:
    return CheckpointRef(model=str(folder / "aligned"))


def _write_lineage(folder: Path, witness: CheckpointRef, refusals: Refusals) -> Path:
    quoted = json.dumps  # a JSON string is a TOML string
    place = "./witness" if witness.model == str(folder / "witness") else str(_absolute(witness.model))
    lines = [
        'name = "chat-history"',
        f"description = {quoted(f'Safety tuning and benign fine-tuning of {witness}.')}",
        f"\n[witness]\nmodel = {quoted(place)}\nkind = {quoted(refusals.witness_kind)}",
        *([f"revision = {quoted(witness.revision)}"] if witness.revision else []),
        '\n[aligned]\nmodel = "./aligned"',
    ]
    path = folder / LINEAGE
    write_text(path, "\n".join(lines) + "\n")
    return path


def _absolute(place: str) -> str:
    return str(Path(place).resolve()) if Path(place).is_dir() else place
