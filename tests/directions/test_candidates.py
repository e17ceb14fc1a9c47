"""Scores of refusal candidates: equal to those of the long way, no more of them than decide, kept as they come."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch

from probes.behaviour import next_token
from probes.behaviour.next_token import RepeatedReading, next_logits
from probes.behaviour.refusal_score import refusal_tokens, score
from probes.directions.selection import NEAREST, Candidate, Rule, select
from probes.interventions.candidates import SCORED, Asked, Scorer, candidates
from probes.interventions.deciding_scores import Estimate, screen
from probes.models import ModelHost
from probes.models.hooks import ablate, add
from probes.progress import silent
from probes.run import Run
from probes.stages.jobs import write_all
from probes.stages.refusal_candidates import CANDIDATES, candidate_jobs, drop_part
from tests.builders import FAMILIES, WIDTH, save_checkpoint, tiny_model, tiny_tokenizer

SCORES = ("bypass", "induce", "kl")
PREFIX, SUFFIX = [7, 9, 11, 13, 15, 17], [4, 6]
EVERYTHING = Rule(max_kl=1e9, min_induce=-1e9, depth=1.0)


@pytest.fixture(scope="module", params=list(FAMILIES))
def host(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    return ModelHost(save_checkpoint(place, tiny_model(request.param), tiny_tokenizer()), device="cpu")


def prompts(count, seed):
    rng = np.random.default_rng(seed)
    return [[*PREFIX, *rng.integers(20, 250, size=1 + n % 5).tolist(), *SUFFIX] for n in range(count)]


def two_folds():
    return Asked((prompts(6, 1), prompts(5, 2)), (prompts(7, 3), prompts(6, 4)))


@torch.no_grad()
def alone(host, token_ids):
    """Each prompt whole, in a pass of its own."""
    return torch.stack([host.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in token_ids])


@torch.no_grad()
def mean_at(host, token_ids, position, layer):
    streams = []
    hook = host.blocks[layer].register_forward_hook(
        lambda _, __, output: streams.append((output[0] if isinstance(output, tuple) else output)[0, position])
    )
    alone(host, token_ids)
    hook.remove()
    return torch.stack(streams).double().mean(dim=0).numpy()


def test_every_score_is_that_of_the_long_way(host):
    questions = two_folds()
    before = alone(host, questions.harmless[1])
    scorer = Scorer(host, questions, (-2, -1))
    assert scorer._all.reading._keeps, "the blocks below are computed again"
    tokens = refusal_tokens(host.tokenizer)
    plain = before.double().log_softmax(dim=-1)
    for position, layer in ((-2, 0), (-1, 1)):
        vector = mean_at(host, questions.harmful[0], position, layer) - mean_at(
            host, questions.harmless[0], position, layer
        )
        assert np.allclose(scorer.vectors[(-2, -1).index(position), layer], vector, atol=1e-5)
        vector = scorer.vectors[(-2, -1).index(position), layer]
        with ablate(host, vector):
            bypass = score(alone(host, questions.harmful[1]), tokens).mean()
            ablated = alone(host, questions.harmless[1]).double().log_softmax(dim=-1)
        with add(host, [layer], vector[None]):
            induce = score(alone(host, questions.harmless[1]), tokens).mean()
        kl = float((plain.exp() * (plain - ablated)).sum(dim=-1).mean())
        for name, expected in (("bypass", bypass), ("induce", induce), ("kl", kl)):
            assert scorer.score(name, position, layer) == pytest.approx(expected, abs=1e-5), name
    assert torch.equal(alone(host, questions.harmless[1]), before), "the model is what it was, bit for bit"


def test_a_reading_is_taken_up_behind_the_block_that_is_changed(host):
    """The blocks below compute nothing, and nothing of them is asked again; with no room it is read whole."""
    token_ids = prompts(9, 5)
    reading = RepeatedReading(host, token_ids)
    calls = []
    hooks = [block.register_forward_hook(lambda *_, n=n: calls.append(n)) for n, block in enumerate(host.blocks)]
    computed = []
    inner = [
        next(block.children()).register_forward_hook(lambda *_, n=n: computed.append(n))
        for n, block in enumerate(host.blocks)
    ]
    vectors = np.random.default_rng(0).standard_normal((3, WIDTH))
    changed = reading.logits_with(1, vectors)
    assert set(calls) == set(range(host.n_layers))
    assert set(computed) == set(range(2, host.n_layers))
    for hook in (*hooks, *inner):
        hook.remove()
    for vector, logits in zip(vectors, changed, strict=True):
        with add(host, [1], vector[None]):
            assert torch.allclose(logits, next_logits(host, token_ids), atol=1e-5)
    assert (changed - reading.logits).abs().amax(dim=(1, 2)).min() > 1e-2
    assert not any("forward" in vars(block) for block in host.blocks)


def test_a_reading_that_takes_too_much_room_is_read_whole(host, monkeypatch):
    monkeypatch.setattr(next_token, "_MOST_BYTES", 0)
    token_ids = prompts(4, 6)
    reading = RepeatedReading(host, token_ids)
    assert not reading._of_batches
    vectors = np.stack([np.ones(WIDTH), np.arange(WIDTH) / WIDTH])
    for vector, logits in zip(vectors, reading.logits_with(0, vectors), strict=True):
        with add(host, [0], vector[None]):
            assert torch.equal(logits, next_logits(host, token_ids))


def test_an_estimate_is_of_a_few_prompts_and_says_how_far_the_score_can_be(host):
    """What is not looked at: of KL nothing is below zero, and of induce what the vector adds, not where it starts."""
    questions = Asked((prompts(6, 1), prompts(5, 2)), (prompts(7, 3), prompts(12, 4)))
    scorer = Scorer(host, questions, (-2, -1))
    plain = score(alone(host, questions.harmless[1]), refusal_tokens(host.tokenizer))
    some = [0, 4, 7, 11]
    assert scorer._few.prompts == [questions.harmless[1][prompt] for prompt in some]
    for position, layer in ((-2, 0), (-1, 1)):
        vector = scorer.vectors[(-2, -1).index(position), layer]
        with add(host, [layer], vector[None]):
            added = score(alone(host, scorer._few.prompts), refusal_tokens(host.tokenizer)) - plain[some]
        together = scorer.estimate_induces(layer, (-2, -1))
        induce, kl = together[(-2, -1).index(position)], scorer.estimate_kl(position, layer)
        error = added.std(ddof=1) / 2 * math.sqrt(1 - 4 / 12)
        assert induce.value == pytest.approx(plain.mean() + added.mean(), abs=1e-5)
        assert induce.bound == pytest.approx(induce.value + 6 * error, abs=1e-4)
        assert induce.bound >= scorer.score("induce", position, layer)
        assert 0 < kl.bound <= scorer.score("kl", position, layer)
        assert kl.bound == pytest.approx(kl.value * 4 / 12)


def test_of_so_few_prompts_an_estimate_is_the_score(host):
    scorer = Scorer(host, Asked((prompts(6, 1), prompts(5, 2)), (prompts(7, 3), prompts(4, 4))), (-1,))
    for name, estimate in (("induce", scorer.estimate_induces(1, [-1])[0]), ("kl", scorer.estimate_kl(-1, 1))):
        assert estimate.value == estimate.bound == pytest.approx(scorer.score(name, -1, 1), abs=1e-6)


def table(rng, kind):
    """Scores of 40 candidates, some of which cannot be defined, each with an estimate that its bound allows."""
    places = [(position, layer) for position in (-2, -1) for layer in range(20)]
    induce, kl, bypass = rng.standard_normal(40) + kind["induce"], rng.gamma(1, 0.3, 40) + kind["kl"], rng.random(40)
    rows = {
        place: dict(zip(("induce", "kl", "bypass"), map(float, values), strict=True))
        for place, *values in zip(places, induce, kl, bypass, strict=True)
    }
    for place in rng.permutation(places)[: kind["undefined"]]:
        rows[tuple(place)] = dict.fromkeys(("induce", "kl", "bypass"), math.nan)
    return rows


class Table:
    """Answers out of a table, and keeps what was asked for."""

    def __init__(self, rows, rng, spread):
        self.rows, self.known = rows, {place: {} for place in rows}
        self.guesses = {}
        for place, row in rows.items():
            off, under = rng.uniform(-spread, spread), rng.uniform(0, 1)
            self.guesses["induce", place] = Estimate(row["induce"] + off, row["induce"] + off + spread)
            self.guesses["kl", place] = Estimate(row["kl"] * (under + 1) / 2, row["kl"] * under)

    def score(self, name, place):
        self.known[place][name] = self.rows[place][name]
        return self.rows[place][name]

    def estimates(self, name, places):
        return [self.estimate(name, place) for place in places]

    def estimate(self, name, place):
        if name in self.known[place]:
            return Estimate(*[self.known[place][name]] * 2)
        guess = self.known[place][f"{name}_estimate"] = self.guesses[name, place]
        return guess

    def candidates(self):
        return [
            Candidate(
                *place,
                *(row.get(name, math.nan) for name in SCORES),
                *(row[f"{name}_estimate"].value if f"{name}_estimate" in row else math.nan for name in SCORES[1:]),
            )
            for place, row in self.known.items()
        ]


def as_candidates(rows):
    return [Candidate(*place, *(row[name] for name in SCORES)) for place, row in rows.items()]


def place_of(candidate):
    return candidate and (candidate.position, candidate.layer)


@pytest.mark.parametrize(
    "kind",
    [
        {"induce": 0, "kl": 0, "undefined": 2},
        {"induce": 0, "kl": 1, "undefined": 0},
        {"induce": -6, "kl": 0, "undefined": 3},
        {"induce": -6, "kl": 1, "undefined": 1},
        {"induce": -6, "kl": 1, "undefined": 37},
        {"induce": -2, "kl": 0.08, "undefined": 0},
    ],
)
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_scores_that_are_computed_select_what_all_would_select(kind, spread):
    """And where none passes, what is listed is scored in full and fails what is said."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        lookup = Table(table(rng, kind), rng, spread)
        screen(list(lookup.rows), Rule(), lookup, lambda *_: None)
        full = {(row.position, row.layer): row for row in as_candidates(lookup.rows)}
        whole, screened = select(list(full.values()), 40), select(lookup.candidates(), 40)
        assert (whole.passing, whole.candidates) == (screened.passing, screened.candidates)
        assert place_of(whole.chosen) == place_of(screened.chosen)
        listed = [(row, fails) for row, fails in screened.nearest if math.isfinite(row.bypass)]
        assert len(listed) == (
            0 if screened.chosen else min(NEAREST, sum(math.isfinite(row.kl) for row in full.values()))
        )
        assert all(fails == tuple(Rule().faults(full[place_of(row)], 40)) for row, fails in listed)
        assert {offer.split()[0] for offer in screened.relax} <= {offer.split()[0] for offer in whole.relax}
        assert sum(name in row for row in lookup.known.values() for name in SCORES) < len(SCORES) * len(full)


def test_no_more_prompts_are_scored_than_the_source_takes():
    harmful = np.arange(200) < 100
    questions = Asked.of([[n] for n in range(200)], harmful, np.arange(200) % 2 == 1)
    assert [len(part) for part in (*questions.harmful, *questions.harmless)] == [50, SCORED, 50, SCORED]
    assert questions.harmful[1][:2] == [[1], [3]]


def test_all_scores_are_there_where_they_are_asked_for(host):
    scored, vectors = candidates(host, two_folds(), [-1], layers=[0, 1])
    assert [(row.position, row.layer) for row in scored] == [(-1, 0), (-1, 1)]
    assert all(math.isfinite(value) for row in scored for value in (row.bypass, row.induce, row.kl))
    assert vectors.shape == (1, host.n_layers, WIDTH)


@pytest.fixture
def bare(measured, tmp_path):
    """A measured run without directions, and a way to have its candidates scored by a rule."""
    shutil.copytree(measured, tmp_path / "run", ignore=shutil.ignore_patterns("direction_*", "readings", "refusal_*"))
    folder = tmp_path / "run"
    model = Run(folder).model()

    def score_by(rule, report=silent):
        with Run.writing(folder) as run:
            write_all(run, model, candidate_jobs(run, (-2, -1), rule), report)
            drop_part(run)

    def rows():
        return json.loads((folder / "refusal_candidates.json").read_text())

    with Run.writing(folder) as run:
        run.forget(CANDIDATES)
    return score_by, rows, folder


def test_an_interrupted_scoring_goes_on_and_a_tighter_rule_computes_nothing(bare, monkeypatch):
    score_by, rows, folder = bare
    asked_for = []
    plain = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, *words: asked_for.append(words) or plain(self, *words))

    class StopHereError(Exception):
        pass

    def stop(progress):
        if progress.step == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        score_by(EVERYTHING, stop)
    assert len(asked_for) == 6
    assert not (folder / "refusal_candidates.json").exists()
    score_by(EVERYTHING)
    assert len(asked_for) == len(set(asked_for)) == 3 * 2 * 3, "a score was computed twice, or not at all"
    assert len(rows()) == 6
    assert not (folder / "refusal_candidates.part.json").exists()
    before = (folder / "refusal_candidates.json").stat().st_mtime_ns
    score_by(Rule())
    assert len(asked_for) == 18
    assert (folder / "refusal_candidates.json").stat().st_mtime_ns == before


def test_what_a_rule_refuses_is_scored_further_where_another_rule_asks(bare):
    score_by, rows, _ = bare
    score_by(Rule(min_induce=-1e9, max_kl=1e9, depth=0.5))
    assert {row["layer"] for row in rows()} == {0}
    score_by(EVERYTHING)
    assert {row["layer"] for row in rows()} == {0, 1, 2}
    assert all(value is not None for row in rows() for value in row.values())
