"""How the prompts of a run become what its models read: the template that was chosen, and what is to be said of it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from probes.errors import UsageError
from probes.lineage import CheckpointRef, Member
from probes.models import ModelHost
from probes.models.source import folder_of
from probes.prompts import Rendered, Rendering, own_template, read_template, template_notice
from probes.run import Run

_ALIGNED, _CHECKPOINT = "aligned", "checkpoint"  # settings.chat_template; anything else is a place
_LISTED = 5  # prompts that were left out, by name


def choose_rendering(run: Run) -> Rendering:
    """How the run's settings want prompts rendered.

    Raises:
        UsageError: no fine-tuned checkpoint has a template of its own, or the place that was named has none.
    """
    settings = run.settings
    chosen = Rendering(
        system_prompt=settings.system_prompt,
        add_generation_prompt=settings.generation_prompt,
        thinking=settings.thinking,
    )
    if settings.chat_template == _ALIGNED:
        return chosen
    if settings.chat_template != _CHECKPOINT:
        named = Rendering.with_template_of(Path(settings.chat_template).expanduser())
        return Rendering(**{**vars(chosen), "template": named.template})
    member = _last_with_template(run)
    return Rendering(**{**vars(chosen), "template": checkpoint_template(run, member.ref)})


def keep_rendering(run: Run, model: ModelHost, rendering: Rendering, rendered: Rendered) -> None:
    """Put into the manifest how prompts were rendered, and what a reader should know of it."""
    owner = _owner(run)
    run.manifest.prompts |= {
        "rendering": rendering.about,
        "chat_template": rendering.template,
        "template": f"chat template of {owner}" if rendered.template else "none: raw text",
        "notices": [*rendered.notices, *_left_out(rendered), *_template_notices(run, model, rendered, owner)],
    }
    run.save()


def checkpoint_template(run: Run, ref: CheckpointRef) -> str | None:
    """The chat template that lies with a checkpoint, or with its adapter; None where there is none."""
    place, revision = (ref.adapter, None) if ref.adapter else (ref.model, ref.revision)
    folder = folder_of(place, revision, allow_pickle=run.settings.allow_pickle)
    return read_template(folder) if folder.is_dir() else None


def _last_with_template(run: Run) -> Member:
    for member in reversed(run.tuned):
        if checkpoint_template(run, member.ref) is not None:
            return member
    raise UsageError(
        "No fine-tuned checkpoint has a chat template of its own", next_step="Give --chat-template aligned, or a file."
    )


def _owner(run: Run) -> str:
    """Whose template is used, in words."""
    chosen = run.settings.chat_template
    if chosen == _ALIGNED:
        return "the aligned model"
    return _last_with_template(run).id if chosen == _CHECKPOINT else Path(chosen).name


def _template_notices(run: Run, model: ModelHost, rendered: Rendered, owner: str) -> list[str]:
    """A sentence on each role and each trajectory with another template than the one that is used."""
    sentences: dict[str, list[Member]] = defaultdict(list)
    for member in run.members:
        aligned = member.ref == run.lineage.aligned
        own = own_template(model.tokenizer) if aligned else checkpoint_template(run, member.ref)
        if template_notice(member.id, own, rendered.template):
            sentences[member.id if member.is_role else f"{member.arm} (seed {member.seed})"].append(member)
    notices = []
    for name, members in sentences.items():
        count = "" if members[0].is_role else f", {len(members)} of its checkpoints,"
        notices.append(str(template_notice(f"{name}{count}", "own", "used", owner)))
    return notices


def _left_out(rendered: Rendered) -> list[str]:
    sentence = left_out_sentence(rendered.left_out, "probe")
    return [sentence] if sentence else []


def left_out_sentence(left_out: tuple[tuple[str, int], ...], use: str) -> str | None:
    """A sentence on the prompts that were too long, with their ids and tokens; None where there are none."""
    if not left_out:
        return None
    listed = ", ".join(f"{name} ({tokens} tokens)" for name, tokens in left_out[:_LISTED])
    more = f" and {len(left_out) - _LISTED} more" if len(left_out) > _LISTED else ""
    be = "prompts were" if len(left_out) > 1 else "prompt was"
    return f"{len(left_out)} {use} {be} left out as too long for the model's context: {listed}{more}."
