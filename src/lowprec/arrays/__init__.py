"""Which arrays may be converted, how they lie in memory, and dask arrays."""
