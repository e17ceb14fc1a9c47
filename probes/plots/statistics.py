"""What each statistic is called, its axis with its unit, its one-line definition and its fixed limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """How one number is spoken of wherever it is shown.

    Attributes:
        title: its name in a heading.
        axis: its name with its unit, for an axis.
        definition: one line that says what it is.
        help: what it means, in plain words.
        limits: fixed limits of a colour scale, so that two pictures can be compared; None: from 0 to the largest.
        centred: whether the middle of the limits says nothing, as 0.5 does of an AUROC.
    """

    title: str
    axis: str
    definition: str
    help: str
    limits: tuple[float, float] | None = None
    centred: bool = False

    @property
    def diverging(self) -> bool:
        """Whether the middle of the limits is neutral: both sides of it mean something."""
        return self.centred or (self.limits is not None and self.limits[0] == -self.limits[1])


_TURN = "1 means that fine-tuning moved the model straight towards its witness, 0 that it moved elsewhere."
_WAY = "0: has not moved along the way back; 1: all the way back to the witness; below 0: moved away from it."
_DID = " On harmful minus harmless means, so that a shift common to all prompts cancels."

STATISTICS: dict[str, Statistic] = {
    "alignment": Statistic(
        "Alignment with the way back",
        "alignment (cosine)",
        "Alignment: cosine between a checkpoint's mean displacement from the aligned model and the reversion "
        "direction (witness − aligned).",
        _TURN,
        (-1.0, 1.0),
    ),
    "alignment_crossfit": Statistic(
        "Alignment, cross-fitted",
        "alignment, cross-fitted (cosine)",
        "Cross-fitted alignment: displacement from one fold of prompts, direction from the other, averaged over both.",
        _TURN + " No prompt is used for both vectors, so that shared noise cannot raise it.",
        (-1.0, 1.0),
    ),
    "alignment_disattenuated": Statistic(
        "Alignment, disattenuated",
        "alignment, disattenuated (cosine)",
        "Disattenuated alignment: the cross-fitted cosine corrected for the folds' own noise.",
        _TURN + " Corrected for prompt noise; not defined where a fold disagrees with itself.",
        (-1.0, 1.0),
    ),
    "did_alignment": Statistic(
        "Alignment, difference-in-differences",
        "alignment of differences (cosine)",
        "Alignment of (harmful − harmless) means: a shift common to all prompts cancels.",
        _TURN + _DID,
        (-1.0, 1.0),
    ),
    "return_fraction": Statistic(
        "Return fraction",
        "return fraction (0 aligned, 1 witness)",
        "Return fraction: the part of the way back to the witness that a checkpoint has gone, "
        "⟨δ, v⟩ / ‖v‖², on harmful prompts.",
        _WAY,
        (-1.5, 1.5),
    ),
    "did_return_fraction": Statistic(
        "Return fraction, difference-in-differences",
        "return fraction of differences (0 aligned, 1 witness)",
        "Return fraction of (harmful − harmless) means: a shift common to all prompts cancels.",
        _WAY + _DID,
        (-1.5, 1.5),
    ),
    "off_axis": Statistic(
        "Off-axis displacement",
        "off-axis displacement (units of ‖v‖)",
        "Off-axis: length of the displacement's part at right angles to the reversion direction, in units of ‖v‖.",
        "How far the model went somewhere that is neither back nor forth.",
        (0.0, 2.0),
    ),
    "displacement_norm": Statistic(
        "Displacement",
        "displacement (activation norm)",
        "Displacement: length of the mean displacement from the aligned model, in the model's own activation units.",
        "How far the model moved in any direction.",
    ),
    "share_moved": Statistic(
        "Prompts that moved back",
        "share of harmful prompts",
        "Share of harmful prompts whose activation moved towards the witness.",
        "Whether the mean stands for most prompts (near 1) or for a few.",
        (0.0, 1.0),
    ),
    "reliability": Statistic(
        "Reliability",
        "reliability (cosine between folds)",
        "Reliability: cosine between the displacements of two folds of prompts; below 0.5 nothing can be measured.",
        "Whether the displacement agrees with itself on other prompts.",
        (-1.0, 1.0),
    ),
    "did_reliability": Statistic(
        "Reliability of differences",
        "reliability of differences (cosine between folds)",
        "Reliability of (harmful − harmless) displacements: cosine between two folds of prompts.",
        "Whether the difference agrees with itself on other prompts.",
        (-1.0, 1.0),
    ),
}

MEASURES: dict[str, Statistic] = {
    "refusal_harmful": Statistic(
        "Refusal of harmful requests",
        "refused harmful requests (share)",
        "Share of held-out harmful requests that the model refuses, from generated text; 95 % Wilson intervals.",
        "1: refuses all, as the aligned model should; 0: complies with all.",
        (0.0, 1.0),
    ),
    "refusal_harmless": Statistic(
        "Refusal of harmless requests",
        "refused harmless requests (share)",
        "Share of harmless requests that the model refuses, from generated text; 95 % Wilson intervals.",
        "0 is right; more is over-refusal.",
        (0.0, 1.0),
    ),
    "harmful_compliance": Statistic(
        "Harmful compliance",
        "complied with harmful requests (share)",
        "Share of held-out harmful requests that the model answers as asked, from generated text; 95 % Wilson "
        "intervals. What is neither a refusal nor an answer is counted apart.",
        "0 is right; 1: does whatever harm it is asked for.",
        (0.0, 1.0),
    ),
    "over_refusal": Statistic(
        "Refusal of look-alikes",
        "refused harmless look-alikes (share)",
        "Share of harmless requests that only look harmful which the model refuses; 95 % Wilson intervals.",
        "0 is right; more is over-refusal.",
        (0.0, 1.0),
    ),
    "incoherent": Statistic(
        "Incoherent answers",
        "incoherent answers (share)",
        "Share of all completions that are noise, neither a refusal nor an answer; 95 % Wilson intervals.",
        "0 is right; more: the model is broken, and its rates mean little.",
        (0.0, 1.0),
    ),
    "unjudged": Statistic(
        "Answers that no judge could judge",
        "unjudged answers (share)",
        "Share of all completions that were left out of the rates because no judge could say what they are.",
        "0 is right; more: the other rates rest on fewer answers.",
        (0.0, 1.0),
    ),
    "refusal_score_harmful": Statistic(
        "Refusal score on harmful requests",
        "refusal score (log odds)",
        "Mean log odds that the answer begins with a refusal, on harmful requests (arXiv 2406.11717).",
        "Above 0: a refusal is likelier than not; moves before the sampled answers do.",
    ),
    "task_loss": Statistic(
        "Loss on the fine-tuning task",
        "task loss (nats per token)",
        "Mean cross-entropy on held-out examples of the fine-tuning task.",
        "Lower is better: what the fine-tuning was for.",
    ),
}

# Of a fitted direction, one layer and checkpoint: the columns of `direction_tracks.parquet`.
DIRECTIONS: dict[str, Statistic] = {
    "auroc": Statistic(
        "AUROC of the aligned model's probe",
        "AUROC, the aligned model's probe",
        "The probe fitted at the aligned model, read at this checkpoint on other prompts: the chance that a positive "
        "prompt lies above a negative one.",
        "1: the aligned model's direction still tells the classes apart here; 0.5: it tells nothing any more.",
        (0.0, 1.0),
        centred=True,
    ),
    "refit": Statistic(
        "AUROC of a refitted probe",
        "AUROC, refitted here",
        "A probe fitted at this checkpoint, read on other prompts: the chance that a positive prompt lies above a "
        "negative one.",
        "High where the aligned model's probe is low: the concept is still there, but has moved.",
        (0.0, 1.0),
        centred=True,
    ),
    "cosine": Statistic(
        "Cosine to the aligned model's direction",
        "cosine to the aligned model's",
        "Cosine between the direction fitted at this checkpoint and the one fitted at the aligned model.",
        "1: it points as it did; 0: it has turned by a right angle.",
        (-1.0, 1.0),
    ),
    "angle": Statistic(
        "Angle to the aligned model's direction",
        "angle (degrees)",
        "Angle between the direction fitted at this checkpoint and the one fitted at the aligned model.",
        "0°: it points as it did; 90°: it has turned into something else.",
        (0.0, 90.0),
    ),
    "norm": Statistic(
        "Gap between the classes",
        "gap (activation norm)",
        "Gap: distance between the means of the two classes along the direction, in the model's own activation units.",
        "How much room the model gives to the difference.",
    ),
    "d_prime": Statistic(
        "Separation of the classes",
        "d′ (spreads)",
        "d′: gap between the classes along the direction over their common spread, probe and prompts from other folds.",
        "0: not told apart; 2 and more: hardly any overlap.",
        (-4.0, 4.0),
    ),
    "accuracy": Statistic(
        "Accuracy of the probe",
        "accuracy (share)",
        "Share of other prompts that the probe fitted at this checkpoint puts on the right side of its own threshold.",
        "0.5 is chance where both classes are of one size.",
        (0.0, 1.0),
        centred=True,
    ),
    "calibration": Statistic(
        "Calibration error of the probe",
        "expected calibration error",
        "Mean gap between the chance that the probe gives and the share that comes true.",
        "0 is right; a probe can rank well and still be badly calibrated.",
        (0.0, 0.5),
    ),
}

NULL_NAMES: dict[str, str] = {
    "isotropic": "isotropic",
    "covariance_aligned": "covariance of aligned",
    "covariance_difference": "covariance of differences",
    "random_difference": "random difference",
    "sham_witness": "sham witness",
    "sham_drift": "sham drift",
    "label_permutation": "permuted labels",
    "sign_flip": "sign flip",
}


def statistic_of(name: str) -> Statistic:
    """The statistic or measure called `name`; one that is not in the tables is spoken of by its own name."""
    known = STATISTICS.get(name) or MEASURES.get(name) or DIRECTIONS.get(name)
    words = name.replace("_", " ")
    return known or Statistic(words.capitalize(), words, f"{words.capitalize()}, as kept in the run.", "")


def null_name(name: str) -> str:
    """A null's name in words."""
    return NULL_NAMES.get(name, name.replace("_", " "))
