"""BaRA: LoRA whose rank-one terms are opened and closed by a Bayesian gate, for the whole module and for each input.

**Known** of Bayesian Adaptive Rank Allocation (Duan et al., arXiv 2606.29184; its abstract is all that we had): after
probabilistic topic models, a sparse subset of disentangled latent factors is active in each context, so that the
effective rank varies from input to input; a gate of a global and a local part, in a Bayesian formulation, decides
which; generalisation depends on the learned joint effective rank, and not on the largest rank r.

**Our reconstruction**, as we know of no public code: everything below, which is not claimed to be the paper's.

- A module adds alpha/r · B (z ⊙ A x), with z_k = z_k(global) · z_k(local), each a Bernoulli variable. The global gate
  has one learned logit a term; the local one's logits are an affine map of the token's own A x, scaled to unit mean
  square, so that a token's gate depends on that token alone and stays causal.
- In training both are drawn by the reparametrised binary Concrete relaxation (Maddison et al., arXiv 1611.00712), the
  global one once a pass, the local one for each token. At all other times z is the posterior mean, a product of two
  sigmoids: that is what is measured, unmerged, since no weight difference does the same for every token.
- `kl_penalty` is the divergence from the prior, for the training loop to add; its weight is free (`kl_weight`), and
  the mean over tokens counts padding as well.

`rank_by_module` and `active_ranks` say what the gates have come to.
"""

from probes.training.bara.config import BaraConfig
from probes.training.bara.model import BaraModel, kl_penalty
from probes.training.bara.ranks import active_ranks, rank_by_module
from probes.training.bara.registration import register

__all__ = ["BaraConfig", "BaraModel", "active_ranks", "kl_penalty", "rank_by_module", "register"]

register()
