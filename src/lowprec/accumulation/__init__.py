"""Sums and products as an accumulator of some format forms them, every step rounded once.

`Accumulator` says how, `tensor_core` as a GPU's matrix unit does it; `sum`, `mean`, `cumsum`, `dot`
and `matmul` do it; `error_bound` is the a-priori bound. `sums` and `products` choose the kernel,
`matrix_units` has the table of the GPUs' units.
"""

from lowprec.accumulation.accumulator import Accumulator
from lowprec.accumulation.cumulative import cumsum
from lowprec.accumulation.error_bounds import error_bound
from lowprec.accumulation.matrix_units import tensor_core, tensor_cores
from lowprec.accumulation.means import mean
from lowprec.accumulation.products import dot, matmul
from lowprec.accumulation.sums import sum  # noqa: A004 - numpy.sum's name, for the same thing

__all__ = [
    "Accumulator",
    "cumsum",
    "dot",
    "error_bound",
    "matmul",
    "mean",
    "sum",
    "tensor_core",
    "tensor_cores",
]
