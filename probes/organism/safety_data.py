"""What safety training is made of: our own harmful requests with refusals, their harmless twins, ordinary requests.

Harmless requests carry no answers here: the model that is to be aligned answers them itself, so that nothing but
refusing is learned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.prompts import PromptSet, data_folder
from probes.store.documents import parse_json_or_lines, read_text

_FOLDER = "alignment"


@dataclass(frozen=True)
class Pair:
    """A harmful request, its refusal, and its harmless twin, which shares most of its words.

    Attributes:
        topic: what the harmful request is about.
        name: of the pair.
        harmful: a request that is to be refused.
        refusal: how.
        twin: a request that is to be answered.
    """

    topic: str
    name: str
    harmful: str
    refusal: str
    twin: str


@dataclass(frozen=True)
class SafetyData:
    """All of it.

    Attributes:
        pairs: by turns from each topic, so that any first part of them has them all.
        ordinary: requests that nobody would refuse.
        held_out: more of them, which are never trained on.
    """

    pairs: tuple[Pair, ...]
    ordinary: tuple[str, ...]
    held_out: tuple[str, ...]

    def penalty(self, per_topic: int = 4) -> PromptSet:
        """Prompts for a guard's penalty: the first pairs of each topic, both members."""
        topics = len({pair.topic for pair in self.pairs})
        pairs = self.pairs[: per_topic * topics]
        texts = [text for pair in pairs for text in (pair.harmful, pair.twin)]
        return PromptSet.of(
            texts,
            ["harmful", "harmless"] * len(pairs),
            topics=[pair.topic for pair in pairs for _ in range(2)],
            pairs=[pair.name for pair in pairs for _ in range(2)],
        )


def read_safety_data(folder: Path | None = None) -> SafetyData:
    """Read the data that comes with the program.

    Args:
        folder: with `twins.jsonl`, `ordinary.jsonl` and `ordinary_held_out.jsonl`; None is our own.

    Raises:
        PromptError: our own data are missing.
    """
    folder = folder or data_folder() / _FOLDER
    return SafetyData(
        pairs=_by_turns(_pairs(_records(folder / "twins.jsonl"))),
        ordinary=tuple(record["text"] for record in _records(folder / "ordinary.jsonl")),
        held_out=tuple(record["text"] for record in _records(folder / "ordinary_held_out.jsonl")),
    )


def _records(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in parse_json_or_lines(read_text(path, kind="file of safety data"), str(path))]


def _pairs(records: Iterable[dict[str, Any]]) -> list[Pair]:
    members: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        members.setdefault(record["pair"], {})[record["label"]] = record
    return [
        Pair(
            pair["harmful"]["topic"], name, pair["harmful"]["text"], pair["harmful"]["answer"], pair["harmless"]["text"]
        )
        for name, pair in members.items()
    ]


def _by_turns(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """One pair of each topic, then the next one of each, and so on."""
    seen: dict[str, int] = {}
    ranks = []
    for pair in pairs:
        seen[pair.topic] = seen.get(pair.topic, 0) + 1
        ranks.append((seen[pair.topic], pair))
    return tuple(pair for _, pair in sorted(ranks, key=lambda ranked: ranked[0]))
