"""Everything that a guard can do to a training, one family a file; `probes.guard.modes` gives them their names."""
