"""What each test and each line of the profile is, in words."""

from __future__ import annotations

DIRECTION = "sign_flip"
SHAMS = ("sham_drift", "sham_witness")
TOWARDS_WITNESS = (DIRECTION, "covariance_aligned", "covariance_difference", "random_difference", *SHAMS)
NO_FURTHER_PASS = tuple(name for name in TOWARDS_WITNESS if name not in SHAMS)  # activations that are there are enough
SPECIFICITY = ("label_permutation", "label_permutation_crossfit")
TOP = (1, 3, 10, 50)
PROFILE = (
    *("isotropic", "whitened", *(f"top_{count}_removed" for count in TOP)),
    *("random_difference_across", "sham_drift_weights"),
)

PLAIN = {
    "sign_flip": "prompts that move towards and away from the witness at random",
    "covariance_aligned": "a random displacement with the covariance of the aligned model's activations within a class",
    "covariance_difference": "a random displacement with the covariance of the witness − aligned differences "
    "within a class",
    "random_difference": "the difference between two real prompts of one class",
    "sham_drift": "weight noise that moves the activations as far",
    "sham_witness": "the pull towards checkpoints that are no witness",
    "label_permutation": "harmful and harmless labels that are interchangeable",
    "label_permutation_crossfit": "a displacement that knows nothing of the labels",
    "isotropic": "a displacement in a random direction",
    "whitened": "a random displacement, once every direction has the same variance",
    "top_1_removed": "a random displacement, once the direction of highest variance is taken out",
    "top_3_removed": "a random displacement, once the 3 directions of highest variance are taken out",
    "top_10_removed": "a random displacement, once the 10 directions of highest variance are taken out",
    "top_50_removed": "a random displacement, once the 50 directions of highest variance are taken out",
    "random_difference_across": "the difference between a harmful and a harmless prompt",
    "sham_drift_weights": "weight noise of the fine-tuning's own norm",
}
