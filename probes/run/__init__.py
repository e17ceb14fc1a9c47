"""A run as an object: lineage, prompts, tables, directions, figures and model, each read when it is first asked for.

    run = Run("runs/mine")
    run.drift(arm="baseline", statistic="return_fraction")

Stages write into a run (`probes.stages`).
"""

from probes.run.contents import ABLATION, REVERSIONS, ByStep, Run
from probes.run.inputs import HEADLINE

__all__ = ["ABLATION", "HEADLINE", "REVERSIONS", "ByStep", "Run"]
