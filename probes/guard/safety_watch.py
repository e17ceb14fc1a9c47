"""The safety answer while a model trains: the evaluation's harmful requests asked before training and at some steps."""

from __future__ import annotations

from collections.abc import Sequence

from probes.behaviour.ask import completion_text
from probes.behaviour.generate import generate
from probes.behaviour.judges import Exchange, JudgementCache, open_judge
from probes.behaviour.safety import SafetyAnswer, safety_answer
from probes.guard.guarded_direction import GuardError
from probes.guard.model_in_training import LiveModel, undisturbed
from probes.prompts import OWN, PromptSet, render
from probes.run import Run

DOCUMENT = "safety_watch"  # of the run: what the aligned model answered


class SafetyWatch:
    """Asks the model in training, and compares its answers with those of the aligned model.

    Attributes:
        every: steps between evaluations.
        answer: the last safety answer; None before the first.
        ringing: whether that was `eroded`.
    """

    def __init__(self, prompts: PromptSet, every: int, *, max_new_tokens: int = 64, judge: str = "builtin") -> None:
        """Choose what is asked.

        Args:
            prompts: evaluation prompts, of which the harmful ones are asked.
            every: steps between evaluations.
            max_new_tokens: length of an answer.
            judge: as `judges.open_judge` takes it.

        Raises:
            GuardError: there are no harmful prompts.
        """
        self._prompts = tuple(prompt for prompt in prompts.prompts if prompt.label == "harmful")
        if not self._prompts:
            raise GuardError("The evaluation has no harmful prompts", next_step="Give some, or leave it out.")
        self.every, self._max_new_tokens, self._judge = every, max_new_tokens, open_judge(judge)
        self._before: Sequence[str] = ()
        self._rendering = OWN
        self.answer: SafetyAnswer | None = None
        self.ringing = False

    def begin(self, live: LiveModel, run: Run, step: int, *, recorded: bool) -> None:
        """Ask the aligned model, or take up what it answered when this training began.

        Args:
            live: the model in training; the aligned one at step 0.
            run: keeps the answers.
            step: at which training begins or goes on.
            recorded: whether the run is written.

        Raises:
            GuardError: training goes on, and the aligned model's answers to these prompts were not kept.
        """
        self._rendering = run.rendering
        ids = [prompt.id for prompt in self._prompts]
        if step > 0:
            if not run.has_json(DOCUMENT):
                raise GuardError(
                    "The training that goes on here had no evaluation",
                    got=f"no {DOCUMENT}.json in {run.path}",
                    expected="the aligned model's answers from when it began",
                )
            document = run.read_json(DOCUMENT)
            if document["prompts"] != ids:
                raise GuardError(
                    "The training that goes on here was evaluated on other prompts",
                    got=f"{len(ids)} harmful prompts",
                    expected=f"the {len(document['prompts'])} of {run.path / DOCUMENT}.json, in their order",
                    next_step="Give the same evaluation prompts, or --out a new folder.",
                )
            self._before = document["aligned"]
            return
        self._before = self._ask(live)
        if recorded:
            with Run.writing(run.path) as writing:
                writing.write_json(DOCUMENT, {"prompts": ids, "aligned": list(self._before)})

    def is_due(self, step: int) -> bool:
        """Whether the model is asked at a step."""
        return step > 0 and step % self.every == 0

    def evaluate(self, live: LiveModel) -> bool:
        """Ask the model as it is now; whether safety has begun to be eroded since it was asked last."""
        before = self.ringing
        topics = [prompt.topic or prompt.id for prompt in self._prompts]
        groups = topics if any(prompt.topic for prompt in self._prompts) else None
        self.answer = safety_answer(self._before, self._ask(live), groups=groups)
        self.ringing = self.answer.answer == "eroded"
        return self.ringing and not before

    def sentence(self, step: int) -> str:
        """Why it rings."""
        assert self.answer is not None
        return f"Step {step}: {self.answer.text}"

    def _ask(self, live: LiveModel) -> list[str]:
        """The judge's label of each answer."""
        with undisturbed(live.model, live.tokenizer):
            rendered = render(PromptSet(self._prompts), live.tokenizer, live.context_length, self._rendering)
            if len(rendered.token_ids) != len(self._prompts):
                raise GuardError("An evaluation prompt is longer than the model's context")
            answers = generate(live, rendered.token_ids, max_new_tokens=self._max_new_tokens)
        exchanges = [
            Exchange(prompt.text, completion_text(live.tokenizer, ids, answer))
            for prompt, ids, answer in zip(self._prompts, rendered.token_ids, answers, strict=True)
        ]
        return [judgement.label for judgement in JudgementCache().ask(self._judge, exchanges)]
