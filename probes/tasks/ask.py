"""One model in memory to be asked by hand: each token's projection, what comes next, with and without a push.

`Bench.open` loads the aligned model of a run. `Bench.read` puts a checkpoint of the run's own lineage in its place
and asks it one prompt; nothing else can be put in, and nothing is written. A bench is used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from probes.behaviour.generate import generate
from probes.directions.vectors import Owner, Vectors
from probes.errors import CheckpointError, LineageError, UsageError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.hooks import add, residuals
from probes.models.identity import check_measured
from probes.prompts import OWN, Prompt, PromptSet, Rendering, render
from probes.run import Run

TOP = 15
AT_MOST = 2048  # tokens of a rendered prompt


@dataclass(frozen=True)
class Asked:
    """What is asked of a checkpoint.

    Attributes:
        prompt: what the user says; it goes through the aligned model's chat template.
        layer: the block behind which tokens are projected and the push is given.
        coefficient: of the push along the direction, in units of the direction's norm; 0 is none.
        new_tokens: most tokens of a greedy answer; 0 is no answer.
    """

    prompt: str
    layer: int
    coefficient: float = 0.0
    new_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UsageError("The prompt is empty", next_step="Type what the model shall be asked.")
        if not np.isfinite(self.coefficient):
            raise UsageError("The push is not finite", got=self.coefficient)


@dataclass(frozen=True)
class Read:
    """What a checkpoint did with one prompt.

    Attributes:
        tokens: of the rendered prompt, as the tokenizer writes them.
        projections: of each token on the unit direction behind the layer, the push included, in units of the
            direction's norm.
        chances: of every token of the vocabulary to come next.
        words: the likeliest next tokens by id, as the tokenizer writes them.
        answer: the greedy answer; None where none was asked for.
    """

    tokens: tuple[str, ...]
    projections: Float[np.ndarray, " position"]
    chances: Float[np.ndarray, " vocabulary"]
    words: Mapping[int, str]
    answer: str | None = None


@dataclass
class Bench:
    """The model, and the checkpoints that may be put in its place.

    Attributes:
        host: holds the model.
        owner: whose directions fit it.
        places: checkpoint → where it lives, as the run's lineage says.
        weights: checkpoint → hash of the weights that were measured, where the run knows it.
        rendering: as of the run's prompts.
    """

    host: ModelHost
    owner: Owner
    places: Mapping[str, CheckpointRef]
    weights: Mapping[str, str]
    rendering: Rendering = OWN
    _known: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, run: Run) -> Bench:
        """Load the aligned model of a run.

        Raises:
            CheckpointError: it cannot be found or read, or its weights are not those that were measured.
            LineageError: the run has no lineage.
        """
        if not run.manifest.lineage:
            raise LineageError(f"{run.path} names no checkpoints")
        weights = {name: str(about.get("weights_sha256", "")) for name, about in run.manifest.checkpoints.items()}
        bench = cls(run.model("auto"), run.owner, dict(run.lineage.checkpoints()), weights, run.rendering)
        bench._verify("aligned")
        return bench

    @property
    def n_bytes(self) -> int:
        """What the weights take in memory."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.host.model.parameters())

    @property
    def n_weights(self) -> int:
        """How many weights there are."""
        return sum(parameter.numel() for parameter in self.host.model.parameters())

    def read(self, checkpoint: str, vectors: Vectors, question: Asked) -> Read:
        """Ask one checkpoint.

        Raises:
            CheckpointError: the lineage has no such checkpoint, it cannot be loaded, or its weights are others.
            UsageError: the direction is another model's, or is not defined at the layer, or the prompt is too long.
            PromptError: the chat template fails, or the prompt does not fit into the context.
        """
        self.owner.refuse_foreign(vectors)
        unit, norm = vectors.at(question.layer)
        with self._lock:
            self._put(checkpoint)
            ids = self._ids(question.prompt)
            move = (question.coefficient * norm * unit)[None]
            push = add(self.host, [question.layer], move) if question.coefficient else contextlib.nullcontext()
            with push:
                stream, chances = self._forward(ids, question.layer)
                answer = self._answer(ids, question.new_tokens)
        best = np.argsort(-chances, kind="stable")[:TOP]
        return Read(
            self._texts(ids),
            (stream @ unit / norm).astype(np.float64),
            chances,
            dict(zip(map(int, best), self._texts(best), strict=True)),
            answer,
        )

    def _put(self, checkpoint: str) -> None:
        if checkpoint not in self.places:
            raise CheckpointError(f"The run's lineage has no checkpoint {checkpoint}")
        self._verify(checkpoint)
        self.host.put(self.places[checkpoint])

    def _verify(self, checkpoint: str) -> None:
        """Refuse a place that by now holds other weights than were measured there."""
        if checkpoint not in self._known:
            check_measured(self.host.weights_sha256, self.places[checkpoint], self.weights.get(checkpoint))
            self._known.add(checkpoint)

    def _ids(self, prompt: str) -> tuple[int, ...]:
        prompts = PromptSet((Prompt.of(prompt, "harmless"),))  # the label says nothing here
        ids = render(prompts, self.host.tokenizer, self.host.context_length, self.rendering).token_ids[0]
        if len(ids) > AT_MOST:
            raise UsageError("The prompt is too long to be shown", got=f"{len(ids)} tokens", expected=f"{AT_MOST}")
        return ids

    @torch.no_grad()
    def _forward(self, ids: Sequence[int], layer: int) -> tuple[np.ndarray, np.ndarray]:
        """The stream [position, d_model] behind a layer, and the chances of the next token."""
        tokens = torch.tensor([list(ids)], device=self.host.device)
        with residuals(self.host.blocks, [layer]) as stream:
            output = self.host.model(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False, logits_to_keep=1
            )
        chances = output.logits[0, -1].double().softmax(dim=-1)
        return stream[layer][0].double().cpu().numpy(), chances.cpu().numpy()

    def _answer(self, ids: Sequence[int], new_tokens: int) -> str | None:
        if new_tokens < 1:
            return None
        answer = generate(self.host, [list(ids)], max_new_tokens=new_tokens)[0]
        return str(self.host.tokenizer.decode(answer))

    def _texts(self, ids: Sequence[int] | np.ndarray) -> tuple[str, ...]:
        return tuple(self.host.tokenizer.decode([int(token)]) for token in ids)
