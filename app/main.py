"""Entry of the front end: opens the run, keeps the shared sidebar, and hands over to a page.

Started by `gravity-probe app [ROOT]`, which is `python -m app -- ROOT`, or by `streamlit run app/main.py -- ROOT`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from app import bench, cache, components, in_turn, look, sidebar, state, widgets
from app.cache import Key
from probes.errors import GravityError
from probes.plots.style import InkName

LIVE = "views/live.py"
PAGES = (
    ("views/overview.py", "Overview", ":material/south_west:"),
    ("views/layers.py", "Layers", ":material/layers:"),
    ("views/manifold.py", "Manifold", ":material/scatter_plot:"),
    ("views/displacement.py", "Displacement", ":material/moving:"),
    ("views/trajectories.py", "Trajectories", ":material/timeline:"),
    ("views/well.py", "Well", ":material/landslide:"),
    ("views/compare.py", "Compare", ":material/compare_arrows:"),
    ("views/directions.py", "Directions", ":material/explore:"),
    ("views/behaviour.py", "Behaviour", ":material/forum:"),
    ("views/data.py", "Data", ":material/dataset:"),
    (LIVE, "Live", ":material/keyboard:"),
    ("views/run.py", "Run", ":material/receipt_long:"),
)
_REFRESH = 3  # seconds between two looks at a run that is still being written


def main() -> None:
    """Draw one page."""
    st.set_page_config(page_title="Gravity Probe", page_icon=str(Path(__file__).with_name("icon.svg")), layout="wide")
    st.html(look.CSS)
    st.html(look.SCRIPTS, unsafe_allow_javascript=True)  # our own text, always the same
    page = st.navigation([st.Page(path, title=title, icon=icon) for path, title, icon in PAGES])
    in_turn.begin(page.title)
    state.read_url()
    if page.title != "Live":
        bench.free()
    if not state.is_known_host(st.context.headers.get("Host")):
        components.header(page.title, "This address is not served")
        components.note("The app answers at localhost, or at the names in GRAVITY_PROBE_HOSTS (comma-separated).")
        st.stop()
    with st.sidebar:
        ready, refusal = False, None
        try:
            ready = _prepare()
        except GravityError as error:
            refusal = error
    state.write_url()
    if refusal is not None:
        components.header(page.title, "This run cannot be read")
        components.show_failure(refusal)
    elif ready:
        st.html(look.PLACE.format(components.place_name(), widgets.SAVE.chosen()))
        for sentence in sidebar.absences(components.context()):
            st.warning(components.as_text(sentence))
        try:
            page.run()
        except GravityError as error:
            # A page reads what its heading needs before it draws anything, and guards the rest by sections.
            components.header(page.title, "This page cannot be drawn")
            components.show_failure(error)
    else:
        _nothing_yet(page.title)


def _prepare() -> bool:
    """Open the selected run and draw the sidebar; whether there is something to look at."""
    known_runs = state.runs(state.root())
    if not known_runs:
        return False
    requested = state.selection().run
    name = requested if requested in known_runs else next(iter(known_runs))
    state.change(run=name)
    if requested and requested != name:
        state.note_unread("The address names a run that is not in this folder; the newest one is shown.")
    sidebar.choose_run(list(known_runs), name)
    key, manifest = cache.open_run(known_runs[name])
    if manifest.status == "running":
        _watch(known_runs[name], key)
    catalogue = sidebar.catalogue_of(key, manifest)
    if catalogue is None:
        return False
    ready = sidebar.resolve_selection(key, manifest, catalogue, _ink())
    components.keep(ready)
    _fill_in(ready)
    sidebar.choose_place(catalogue, ready.arm, ready.seed, ready.step, ready.layer)
    sidebar.share_link()
    sidebar.choose_pictures()
    return True


def _fill_in(ready: components.Context) -> None:
    """Put the run's defaults into the address; what it asks for in vain stays there, and is said on the page."""
    chosen = state.selection()
    state.change(
        arm=chosen.arm or ready.arm,
        seed=ready.seed if chosen.seed is None else chosen.seed,
        step=ready.step if chosen.step is None else chosen.step,
        layer=ready.layer if chosen.layer is None else chosen.layer,
    )


def _ink() -> InkName:
    for_paper = widgets.LIGHT_INK.on
    return "dark" if st.context.theme.type == "dark" and not for_paper else "light"


@st.fragment(run_every=_REFRESH)
def _watch(path: Path, shown: Key) -> None:
    """Look again at a run that is still being written, and redraw the page when a stage has ended."""
    components.note("This run is still being written; the page follows it.")
    try:
        now, _ = cache.open_run(path)
    except GravityError:
        return
    if now != shown:
        st.rerun()


def _nothing_yet(page: str) -> None:
    root, known_runs = state.root(), state.runs(state.root())
    if not known_runs:
        components.header(page, "No run yet", f"There is no run folder in {root}. The demo makes one in three minutes:")
        components.command("gravity-probe demo")
        components.note("Or measure your own checkpoints:")
        components.command("gravity-probe measure --aligned A --checkpoint C --evaluate --out runs/mine")
        return
    path = shlex.quote(str(known_runs[state.selection().run]))
    components.header(page, "This run is not finished", "It holds no drift yet. Rerun the command that made it:")
    components.command(f"gravity-probe measure --out {path} …\ngravity-probe demo --out {path}")
    components.note("It resumes where it stopped; what is already measured is not measured again.")


main()
