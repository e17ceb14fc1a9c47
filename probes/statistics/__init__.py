"""What each statistic is (name, meaning, unit, limits), how a number is written, and results that cross modules."""

from probes.statistics.definitions import CORRECTED, DIRECTIONS, MEASURES, STATISTICS, Statistic, statistic_of
from probes.statistics.numerals import decimal, percent, typeset
from probes.statistics.results import ALPHA, FEW_DRAWS, Estimate, NullResult, limit_label, limit_name, null_name

__all__ = [
    "ALPHA",
    "CORRECTED",
    "DIRECTIONS",
    "FEW_DRAWS",
    "MEASURES",
    "STATISTICS",
    "Estimate",
    "NullResult",
    "Statistic",
    "decimal",
    "limit_label",
    "limit_name",
    "null_name",
    "percent",
    "statistic_of",
    "typeset",
]
