"""Experiments: the same fine-tuning in several arms, over seeds and draws of controls, and what came of it.

`experiment` says what is trained, `organism_bench` and `lineage_bench` train one arm at one seed, `side_by_side` trains
several of them, and `outcome` puts the arms of finished runs next to each other.
"""
