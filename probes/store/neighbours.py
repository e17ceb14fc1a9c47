"""What the neighbours of a run, under the same root, have measured already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from probes.errors import RunFolderError
from probes.store.activation_file import activations_stage
from probes.store.manifest import MANIFEST, FileRecord, read_manifest

Outputs = tuple[tuple[str, FileRecord], ...]


def measured_elsewhere(run: Path, key: str) -> Iterator[tuple[Path, FileRecord]]:
    """Activation files of the neighbours that their manifests say were made from this key, with their hashes."""
    for manifest in sorted(run.parent.glob(f"*/{MANIFEST}")):
        if manifest.parent != run:
            about = manifest.stat()
            by_key = _activations(manifest.parent, about.st_ino, about.st_size, about.st_mtime_ns)
            yield from ((manifest.parent / name, entry) for name, entry in by_key.get(key, ()))


@lru_cache(maxsize=64)
def _activations(folder: Path, inode: int, size: int, changed: int) -> Mapping[str, Outputs]:
    """A run's activation files by the key that they were made from; read once for as long as its manifest stays."""
    del inode, size, changed
    by_key: dict[str, Outputs] = {}
    with contextlib.suppress(RunFolderError):
        for stage, record in read_manifest(folder).stages.items():
            if stage.startswith(activations_stage("")):
                by_key[record.made_from] = (*by_key.get(record.made_from, ()), *record.outputs.items())
    return by_key
