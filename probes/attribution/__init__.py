"""Which training examples pull a model back: shares of a recorded run's return, effects, and a forecast before it.

`targets` is what is attributed, `replay` a model put on a recorded step, `shares` and `effects` walk the path back,
`forecast` needs none, `baselines` are what a ranking has to beat, `clusters` groups examples by their texts.
"""
