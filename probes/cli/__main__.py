"""`python -m probes.cli` is the command `gravity-probe`."""

from probes.cli import main

main()
