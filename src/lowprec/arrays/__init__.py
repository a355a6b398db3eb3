"""The one way from arrays to a kernel, what may be converted, memory layouts, dask arrays.

`direct.py` asks whether arrays may go to a kernel as they lie, and else hands them over block by
block, for conversion, arithmetic and sums alike; `sources.py` says what may be converted.
"""
