"""Live: ask one or two checkpoints yourself, and push them along a direction. The only page that loads a model."""

from __future__ import annotations

import html
import math
from pathlib import Path

import pandas as pd
import streamlit as st

from app import bench, cache, charts, components, prompt_choice, state, widgets
from app.components import Context
from probes.lineage import CheckpointRef
from probes.plots import live as plots
from probes.plots import style
from probes.plots.sheet import Sheet
from probes.run import Run
from probes.tasks.report import how_to_reproduce

_NONE = ""
_LONGEST = 4000  # characters of a prompt
_NEXT = 15
_ANSWER = 32  # tokens


def show(run: Context) -> None:
    """Draw the page."""
    places = _places(run)
    present = {name: ref for name, ref in places.items() if not _gone(ref)}
    if "aligned" not in present:
        _nothing_there(run, places)
        return
    loaded = bench.is_loaded(run.key)
    components.header("Live", "Ask a checkpoint yourself", _lead(run, present["aligned"], loaded))
    left, right, _ = st.columns([3, 2, 2], vertical_alignment="center")
    if not loaded:
        left.button("Load the model", type="primary", icon=":material/memory:", on_click=bench.load, args=(run.key,))
        _refuse(places, present)
        return
    right.button(
        "Free the model",
        icon=":material/eject:",
        on_click=bench.free,
        help="It is also freed when you leave this page.",
    )
    with components.section():
        _memory(run, left)
        _refuse(places, present)
        _desk(run, tuple(present))


def _places(run: Context) -> dict[str, CheckpointRef]:
    """Every checkpoint of the run's own lineage, and where it lives: nothing else can be loaded here."""
    if not run.manifest.lineage:
        return {}
    return dict(Run(run.key.path, quick=True).lineage.checkpoints())


def _gone(ref: CheckpointRef) -> bool:
    """Whether a folder is no longer there; what lies on the hub is told when it is asked for."""
    return any(Path(place).is_absolute() and not Path(place).is_dir() for place in (ref.model, ref.adapter) if place)


def _nothing_there(run: Context, places: dict[str, CheckpointRef]) -> None:
    aligned = places.get("aligned")
    components.header(
        "Live",
        "The checkpoints are not here",
        "This is the only page that loads a model, and this run folder holds what was measured, not the models. "
        + (f"The aligned model was at {_short(aligned.model, run)}." if aligned else "It names no checkpoints."),
    )
    is_demo = isinstance(run.manifest.config_given.get("demo"), dict)  # whose command trains its checkpoints too
    components.missing(
        "Recreate them, and this page can ask them:"
        if is_demo
        else "This page can ask them in a run that is measured where they lie:",
        "\n".join(how_to_reproduce(run.manifest, run.whole_path)),
    )


def _short(place: str, run: Context) -> str:
    """A place as seen from the run folder, where it lies inside."""
    inside = Path(place).is_relative_to(Path(run.key.path).resolve())
    return str(Path(place).relative_to(Path(run.key.path).resolve())) if inside else place


def _lead(run: Context, aligned: CheckpointRef, loaded: bool) -> str:
    model = run.manifest.model
    model_text = (
        f"{model.get('architecture', 'a model')} with {model.get('n_layers', '?')} layers of width "
        f"{model.get('d_model', '?')}"
    )
    size = _bytes_on_disk(aligned)
    place = f"{_short(aligned.model, run)} ({_size(size)} on disk)" if size else f"{aligned} on the hub, or its cache"
    if loaded:
        return f"The only page that loads a model. In memory: {model_text}."
    return (
        f"The only page that loads a model: {model_text}, from {place}. It stays in memory until you free it or leave "
        "the page; checkpoints take turns in it."
    )


def _bytes_on_disk(ref: CheckpointRef) -> int:
    folder = Path(ref.model)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _memory(run: Context, column: st.delta_generator.DeltaGenerator) -> None:
    model = bench.bench(run.key, run.manifest)
    with column:
        components.note(
            f"{model.n_weights:,} weights, {_size(model.n_bytes)} in memory, on {str(model.host.device).upper()}."
        )


def _refuse(places: dict[str, CheckpointRef], present: dict[str, CheckpointRef]) -> None:
    absent = len(places) - len(present)
    if absent:
        components.note(f"{absent} of {len(places)} checkpoints were moved or deleted and cannot be asked.")


@st.fragment
def _desk(run: Context, checkpoints: tuple[str, ...]) -> None:
    with components.section():
        first, second = _pair(run, checkpoints)
        direction = _direction(run)
        if direction is None:
            components.missing("This run holds no direction.", f"gravity-probe directions fit {run.command_path}")
            return
        _choices(run, checkpoints, first, second, direction)
        if run.layer < 0:
            components.note(
                "Directions are defined after blocks, not for the embedding: choose a layer in the sidebar."
            )
            return
        prompt = _prompt(run)
        left, right = st.columns([3, 2], vertical_alignment="bottom")
        with left:
            push = widgets.PUSH.control(
                "Add the direction",
                help="This much of the direction's own length (for a difference of means: the distance between the "
                "classes) is added behind the layer at every token. 0: none.",
            )
        with right:
            answers = widgets.GENERATE.control(
                "Generate an answer", widget=st.toggle, help=f"A greedy answer of at most {_ANSWER} tokens."
            )
        if not prompt.strip():
            components.note("Type a prompt, or choose one of the run's.")
            return
        _draw(run, tuple(name for name in (first, second) if name), direction, prompt, push, _ANSWER if answers else 0)


def _pair(run: Context, checkpoints: tuple[str, ...]) -> tuple[str, str]:
    """The chosen one or two; at first the aligned model and the selected checkpoint."""
    chosen, selected = state.selection(), run.catalogue.checkpoints[run.arm, run.seed, run.step]
    first = chosen.first if chosen.first in checkpoints else "aligned"
    second = (
        chosen.second
        if chosen.second in checkpoints
        else selected
        if selected in checkpoints and selected != first
        else _NONE
    )
    return first, _NONE if widgets.ALONE.on or second == first else second


def _direction(run: Context) -> str | None:
    known = list(cache.directions(run.key))
    chosen = state.selection().direction
    return chosen if chosen in known else next(iter(known), None)


def _choices(run: Context, checkpoints: tuple[str, ...], checkpoint: str, beside: str, direction: str) -> None:
    first, second, third = st.columns(3)
    with first:
        components.choose(
            "Checkpoint",
            checkpoints,
            checkpoint,
            lambda name: state.change(first=name),
            name="one",
            format_func=lambda name: components.checkpoint_name(name, run),
        )
    with second:
        components.choose(
            "Beside it",
            (_NONE, *checkpoints),
            beside,
            _beside,
            name="other",
            format_func=lambda name: components.checkpoint_name(name, run) if name else "nothing",
        )
    with third:
        components.choose(
            "Direction",
            list(cache.directions(run.key)),
            direction,
            lambda name: state.change(direction=name),
            name="direction",
            help=str(cache.directions(run.key)[direction].get("says", "")) or None,
        )


def _beside(name: str) -> None:
    state.change_view(widgets.ALONE.name, "" if name else "yes")
    if name:
        state.change(second=name)


def _prompt(run: Context) -> str:
    """The prompt, at first a selected one; what is typed is kept in this visit only, and never in the URL."""
    prompts, chosen = cache.prompts(run.key), prompt_choice.prompts(run)
    by_id = dict(zip(prompt_choice.known_ids(run.key), prompts, strict=True))
    if "live-prompt" not in st.session_state:
        st.session_state["live-prompt"] = by_id[chosen[0]] if chosen else prompts[0] if prompts else ""
    if prompts:
        st.selectbox(
            "Choose a probe prompt",
            prompts,
            index=None,
            key="live-taken",
            on_change=_take,
            args=(run, by_id),
            placeholder=f"One of the run's {len(prompts):,}, or type your own below",
        )
    return st.text_area(
        "Prompt",
        key="live-prompt",
        max_chars=_LONGEST,
        height=90,
        help="It becomes the user's turn in the aligned model's chat template. What you type is neither stored nor "
        "part of the link; a probe prompt that you choose is part of it.",
    )


def _take(run: Context, by_id: dict[str, str]) -> None:
    text = st.session_state.get("live-taken")
    if text:
        st.session_state["live-prompt"] = text
        prompt_choice.choose(run, [prompt for prompt, own in by_id.items() if own == text])


def _draw(
    run: Context, checkpoints: tuple[str, ...], direction: str, prompt: str, push: float, new_tokens: int
) -> None:
    with st.spinner("Asking …", show_time=False):
        spots, chances, answers = _read(run, checkpoints, direction, prompt, push, new_tokens)
    shown = tuple((name, _arm(name, run), components.checkpoint_name(name, run)) for name in checkpoints)
    subtitle = f"{run.subtitle(direction=False)} · direction {style.plain(direction)}"
    if new_tokens:
        _answers(answers, push)
    figure = Sheet.of(plots.next_tokens(chances, shown, push=push, subtitle=subtitle, ink=run.ink).to_dict())
    charts.chart(figure, chances, name="next-tokens", alt="Probabilities of the most likely next tokens")
    figure = Sheet.of(plots.tokens(spots, shown, push=push, subtitle=subtitle, ink=run.ink).to_dict())
    charts.chart(figure, spots, name="tokens", alt="Each token's projection on the direction")


def _read(
    run: Context, checkpoints: tuple[str, ...], direction: str, prompt: str, push: float, new_tokens: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tokens with their projections, next tokens with their chances, and answers, each without and with the push."""
    readings = {}
    for name in checkpoints:
        for coefficient in dict.fromkeys((0.0, push)):
            readings[name, coefficient] = bench.read(
                run.key, run.manifest, name, direction, prompt, run.layer, coefficient, new_tokens
            )
    words = {token: text for read in readings.values() for token, text in read.words.items()}
    best = sorted(words, key=lambda token: -max(float(read.chances[token]) for read in readings.values()))[:_NEXT]
    spots, chances, answers = [], [], []
    for name in checkpoints:
        plain, pushed = readings[name, 0.0], readings[name, push] if push else None
        moved = pushed.projections if pushed else [math.nan] * len(plain.tokens)
        spots += [
            (name, *spot) for spot in zip(range(len(plain.tokens)), plain.tokens, plain.projections, moved, strict=True)
        ]
        chances += [
            (name, words[token], float(plain.chances[token]), float(pushed.chances[token]) if pushed else math.nan)
            for token in best
        ]
        shown = components.checkpoint_name(name, run)
        answers.append((shown, plain.answer or "", (pushed.answer or "") if pushed else ""))
    return (
        pd.DataFrame(spots, columns=["checkpoint", "place", "token", "projection", "pushed"]),
        pd.DataFrame(chances, columns=["checkpoint", "token", "probability", "pushed"]),
        pd.DataFrame(answers, columns=["checkpoint", "answer", "pushed"]),
    )


def _arm(checkpoint: str, run: Context) -> str:
    places = {name: arm for (arm, _, _), name in run.catalogue.checkpoints.items()}
    return places.get(checkpoint, checkpoint)


def _answers(rows: pd.DataFrame, push: float) -> None:
    """Their answers, as text: nothing of it is markup."""
    heads = ["", "greedy answer", *([f"with {style.decimal(push)} × the direction"] if push else [])]
    columns = ["checkpoint", "answer", *(["pushed"] if push else [])]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[name])) or '–'}</td>" for name in columns) + "</tr>"
        for row in rows.to_dict("records")
    )
    st.html(f'<div class="gp-wide"><table class="gp-said"><tr>{head}</tr>{body}</table></div>')


show(components.context())
