"""What pages are made of: headers, widgets, charts with their data, and what to say when data is missing."""

from __future__ import annotations

import contextlib
import html
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import camera, state
from app.cache import Catalogue, Key
from probes.errors import GravityError
from probes.lineage import NO_WITNESS, ROLES, Witness
from probes.plots import style
from probes.plots.sheet import Sheet, unchecked
from probes.plots.style import InkName
from probes.statistics import typeset
from probes.store import Manifest, csv_text

_CONTEXT = "context"
_MADE_AGAIN = "runs/again"  # where commands make the whole of a packed run, which is only read
PICTURES = {"png": "png", "svg": "svg", "pdf": "svg"}  # what is saved → what the browser draws: app.printing
# Pixels that a figure is drawn in for each width on paper (89, 120 and 183 mm): its type is then as large in all three.
COLUMNS = {"1": 480, "1.5": 647, "2": 987}
_COLUMNS_READ = 14  # of a map with a number in each cell, on a narrow page
_HEAD, _ROW = 38, 35  # pixels of a table's head with its frame, and of a row
_ROWS_SHOWN = 2000  # of a table; more would have to be sent to the browser whole
_MANY_POINTS = 40_000  # of a picture; so many are drawn at one pixel each, not at the two by two that Plotly would
_NUMBERS_IN_FORM = 6000  # in a table; more would take their time
Form = Callable[[float], str]  # how a table writes a number


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
            parts.append(layer_name(self.layer) + f" of {self.catalogue.n_layers}")
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


def without_witness(run: Context, page: str, lead: str) -> None:
    """The opening of a page that is about the way back, in a run that has no witness."""
    header(page, f"Not defined: {NO_WITNESS}", lead)
    note("Measure again with a witness, or with an estimate of one:")
    st.code(f"gravity-probe measure --witness ablated --out {run.command_path} …", language=None, wrap_lines=True)


def note(text: str) -> None:
    """A quiet remark."""
    st.html(f'<p class="gp-note">{in_html(text)}</p>')


def notices(run: Context) -> None:
    """What the run says of itself: what looks wrong, and what was read in another way than one might think."""
    with section():
        for sentence in run.manifest.notices:
            st.warning(as_text(sentence), icon=":material/warning:")


def missing(message: str, command: str, why: str = "") -> None:
    """Say what a page lacks, and the command that makes it; of a packed run, in the whole run made again."""
    st.html(f'<p class="gp-missing">{html.escape(message)}</p>')
    if why:
        note(why)
    run: Context | None = st.session_state.get(_CONTEXT)
    if run is not None and run.manifest.omitted and run.command_path in command:
        note(f"This run is packed and only read: make the whole run first, as the page Run says, in {run.whole_path}.")
        command = command.replace(run.command_path, run.whole_path)
    st.code(command, language=None, wrap_lines=True)


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


# Charts --------------------------------------------------------------------------------------------------------


def chart(
    figure: Sheet,
    data: pd.DataFrame,
    *,
    name: str,
    alt: str,
    on_select: Callable[[], None] | None = None,
    by: Sequence[str] = ("points",),
    modes: Sequence[str] = ("toImage",),
) -> None:
    """A figure with its data table and its downloads; the picture is saved by the figure's own button.

    `on_select` is called after a selection, which is made `by` points, box or lasso.
    """
    config = {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtons": [list(modes)],
        "toImageButtonOptions": _saving(figure, name),
        "scrollZoom": False,
        "doubleClick": False,
    }
    if _count_points(figure) > _MANY_POINTS:
        config["plotGlPixelRatio"] = 1
    if any(part.startswith("scene") for part in figure.layout):
        camera.keep(figure, name)
    file = file_name(name)
    more: dict[str, Any] = {"on_select": on_select, "selection_mode": tuple(by)} if on_select else {}
    with st.container(key=f"dense-{name}") if _is_dense(figure) else contextlib.nullcontext():
        st.plotly_chart(_done(figure), theme=None, key=chart_key(name), config=config, alt=alt, **more)
    _offer_data(figure, data, name, file)


def _count_points(figure: Sheet) -> int:
    """How many points of a picture the graphics card draws."""
    return sum(len(trace.get("customdata", ())) for trace in figure.data if trace["type"] == "scattergl")


def _done(figure: Sheet) -> go.Figure:
    with unchecked():
        return figure.figure()


def _is_dense(figure: Sheet) -> bool:
    """Whether the numbers of a map's cells meet on a narrow page, where `look.CSS` leaves them to the pointer."""
    return any(
        trace.get("texttemplate") and len(trace["z"][0]) > _COLUMNS_READ
        for trace in figure.data
        if trace["type"] == "heatmap"
    )


@st.fragment
def _offer_data(figure: Sheet, data: pd.DataFrame, name: str, file: str) -> None:
    """What was drawn, as a table and as files, sent to the browser only when it is opened."""
    popover = st.popover("Data", type="tertiary", icon=":material/table_rows:", key=f"data-{name}", on_change="rerun")
    if not popover.open:
        return
    with popover:
        table(data, height=380)
        left, right = st.columns(2)
        left.download_button("Table (CSV)", lambda: csv_text(data), f"{file}.csv", "text/csv", key=f"csv-{name}")
        right.download_button(
            "Figure (HTML)",
            lambda: _done(figure).to_html(include_plotlyjs=True, config={"displaylogo": False}),
            f"{file}.html",
            "text/html",
            key=f"html-{name}",
        )


def chart_key(name: str) -> str:
    """Under which Streamlit keeps what is selected in a chart."""
    return f"chart-{name}"


def _saving(figure: Sheet, name: str) -> dict[str, Any]:
    """How the figure's own button saves it: format, name, and size on paper."""
    kind, columns = PICTURES.get(state.view("save"), "png"), state.view("columns") or "2"
    size = {"width": COLUMNS.get(columns, COLUMNS["2"]), "height": figure.height}
    return {"format": kind, "filename": file_name(name), "scale": 3 if kind == "png" else 1, **size}


def file_name(name: str) -> str:
    """What a saved figure or table is called: run, what it is, and the selected arm, seed, layer and step."""
    run = context()
    place = f"{run.arm}-s{run.seed}-{layer_name(run.layer)}-step-{run.step}"
    return re.sub(r"[^\w.\-]+", "-", f"{Path(run.key.path).name}-{name}-{place}")


def table(
    data: pd.DataFrame, *, forms: Mapping[str, Form] | None = None, height: int | None = None, **more: Any
) -> None:
    """A table whose numbers are written our way, and sorted as numbers; a long one shows its first rows.

    `height` is the most that it takes, in pixels; without one, ten rows are seen.
    """
    if height is not None:
        more["height"] = min(height, _HEAD + _ROW * max(1, len(data)))
    st.dataframe(_in_form(data.head(_ROWS_SHOWN), forms or {}), hide_index=True, placeholder="–", **more)
    if len(data) > _ROWS_SHOWN:
        note(f"The first {_ROWS_SHOWN:,} of {len(data):,} rows; the file has them all.")


def _in_form(data: pd.DataFrame, forms: Mapping[str, Form]) -> Any:
    """Fractions with three places where no other form is named, a true minus sign, whole numbers with their commas."""
    numbers = data.select_dtypes("number").columns
    if len(data) * len(numbers) > _NUMBERS_IN_FORM:
        return data
    own = {name: _fraction if data[name].dtype.kind == "f" else "{:,}".format for name in numbers}
    return data.style.format({**own, **forms}, na_rep="–")


def _fraction(value: float) -> str:
    return style.decimal(value, 3)


def decimals(places: int) -> Form:
    """How a table writes a number with so many places."""
    return lambda value: style.decimal(value, places)


def data_table(data: pd.DataFrame, *, name: str, forms: Mapping[str, Form] | None = None, **more: Any) -> None:
    """A table that is itself what is looked at, with its download."""
    table(data, forms=forms, **more)
    st.download_button(
        "Table (CSV)",
        lambda: csv_text(data),
        f"{file_name(name)}.csv",
        "text/csv",
        key=f"csv-{name}",
        type="tertiary",
        icon=":material/download:",
    )
