"""Whether a checkpoint belongs to the aligned model's lineage: in shape, computation, tokenizer and weights."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models.weights import WeightFiles, is_packed

RELATED = 0.1
_SAMPLE = 4096
VOCABULARY = "vocab_size"
_SIZES = {"hidden_size": "width", "num_hidden_layers": "depth", "vocab_size": "vocabulary"}
_COMPUTATION = (
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rope_parameters",
    "rotary_pct",
    "use_parallel_residual",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "norm_topk_prob",
)
# Fields that change nothing of what is computed for a prompt, or are compared as what they lead to (`layer_types`).
_NOT_COMPUTED = re.compile(
    r"^_|^k?w?args$|transformers_version|architectures|return_dict|dtype|label|problem_type|^output_|use_cache|^seed$|"
    r"drop|init|jitter|aux_loss|z_loss|loss_coef|nextn|mtp|classifier|summary_|pretraining_tp|num_logits_to_keep|"
    r"_token_id$|vocab_size|tie_word_embeddings|max_window_layers|use_sliding_window|partial_rotary_factor|"
    r"position_embeddings$|^n_positions$|^n_ctx$|max_seq|max_length|^rope_theta$|^rope_scaling$"
)
_CONTEXT = "max_position_embeddings"
_BY_CONTEXT = ("longrope", "yarn", "dynamic")  # kinds of rotary embedding that read the context's length
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_PROBE_TEXTS = (
    "The quick brown fox jumps over 13 lazy dogs.",
    "def f(x):\n    return x ** 2  # naïve, 東京, Ω",
    "  two spaces\tand a tab; don't, can't: 3.14159e-10",
)


def computation(config: Any) -> dict[str, Any]:
    """The fields of a configuration that decide what the model computes, where it has them.

    Beside those that most architectures share, whatever this one knows and has not left as it is by default: windows,
    kinds of layers, multipliers, caps. What an architecture does not know it does not compute with.
    """
    text = config.get_text_config()
    fields = {name: getattr(text, name, None) for name in (*_SIZES, *_COMPUTATION)}
    known = {name: value for name, value in fields.items() if value is not None}
    return _own_fields(text) | known


def _own_fields(text: Any) -> dict[str, Any]:
    """What an architecture's configuration can say beside the fields that most share, where it is not the default."""
    default = _defaults(type(text))  # type: ignore[arg-type]
    context = _rope_kind(text) in _BY_CONTEXT
    names = [name for name in default if not _NOT_COMPUTED.search(name) or (context and name == _CONTEXT)]
    return {name: value for name in names if (value := getattr(text, name, None)) not in (None, default[name])}


@functools.cache
def _defaults(kind: type) -> dict[str, Any]:
    """What an architecture's configuration says where nobody says otherwise."""
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


def _rope_kind(text: Any) -> str | None:
    return (getattr(text, "rope_parameters", None) or {}).get("rope_type")


def check_config(aligned: Any, config: Any, name: str) -> None:
    """Refuse a checkpoint whose blocks are of another size, or compute something else. Its vocabulary may differ.

    Raises:
        CheckpointError: names the first field that differs.
    """
    if config.model_type != aligned.model_type:
        raise _differs(name, "architecture", config.model_type, aligned.model_type)
    expected, actual = computation(aligned), computation(config)
    for field in dict.fromkeys((*_SIZES, *_COMPUTATION, *expected, *actual)):
        if field != VOCABULARY and not _agree(actual.get(field), expected.get(field)):
            raise _differs(name, _SIZES.get(field, field), actual.get(field), expected.get(field))


def check_tokenizer(tokenizer: Any, aligned: Path, folder: Path, name: str) -> None:
    """Refuse a checkpoint that reads text as other tokens than the aligned model does.

    A folder without tokenizer files is fine: it has no other tokenizer. Added tokens may differ, since a chat
    format is often added during tuning and the prompts are rendered with the aligned model's tokenizer alone.

    Raises:
        CheckpointError: the vocabulary, or the encoding of three probe texts, is another one.
    """
    files = [file for file in _TOKENIZER_FILES if (folder / file).is_file()]
    if not files or all(_same_file(aligned / file, folder / file) for file in files):
        return
    from transformers import AutoTokenizer

    try:
        own_tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"The tokenizer of {name} cannot be read", got=str(error)[:300]) from error
    expected, actual = _vocabulary(tokenizer), _vocabulary(own_tokenizer)
    if expected != actual:
        token = min(expected.items() ^ actual.items(), key=lambda item: (item[1], item[0]))[0]
        raise _other_tokenizer(name, f"token {token!r} as {actual.get(token)}", f"{expected.get(token)}")
    for text in _PROBE_TEXTS:
        ids = [reader.encode(text, add_special_tokens=False) for reader in (own_tokenizer, tokenizer)]
        if ids[0] != ids[1]:
            raise _other_tokenizer(name, f"{ids[0]} for {text!r}", f"{ids[1]}")


def added_tokens(folder: Path, first: int) -> list[str]:
    """The tokens of a checkpoint's own tokenizer from the id `first` on; none where it has no tokenizer."""
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return []
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return sorted(token for token, index in tokenizer.get_vocab().items() if index >= first)


@dataclass(frozen=True)
class Kinship:
    """How near a checkpoint's weights are to the aligned model's.

    Attributes:
        cosine: median over weight matrices of their cosine with the aligned ones; 1 the same, about 0 unrelated.
            Matrices with NaN are left out; NaN where none is left.
        distance: median over weight matrices of ‖θ − θ_S‖ / ‖θ_S‖; likewise.
        matrices: how many have the same name in both.
    """

    cosine: float
    distance: float
    matrices: int


@dataclass(frozen=True)
class WeightSample:
    """Some 4,096 evenly spaced numbers of every weight matrix: enough to tell kin from stranger at no cost."""

    matrices: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> WeightSample:
        """Sample the parameters of two or more dimensions (norms and biases start out alike in all models)."""
        return cls({name: _evenly(parameter) for name, parameter in model.named_parameters() if parameter.ndim >= 2})

    @classmethod
    def of_files(cls, files: WeightFiles) -> WeightSample:
        """As `of`, from a checkpoint's files, by their own names; of quantised files, what they hold as it is."""
        whole = ((name, tensor) for name, tensor in files.tensors() if tensor.ndim >= 2 and not is_packed(tensor))
        return cls({name: _evenly(tensor) for name, tensor in whole})

    def kinship(self, sample: WeightSample) -> Kinship:
        """Nearness of `sample` to this sample, taken from the parameters that both have."""
        pairs = [(self.matrices[name], sample.matrices[name]) for name in self.matrices if name in sample.matrices]
        cosines = [torch.cosine_similarity(mine, theirs, dim=0).item() for mine, theirs in pairs]
        distances = [((theirs - mine).norm() / mine.norm().clamp_min(1e-12)).item() for mine, theirs in pairs]
        return Kinship(_median(cosines), _median(distances), len(pairs))


def check_related(kinship: Kinship, name: str) -> None:
    """Refuse weights that share no history with the aligned model's.

    Raises:
        CheckpointError: the median cosine is below 0.1 (two random initialisations have about 0), or no weight matrix
            of the two files has the same name. Weights that are all NaN pass: what reads them names the layer.
    """
    if not kinship.matrices:
        raise CheckpointError(
            f"Whether the weights of {name} are related to the aligned model's cannot be told",
            got="files in which no weight matrix has the name of one of the aligned model's",
            expected="checkpoints that were saved alike",
            next_step="Save both with one library, or use --allow-unrelated to take them as they are.",
        )
    if kinship.cosine < RELATED:
        raise CheckpointError(
            f"The weights of {name} are unrelated to the aligned model's",
            got=f"a median cosine of {kinship.cosine:.3f} over its weight matrices, at a distance of "
            f"{kinship.distance:.2f} × the aligned norm",
            expected=f"a cosine above {RELATED}, as checkpoints of one lineage have",
            next_step="Differences between activations of unrelated models mean nothing; "
            "use --allow-unrelated to take them anyway.",
        )


def describe_base(ref: CheckpointRef, base: CheckpointRef, aligned: CheckpointRef, kinship: Kinship) -> str | None:
    """A sentence where an adapter is measured on another model than it names, or on one that is not the aligned model.

    Args:
        ref: the adapter with the base that it names.
        base: what it is measured on.
        aligned: the aligned model.
        kinship: of that base with the aligned model.
    """
    if (base.model, base.revision) != (ref.model, ref.revision):
        return (
            f"The adapter {ref.adapter} was trained on {ref.model}, a quantised twin; it is measured on the "
            f"aligned model {base.model} in full precision."
        )
    if kinship.distance == 0 or (base.model, base.revision) == (aligned.model, aligned.revision):
        return None
    far = f"its weights lie {kinship.distance:.3g} × the aligned norm from them (cosine {kinship.cosine:.4f})"
    if not kinship.matrices:
        far = "how far its weights lie from them cannot be told, since their files name them otherwise"
    return f"The adapter {ref.adapter} sits on {ref.model}, which is not the aligned model: {far}."


def _agree(first: Any, second: Any) -> bool:
    """Equality, but for the rounding of numbers that were kept in single precision, as in GGUF files."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_agree(first[name], second[name]) for name in first)
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6)
    return bool(first == second)


def _evenly(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().reshape(-1)
    # A copy also where nothing is converted: the next checkpoint is loaded into this very memory.
    return flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32, copy=True)


def _median(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).nanmedian().item()


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    added = tokenizer.get_added_vocab()
    return {token: index for token, index in tokenizer.get_vocab().items() if token not in added}


def _same_file(first: Path, second: Path) -> bool:
    return first.is_file() and _digest(first) == _digest(second)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _differs(name: str, property_name: str, value: object, expected: object) -> CheckpointError:
    return CheckpointError(
        f"The {property_name} of {name} differs from the aligned model's",
        got=value,
        expected=expected,
        next_step="All checkpoints of a lineage must be of one architecture.",
    )


def _other_tokenizer(name: str, reading: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{name} has another tokenizer than the aligned model",
        got=reading,
        expected=expected,
        next_step="The same token ids go to every checkpoint, so all of them must read text alike.",
    )
