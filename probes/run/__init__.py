"""A run as an object: lineage, prompts, tables, directions, figures and model, each read when it is first asked for.

    run = Run("runs/mine")
    run.drift(arm="baseline", statistic="return_fraction")

Stages write into a run (`probes.stages`).
"""

from probes.run.contents import Run
from probes.run.direction_folder import ABLATION, REVERSIONS
from probes.run.inputs import HEADLINE
from probes.run.table_folder import ByStep

__all__ = ["ABLATION", "HEADLINE", "REVERSIONS", "ByStep", "Run"]
