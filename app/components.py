"""What pages are made of: the opened run, headers, widgets, and what to say when data is missing."""

from __future__ import annotations

import contextlib
import html
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app import state
from app.cache import Catalogue, Key
from probes.errors import GravityError
from probes.lineage import NO_WITNESS, ROLES, Witness
from probes.plots import style
from probes.plots.style import InkName
from probes.statistics import typeset
from probes.store import Manifest

_CONTEXT = "context"
_MADE_AGAIN = "runs/again"  # where commands make the whole of a packed run, which is only read


@dataclass(frozen=True)
class Context:
    """The opened run and what is selected in it, with every default filled in."""

    key: Key
    manifest: Manifest
    catalogue: Catalogue
    arm: str
    seed: int
    step: int
    layer: int
    ink: InkName

    @property
    def command_path(self) -> str:
        """The run's folder, as it is typed in a command."""
        return shlex.quote(self.key.path)

    @property
    def whole_path(self) -> str:
        """The folder of the whole run, as it is typed in a command: another one where this run is packed."""
        return _MADE_AGAIN if self.manifest.omitted else self.command_path

    @property
    def witness(self) -> str:
        """The witness's label, which says when something stands in for it, or that there is none."""
        recorded = self.manifest.lineage.get("witness")
        if self.manifest.lineage and recorded is None:
            return NO_WITNESS
        about = {name: value for name, value in (recorded or {}).items() if name in ("kind", "passes_rule")}
        return Witness.model_construct(model="", **about).label

    @property
    def has_witness(self) -> bool:
        """Whether there is one; without it nothing can be said of a way back."""
        return self.witness != NO_WITNESS

    @property
    def trajectory(self) -> str:
        """The selected trajectory in words."""
        return f"{self.arm}, seed {self.seed}"

    @property
    def checkpoint(self) -> str:
        """Name of the selected checkpoint."""
        return self.catalogue.checkpoints[self.arm, self.seed, self.step]

    def subtitle(self, *, layer: bool = True, trajectory: bool = False, direction: bool = True) -> str:
        """A figure's subtitle: run, layer and direction, as far as they matter to it. Escaped for Plotly."""
        parts = [style.plain(Path(self.key.path).name)]
        if trajectory:
            parts.append(style.plain(self.trajectory))
        if layer:
            parts.append(layer_name(self.layer) + (f" of {self.catalogue.n_layers}" if self.layer >= 0 else ""))
        if direction and self.has_witness:
            parts.append(f"direction {style.plain(self.witness)} − aligned")
        return " · ".join(parts)


def layer_name(layer: int) -> str:
    """A layer in words; −1 is the embedding."""
    return "embedding" if layer == -1 else f"layer {layer}"


def checkpoint_name(checkpoint: str, run: Context) -> str:
    """A checkpoint in words."""
    if checkpoint in ROLES:
        return run.witness if checkpoint == "witness" else checkpoint
    for (arm, seed, step), name in run.catalogue.checkpoints.items():
        if name == checkpoint:
            several = sum(entry[0] == arm for entry in run.catalogue.trajectories) > 1
            return f"{arm}{f' seed {seed},' if several else ''} step {step:,}"
    return checkpoint


def context() -> Context:
    """The context that `app.main` prepared for this run of the script."""
    return st.session_state[_CONTEXT]


def keep(prepared: Context) -> None:
    """Hand the context to the page."""
    st.session_state[_CONTEXT] = prepared


# Choosing ------------------------------------------------------------------------------------------------------


def choose(
    label: str,
    options: Sequence[Any],
    current: Any,
    pick: Callable[[Any], None],
    *,
    name: str,
    widget: Callable[..., Any] = st.selectbox,
    **more: Any,
) -> Any:
    """A widget with options that shows `current` and calls `pick` with what the user chose instead."""
    return bind(widget, label, options, current=current, pick=pick, name=name, **more)


def bind(
    widget: Callable[..., Any], *arguments: Any, current: Any, pick: Callable[[Any], None], name: str, **more: Any
) -> Any:
    """A widget that shows `current` and calls `pick` with what the user chose instead; the address says so at once.

    Its own state is always overwritten by the selection's, so that a click elsewhere or a link moves it too.
    """
    key = f"choose-{name}"
    st.session_state[key] = current

    def chosen() -> None:
        if st.session_state[key] is not None:
            pick(st.session_state[key])
            state.forget_unread()
            state.write_url()

    widget(*arguments, key=key, on_change=chosen, **more)
    return current


def absent(name: str, requested: object, shown: str) -> None:
    """Say that the address asks for something that is not there, and what is shown instead."""
    st.warning(as_text(f"The address asks for {name}={requested}, which is not there; shown: {shown}."))


# Text ----------------------------------------------------------------------------------------------------------


def header(page: str, title: str, lead: str = "") -> None:
    """A page's opening: its name small, the answer large, and one line more."""
    st.html(f'<p class="gp-kicker">{html.escape(page)}</p>')
    st.title(as_text(title), anchor=False)
    if lead:
        paragraph(lead)


def paragraph(text: str) -> None:
    """A paragraph of a page's opening."""
    st.html(f'<p class="gp-lead">{in_html(text)}</p>')


def as_text(text: str) -> str:
    """Text that Markdown will show as it is."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()<>#+-.!|$:~&" else sign for sign in text)


def in_html(text: str) -> str:
    """Text in HTML, its numbers written our way; a percent sign stays with its number."""
    return html.escape(typeset(text)).replace(" %", "\u00a0%")


def no_plane(run: Context) -> str:
    """Why there is no plane of the way back at the selected layer."""
    return (
        f"There is no plane at {layer_name(run.layer)}: the witness stands there where the aligned model stands, or "
        "the site is not a block's output. Choose another layer in the sidebar."
    )


def without_witness(run: Context, page: str, lead: str) -> None:
    """The opening of a page that is about the way back, in a run that has no witness."""
    header(page, f"Not defined: {NO_WITNESS}", lead)
    note("Measure again with a witness, or with an estimate of one:")
    command(f"gravity-probe measure --witness ablated --out {run.command_path} …")


def note(text: str) -> None:
    """A quiet remark."""
    st.html(f'<p class="gp-note">{in_html(text)}</p>')


def command(text: str) -> None:
    """A command to type, with a button that copies it (`look.LINK`).

    Streamlit's own block of code would load the grammars of 200 languages, a quarter of a second of each first page.
    """
    copy = '<button type="button" aria-live="polite">Copy</button>'
    st.html(f'<div class="gp-command"><pre><code>{html.escape(text)}</code></pre>{copy}</div>')


def download(label: str, content: Any, name: str, kind: str, **more: Any) -> None:
    """A file to save, perhaps made only when it is asked for; the page does not run again for it.

    That would take time, and could take the file away while it is made.
    """
    st.download_button(label, content, name, kind, on_click="ignore", **more)


def notices(run: Context) -> None:
    """What the run says of itself: what looks wrong, and what was read in another way than one might think."""
    with section():
        for sentence in run.manifest.notices:
            st.warning(as_text(sentence), icon=":material/warning:")


def missing(message: str, remedy: str, why: str = "") -> None:
    """Say what a page lacks, and the command that makes it; of a packed run, in the whole run made again."""
    st.html(f'<p class="gp-missing">{html.escape(message)}</p>')
    if why:
        note(why)
    run: Context | None = st.session_state.get(_CONTEXT)
    if run is not None and run.manifest.omitted and run.command_path in remedy:
        note(f"This run is packed and only read: make the whole run first, as the page Run says, in {run.whole_path}.")
        remedy = remedy.replace(run.command_path, run.whole_path)
    command(remedy)


@contextlib.contextmanager
def section() -> Iterator[None]:
    """A part of a page that may fail alone: a damaged file becomes a sentence, and the rest of the page stays."""
    try:
        yield
    except GravityError as error:
        show_failure(error)


def show_failure(error: GravityError) -> None:
    """Show a refusal as text."""
    st.error(as_text(str(error)), icon=":material/error:")


def file_name(name: str) -> str:
    """What a saved table is called: run, what it is, and the selected arm, seed, layer and step."""
    return f"{picture_name(name)}-{place_name()}"


def picture_name(name: str) -> str:
    """What a saved figure is called before `look.NAMES` adds the place: a figure of no place is then drawn once."""
    return _in_file_name(f"{Path(context().key.path).name}-{name}")


def place_name() -> str:
    """The selected arm, seed, layer and step, as they stand in the name of a file."""
    run = context()
    return _in_file_name(f"{run.arm}-s{run.seed}-{layer_name(run.layer)}-step-{run.step}")


def _in_file_name(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", text)
