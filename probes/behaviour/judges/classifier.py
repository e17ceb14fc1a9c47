"""A Hugging Face sequence classifier as a judge: a local folder or a hub id, its classes mapped to our labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probes.behaviour.coherence import incoherence
from probes.behaviour.judges.judgement import LABELS, Exchange, JudgeError, Judgement
from probes.errors import CheckpointError

_BATCH_SIZE = 16
_LONGEST = 512
# Names that published classifiers of refusals give to their classes; the first that fits counts.
_KNOWN = (
    (r"partial", "partial_refusal"),
    (r"non.?refus|not.?refus|non.?reject|no.?refus", "compliance"),
    (r"refus|reject|declin", "refusal"),
    (r"compl[iy]|normal|answer|accept", "compliance"),
    (r"incoheren|gibberish|nonsense|noise", "incoherent"),
)


class ClassifierJudge:
    """Judges by the likeliest class. What is no answer at all is `incoherent` without asking."""

    def __init__(
        self, place: str, *, classes: Mapping[str, str] | None = None, pair: bool = False, device: str = "cpu"
    ) -> None:
        """Load the classifier.

        Args:
            place: local folder or hub id, with safetensors.
            classes: our label for each of its classes; None takes them from the classes' names.
            pair: give it the prompt and the completion; else the completion alone.
            device: torch device.

        Raises:
            JudgeError: a class whose meaning its name does not tell, or a mapping that names none of its classes.
            CheckpointError: it cannot be labels or read.
        """
        from probes.models.source import folder_of
        from probes.models.weights import WeightFiles

        folder = folder_of(place, None, allow_pickle=False)
        files = WeightFiles.of_model(folder, allow_pickle=False)
        self._tokenizer, self._model = _load_classifier(folder, device)
        self._classes = _map_classes(place, self._model.config.id2label, classes)
        self._pair, self._device = pair, device
        self.name = f"classifier:{place}"
        self.identity: str | None = f"{self.name} {files.digests()} {sorted(self._classes.items())} {pair}"

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order; the reason is the class and its probability."""
        for first in range(0, len(exchanges), _BATCH_SIZE):
            batch = exchanges[first : first + _BATCH_SIZE]
            judgements = iter(
                self._judge_batch([exchange for exchange in batch if incoherence(exchange.completion) is None])
            )
            for exchange in batch:
                fault = incoherence(exchange.completion)
                yield Judgement("incoherent", fault) if fault else next(judgements)

    def _judge_batch(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        import torch

        if not exchanges:
            return []
        texts = [[exchange.prompt for exchange in exchanges]] if self._pair else []
        texts.append([exchange.completion for exchange in exchanges])
        longest = min(_LONGEST, getattr(self._model.config, "max_position_embeddings", _LONGEST) - 2)
        rows = self._tokenizer(*texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        rows = {name: value for name, value in rows.items() if name != "token_type_ids" or self._pair}
        with torch.no_grad():
            logits = self._model(**{name: value.to(self._device) for name, value in rows.items()}).logits
        best = logits.float().softmax(dim=-1).max(dim=-1)
        names = self._model.config.id2label
        return [
            Judgement(self._classes[place], f"{names[place]} {share:.2f}")
            for place, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _load_classifier(folder: Any, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"The classifier {folder} cannot be loaded", got=str(error).splitlines()[0]) from error
    if info["missing_keys"]:
        raise CheckpointError(
            f"{folder} is no sequence classifier",
            got=f"no weights for {min(info['missing_keys'])}",
            next_step="A model that answers in words is a judge as generative:PLACE.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model.to(device).eval().requires_grad_(False)


def _map_classes(place: str, names: Mapping[int, str], class_labels: Mapping[str, str] | None) -> dict[int, str]:
    """Our label by class number."""
    odd = sorted(set((class_labels or {}).values()) - set(LABELS)) + sorted(
        set(class_labels or {}) - set(names.values())
    )
    if odd:
        raise JudgeError(
            f"The classes of {place} are mapped wrongly",
            got=odd[0],
            expected=f"one of {', '.join(names.values())} = one of {', '.join(LABELS)}",
        )
    labels = {}
    for number, name in names.items():
        own = (class_labels or {}).get(name) or next(
            (label for pattern, label in _KNOWN if re.search(pattern, name.lower())), None
        )
        if own is None:
            raise JudgeError(
                f"What the class {name!r} of {place} means is not known",
                next_step=f"Say it: classifier:{place}#{name}=refusal, with a comma between several.",
            )
        labels[int(number)] = own
    return labels
