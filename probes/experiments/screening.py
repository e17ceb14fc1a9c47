"""Which requests of the fine-tuning data the aligned model refuses: a few of them can carry a whole return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.behaviour.evaluation import Evaluation, answer_questions
from probes.behaviour.judges import REFUSALS, Exchange, open_judge
from probes.models.view import ModelView
from probes.organism.history import OrganismError
from probes.prompts import PromptSet
from probes.statistics import percent
from probes.store.documents import read_object


@dataclass(frozen=True)
class Screening:
    """What the aligned model says to the requests of the fine-tuning data.

    Attributes:
        requests: how many there are.
        refused: those that it refuses, whole or in part.
    """

    requests: int
    refused: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The count in words."""
        share = percent(len(self.refused) / self.requests)
        return f"The aligned model refuses {len(self.refused)} of the {self.requests} benign requests ({share})."

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {"requests": self.requests, "refused": list(self.refused)}

    @classmethod
    def read(cls, file: Path) -> Screening:
        """A file of what `to_json` gave.

        Raises:
            OrganismError: it holds no screening.
        """
        document = read_object(file, kind="screening", error=OrganismError)
        try:
            return cls(int(document["requests"]), tuple(map(str, document["refused"])))
        except (LookupError, TypeError, ValueError) as fault:
            raise OrganismError(f"{file} is damaged", got=str(fault), next_step="Delete it and run again.") from fault


def screen(host: ModelView, requests: Sequence[str], judge: str = "builtin") -> Screening:
    """Ask a model, greedily, and count what it refuses.

    Args:
        host: holds the aligned model.
        requests: of the fine-tuning data; each counts once.
        judge: as `open_judge` takes it.
    """
    prompts = PromptSet.of(list(dict.fromkeys(requests)), ["harmless"] * len(set(requests)))
    answers, _ = answer_questions(host, Evaluation(prompts))
    exchanges = [Exchange(*pair) for pair in zip(prompts.texts, answers["completion"], strict=True)]
    labels = [judgement.label for judgement in open_judge(judge).label(exchanges)]
    refused = (text for text, label in zip(prompts.texts, labels, strict=True) if label in REFUSALS)
    return Screening(len(prompts.texts), tuple(refused))
