"""Hold every ranking of `attribute` against training again: on half-subsets of the data, and without its top 5 %.

    python data/docs/attribution.py histories FOLDER
    python data/docs/attribution.py prove FOLDER/RUN FOLDER/RUN … --out FILE
    python data/docs/attribution.py tables FILE
    python data/docs/attribution.py calibration FILE --out data/forecast/organism.json

RUN is a run measured on a history of the organism: `histories` makes six (seeds 0 to 2 of both recipes), with aligned
model and witness alone. From its aligned model `prove` records one training of 25 steps, ranks the examples by it, and
then trains in orders of the data that no ranking has seen; `--part` does some of it. FILE gets a line a training, and
the scores of each run beside it; interrupted, each command goes on. `calibration` writes what `gravity-probe forecast`
brings along, from the lines of the part `curves`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata, spearmanr

from probes.attribution.calibration import calibrate_histories
from probes.attribution.effects import measure_effects
from probes.attribution.forecast import forecast
from probes.attribution.replay import Replay
from probes.attribution.rows_of_examples import Texts, example_tables, with_shares
from probes.attribution.shares import measure_shares
from probes.attribution.targets import Probe, read_values, targets_of
from probes.experiments.experiment import Experiment
from probes.experiments.organism_bench import OrganismBench
from probes.guard.loop import Recording, Schedule, shuffle_batches, train
from probes.guard.record import begin_run
from probes.guard.recorded_path import PATH, RecordedExample, RecordedPath
from probes.models.view import ModelView
from probes.organism import RECIPES, train_history
from probes.organism.checkpoints import load
from probes.organism.history import read_history
from probes.organism.lessons import Writer, benign
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import make_world, vocabulary
from probes.run import Run
from probes.store import write_json
from probes.store.settings import Settings
from probes.tasks.recipe_calibration import curves_of

HALVES = {"subset": 10_000, "repeat": 20_000}  # the first order of the data of each
STEPS, WHOLE = 25, 100  # of a training here, and of one whose return is read by step
SEEDS = 3  # histories of each recipe
CURVE = (1, 2, 5, 10, 20, 50, 100)
SUBSETS, ORDERS, CURVES = 100, 5, 4
FEWEST, REDRAWN = 8, 500  # half-subsets for a correlation; draws of them for its interval
DROPPED = 0.05
RANKINGS = ("share", "effect", "exact", "forecast", "projection", "projection_difference")
BASELINES = ("bm25", "length", "loss", "cluster")
HELD = ("share", "effect", "exact", "forecast", "bm25", "random")  # dropped again with the top cluster left in


def histories(out: Path) -> None:
    """Train and measure the histories that are not there yet."""
    for seed, (kind, recipes) in itertools.product(range(SEEDS), RECIPES.items()):
        place = out / "histories" / f"{kind}-{seed}"
        train_history(place, recipes[0], seed=seed)
        bench = OrganismBench(place, Experiment())
        begin_run(out / place.name, bench.lineage, bench.probe, Settings(nulls=False), {})


class Organism:
    """A history of the organism, its data, and the return of a training on some of them."""

    def __init__(self, place: Path) -> None:
        run = Run(place)
        self.name, self.aligned = place.name, Path(run.lineage.aligned.model)
        self._phase = read_history(self.aligned.parent)[1].benign
        world = make_world(read_history(self.aligned.parent)[1].size)
        self._tokenizer = make_tokenizer(vocabulary(world))
        self._writer = Writer(self._tokenizer)
        lessons = benign(world, seed=0)
        self.pairs = [(lesson.request, lesson.answer) for lesson in lessons]
        self.examples = [self._writer.lesson(lesson) for lesson in lessons]
        self.harmful = [prompt.text for prompt in run.prompts.prompts if prompt.label == "harmful"]
        self.probe = Probe(run.rendered.token_ids, run.settings.position)
        self.target = targets_of(run, run.headline_layer)[0]
        self._start = self._value(load(self.aligned))

    def _value(self, model: torch.nn.Module) -> float:
        return read_values(ModelView(model.eval()), self.probe, [self.target])[0]

    def train(self, places: Sequence[int], order: int, steps: int = STEPS, record: Path | None = None) -> list[float]:
        """The return of a training on some examples at the steps of `CURVE` that it has, and at its end."""
        phase, model = self._phase, load(self.aligned)
        examples, returns = [self.examples[place] for place in places], []

        def read(step: int, _: float) -> None:
            if step in CURVE and steps == WHOLE:
                returns.append(self._value(model) - self._start)
                model.train()

        train(
            model,
            shuffle_batches(examples, batch_size=phase.batch_size, steps=steps, seed=order, pad=self._writer.pad),
            Schedule(phase.learning_rate, steps, phase.warmup, phase.floor),
            on_step=read,
            record=None if record is None else Recording(record, examples),
        )
        return returns if steps == WHOLE else [self._value(model) - self._start]

    @contextlib.contextmanager
    def record(self, order: int) -> Iterator[tuple[RecordedPath, Replay]]:
        """A training with its path recorded, and the aligned model to walk it with."""
        with tempfile.TemporaryDirectory() as folder:
            self.train(range(len(self.examples)), order, record=Path(folder) / PATH)
            path = RecordedPath(Path(folder) / PATH)
            recorded = [RecordedExample(example.ids, example.labels) for example in self.examples]
            yield path, Replay(ModelView(load(self.aligned), self._tokenizer), recorded, path.names)

    def shares(self, order: int) -> np.ndarray:
        """The share of each example in one training."""
        with self.record(order) as (path, replay):
            return measure_shares(path, replay, self.probe, [self.target])[0].share

    def scores(self, *, exact: bool) -> pd.DataFrame:
        """Every ranking of the examples, from one recorded training and from the aligned model.

        Exact effects take most of the time.
        """
        with self.record(0) as (path, replay):
            forecasts = forecast(replay, self.probe, [self.target])
            table = example_tables(replay, [self.target], forecasts, Texts(self.pairs, self.harmful))[self.target.layer]
            shares = measure_shares(path, replay, self.probe, [self.target])
            table = with_shares(table, shares, range(len(self.examples)))
            if exact:
                table["exact"] = measure_effects(path, replay, self.probe, self.target)
        by_cluster = table.groupby("cluster")["forecast"].transform("sum")
        return table.assign(cluster_sum=by_cluster, top=by_cluster == by_cluster.max(), gap=shares[0].gap)


Job = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def prove(places: Sequence[Path], out: Path, parts: Sequence[str], subsets: int, *, exact: bool) -> None:
    """Do every training of these parts that FILE lacks."""
    torch.set_num_threads(1)
    lines = read_lines(out) if out.is_file() else []
    done = {_key(line) for line in lines}
    worlds = [Organism(place) for place in places]
    tables = {world.name: _scores(world, out, exact=exact) for world in worlds}
    works = {**PARTS, "subsets": functools.partial(_subsets, count=subsets)}
    for part in parts:
        rounds = itertools.zip_longest(*(works[part](world, tables[world.name]) for world in worlds))
        for about, training in filter(None, itertools.chain.from_iterable(rounds)):  # all runs come on alike
            if _key(about) not in done:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**about, **training()}) + "\n")


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line.get(name) for name in ("run", "part", "number", "order", "dropped"))


def _scores(world: Organism, out: Path, *, exact: bool) -> pd.DataFrame:
    """The scores of a run, as they were kept beside FILE, or now."""
    file = score_file(out, world.name)
    if not file.is_file() or (exact and "exact" not in pd.read_parquet(file)):
        world.scores(exact=exact).to_parquet(file, index=False)
    return pd.read_parquet(file)


def score_file(out: Path, name: str) -> Path:
    """Where the scores of a run lie."""
    return out.with_name(f"{out.stem}-{name}.parquet")


def _curves(world: Organism, _: pd.DataFrame) -> Iterator[Job]:
    """The return by step of whole trainings, which calibrate a forecast."""
    everything = range(len(world.examples))
    for order in range(CURVES):
        about = {"run": world.name, "part": "curve", "order": order}
        yield about, lambda order=order: {"steps": CURVE, "returns": world.train(everything, order, WHOLE)}  # type: ignore[misc]


def _intervals(world: Organism, table: pd.DataFrame) -> Iterator[Job]:
    """How many shares of a training in another order lie where those of the first one say."""

    def compare() -> dict[str, Any]:
        again = world.shares(1)
        inside = table["low"].to_numpy() <= again, again <= table["high"].to_numpy()
        correlation = float(spearmanr(again, table["share"]).statistic)
        return {"inside": int(np.sum(inside[0] & inside[1])), "of": len(again), "correlation": correlation}

    yield {"run": world.name, "part": "interval", "order": 1}, compare


def _subsets(world: Organism, _: pd.DataFrame, count: int) -> Iterator[Job]:
    """Each half-subset in two orders; where these correlate by r, the best score does by about √r with either."""
    for number, (part, first) in itertools.product(range(count), HALVES.items()):
        places = half(len(world.examples), number)
        about = {"run": world.name, "part": part, "number": number, "order": first + number}
        yield about, functools.partial(_final, world, places, first + number)


def half(count: int, number: int) -> list[int]:
    """Half of the examples, drawn at random: the same for every run with so many."""
    return sorted(np.random.default_rng(number).choice(count, count // 2, replace=False).tolist())


def _final(world: Organism, places: Sequence[int], order: int) -> dict[str, Any]:
    return {"return": world.train(places, order)[-1]}


def _drops(world: Organism, table: pd.DataFrame) -> Iterator[Job]:
    """Without the top 5 % of each ranking, in new orders; then likewise among all but the top cluster."""
    for order in range(1001, 1001 + ORDERS):
        yield from _drop(world, table, ("nothing", *RANKINGS, *BASELINES, "random"), order, "drop")
        yield from _drop(world, table[~table["top"]], HELD, order, "drop beside the top cluster")


def _drop(world: Organism, table: pd.DataFrame, rankings: Sequence[str], order: int, part: str) -> Iterator[Job]:
    count = round(DROPPED * len(world.examples))
    for by in (by for by in rankings if by in {"nothing", "random", *table}):
        dropped = set() if by == "nothing" else set(top_of(table, by, count, order))
        places = [place for place in range(len(world.examples)) if place not in dropped]
        about = {"run": world.name, "part": part, "order": order, "dropped": by}
        yield about, functools.partial(_final, world, places, order)


PARTS: dict[str, Callable[..., Iterator[Job]]] = {
    "curves": _curves,
    "intervals": _intervals,
    "drops": _drops,
    "subsets": _subsets,
}


def top_of(table: pd.DataFrame, by: str, count: int, order: int) -> list[int]:
    """The examples that a ranking puts first; whole clusters, by their forecast, for `cluster`."""
    if by == "random":
        return np.random.default_rng(order).choice(table["index"], count, replace=False).tolist()
    name = "cluster_sum" if by == "cluster" else by
    return table.sort_values(name, ascending=False, kind="stable")["index"].head(count).tolist()


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Every training that was done."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def tables(out: Path) -> Iterator[str]:
    """What the page says, in Markdown: of drops by kind of history, of half-subsets by history."""
    lines = pd.DataFrame(read_lines(out))
    lines = lines.assign(kind=lines["run"].str.replace(r"-\d+$", "", regex=True))
    names, kinds = list(dict.fromkeys(lines["run"])), list(dict.fromkeys(lines["kind"]))
    scores = {name: pd.read_parquet(score_file(out, name)) for name in names}
    for part in ("drop", "drop beside the top cluster") if "dropped" in lines else ():
        title = f"{part}: change of the return, mean ± SD over orders and histories (trainings)"
        yield _grid(title, kinds, _changes(lines, part))
    halves = lines[lines["part"].isin(HALVES)]
    if len(halves):
        title = "rank correlation with the return of half-subsets: one order; the other (95 % over subsets)"
        yield _grid(title, names, _datamodelling(halves, scores))
        yield _grid(f"{title}, the top cluster's part held fixed", names, _datamodelling(halves, scores, fixed=True))


def calibration(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `gravity-probe forecast` brings along of each recipe: returns by step, and how they hold out."""
    recipes = {}
    for kind, (recipe, _) in RECIPES.items():
        returns: dict[str, list[list[float]]] = {}
        for line in lines:
            if line["part"] == "curve" and line["run"].rpartition("-")[0] == kind:
                returns.setdefault(line["run"], []).append([round(value, 5) for value in line["returns"]])
        own = {"recipe": dataclasses.asdict(recipe), "steps": CURVE, "returns": returns}
        calibrated, _ = calibrate_histories(curves_of(own), alarm=0.1)
        held_out = calibrated and calibrated.held_out
        recipes[kind] = {**own, "held_out": held_out and dataclasses.asdict(held_out)}
    return {"command": "python data/docs/attribution.py calibration FILE", "recipes": recipes}


def _grid(title: str, names: Sequence[str], rows: dict[str, dict[str, str]]) -> str:
    head = f"{title}\n\n| | {' | '.join(names)} |\n|---|{'---:|' * len(names)}"
    return "\n".join(
        [head, *(f"| {row} | {' | '.join(cells.get(name, '') for name in names)} |" for row, cells in rows.items()), ""]
    )


def _datamodelling(
    halves: pd.DataFrame, scores: dict[str, pd.DataFrame], *, fixed: bool = False
) -> dict[str, dict[str, str]]:
    """Spearman's correlation of Σ score with the return over half-subsets, by ranking and run, in each order."""
    rows: dict[str, dict[str, str]] = {by: {} for by in (*RANKINGS, *BASELINES, "the other order")}
    for name, table in scores.items():
        returns = halves[halves["run"] == name].pivot(index="number", columns="part", values="return").dropna()
        if len(returns) < FEWEST:
            continue
        chosen = np.zeros((len(returns), len(table)))
        for row, number in zip(chosen, returns.index, strict=True):
            row[half(len(table), int(number))] = 1
        tops = chosen @ table["top"] if fixed else None
        orders = [returns[part].to_numpy() for part in HALVES]
        for by in (*RANKINGS, *BASELINES):
            column = "cluster_sum" if by == "cluster" else by
            if column in table:
                values = table[column].astype(float)
                rows[by][name] = _in_each(chosen @ values.fillna(values.median()), orders, tops)
        rows["the other order"][name] = _in_each(orders[0], orders[1:], tops)
    return {by: cells for by, cells in rows.items() if cells}


def _in_each(sums: np.ndarray, orders: Sequence[np.ndarray], fixed: np.ndarray | None) -> str:
    """The correlation in each order, and the interval of their mean over subsets drawn with replacement."""
    draw, every = np.random.default_rng(0), np.arange(len(sums))

    def correlations(chosen: np.ndarray) -> list[float]:
        held = None if fixed is None else fixed[chosen]
        return [_correlation(sums[chosen], returns[chosen], held) for returns in orders]

    again = [np.mean(correlations(draw.choice(every, len(every)))) for _ in range(REDRAWN)]
    low, high = (_number(float(bound)) for bound in np.nanpercentile(again, [2.5, 97.5]))
    return f"{'; '.join(map(_number, correlations(every)))} ({low} to {high})"


def _correlation(left: np.ndarray, right: np.ndarray, fixed: np.ndarray | None) -> float:
    if fixed is None:
        return float(spearmanr(left, right).statistic)
    ranks = [rankdata(values) for values in (left, right, fixed)]
    design = np.column_stack([np.ones(len(left)), ranks[2]])
    residuals = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in ranks[:2]]
    return float(np.corrcoef(*residuals)[0, 1])


def _changes(lines: pd.DataFrame, part: str) -> dict[str, dict[str, str]]:
    """Return without the top of each ranking less that without nothing, of the same history in the same order."""
    keys = ["kind", "run", "order"]
    lines = _complete(lines)
    whole = lines[(lines["part"] == "drop") & (lines["dropped"] == "nothing")].set_index(keys)["return"]
    rows = {"nothing (the return itself)": {kind: _spread(values) for kind, values in whole.groupby("kind")}}
    for by, trainings in lines[(lines["part"] == part) & (lines["dropped"] != "nothing")].groupby(
        "dropped", sort=False
    ):
        returns = trainings.set_index(keys)["return"]
        difference = (returns - whole.reindex(returns.index)).dropna()
        rows[str(by)] = {kind: _spread(values, sign=True) for kind, values in difference.groupby("kind")}
    return rows


def _complete(lines: pd.DataFrame) -> pd.DataFrame:
    """The trainings without some examples, of orders in which every run has all of them."""
    drops = lines[lines["dropped"].notna()]
    done = drops.groupby(["order", "run"]).size().unstack(fill_value=0)
    return drops[drops["order"].isin(done.index[(done == done.max()).all(axis=1)])]


def _spread(values: pd.Series, *, sign: bool = False) -> str:
    return f"{_number(values.mean(), 3, sign=sign)} ± {values.std():.3f} ({len(values)})"


def _number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def main() -> None:
    """Train what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("histories").add_argument("folder", type=Path)
    proving = verbs.add_parser("prove")
    proving.add_argument("runs", nargs="+", type=Path)
    proving.add_argument("--out", type=Path, required=True)
    proving.add_argument("--part", action="append", choices=list(PARTS), help="may be repeated; default: all")
    proving.add_argument("--subsets", type=int, default=SUBSETS, help="half-subsets, each in two orders")
    proving.add_argument("--no-exact", action="store_true", help="no exact effects, which take most of the time")
    verbs.add_parser("tables").add_argument("file", type=Path)
    calibrating = verbs.add_parser("calibration")
    calibrating.add_argument("file", type=Path)
    calibrating.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.verb == "histories":
        histories(options.folder)
    elif options.verb == "prove":
        parts = options.part or list(PARTS)
        prove(options.runs, options.out, parts, options.subsets, exact=not options.no_exact)
    elif options.verb == "calibration":
        write_json(options.out, calibration(read_lines(options.file)))
    else:
        sys.stdout.writelines(f"{table}\n" for table in tables(options.file))


if __name__ == "__main__":
    main()
