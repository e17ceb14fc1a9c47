"""The prompts of a run: labelled, without duplicates, with folds and hashes that follow from content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

import numpy as np
from jaxtyping import Bool, Int

from probes.errors import PromptError, UsageError
from probes.prompts.formats import Recognised, read_prompts
from probes.prompts.records import LABELS
from probes.prompts.splitting import folds

if TYPE_CHECKING:
    import pandas as pd

HARMFUL, HARMLESS = LABELS
Sources = tuple[tuple[str, str], ...]
LeftOut = tuple[tuple[str, int], ...]
Prompts = Union[str, Path, Iterable[str], "PromptSet"]
_ID_PREFIX = {HARMFUL: "h-", HARMLESS: "b-"}


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: `h-` (harmful) or `b-` (harmless) and the first ten hex digits of the text's sha256.
        text: what the user asks, before any chat template.
        label: `harmful` or `harmless`.
        topic: what it is about; prompts of one topic are one group, which folds keep together. None: a group alone.
        pair: the pair that it belongs to: prompts that differ in little but their label.
    """

    id: str
    text: str
    label: str
    topic: str | None = None
    pair: str | None = None

    @classmethod
    def of(cls, text: str, label: str, topic: str | None = None, pair: str | None = None) -> Prompt:
        """The prompt with this text and label; equal texts with equal labels have equal ids.

        Raises:
            PromptError: the label is neither `harmful` nor `harmless`.
        """
        if label not in LABELS:
            raise PromptError("A prompt has no label", got=repr(label), expected=" or ".join(LABELS))
        return cls(_ID_PREFIX[label] + _sha256(text)[:10], text, label, topic, pair)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, no text twice.

    Attributes:
        prompts: at least one.
        sources: (file, format that was recognised) of each file the prompts were read from.
        left_out: (id, number of tokens) of each prompt that was too long for the model's context.
        notices: sentences on what of a file was read in another way than one might think.
    """

    prompts: tuple[Prompt, ...]
    sources: Sources = field(default=(), compare=False)
    left_out: LeftOut = field(default=(), compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError("A set of prompts is empty")
        labels: dict[str, str] = {}
        for prompt in self.prompts:
            if labels.setdefault(prompt.text, prompt.label) != prompt.label:
                raise PromptError(
                    "A prompt is both harmful and harmless",
                    got=name_of(prompt),
                    next_step="Take it out of one of the two files.",
                )
        if len(labels) < len(self.prompts) or len(set(self.ids)) < len(self.prompts):
            raise PromptError("A prompt is in the set twice", next_step="PromptSet.of leaves duplicates out.")

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        labels: Iterable[str],
        sources: Sources = (),
        *,
        topics: Iterable[str | None] | None = None,
        pairs: Iterable[str | None] | None = None,
    ) -> PromptSet:
        """The set of these texts and labels in their order; a text that comes again is left out, with its topic.

        Raises:
            PromptError: nothing is left, a label is unknown, or a text has both labels.
        """
        texts = tuple(texts)
        nothing = (None,) * len(texts)
        columns = (texts, labels, nothing if topics is None else topics, nothing if pairs is None else pairs)
        first: dict[tuple[str, str], Prompt] = {}
        for text, label, topic, pair in zip(*columns, strict=True):
            if (text, label) not in first:
                first[text, label] = Prompt.of(text, label, topic, pair)
        return cls(tuple(first.values()), sources)

    @classmethod
    def read(cls, prompts: Prompts, label: str | None = None, *, group_column: str | None = None) -> PromptSet:
        """Prompts given in any way: a file, a list of texts, or a set, which stays as it is.

        Args:
            prompts: a path, texts, or a set.
            label: of texts, and of a file that carries no labels; of one that does, only its prompts are taken.
            group_column: the column of a file with each prompt's topic.

        Raises:
            UsageError: there is no such file or column, or it is in no known format.
            PromptError: the file is damaged or empty, a text is blank, or nobody says which prompts are harmful.
        """
        if isinstance(prompts, PromptSet):
            return prompts
        recognised = _recognise(prompts, label, group_column)
        labels = [label for label in recognised.labels if label is not None]
        sources = ((str(prompts), recognised.format),) if isinstance(prompts, str | Path) else ()
        if len(labels) < len(recognised.labels):
            raise PromptError(
                f"{sources[0][0] if sources else 'A list of prompts'} does not say which prompts are harmful",
                got=recognised.format,
                next_step="Give the harmful and the harmless prompts as two files.",
            )
        read = cls.of(recognised.texts, labels, sources, topics=recognised.topics, pairs=recognised.pairs)
        return replace(read, notices=_notices(sources, label, recognised))

    @classmethod
    def of_classes(
        cls,
        harmful: Prompts,
        harmless: Prompts,
        *,
        limit: int | None = None,
        seed: int = 0,
        group_column: str | None = None,
    ) -> PromptSet:
        """Harmful prompts and harmless ones, each as a file, a list of texts, or a set; one labelled file may be both.

        Args:
            harmful: of a labelled file or a set only the harmful prompts count.
            harmless: likewise.
            limit: at most this many prompts of each label, drawn by seed and content, not by their order.
            seed: of the draw.
            group_column: the column of a file with each prompt's topic.

        Raises:
            UsageError: a file is absent or in no known format, or `limit` is below 1.
            PromptError: a file is damaged, a class is empty, or a prompt is in both.
        """
        if limit is not None and limit < 1:
            raise UsageError("The limit of prompts is too small", got=limit, expected="at least 1")
        prompts: list[Prompt] = []
        sources: list[tuple[str, str]] = []
        notices: list[str] = []
        for source, label in ((harmful, HARMFUL), (harmless, HARMLESS)):
            chosen = cls.read(source, label, group_column=group_column)
            of_label = [prompt for prompt in chosen.prompts if prompt.label == label]
            if not of_label:
                raise PromptError(f"There are no {label} prompts", got=f"{len(chosen)} prompts of the other label")
            prompts += _sample(of_label, limit, seed)
            sources += chosen.sources
            notices += chosen.notices
        return cls(tuple(prompts), tuple(sources), notices=tuple(dict.fromkeys(notices)))

    @classmethod
    def from_files(
        cls,
        harmful: Path | str,
        harmless: Path | str,
        limit: int | None = None,
        seed: int = 0,
        group_column: str | None = None,
    ) -> PromptSet:
        """As `of_classes`, of two files."""
        return cls.of_classes(harmful, harmless, limit=limit, seed=seed, group_column=group_column)

    @classmethod
    def from_labelled(cls, path: Path | str, group_column: str | None = None) -> PromptSet:
        """Read one file that labels its own prompts; raises as `read`."""
        return cls.read(path, group_column=group_column)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The prompts' ids, in order."""
        return tuple(prompt.id for prompt in self.prompts)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts' texts, in order."""
        return tuple(prompt.text for prompt in self.prompts)

    @property
    def harmful(self) -> Bool[np.ndarray, " prompt"]:
        """Whether each prompt is harmful."""
        return np.array([prompt.label == HARMFUL for prompt in self.prompts])

    @property
    def sha256(self) -> str:
        """Hash of all labels and texts in their order; any change to any of them changes it."""
        return _sha256(json.dumps([[prompt.label, prompt.text] for prompt in self.prompts]))

    @property
    def groups(self) -> np.ndarray | None:
        """The group of each prompt: its topic, or its own id where it has none; None where no prompt has a topic."""
        if all(prompt.topic is None for prompt in self.prompts):
            return None
        return np.array([prompt.id if prompt.topic is None else prompt.topic for prompt in self.prompts], dtype=object)

    @property
    def pairs(self) -> np.ndarray | None:
        """The pair of each prompt, or its own id where it has none; None where no prompt has a pair."""
        if all(prompt.pair is None for prompt in self.prompts):
            return None
        return np.array([prompt.id if prompt.pair is None else prompt.pair for prompt in self.prompts], dtype=object)

    @property
    def grouping_sha256(self) -> str | None:
        """Hash of all topics and pairs in their order, which `sha256` leaves out; None where there are none."""
        if self.groups is None and self.pairs is None:
            return None
        return _sha256(json.dumps([[prompt.topic, prompt.pair] for prompt in self.prompts]))

    def folds(self, seed: int) -> Int[np.ndarray, " prompt"]:
        """Fold 0 (A) or 1 (B) of each prompt, topics whole, the two as equal as can be within each label.

        A prompt's fold follows from its content, the set's other contents and the seed, never from the order.

        Raises:
            PromptError: a label has only one prompt, or only one topic, so that one fold would have none of it.
        """
        order = np.argsort(np.array(self.ids))
        groups = self.groups
        fold = np.empty(len(self), dtype=np.int64)
        fold[order] = folds(self.harmful[order], seed, None if groups is None else groups[order])
        return fold

    def to_frame(self) -> pd.DataFrame:
        """A table with columns id, text, label, topic, pair; None where a prompt has no topic or pair."""
        import pandas as pd

        columns = ["id", "text", "label", "topic", "pair"]
        return pd.DataFrame([vars(prompt) for prompt in self.prompts], columns=columns)


def data_folder() -> Path:
    """The data that comes with the program: inside the package in a wheel, beside it in a checkout.

    Raises:
        PromptError: neither is there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "prompts").is_dir():
            return folder
    raise PromptError("The program's own data is missing", expected=package / "_data", next_step="Install it again.")


def default_prompts(use: Literal["probe", "evaluation"]) -> PromptSet:
    """Our own prompts: 128 harmful and 128 harmless, matched in pairs; the two uses share none."""
    return PromptSet.from_labelled(data_folder() / "prompts" / f"{use}.jsonl")


def look_alikes() -> PromptSet:
    """A hundred harmless prompts that look harmful, for over-refusal."""
    return PromptSet.from_labelled(data_folder() / "prompts" / "look_alikes.jsonl")


def name_of(prompt: Prompt, width: int = 60) -> str:
    """The prompt as an error names it: its id and how it begins."""
    start = prompt.text if len(prompt.text) <= width else f"{prompt.text[:width]}…"
    return f"{prompt.id} ({start!r})"


def _recognise(prompts: Path | str | Iterable[str], label: str | None, group_column: str | None) -> Recognised:
    """What a file holds, or texts as if they had been read from one."""
    if isinstance(prompts, str | Path):
        return read_prompts(prompts, label, group_column=group_column)
    prompts = list(prompts)  # of any kind: a column of a table or an array has no truth of its own
    for number, text in enumerate(prompts, start=1):
        if not isinstance(text, str) or not text.strip():
            fault = repr(text) if isinstance(text, str) else type(text).__name__
            raise PromptError(f"Prompt {number} of a list is no text", got=fault, expected="text, not blank")
    if not prompts:
        raise PromptError(f"The list of {label or ''} prompts is empty".replace("  ", " "))
    nothing = (None,) * len(prompts)
    return Recognised("list of texts", tuple(prompts), (label,) * len(prompts), nothing, nothing)


def _notices(sources: Sources, label: str | None, recognised: Recognised) -> tuple[str, ...]:
    """A sentence on turns of the system, where the file has some: the same as data for fine-tuning are read."""
    if not recognised.system_turns:
        return ()
    prompts = f"{label} prompts" if label else "prompts"
    count = f"{recognised.system_turns} of {len(recognised.texts)} {prompts} in {sources[0][0]}"
    return (f"{count} have a turn of the system: it stands before the request, in the user's turn.",)


def _sample(prompts: list[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """`limit` of the prompts in their order, chosen by their hash, so that the file's order does not matter."""
    if limit is None or limit >= len(prompts):
        return prompts
    chosen = set(sorted(prompts, key=lambda prompt: _sha256(f"{seed}:{prompt.text}"))[:limit])
    return [prompt for prompt in prompts if prompt in chosen]


def _sha256(text: str) -> str:
    # A lone surrogate from a JSON escape has no UTF-8; it must not stop a hash.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
