"""Ways of fine-tuning by name: `tuners` puts adapters on a model, `optimizers` makes what steps its weights.

`options` reads and checks what either is told; `preconditioning` says how much of a step a part of its gradient makes.
"""
