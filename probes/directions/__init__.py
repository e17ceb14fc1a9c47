"""Directions in the residual stream: methods behind one interface, their scores, their selection, their files.

`METHODS[name]().fit(activations, labels).direction_`. A new method is a new file and one line here.
"""

from probes.directions.controls import CovarianceMatched, Isotropic, PermutedLabels, TopDrift
from probes.directions.estimator import Estimator, winsorise
from probes.directions.lda import Lda
from probes.directions.leace import Leace
from probes.directions.logistic import Logistic
from probes.directions.mass_mean import MassMean
from probes.directions.paired_pca import PairedPca
from probes.directions.refusal import Refusal
from probes.directions.response_mean import ResponseMean
from probes.directions.reversion import Reversion, ReversionDid
from probes.directions.subspace import Subspace

METHODS: dict[str, type[Estimator]] = {
    "reversion": Reversion,
    "reversion_did": ReversionDid,
    "refusal": Refusal,
    "logistic": Logistic,
    "mass_mean": MassMean,
    "lda": Lda,
    "paired_pca": PairedPca,
    "response_mean": ResponseMean,
    "leace": Leace,
    "subspace": Subspace,
    "control:random": Isotropic,
    "control:covariance": CovarianceMatched,
    "control:permuted-labels": PermutedLabels,
    "control:drift": TopDrift,
}

__all__ = ["METHODS", "Estimator", "winsorise"]
