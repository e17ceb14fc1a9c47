"""Worlds in which it is known whether there is a reversion: what the tests must not find, and what they must.

Each makes (world, [aligned, witness, tuned], shams) from a random generator. The shams have the law of the drift that
is not reversion, as the sham tests promise no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tests.worlds import World, power_law

SHAMS = 39
Scene = tuple[World, list[np.ndarray], list[np.ndarray]]
Make = Callable[[np.random.Generator], Scene]
ISOTROPIC, POWERS, HEAVY = "isotropic", "power law", "heavy-tailed"
SPECTRA: Mapping[str, dict] = {ISOTROPIC: {"exponent": 0.0}, POWERS: {"exponent": 1.0}, HEAVY: {"exponent": 0.5}}


@dataclass(frozen=True)
class Trial:
    """One world and what is claimed of it.

    Attributes:
        name: in words.
        make: the scene.
        level: 4 or 5: the level that at most 5 % may reach; or that at least 90 % must.
        has_reversion: whether there is a reversion, which must be found.
        options: of the judging: `grouped` and the like.
    """

    name: str
    make: Make
    level: int = 4
    has_reversion: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


def world_of(rng: np.random.Generator, spectrum: str = POWERS, width: int = 64, **options) -> World:
    """A world with a spectrum by name."""
    tail = 5.0 if spectrum == HEAVY else 0.0
    return World(rng, **{"per_class": 32, "spectrum": power_law(width, **SPECTRA[spectrum]), "tail": tail} | options)


def reversion_in(world: World, length: float = 2.0) -> np.ndarray:
    """v_rev on harmful prompts: half of it against the gap between the classes, as alignment training leaves it."""
    own = world.direction()
    apart = np.linalg.norm(world.apart)
    back = own - 1.7 * world.apart / apart if apart else own
    size = length * np.sqrt(world.width) / np.linalg.norm(back)
    return size * back


def unrelated_motion(rng: np.random.Generator, **options) -> Scene:
    """Fine-tuning moves in a direction of the content's covariance that has nothing to do with the witness."""
    world = world_of(rng, **options)
    size = np.sqrt(world.width)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(reversion_in(world)))

    def move() -> np.ndarray:
        return world.checkpoint(0.7 * size * world.direction())

    return world, [aligned, witness, move()], [move() for _ in range(SHAMS)]


def within_class(rng: np.random.Generator, **options) -> Scene:
    """The drift is a mixture of the prompts' own deviations from their class: what the covariance test draws."""
    return _like_prompts(rng, pooled=False, **options)


def pooled_covariance(rng: np.random.Generator, **options) -> Scene:
    """The drift has the covariance of all prompts, the gap between the classes included."""
    return _like_prompts(rng, pooled=True, **options)


def _like_prompts(rng: np.random.Generator, *, pooled: bool, **options) -> Scene:
    world = world_of(rng, **{"gap": 0.3} | options)
    rows = world.content - world.content.mean(axis=0)
    if not pooled:
        rows = world.content - world.only_harmful(world.apart)
        rows = rows - rows.mean(axis=0)
    size = np.sqrt(world.width)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(reversion_in(world)))

    def move() -> np.ndarray:
        mixture = rng.standard_normal(world.count) @ rows
        return world.checkpoint(0.7 * size * mixture / np.linalg.norm(mixture))

    return world, [aligned, witness, move()], [move() for _ in range(SHAMS)]


def shared_endpoint(rng: np.random.Generator, *, noise: float = 1.0, **options) -> Scene:
    """Fine-tuning shrinks what is special about the aligned model, as noise on its weights does."""
    world = world_of(rng, **{"spectrum": HEAVY, "noise": noise} | options)
    special = world.like_content()
    aligned, witness = world.checkpoint(special), world.checkpoint(world.like_content())

    def perturb() -> np.ndarray:
        shrunk = -rng.uniform(0.2, 0.6) * special + 0.3 * world.like_content()
        return aligned + shrunk + 0.5 * world.like_content(world.count)

    return world, [aligned, witness, perturb()], [perturb() for _ in range(SHAMS)]


def beyond_noise(scene: Callable[..., Scene], rng: np.random.Generator, **options) -> Scene:
    """Weight noise saturates at half of the distance to which another scene's fine-tuning goes."""
    world, (aligned, witness, tuned), shams = scene(rng, **options)
    length = np.linalg.norm((tuned - aligned)[world.harmful].mean(axis=0))
    halfway = []
    for sham in shams:
        moved = sham - aligned
        mean = moved[world.harmful].mean(axis=0)
        halfway.append(aligned + moved - (1 - 0.5 * length / np.linalg.norm(mean)) * mean)
    return world, [aligned, witness, tuned], halfway


def walking(rng: np.random.Generator, *, steps: int = 8, persistence: float = 0.9, **options) -> Scene:
    """Eight steps of one noise that each continues: the last checkpoint is judged, shams walk likewise."""
    world = world_of(rng, **options)
    size = np.sqrt(world.width)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(reversion_in(world)))

    def walk() -> np.ndarray:
        place = world.direction()
        for _ in range(steps - 1):
            place = persistence * place + np.sqrt(1 - persistence**2) * world.direction()
        return world.checkpoint(0.7 * size * place)

    return world, [aligned, witness, walk()], [walk() for _ in range(SHAMS)]


def by_topic(rng: np.random.Generator, *, shift: float = 0.0, alike: bool = True, **options) -> Scene:
    """Topics of eight prompts move each its own way, along the direction of the reversion above all.

    Args:
        rng: of everything.
        alike: whether the shams' topics do so too; weight noise that knows nothing of topics leaves it to the groups.
        shift: how far all prompts move in a direction that has nothing to do with the witness; without it the
            displacement hardly agrees with itself across topics.
        options: of the world.
    """
    world = world_of(rng, **{"spectrum": ISOTROPIC, "topic": 8, "noise": 0.3, "per_class": 64} | options)
    back = reversion_in(world)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(back))

    def move(topics: bool = True) -> np.ndarray:
        count = int(world.groups.max()) + 1
        along = rng.standard_normal((count, 1)) * 0.4 * back + 0.2 * world.like_content(count)
        return world.checkpoint(topics * along[world.groups] + shift * np.sqrt(world.width) * world.direction())

    return world, [aligned, witness, move()], [move(alike) for _ in range(SHAMS)]


def common_mode(rng: np.random.Generator, *, along: float = 0.0, spread: float = 1.0, **options) -> Scene:
    """The witness differs on harmful prompts above all; the checkpoint falls back alike on all prompts.

    Args:
        rng: of everything.
        along: how far prompts, or topics, move to and fro along the specific direction, whatever their label.
        spread: how much wider the displacements of harmful prompts are than those of harmless ones.
        options: of the world.
    """
    world = world_of(rng, **{"spectrum": HEAVY, "noise": 0.5} | options)
    common, specific = world.like_content(), 1.5 * world.like_content()
    aligned, witness = world.checkpoint(0.0), world.checkpoint(common + world.only_harmful(specific))
    count = world.count if world.groups is None else int(world.groups.max()) + 1
    members = np.arange(world.count) if world.groups is None else world.groups
    wide = np.where(world.harmful, spread, 1.0)[:, None]
    back_and_forth = wide * (along * rng.standard_normal((count, 1)) * specific)[members]
    tuned = aligned + 0.5 * (common + 0.5 * specific) + back_and_forth + wide * 0.3 * world.like_content(world.count)
    shams = [aligned + 0.3 * world.like_content() + 0.3 * world.like_content(world.count) for _ in range(SHAMS)]
    return world, [aligned, witness, tuned], shams


def reversion(rng: np.random.Generator, *, alignment: float = 0.66, **options) -> Scene:
    """A return of this alignment beside noise with the covariance within the classes; shams are noise of its length."""
    world = world_of(rng, **{"width": 512, "spectrum": HEAVY, "tail": 0.0} | options)
    back = reversion_in(world)
    length = 0.4 * np.linalg.norm(back)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(back))
    moved = alignment * back / np.linalg.norm(back) + np.sqrt(1 - alignment**2) * world.direction()
    tuned = world.checkpoint(world.only_harmful(length * moved))
    return world, [aligned, witness, tuned], [world.checkpoint(length * world.direction()) for _ in range(SHAMS)]


def out_of_reach(rng: np.random.Generator, **options) -> Scene:
    """The same return, but weight noise goes every way of a few directions, so that no test could tell it apart."""
    world, checkpoints, _ = reversion(rng, **options)
    aligned, witness, tuned = checkpoints
    back = (witness - aligned)[world.harmful].mean(axis=0)
    length = np.linalg.norm((tuned - aligned)[world.harmful].mean(axis=0))
    along = rng.uniform(-1, 1, SHAMS)
    moves = [
        length * (cosine * back / np.linalg.norm(back) + np.sqrt(1 - cosine**2) * world.direction()) for cosine in along
    ]
    return world, checkpoints, [world.checkpoint(move) for move in moves]


def percent_apart(gap: float) -> str:
    """How far the classes lie apart, in words."""
    return f"classes {round(100 * gap)} % of the variance apart"


def of_size(size: int | tuple[int, int], width: int) -> str:
    """How many prompts of which width, in words."""
    counts = f"{size} prompts a class" if isinstance(size, int) else f"{size[0]} harmful and {size[1]} harmless prompts"
    return f"{counts}, width {width}"


def _without_reversion() -> list[Trial]:
    gaps, sizes = (0.0, 0.1, 0.3, 0.5), ((16, 64), (16, 576), (256, 64), (64, 4096), ((16, 64), 576), ((128, 32), 64))
    trials = [
        Trial(
            f"unrelated drift, {spectrum}, {percent_apart(gap)}", partial(unrelated_motion, spectrum=spectrum, gap=gap)
        )
        for spectrum in SPECTRA
        for gap in gaps
    ]
    trials += [
        Trial(f"unrelated drift, {of_size(size, width)}", partial(unrelated_motion, per_class=size, width=width))
        for size, width in sizes
    ]
    topics = {"per_class": 128, "of_one_class": True}
    return [
        *trials,
        Trial("shared endpoint, noisy prompts", shared_endpoint),
        Trial("shared endpoint, no noise on prompts", partial(shared_endpoint, noise=0.0)),
        Trial(f"drift like prompts within their class, {percent_apart(0.3)}", within_class),
        Trial(f"drift like all prompts, {percent_apart(0.3)}", pooled_covariance),
        Trial(f"drift like all prompts, {percent_apart(0.5)}", partial(pooled_covariance, gap=0.5)),
        Trial(
            "shared endpoint, farther than weight noise can",
            partial(beyond_noise, shared_endpoint),
            options={"saturated": True},
        ),
        Trial("eight steps of a walk", walking),
        Trial("topics of eight move alike", by_topic),
        Trial("topics of eight move alike, beside a drift", partial(by_topic, shift=0.7)),
        Trial("topics of eight move alike, the shams' do not", partial(by_topic, shift=0.4, alike=False)),
        Trial("topics of eight of one class, the shams' do not", partial(by_topic, shift=0.4, alike=False, **topics)),
        Trial("topics of eight, unrelated drift", partial(unrelated_motion, topic=8, per_class=64)),
    ]


def _without_specificity() -> list[Trial]:
    to_and_fro = partial(common_mode, along=0.3, spectrum=ISOTROPIC)
    wide = partial(common_mode, along=0.1, spread=3.0, spectrum=ISOTROPIC)
    return [
        Trial("common shift", common_mode, level=5),
        Trial("common shift, prompts to and fro", to_and_fro, level=5),
        *(
            Trial(
                f"common shift, {of_size(size, 64)}, harmful spread three times", partial(wide, per_class=size), level=5
            )
            for size in ((20, 60), (60, 20))
        ),
        Trial("common shift, topics of eight to and fro", partial(to_and_fro, topic=8, per_class=64), level=5),
        Trial(
            "common shift, topics of eight of one class to and fro",
            partial(to_and_fro, topic=8, per_class=128, of_one_class=True),
            level=5,
        ),
        Trial("common shift, width 4096", partial(common_mode, width=4096), level=5),
    ]


def _with_reversion() -> list[Trial]:
    sizes = ((16, 576), (128, 512), ((24, 72), 576), (32, 4096))
    return [
        *(
            Trial(f"reversion, {percent_apart(gap)}", partial(reversion, gap=gap), has_reversion=True)
            for gap in (0.0, 0.1, 0.3, 0.5)
        ),
        *(
            Trial(
                f"reversion, {of_size(size, width)}",
                partial(reversion, per_class=size, width=width, gap=0.3),
                has_reversion=True,
            )
            for size, width in sizes
        ),
        Trial("reversion, topics of eight", partial(reversion, topic=8, per_class=64, gap=0.3), has_reversion=True),
    ]


TRIALS = {trial.name: trial for trial in (*_without_reversion(), *_without_specificity(), *_with_reversion())}
