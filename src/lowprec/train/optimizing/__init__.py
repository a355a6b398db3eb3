"""What optimizers are put together from: transforms, clipping, and the formulas of `adaptive`.

`lowprec.train.optimizers` composes them.
"""
