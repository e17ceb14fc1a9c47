"""Gravity Probe: measure, map and stop the fall of a fine-tuned model back towards its unaligned past.

Importing this package loads neither torch nor transformers; the modules that need them say so in their first line.
"""

__version__ = "0.1.0"
