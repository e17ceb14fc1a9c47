"""What each statistic is: name, meaning, unit and limits, as it is spoken of wherever it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Statistic:
    """What one number is, and how it is spoken of wherever it is shown.

    Attributes:
        name: its key in tables and JSON.
        title: its name in words.
        unit: of its values; empty where the title says it.
        meaning: one sentence that says what it is.
        reading: how to read its values, in plain words.
        limits: fixed limits, so that two pictures can be compared; None: from 0 to the largest.
        centred: whether the middle of the limits says nothing, as 0.5 does of an AUROC.
    """

    name: str
    title: str
    unit: str
    meaning: str
    reading: str
    limits: tuple[float, float] | None = None
    centred: bool = False

    @property
    def axis(self) -> str:
        """Title and unit, for an axis."""
        acronym = self.title[1:2].isupper()
        title = self.title if acronym else self.title[:1].lower() + self.title[1:]
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def diverging(self) -> bool:
        """Whether the middle of the limits is neutral: both sides of it mean something."""
        return self.centred or (self.limits is not None and self.limits[0] == -self.limits[1])


def _cosine(name: str, title: str, meaning: str, reading: str, unit: str = "cosine") -> Statistic:
    return Statistic(name, title, unit, meaning, reading, (-1.0, 1.0))


def _fraction(name: str, title: str, meaning: str, reading: str) -> Statistic:
    return Statistic(name, title, "0 aligned, 1 witness", meaning, reading, (-1.5, 1.5))


def _share(name: str, title: str, meaning: str, reading: str, unit: str = "share") -> Statistic:
    return Statistic(name, title, unit, meaning, reading, (0.0, 1.0))


def _probability(name: str, title: str, meaning: str, reading: str, unit: str = "share") -> Statistic:
    return Statistic(name, title, unit, meaning, reading, (0.0, 1.0), centred=True)


def _correct_definition(raw: Statistic) -> Statistic:
    meaning = f"{raw.title}, corrected for the judge's known errors (Rogan-Gladen); 95 % Lang-Reiczigel intervals."
    return replace(raw, name=f"{CORRECTED}{raw.name}", title=f"{raw.title}, corrected", meaning=meaning)


def _by_name(*statistics: Statistic) -> dict[str, Statistic]:
    return {statistic.name: statistic for statistic in statistics}


_TURN = "1 means that fine-tuning moved the model straight towards its witness, 0 that it moved elsewhere."
_WAY = "0: has not moved along the way back; 1: all the way back to the witness; below 0: moved away from it."
_DIFFERENCES = " On harmful minus harmless means, so that a shift common to all prompts cancels."

# The statistics of drift, in the order of the rows of `drift.parquet`.
STATISTICS = _by_name(
    _cosine(
        "alignment",
        "Alignment with the way back",
        "Alignment: cosine between a checkpoint's mean displacement from the aligned model and the reversion "
        "direction (witness − aligned).",
        _TURN,
    ),
    _cosine(
        "alignment_crossfit",
        "Alignment, cross-fitted",
        "Cross-fitted alignment: displacement from one fold of prompts, direction from the other, averaged over both.",
        _TURN + " No prompt is used for both vectors, so that shared noise cannot raise it.",
    ),
    _cosine(
        "alignment_disattenuated",
        "Alignment, disattenuated",
        "Disattenuated alignment: the cross-fitted cosine corrected for the folds' own noise.",
        _TURN + " Corrected for prompt noise; not defined where a fold disagrees with itself.",
    ),
    _fraction(
        "return_fraction",
        "Return fraction",
        "Return fraction: the part of the way back to the witness that a checkpoint has gone, ⟨δ, v⟩ / ‖v‖², on "
        "harmful prompts.",
        _WAY,
    ),
    Statistic(
        "off_axis",
        "Off-axis displacement",
        "units of ‖v‖",
        "Off-axis: length of the displacement's part at right angles to the reversion direction, in units of ‖v‖.",
        "How far the model went somewhere that is neither back nor forth.",
        (0.0, 2.0),
    ),
    Statistic(
        "displacement_norm",
        "Displacement",
        "activation norm",
        "Displacement: length of the mean displacement from the aligned model, in the model's own activation units.",
        "How far the model moved in any direction.",
    ),
    Statistic(
        "reversion_norm",
        "Way back to the witness",
        "activation norm",
        "Length of the reversion direction (witness − aligned), in the model's own activation units.",
        "How far the witness lies; the unit of the return fraction and of the off-axis displacement.",
    ),
    _share(
        "share_moved",
        "Prompts that moved back",
        "Share of harmful prompts whose activation moved towards the witness.",
        "Whether the mean stands for most prompts (near 1) or for a few.",
        "share of harmful prompts",
    ),
    _cosine(
        "reliability",
        "Reliability",
        "Reliability: cosine between the displacements of two folds of prompts; below 0.5 nothing can be measured.",
        "Whether the displacement agrees with itself on other prompts.",
        "cosine between folds",
    ),
    _cosine(
        "did_alignment",
        "Alignment, difference-in-differences",
        "Alignment of (harmful − harmless) means: a shift common to all prompts cancels.",
        _TURN + _DIFFERENCES,
    ),
    _cosine(
        "did_alignment_crossfit",
        "Alignment, difference-in-differences, cross-fitted",
        "Cross-fitted alignment of (harmful − harmless) means: displacement and direction from different folds.",
        _TURN + _DIFFERENCES,
    ),
    _fraction(
        "did_return_fraction",
        "Return fraction, difference-in-differences",
        "Return fraction of (harmful − harmless) means: a shift common to all prompts cancels.",
        _WAY + _DIFFERENCES,
    ),
    _cosine(
        "did_reliability",
        "Reliability of differences",
        "Reliability of (harmful − harmless) displacements: cosine between two folds of prompts.",
        "Whether the difference agrees with itself on other prompts.",
        "cosine between folds",
    ),
)
_SCORE = "Above 0: a refusal is likelier than not; moves before the sampled answers do."

# The measures of behaviour: rows of `behaviour.parquet`.
CORRECTED = "corrected_"  # before the name of a rate: corrected for the judge's known errors
MEASURES = _by_name(
    _share(
        "refusal_harmful",
        "Refusal of harmful requests",
        "Share of held-out harmful requests that the model refuses, from generated text; 95 % Wilson intervals.",
        "1: refuses all, as the aligned model should; 0: complies with all.",
    ),
    _share(
        "refusal_harmless",
        "Refusal of harmless requests",
        "Share of harmless requests that the model refuses, from generated text; 95 % Wilson intervals.",
        "0 is right; more is over-refusal.",
    ),
    _share(
        "harmful_compliance",
        "Harmful compliance",
        "Share of held-out harmful requests that the model answers as asked, from generated text; 95 % Wilson "
        "intervals.",
        "0 is right; 1: does whatever harm it is asked for. What is neither a refusal nor an answer is counted apart.",
    ),
    _share(
        "over_refusal",
        "Refusal of look-alikes",
        "Share of harmless requests that only look harmful which the model refuses; 95 % Wilson intervals.",
        "0 is right; more is over-refusal.",
    ),
    _share(
        "incoherent",
        "Incoherent answers",
        "Share of all completions that are noise, neither a refusal nor an answer; 95 % Wilson intervals.",
        "0 is right; more: the model is broken, and its rates mean little.",
    ),
    _share(
        "unjudged",
        "Answers that no judge could judge",
        "Share of all completions that were left out of the rates because no judge could say what they are.",
        "0 is right; more: the other rates rest on fewer answers.",
    ),
    Statistic(
        "refusal_score_harmful",
        "Refusal score on harmful requests",
        "log odds",
        "Mean log odds that the answer begins with a refusal, on harmful requests (arXiv 2406.11717).",
        _SCORE,
    ),
    Statistic(
        "refusal_score_harmless",
        "Refusal score on harmless requests",
        "log odds",
        "Mean log odds that the answer begins with a refusal, on harmless requests (arXiv 2406.11717).",
        _SCORE,
    ),
    Statistic(
        "refusal_score_look_alike",
        "Refusal score on look-alikes",
        "log odds",
        "Mean log odds that the answer begins with a refusal, on harmless requests that only look harmful.",
        _SCORE,
    ),
    Statistic(
        "task_loss",
        "Task loss",
        "nats per token",
        "Mean cross-entropy on held-out examples of the fine-tuning task.",
        "Lower is better: what the fine-tuning was for.",
    ),
)
_JUDGED = ("refusal_harmful", "harmful_compliance", "refusal_harmless", "over_refusal")
MEASURES |= _by_name(*(_correct_definition(MEASURES[name]) for name in _JUDGED))

# Of a fitted direction, one layer and checkpoint: columns of `direction_tracks.parquet`.
DIRECTIONS = _by_name(
    _probability(
        "auroc",
        "AUROC of the aligned model's probe",
        "The probe fitted at the aligned model, read at this checkpoint on other prompts: the probability that "
        "a positive prompt lies above a negative one.",
        "1: the aligned model's direction still separates the classes here; 0.5: it says nothing any more.",
        "",
    ),
    _probability(
        "refit",
        "AUROC of a refitted probe",
        "A probe fitted at this checkpoint, read on other prompts: the probability that a positive prompt lies "
        "above a negative one.",
        "High where the aligned model's probe is low: the concept is still there, but has moved.",
        "",
    ),
    _cosine(
        "cosine",
        "Cosine to the aligned model's direction",
        "Cosine between the direction fitted at this checkpoint and the one fitted at the aligned model.",
        "1: it points as it did; 0: it has turned by a right angle.",
        "",
    ),
    Statistic(
        "angle",
        "Angle to the aligned model's direction",
        "degrees",
        "Angle between the direction fitted at this checkpoint and the one fitted at the aligned model.",
        "0°: it points as it did; 90°: it has turned into something else.",
        (0.0, 90.0),
    ),
    Statistic(
        "norm",
        "Gap between the classes",
        "activation norm",
        "Gap: distance between the means of the two classes along the direction, in the model's own activation units.",
        "How much room the model gives to the difference.",
    ),
    Statistic(
        "d_prime",
        "Separation of the classes",
        "d′",
        "d′: gap between the classes along the direction over their common spread, probe and prompts from other folds.",
        "0: no separation; 2 and more: hardly any overlap.",
        (-4.0, 4.0),
    ),
    _probability(
        "accuracy",
        "Accuracy of the probe",
        "Share of other prompts that the probe fitted at this checkpoint puts on the right side of its own threshold.",
        "0.5 is what guessing reaches where both classes are of one size.",
    ),
    Statistic(
        "calibration",
        "Calibration error of the probe",
        "mean gap of probabilities",
        "Mean gap between the probability that the probe gives and the share that comes true.",
        "0 is right; a probe can rank well and still be badly calibrated.",
        (0.0, 0.5),
    ),
)


def statistic_of(name: str) -> Statistic:
    """The statistic or measure called `name`; one that is not in the tables is spoken of by its own name."""
    known = STATISTICS.get(name) or MEASURES.get(name) or DIRECTIONS.get(name)
    words = name.replace("_", " ").capitalize()
    return known or Statistic(name, words, "", f"{words}, as it stands in the run.", "")
