"""The stages of a run, in order: one file each, named as what it leaves in the run folder."""
