"""The response mean of persona vectors: activations averaged over the answer's tokens."""

from __future__ import annotations

from probes.directions.estimator import ContrastName
from probes.directions.refusal import Refusal


class ResponseMean(Refusal):
    """Harmful − harmless mean, each prompt read as the mean over its answer's tokens (Chen et al., arXiv 2507.21509).

    The answers are the aligned model's own, the same tokens for every checkpoint, so that what turns is the
    representation and not the text.
    """

    says = "harmful − harmless over answer tokens"
    contrast: ContrastName = "responses"  # type: ignore[misc]
