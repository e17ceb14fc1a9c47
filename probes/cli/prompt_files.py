"""The options that name prompt files, and the prompts that they give: the same in every verb that reads prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.prompts import PromptSet

GroupColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of the prompt files with each prompt's topic; default: topic."),
]


@dataclass(frozen=True)
class PromptFiles:
    """Prompt files as a command names them.

    Attributes:
        harmful: harmful prompts, with `harmless`; None where the command has its own.
        harmless: harmless ones.
        group_column: the column with each prompt's topic; None is `topic`, where there is one.
        further: other prompt files of the command, of which the column may be too.
    """

    harmful: Path | None = None
    harmless: Path | None = None
    group_column: str | None = None
    further: tuple[Path | None, ...] = ()

    def refuse_half(self) -> None:
        """Refuse one class without the other, and a column without files.

        Raises:
            UsageError: so it is.
        """
        if (self.harmful is None) != (self.harmless is None):
            raise UsageError(
                "One class of prompts is missing", expected="--harmful and --harmless together, or neither"
            )
        if self.group_column is not None and not any((self.harmful, *self.further)):
            raise UsageError("--group-column names a column of your own files", next_step="Give --harmful, --harmless.")

    def read(self, own: PromptSet, *, limit: int | None = None, seed: int = 0) -> PromptSet:
        """The prompts of both classes, or the command's `own`; at most `limit` of each.

        Raises:
            UsageError: as `refuse_half` and `PromptSet.of_classes`.
            PromptError: as `PromptSet.of_classes`.
        """
        from probes.prompts import PromptSet

        self.refuse_half()
        return PromptSet.of_classes(
            self.harmful or own, self.harmless or own, limit=limit, seed=seed, group_column=self.group_column
        )

    def read_labelled(self, file: Path, *, needs_column: bool = True) -> PromptSet:
        """The prompts of one of the `further` ones, harmful where it is silent.

        Args:
            file: in any known format.
            needs_column: whether a file without the column is refused; False where no use is made of topics.

        Raises:
            UsageError: as `read_prompts`.
            PromptError: as `read_prompts`.
        """
        from probes.guard.preparation import prompts_of_file
        from probes.prompts import columns_of

        has_column = needs_column or self.group_column in columns_of(file)
        return prompts_of_file(file, self.group_column if has_column else None)

    def probe_and_penalty(self) -> tuple[PromptSet, PromptSet]:
        """Probe and penalty prompts (the first of the `further` ones); without any, our own are shared between them.

        Raises:
            UsageError: as `read`, or there are no penalty prompts beside probe prompts.
            PromptError: as `read`.
        """
        from probes.prompts import default_prompts

        self.refuse_half()
        penalty, own = self.further[0], default_prompts("probe")
        if self.harmful is None and penalty is None:
            return _halves(own)
        if penalty is None:
            raise UsageError("Penalty prompts are missing", expected="--penalty beside --harmful and --harmless")
        probe = own if self.harmful is None else self.read(own)
        return probe, self.read_labelled(penalty, needs_column=False)

    def refuse_any(self) -> tuple[None, None]:
        """Refuse files where the command has prompts of its own and would pass over them.

        Raises:
            UsageError: there are some.
        """
        if any((self.harmful, self.harmless, self.group_column, *self.further)):
            raise UsageError("Prompt files are for arms of a lineage", next_step="Give --data too, or leave them out.")
        return None, None


def _halves(prompts: PromptSet) -> tuple[PromptSet, PromptSet]:
    """The two folds of prompts."""
    fold = prompts.folds(0)
    first, second = (
        replace(prompts, prompts=tuple(prompt for prompt, of in zip(prompts.prompts, fold, strict=True) if of == side))
        for side in (0, 1)
    )
    return first, second
