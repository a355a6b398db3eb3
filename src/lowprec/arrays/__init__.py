"""The one way from arrays to a kernel, what may be converted, memory layouts, dask arrays.

`direct` asks whether arrays may go to a kernel as they lie, and else hands them over block by
block: for conversion and arithmetic, in pieces that are only read for measuring, block formats and
files, by rows for sums; training asks it too. `sources` says what may be converted.
"""
