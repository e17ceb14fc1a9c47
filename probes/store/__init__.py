"""The run folder: manifest, stages, atomic writes, resume.

A stage is written beside its place and renamed into it, so a reader never sees half of one. Each stage keeps the
fingerprint of what it was made from and the hash of every file it wrote; a run that is started again skips every stage
whose fingerprint still holds and whose files are whole, and ends with the same bytes.
Arrays are safetensors, tables are Parquet, the rest is JSON; nothing is pickled.
"""

from probes.store.activation_file import (
    ACTIVATIONS,
    EMBED,
    RESID_POST,
    ActivationFile,
    ActivationWriter,
    activations_stage,
)
from probes.store.atomic import fingerprint, is_unfinished, new_folder, write_json, write_text
from probes.store.direction_names import RENAMED, current_name, direction_file, files_of
from probes.store.folder import ALIGNED, DIRECTIONS, RunFolder
from probes.store.manifest import FORMAT_VERSION, MANIFEST, FileRecord, Manifest, find_runs
from probes.store.rows import csv_cell, csv_text, jsonl_text, records

__all__ = [
    "ACTIVATIONS",
    "ALIGNED",
    "DIRECTIONS",
    "EMBED",
    "FORMAT_VERSION",
    "MANIFEST",
    "RENAMED",
    "RESID_POST",
    "ActivationFile",
    "ActivationWriter",
    "FileRecord",
    "Manifest",
    "RunFolder",
    "activations_stage",
    "csv_cell",
    "csv_text",
    "current_name",
    "direction_file",
    "files_of",
    "find_runs",
    "fingerprint",
    "is_unfinished",
    "jsonl_text",
    "new_folder",
    "records",
    "write_json",
    "write_text",
]
