"""Block formats: one pass finds a block's largest magnitude, its scale and its elements.

`quotients` is the exact scalar rule, `loops` applies it to blocks of any shape, and `vectors` has
faster rules for the common formats, which `loops` takes where they are exact.
"""
