"""The weight files of a checkpoint: found, checked, hashed and read one tensor at a time."""

from __future__ import annotations

import contextlib
import hashlib
import re
import zipfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open

from probes.errors import CheckpointError
from probes.models.source import read_json

Shapes = dict[str, tuple[int, ...]]  # by tensor name
Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]  # the module's and the file's
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_CHUNK = 1 << 22
_HASHING_THREADS = 4
_GGUF = ".gguf"
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")  # of data parallelism and torch.compile


def is_packed(tensor: torch.Tensor) -> bool:
    """Whether a file's tensor holds codes of weights (integers, float8), which mean nothing without their scales."""
    return not tensor.is_floating_point() or tensor.element_size() == 1


@dataclass(frozen=True)
class WeightFiles:
    """The files that together hold the tensors of one checkpoint (or adapter), in shard order."""

    folder: Path
    paths: tuple[Path, ...]

    @classmethod
    def of_model(cls, folder: Path, *, allow_pickle: bool) -> WeightFiles:
        """Find a model's weights in its folder, or in the GGUF file that `folder` is.

        Raises:
            CheckpointError: there are none, a shard is absent, or they are pickled and that is not allowed.
        """
        if folder.is_file():
            return cls(folder, (folder,))
        return cls._find(folder, _MODEL_FILES, allow_pickle)

    @classmethod
    def of_adapter(cls, folder: Path, *, allow_pickle: bool) -> WeightFiles:
        """Find an adapter's weights; raises as `of_model`."""
        return cls._find(folder, _ADAPTER_FILES, allow_pickle)

    @classmethod
    def _find(cls, folder: Path, names: tuple[str, str], allow_pickle: bool) -> WeightFiles:
        safe, pickled = names
        for name in names:
            if name == pickled and not allow_pickle:
                continue
            if (folder / f"{name}.index.json").is_file():
                return cls(folder, _shards(folder, f"{name}.index.json"))
            if (folder / name).is_file():
                return cls(folder, (folder / name,))
        if (folder / pickled).is_file() or (folder / f"{pickled}.index.json").is_file():
            raise CheckpointError(
                f"The weights of {folder} are pickled, which can run code when opened",
                got=pickled,
                expected=safe,
                next_step="Convert them to safetensors, or use --allow-pickle if you trust their source.",
            )
        raise _without_weights(folder, safe)

    @property
    def pickled(self) -> bool:
        """Whether the tensors come from pickled files."""
        return self.paths[0].suffix == ".bin"

    @property
    def wrapped(self) -> bool:
        """Whether names begin as inside data parallelism or torch.compile; these beginnings are left out everywhere."""
        return any(_plain(name) != name for name in self._names())

    @property
    def is_gguf(self) -> bool:
        """Whether this is a GGUF file, which transformers alone reads; it has no names or shapes here."""
        return self.paths[0].suffix == _GGUF

    def _names(self) -> Iterator[str]:
        for path in () if self.is_gguf else self.paths:
            if self.pickled:
                yield from _unpickle(path)
            else:
                with _opened(path) as file:
                    yield from file.keys()

    def shapes(self) -> Shapes:
        """Shape by tensor name, from the headers alone where the files are safetensors.

        Raises:
            CheckpointError: a file is truncated or damaged.
        """
        if self.pickled:
            return {name: tuple(tensor.shape) for name, tensor in self.tensors()}
        shapes: Shapes = {}
        for path in () if self.is_gguf else self.paths:
            with _opened(path) as file:
                shapes.update((_plain(name), tuple(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
        return shapes

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each tensor once, on the CPU, mapped from its file: no second copy of the model comes to be.

        Raises:
            CheckpointError: a file is truncated or damaged.
        """
        for path in () if self.is_gguf else self.paths:
            if self.pickled:
                yield from ((_plain(name), tensor) for name, tensor in _unpickle(path).items())
            else:
                with _opened(path) as file:
                    for name in file.keys():  # noqa: SIM118
                        yield _plain(name), file.get_tensor(name)

    def read(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The tensors of these names that are there; raises as `tensors`."""
        if self.pickled:
            return {name: tensor for name, tensor in self.tensors() if name in names}
        tensors: dict[str, torch.Tensor] = {}
        for path in () if self.is_gguf else self.paths:
            with _opened(path) as file:
                pairs = ((_plain(name), name) for name in file.keys())  # noqa: SIM118
                tensors.update((plain, file.get_tensor(name)) for plain, name in pairs if plain in names)
        return tensors

    def heads(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The first row (or number) of each tensor, as a cheap sample of the whole; raises as `tensors`."""
        if self.pickled:
            yield from ((name, tensor[:1] if tensor.ndim else tensor) for name, tensor in self.tensors())
            return
        for path in () if self.is_gguf else self.paths:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118
                    piece = file.get_slice(name)
                    yield _plain(name), piece[:1] if piece.get_shape() else file.get_tensor(name)

    def digests(self) -> list[str]:
        """Sha256 of each file, sorted; the hub's cache names its blobs by it, so those need no reading.

        Several are read at a time: of a large model on a fast disk, one core alone would hash for minutes.
        """
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            return sorted(pool.map(_digest, self.paths))


def _plain(name: str) -> str:
    return _WRAPPERS.sub("", name)


def _without_weights(folder: Path, expected: str) -> CheckpointError:
    """The error for a folder without weights; what DeepSpeed and FSDP leave is named, and how to convert it."""
    contents, command = "a folder without weights", None
    if (folder / "zero_to_fp32.py").is_file() or any(folder.glob("global_step*")):
        contents = "the shards of DeepSpeed"
        command = f"python {folder}/zero_to_fp32.py {folder} {folder} --safe_serialization"
    elif pieces := sorted(path for path in folder.glob("pytorch_model_fsdp*")) or sorted(folder.glob("*.distcp")):
        contents = "the shards of FSDP"
        command = f"accelerate merge-weights {pieces[0] if pieces[0].is_dir() else folder} {folder}"
    return CheckpointError(
        f"{folder} is no checkpoint",
        got=contents,
        expected=expected,
        next_step=None if command is None else f"Convert them: {command}",
    )


def _shards(folder: Path, index: str) -> tuple[Path, ...]:
    mapping = read_json(folder / index).get("weight_map", {})
    outside = [str(name) for name in mapping.values() if Path(str(name)).name != name]
    if outside:
        raise CheckpointError(
            f"{index} of {folder} points out of its folder",
            got=outside[0],
            expected="names of files beside it",
            next_step="Take this checkpoint from a source that you trust.",
        )
    paths = tuple(folder / name for name in sorted(set(mapping.values())))
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise CheckpointError(
            f"{folder} is an incomplete checkpoint",
            got=f"no {missing[0]}" if missing else f"an empty {index}",
            expected=f"every file that {index} names",
            next_step="Download or copy it again.",
        )
    return paths


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file; its header is held against its length, so a truncated one is refused here."""
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _damage_error(path, error) from error
    with opened as file:
        yield file


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise _damage_error(path, error) from error
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise CheckpointError(f"{path} holds no named tensors", got=type(value).__name__)
    return value


def _damage_error(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated or damaged",
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        next_step="Download or copy it again.",
    )


def _digest(path: Path) -> str:
    blob = path.resolve().name
    if path.is_symlink() and path.resolve().parent.name == "blobs" and _SHA256.match(blob):
        return blob
    return _sha256(path)


_SEEN: dict[tuple[int, ...], str] = {}


def _sha256(path: Path) -> str:
    """Sha256 of a file's bytes, remembered as long as it stays the same file of the same size and time."""
    about = path.stat()
    key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _SEEN:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        _SEEN[key] = digest.hexdigest()
    return _SEEN[key]
