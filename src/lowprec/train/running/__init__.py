"""Running a training: one step, the loop over epochs, prediction, and the history that is kept.

`loop` is `fit`, `training` a step and its update, `passes` the way forward and back, `feeding` the
data. `outcome` alone judges what became of a run.
"""
