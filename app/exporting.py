"""A direction to take away: `gravity-probe export` in a process of its own, so that the page knows no model library."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app import cache, components, widgets
from app.cache import Key
from app.components import Context
from probes.errors import GravityError, UsageError
from probes.store import direction_file
from probes.store.documents import parse_json

# format → what it is called here; the command's own, which a test holds them to
FORMATS = {
    "safetensors": "safetensors – Gravity Probe's own, all of its description",
    "gguf": "GGUF control vector – llama.cpp, repeng",
    "npz": "NPZ – numpy",
    "csv": "CSV",
    "json": "JSON",
    "refusal-direction": "refusal_direction – direction.pt and its metadata, one layer",
    "persona-vectors": "persona_vectors – [layers + 1, width] .pt",
    "steering-vectors": "steering-vectors – layer_activations .pt",
    "tensorboard": "TensorBoard projector – tensors.tsv and metadata.tsv",
    "embedding-atlas": "Embedding Atlas – Parquet",
}
ONE_LAYER = ("refusal-direction",)
_PATIENCE = 120  # seconds
_ALIGNED = "aligned"


@dataclass(frozen=True)
class Written:
    """A file for the browser.

    Attributes:
        name: of the file.
        content: its bytes; several files come as one ZIP.
        remarks: where block l is in it, and what the format could not take.
    """

    name: str
    content: bytes
    remarks: tuple[str, ...]


@st.fragment
def panel(run: Context, direction: str) -> None:
    """Choose a format, make the file, download it."""
    with components.section():
        form, layer, checkpoint = _choices(run, direction)
        request = (run.key, direction, form, layer, checkpoint)
        left, right, _ = st.columns([2, 3, 2])
        if left.button("Create the file", key="export-make", icon=":material/draft:"):
            st.session_state["export-asked"] = request
        if st.session_state.get("export-asked") == request:
            with st.spinner("Writing …", show_time=False):
                file = write_export(*request)
            with right:
                components.download(
                    f"Download {file.name}",
                    file.content,
                    file.name,
                    "application/octet-stream",
                    key="export-download",
                    icon=":material/download:",
                    type="primary",
                )
            for remark in file.remarks:
                components.note(remark)
        at = f" --layer {layer}" if layer is not None else ""
        of = "" if checkpoint == _ALIGNED else f" --checkpoint {checkpoint}"
        components.command(
            f"gravity-probe export {run.command_path} --direction {direction}{of}{at} --format {form} --out FILE"
        )


def _choices(run: Context, direction: str) -> tuple[str, int | None, str]:
    left, two, three = st.columns([4, 2, 3])
    with left:
        form = widgets.OneOf("format", FORMATS).control(f"Format of {direction}", widget=st.selectbox)
    one_layer = run.layer if run.layer >= 0 else run.catalogue.headline
    layers = {} if form in ONE_LAYER else {"all": "all layers"}
    with two:
        layer = widgets.OneOf("export_layer", layers | {"one": components.layer_name(one_layer)}).control(
            "Layers", widget=st.selectbox
        )
    selected = run.catalogue.checkpoints[run.arm, run.seed, run.step]
    places = [_ALIGNED, *([selected] if cache.has_direction(run.key, direction, selected) else [])]
    fitted_at = {name: components.checkpoint_name(name, run) for name in places}
    with three:
        checkpoint = widgets.OneOf("fitted_at", fitted_at).control("As fitted at", widget=st.selectbox)
    return form, None if layer == "all" else one_layer, checkpoint


@st.cache_data(show_spinner=False, max_entries=16)
def write_export(key: Key, direction: str, form: str, layer: int | None, checkpoint: str) -> Written:
    """A direction as the command writes it.

    Raises:
        GravityError: the command refused; its sentence.
    """
    with tempfile.TemporaryDirectory(prefix="gravity-probe-") as folder:
        out = Path(folder) / "out"
        out.mkdir()
        arguments = ["export", key.path, "--direction", direction, "--checkpoint", checkpoint, "--format", form]
        arguments += ["--out", str(out), "--json", *(["--layer", str(layer)] if layer is not None else [])]
        answer = _command(arguments)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        if not files:
            raise UsageError("The command wrote no file", next_step="Try it in a terminal.")
        remarks = (str(answer.get("layers", "")), *map(str, answer.get("notes", [])))
        name = direction_file(direction)
        if len(files) == 1:
            return Written(f"{name}{files[0].suffix}", files[0].read_bytes(), remarks)
        return Written(f"{name}-{form}.zip", _zip(files, out), remarks)


def _command(arguments: list[str]) -> dict[str, Any]:
    """What the command says; its refusal becomes ours."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "probes.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GravityError("The export took too long", next_step="Try it in a terminal.") from None
    if done.returncode != 0:
        message = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise GravityError(message.removeprefix("Error: "))
    answer = parse_json(done.stdout, "What the command printed", error=GravityError)
    return answer if isinstance(answer, dict) else {}


def _zip(files: list[Path], home: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(home))
    return packed.getvalue()
