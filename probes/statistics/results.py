"""Results that cross modules: an estimate with its interval, and one statistic held against one null.

A statistic that is not defined is a record with `value=None` and the reason; it is never a 0.
"""

from __future__ import annotations

from dataclasses import dataclass

FEW_DRAWS = 199
ALPHA = 0.05  # the level of every test, where a run says no other


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval where there is one, or the reason why it is not defined.

    Attributes:
        value: the number; None where it is not defined.
        low: lower end of the interval.
        high: upper end of the interval.
        reason: one clause that says why the number is not defined, or has no interval; None where it has both.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("an Estimate without a value needs a reason")

    @property
    def defined(self) -> bool:
        """Whether there is a number."""
        return self.value is not None


@dataclass(frozen=True)
class NullResult:
    """One statistic held against one null.

    Attributes:
        name: the null, e.g. `covariance_aligned`.
        statistic: what was compared, e.g. `alignment_crossfit`.
        observed: the statistic's value.
        limit: what the null reaches, one-sided: its 99th percentile, or the largest of fewer than 199 draws
            (`limit_name` says which).
        p: one-sided p-value, (1 + #{null >= observed}) / (draws + 1), or exact where `draws` is 0.
        draws: how many draws of the null; 0 where its law is known.
        reason: why there is no p-value; None where there is one.
        defined: False where the null's reference has no variance, so that it cannot say anything: it is listed, and
            caps no level. A test that could have been made, and was not, is defined and has no p-value.
        power: probability that the test rejects at the declared alternative, in [0, 1]; None where it was not asked.
        note: one clause about the reference: how many directions carry it, or what a line of the profile removes.
    """

    name: str
    statistic: str
    observed: float | None
    limit: float | None
    p: float | None
    draws: int
    reason: str | None = None
    defined: bool = True
    power: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.p is None and not self.reason:
            raise ValueError("a NullResult without a p-value needs a reason")


def limit_name(draws: int) -> str:
    """What a null's `limit` is, of so many draws (0: its law is known)."""
    return f"largest of {draws} draws" if 0 < draws < FEW_DRAWS else "99th percentile"


def limit_label(draws: int) -> str:
    """The same where there is little room."""
    return f"largest of {draws}" if 0 < draws < FEW_DRAWS else "p99"


NULL_NAMES: dict[str, str] = {
    "isotropic": "isotropic",
    "covariance_aligned": "covariance of aligned",
    "covariance_difference": "covariance of differences",
    "random_difference": "random difference",
    "random_difference_across": "random difference across classes",
    "sham_witness": "sham witness",
    "sham_drift": "sham drift",
    "label_permutation": "permuted labels",
    "label_permutation_crossfit": "permuted labels, cross-fitted",
    "sign_flip": "sign flip",
}


def null_name(name: str) -> str:
    """A null's name in words."""
    return NULL_NAMES.get(name, name.replace("_", " "))
