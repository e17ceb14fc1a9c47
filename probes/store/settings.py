"""What a measurement can be told: one tree for the command line, the TOML file and the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probes.errors import UsageError, did_you_mean
from probes.statistics import ALPHA
from probes.store.documents import read_toml


class Settings(BaseModel):
    """Options of `gravity-probe measure`; each field's sentence is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision of the weights; auto is the checkpoint's own. Activations are kept in float32.",
    )
    device_map: str | dict[str, int | str] | None = Field(
        None,
        description="Spread the model over devices, by accelerate: auto, balanced, balanced_low_0, sequential, or a"
        " device by module name.",
    )
    quantize: Literal["4bit", "8bit"] | None = Field(
        None, description="Read the models in 4 or 8 bits, by bitsandbytes; not given, as they are stored."
    )
    batch_tokens: int | None = Field(None, ge=1, description="Tokens per batch; found automatically when not given.")
    store_dtype: Literal["float32", "float16"] = Field("float32", description="Precision of activations on disk.")
    position: int = Field(-1, lt=0, description="Token that is read, counted from the end of the rendered prompt.")
    chat_template: str = Field(
        "aligned",
        description="Chat template of every prompt: aligned (the aligned model's), checkpoint (that of the last"
        " fine-tuned checkpoint that has its own), or a file or a model's folder.",
    )
    system_prompt: str | None = Field(None, description="System prompt in front of every prompt.")
    thinking: bool | None = Field(
        None, description="Whether the model is to think first; not given, the template decides."
    )
    generation_prompt: bool = Field(True, description="Open the assistant's reply behind every prompt.")
    headline_layer: int | None = Field(
        None, ge=0, description="Layer declared in advance for the headline; default is 0.6 of the depth."
    )
    seed: int = Field(0, ge=0, description="Seed of folds, bootstraps and null draws.")
    splits: int = Field(50, ge=1, description="Stratified fold splits behind the cross-fitted estimates.")
    bootstraps: int = Field(500, ge=20, description="Bootstrap resamples of prompts behind each interval.")
    nulls: bool = Field(True, description="Test the drift against its nulls and write a verdict.")
    draws: int = Field(10_000, ge=99, description="Draws of each activation-level null.")
    permutations: int = Field(9_999, ge=99, description="Label permutations and sign flips.")
    shams: int = Field(39, ge=19, description="Noised copies of the aligned model behind the sham tests.")
    sham_arms: tuple[str, ...] = Field(("baseline",), description="Arms whose last checkpoint has sham tests.")
    alpha: float = Field(ALPHA, gt=0, lt=0.5, description="Level of every test of the verdict.")
    power_alignment: float = Field(0.5, gt=0, lt=1, description="Alignment at which the power of a test is given.")
    served: dict[str, str] = Field(
        {}, description="Checkpoints that answer behind an OpenAI-compatible server: name in the run → MODEL@URL."
    )
    allow_pickle: bool = Field(False, description="Read weights that are only there as pickle (weights_only=True).")
    allow_unrelated: bool = Field(False, description="Go on with checkpoints that do not look like one lineage.")

    @classmethod
    def load(cls, path: Path | None, overrides: dict[str, Any]) -> Settings:
        """Settings from a TOML file, overridden by `overrides`.

        Raises:
            UsageError: not TOML, an unknown key (the nearest known one is named), or a value out of range.
        """
        from_file = read_toml(path, kind="settings file") if path else {}
        try:
            return cls.model_validate({**from_file, **overrides})
        except ValidationError as error:
            raise UsageError(_sentence(error)) from None

    def headline(self, n_layers: int) -> int:
        """The layer declared in advance.

        Raises:
            UsageError: the model has no such layer.
        """
        if self.headline_layer is None:
            return int(0.6 * n_layers)
        if self.headline_layer >= n_layers:
            raise UsageError("No such layer", got=self.headline_layer, expected=f"0 to {n_layers - 1}")
        return self.headline_layer


def _sentence(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"Unknown setting {key!r}" + did_you_mean(key, Settings.model_fields)
    return f"Setting {key!r}: {fault['msg']}, got {fault['input']!r}"
