"""Trains the arms of a history that was made from a chat model: the bench of any lineage, with that history's data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from probes.experiments.data_defences import INTERLEAVED
from probes.experiments.experiment import BASELINE, WITH_DATA, Experiment
from probes.experiments.lineage_bench import LineageBench, lacking_data
from probes.experiments.trained_controls import CONTINUED, MIRROR, Pair
from probes.guard.fine_tuning import Training
from probes.organism.chat_history import ALIGNMENT_DATA, TASK_DATA, ChatSource, part_of, read_alignment_data
from probes.organism.chat_recipe import ChatRecipe
from probes.organism.history import LINEAGE
from probes.organism.safety_data import read_safety_data
from probes.prompts import default_prompts

_OWN_DATA = (CONTINUED, INTERLEAVED)  # arms that go on with the safety tuning's own data
CHAT_ARMS = (BASELINE, "block", "push", "control:covariance", CONTINUED, MIRROR)


def check_arms(arms: Sequence[str]) -> None:
    """Refuse arms that cannot be trained on such a history, before it is made.

    Raises:
        UsageError: there is no such arm, or it needs data that the history does not have.
    """
    for arm in Experiment(arms=tuple(arms)).arms_in_order:
        if arm in WITH_DATA and arm not in _OWN_DATA:
            raise lacking_data(arm)


class ChatBench(LineageBench):
    """Trains arms on what `make_chat_history` has left.

    Attributes:
        As `LineageBench`.
    """

    def __init__(
        self, history: Path, source: ChatSource, recipe: ChatRecipe, seeds: int, arms: Sequence[str] = CHAT_ARMS
    ) -> None:
        """Read the history.

        Args:
            history: its folder.
            source: what it was made from.
            recipe: how.
            seeds: trainings of each arm.
            arms: that are trained.
        """
        self._history, self._source, self._recipe = history, source, recipe
        self._penalty_rows = recipe.benign.batch_size
        experiment = Experiment(
            arms=tuple(arms),
            seeds=seeds,
            steps=recipe.benign.steps,
            learning_rate=recipe.benign.learning_rate,
            batch_size=recipe.benign.batch_size,
            method=recipe.method,
            arm_data={CONTINUED: str(history / ALIGNMENT_DATA)},
        )
        super().__init__(
            history / LINEAGE,
            source.data or history / TASK_DATA,
            experiment,
            part_of(default_prompts("probe"), recipe.prompts_a_topic),
            read_safety_data().penalty(),
        )
        self.evaluation = dataclasses.replace(
            self.evaluation,
            prompts=part_of(default_prompts("evaluation"), recipe.prompts_a_topic),
            task=self.evaluation.task[-recipe.held_out_problems :],
            max_new_tokens=recipe.new_tokens,
        )

    def _training(self, arm: str, seed: int) -> Training:
        """The recipe's; of the baseline twice as many checkpoints are kept as of the others."""
        training = self._recipe.benign.training(self._recipe.method, seed=seed, bf16=self._source.bf16)
        if arm == BASELINE:
            return training
        return dataclasses.replace(training, save_every=min(training.steps, 2 * self._recipe.benign.save_every))

    def _own_data(self, arm: str) -> Sequence[Pair]:
        """The safety tuning's own data, with its open answers, where an arm goes on with it."""
        return read_alignment_data(self._history) if arm in _OWN_DATA else super()._own_data(arm)

    def _arms_without_data(self) -> set[str]:
        return super()._arms_without_data() - set(_OWN_DATA)
