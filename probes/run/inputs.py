"""What a run is made from: its lineage, settings and prompts, and the masks over the prompts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from probes.errors import RunFolderError, UsageError
from probes.lineage import Lineage, Member
from probes.prompts import Prompt, PromptSet, Rendered, Rendering
from probes.store import ALIGNED, RunFolder
from probes.store.settings import Settings

if TYPE_CHECKING:
    from probes.models import ModelHost

HEADLINE = "headline"
WITNESS = "witness"


class MeasuredFolder(RunFolder):
    """A run folder that knows what was measured, each part read when it is first asked for."""

    def begin(self, lineage: Lineage, settings: Settings, config: Mapping[str, Any] | None = None) -> None:
        """Put into the manifest what this run is made from, before any work.

        Args:
            lineage: the checkpoints by role, and the trajectories.
            settings: of the measurement.
            config: the options as the user wrote them, where they are not those of `settings`.

        Raises:
            UsageError: it was measured with models in another number of bits.
        """
        manifest = self.manifest
        self._refuse_other_bits(settings)
        manifest.status = "running"
        manifest.config_given = dict(config) if config is not None else settings.model_dump(exclude_unset=True)
        headline = manifest.config.get("headline_layer") if settings.headline_layer is None else None
        if settings.headline_layer is not None:
            self.forget(HEADLINE)  # declared, and not chosen
        manifest.config = settings.model_dump() | ({"headline_layer": headline} if headline is not None else {})
        self.note("lineage", " ".join(lineage.notices) or None)  # no file keeps them
        self.place(lineage)

    def _refuse_other_bits(self, settings: Settings) -> None:
        """Answers and directions of models in other bits would be taken for these models' own."""
        measured, bits = self.manifest.config.get("quantize"), settings.quantize
        if self.manifest.checkpoints and measured != bits:
            raise UsageError(
                f"{self.path} was measured {f'in {measured}' if measured else 'as the weights are stored'}",
                got=f"--quantize {bits}" if bits else "no --quantize",
                next_step="Measure into another folder: --out.",
            )

    def place(self, lineage: Lineage) -> None:
        """Keep a lineage, its folders written from the run's own so that the run can be moved."""
        self.manifest.lineage = lineage.portable(self.path).model_dump()
        self.save()
        self.refresh()

    def describe(self, model: ModelHost) -> None:
        """Put into the manifest what the aligned model is; a layer that was declared must be one of its own."""
        manifest = self.manifest
        if self.settings.headline_layer is not None:
            manifest.config["headline_layer"] = self.settings.headline(model.n_layers)
        known = {name: value for name, value in manifest.model.items() if name != "devices"}
        manifest.model = {**known, **model.about}
        self.save()
        self.refresh()

    def reload(self) -> None:
        """Read the manifest again, and forget what was read before."""
        super().reload()
        self.refresh()

    def refresh(self) -> None:
        """Forget what was read of the lineage and the prompts: they have been written anew."""
        for name in ("lineage", "members", "settings", "prompts", "harmful", "fold", "rendered"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings of the measurement."""
        return Settings.model_validate(self.manifest.config)

    @functools.cached_property
    def lineage(self) -> Lineage:
        """The checkpoints by role, and the trajectories, with their places as they are from here.

        Raises:
            LineageError: the run names none.
        """
        return Lineage.opened(self.manifest.lineage, self.path)

    @functools.cached_property
    def members(self) -> tuple[Member, ...]:
        """Every checkpoint of the lineage once, the aligned model first."""
        return tuple(self.lineage.members())

    @property
    def tuned(self) -> tuple[Member, ...]:
        """The fine-tuned checkpoints, trajectory by trajectory."""
        return tuple(member for member in self.members if not member.is_role)

    @property
    def has_witness(self) -> bool:
        """Whether the lineage names one; without it nothing can be said of a way back."""
        return self.lineage.witness is not None

    @property
    def measured(self) -> tuple[Member, ...]:
        """The members whose activations are in the folder: a packed run may hold only some.

        Raises:
            RunFolderError: those of the aligned model, or of a witness that the run has, are not.
        """
        known = self.manifest.checkpoints
        members = tuple(member for member in self.members if member.id in known and self.has_activations(member.id))
        needed = {ALIGNED, WITNESS} if self.has_witness else {ALIGNED}
        if not needed <= {member.id for member in members}:
            raise RunFolderError(
                f"{self.path} holds no activations of the {' and the '.join(sorted(needed))}",
                next_step="Measure it again: gravity-probe measure.",
            )
        return members

    @property
    def keys(self) -> dict[str, str]:
        """Of every measured member, the fingerprint of weights, token ids, position and precision."""
        known = self.manifest.checkpoints
        return {member.id: known[member.id]["key"] for member in self.members if member.id in known}

    @functools.cached_property
    def prompts(self) -> PromptSet:
        """The probe prompts with their topics and pairs, in the order of the activations."""
        frame = self.read_table("prompts").reindex(columns=list(Prompt.__dataclass_fields__)).astype(object)
        rows = frame.where(frame.notna(), None).itertuples(index=False, name=None)
        left_out = tuple((name, int(tokens)) for name, tokens in self.manifest.prompts.get("left_out", []))
        return PromptSet(tuple(Prompt(*row) for row in rows), left_out=left_out)

    @functools.cached_property
    def harmful(self) -> Bool[np.ndarray, " prompt"]:
        """Which probe prompts are harmful."""
        return (self.read_table("prompts", columns=["label"])["label"] == "harmful").to_numpy()

    @functools.cached_property
    def fold(self) -> Bool[np.ndarray, " prompt"]:
        """Which probe prompts lie in the second fold."""
        return self.read_table("prompts", columns=["fold"])["fold"].to_numpy() == 1

    @property
    def groups(self) -> np.ndarray | None:
        """The group of each probe prompt, as `PromptSet.groups`: its topic, or its own id; None without topics."""
        return self.prompts.groups

    @property
    def pairs(self) -> np.ndarray | None:
        """The pair of each probe prompt, as `PromptSet.pairs`: its pair, or its own id; None without pairs."""
        return self.prompts.pairs

    @property
    def rendering(self) -> Rendering:
        """How a prompt becomes what the model reads, as it was chosen for the measurement."""
        about = self.manifest.prompts
        return Rendering.of(about.get("rendering", {}), about.get("chat_template"))

    @property
    def notices(self) -> list[str]:
        """What was read in another way than one might think, and what looks wrong, in sentences."""
        return self.manifest.notices

    def note(self, about: str, sentence: str | None) -> None:
        """Keep what a stage has to say of something, in place of what it said before; None is nothing."""
        notices = dict(self.manifest.model.get("stage_notices", {}))
        notices.pop(about, None)
        self.manifest.model["stage_notices"] = notices | ({about: sentence} if sentence else {})

    @functools.cached_property
    def rendered(self) -> Rendered:
        """The token ids that every checkpoint got, as they were rendered once."""
        ids = self.read_table("prompts", columns=["token_ids"])["token_ids"]
        record = self.manifest.prompts
        return Rendered(
            tuple(tuple(map(int, row)) for row in ids), record["rendered_sha256"], record.get("chat_template")
        )

    @property
    def headline_layer(self) -> int:
        """The layer declared in advance.

        Raises:
            RunFolderError: the run names none.
        """
        layer = self.manifest.config.get("headline_layer")
        if not isinstance(layer, int):
            raise RunFolderError(f"{self.path} names no headline layer", next_step="Measure it again.")
        return layer

    @property
    def headline_rule(self) -> str | None:
        """What chose that layer, in words; None where it was declared, or where an earlier version chose it."""
        return self.read_json(HEADLINE).get("says") if HEADLINE in self.manifest.stages else None

    @property
    def n_layers(self) -> int:
        """Number of blocks of its model."""
        return int(self.manifest.model["n_layers"])
