"""The prompts of a run: labelled, without duplicates, with folds and hashes that follow from content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Int

from probes.errors import PromptError, UsageError
from probes.prompts.formats import LABELS, read_prompts

if TYPE_CHECKING:
    import pandas as pd

HARMFUL, HARMLESS = LABELS
Sources = tuple[tuple[str, str], ...]
_ID_PREFIX = {HARMFUL: "h-", HARMLESS: "b-"}


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: `h-` (harmful) or `b-` (harmless) and the first ten hex digits of the text's sha256.
        text: what the user asks, before any chat template.
        label: `harmful` or `harmless`.
    """

    id: str
    text: str
    label: str

    @classmethod
    def of(cls, text: str, label: str) -> Prompt:
        """The prompt with this text and label; equal texts with equal labels have equal ids.

        Raises:
            PromptError: the label is neither `harmful` nor `harmless`.
        """
        if label not in LABELS:
            raise PromptError("A prompt has no label", got=repr(label), expected=" or ".join(LABELS))
        return cls(_ID_PREFIX[label] + _sha256(text)[:10], text, label)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, no text twice.

    Attributes:
        prompts: at least one.
        sources: (file, format that was recognised) of each file the prompts were read from.
    """

    prompts: tuple[Prompt, ...]
    sources: Sources = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError("A set of prompts is empty")
        labels: dict[str, str] = {}
        for prompt in self.prompts:
            if labels.setdefault(prompt.text, prompt.label) != prompt.label:
                raise PromptError(
                    "A prompt is both harmful and harmless",
                    got=shown(prompt),
                    next_step="Take it out of one of the two files.",
                )
        if len(labels) < len(self.prompts) or len(set(self.ids)) < len(self.prompts):
            raise PromptError("A prompt is in the set twice", next_step="PromptSet.of leaves duplicates out.")

    @classmethod
    def of(cls, texts: Iterable[str], labels: Iterable[str], sources: Sources = ()) -> PromptSet:
        """The set of these texts and labels in their order; a text that comes again is left out.

        Raises:
            PromptError: nothing is left, a label is unknown, or a text has both labels.
        """
        found = dict.fromkeys(zip(texts, labels, strict=True))
        return cls(tuple(Prompt.of(text, label) for text, label in found), sources)

    @classmethod
    def from_files(
        cls, harmful: Path | str, harmless: Path | str, limit: int | None = None, seed: int = 0
    ) -> PromptSet:
        """Read harmful prompts from one file and harmless ones from another; one labelled file may be both.

        Args:
            harmful: a file in any format of `read_prompts`; of a labelled one only the harmful prompts count.
            harmless: likewise.
            limit: at most this many prompts of each label, drawn by seed and content, not by file order.
            seed: of the draw.

        Raises:
            UsageError: a file is absent or in no known format, or `limit` is below 1.
            PromptError: a file is damaged, empty, or has no prompt of its label; a prompt is in both.
        """
        if limit is not None and limit < 1:
            raise UsageError("The limit of prompts is too small", got=limit, expected="at least 1")
        texts: list[str] = []
        labels: list[str] = []
        sources = []
        for path, label in ((harmful, HARMFUL), (harmless, HARMLESS)):
            recognised = read_prompts(path, label)
            chosen = _drawn(tuple(dict.fromkeys(recognised.texts)), limit, seed)
            texts += chosen
            labels += [label] * len(chosen)
            sources.append((str(path), recognised.format))
        return cls.of(texts, labels, tuple(sources))

    @classmethod
    def of_classes(cls, harmful: Path | str | Sequence[str], harmless: Path | str | Sequence[str]) -> PromptSet:
        """Harmful and harmless prompts, each as texts or as a file; raises as `of` and `from_files`."""
        texts: list[str] = []
        labels: list[str] = []
        sources: list[tuple[str, str]] = []
        for given, label in ((harmful, HARMFUL), (harmless, HARMLESS)):
            if isinstance(given, str | Path):
                recognised = read_prompts(given, label)
                sources.append((str(given), recognised.format))
                given = recognised.texts
            texts += given
            labels += [label] * len(given)
        return cls.of(texts, labels, tuple(sources))

    @classmethod
    def from_labelled(cls, path: Path | str) -> PromptSet:
        """Read one file that labels its own prompts.

        Raises:
            UsageError: the file is absent or in no known format.
            PromptError: it is damaged or empty, or carries no labels.
        """
        recognised = read_prompts(path)
        labels = [label for label in recognised.labels if label is not None]
        if len(labels) < len(recognised.labels):
            raise PromptError(
                f"{path} does not say which prompts are harmful",
                got=recognised.format,
                next_step="Give the harmful and the harmless prompts as two files.",
            )
        return cls.of(recognised.texts, labels, ((str(path), recognised.format),))

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

    def folds(self, seed: int) -> Int[np.ndarray, " prompt"]:
        """Fold 0 (A) or 1 (B) of each prompt, the two as equal as can be within each label.

        A prompt's fold follows from its content, the set's other contents and the seed, never from the order.

        Raises:
            PromptError: a label has only one prompt, so that one fold would have none of it.
        """
        order = np.argsort(np.array(self.ids))
        fold = np.empty(len(self), dtype=np.int64)
        fold[order] = folds(self.harmful[order], seed)
        return fold

    def to_frame(self) -> pd.DataFrame:
        """A table with columns id, text, label."""
        import pandas as pd

        return pd.DataFrame([vars(prompt) for prompt in self.prompts], columns=["id", "text", "label"])


def folds(harmful: Bool[np.ndarray, " prompt"], seed: int) -> Int[np.ndarray, " prompt"]:
    """Split prompts in two at random, stratified by label.

    Args:
        harmful: whether each prompt is harmful.
        seed: same seed and labels, same folds.

    Returns:
        0 or 1 for each prompt; within each label the two folds differ by at most one, and so they do in all.

    Raises:
        PromptError: a label has only one prompt.
    """
    generator = np.random.default_rng(seed)
    fold = np.empty(len(harmful), dtype=np.int64)
    start = 0
    for label, members in ((HARMFUL, np.flatnonzero(harmful)), (HARMLESS, np.flatnonzero(~harmful))):
        if len(members) == 1:
            raise PromptError(f"One {label} prompt cannot be split into two folds", expected="at least two")
        # The odd one of the second label goes where the first label's did not, so that the folds stay equal.
        fold[generator.permutation(members)] = (np.arange(len(members)) + start) % 2
        start = (start + len(members)) % 2
    return fold


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


def shown(prompt: Prompt, width: int = 60) -> str:
    """The prompt as an error names it: its id and how it begins."""
    start = prompt.text if len(prompt.text) <= width else f"{prompt.text[:width]}…"
    return f"{prompt.id} ({start!r})"


def _drawn(texts: tuple[str, ...], limit: int | None, seed: int) -> tuple[str, ...]:
    """`limit` of the texts in their order, chosen by their hash, so that the file's order does not matter."""
    if limit is None or limit >= len(texts):
        return texts
    chosen = set(sorted(texts, key=lambda text: _sha256(f"{seed}:{text}"))[:limit])
    return tuple(text for text in texts if text in chosen)


def _sha256(text: str) -> str:
    # A lone surrogate from a JSON escape has no UTF-8; it must not stop a hash.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
