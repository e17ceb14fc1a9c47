"""The verdict: the evidence ladder, the causal step at its top, and `assess` for plain arrays."""

from probes.verdict.assess import assess
from probes.verdict.ladder import Evidence, Verdict, judge

__all__ = ["Evidence", "Verdict", "assess", "judge"]
