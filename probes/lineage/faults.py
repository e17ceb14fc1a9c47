"""What is wrong with a lineage, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from probes.errors import did_you_mean
from probes.lineage.references import Record


def first_fault(error: ValidationError) -> str:
    """What pydantic found wrong, as one sentence; an unknown key comes first and names the nearest known one."""
    faults = error.errors()
    fault = next((candidate for candidate in faults if candidate["type"] == "extra_forbidden"), faults[0])
    key_path = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        known = {"folder", "base"} | {name for record in _records(Record) for name in record.model_fields}
        return f"unknown key {key_path!r}" + did_you_mean(key, sorted(known))
    if fault["type"] == "missing":
        return f"{key_path!r} is missing"
    return f"{key_path}: {fault['msg'].removeprefix('Value error, ')}"


def _records(kind: type[Record]) -> Iterator[type[Record]]:
    """Every kind of record there is, below `kind`."""
    for record in kind.__subclasses__():
        yield record
        yield from _records(record)
