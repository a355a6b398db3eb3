"""Sums and products as an accumulator of some format forms them: a table of contents."""

from lowprec.accumulators import Accumulator as Accumulator
from lowprec.error_bounds import error_bound as error_bound
from lowprec.products import dot as dot
from lowprec.products import matmul as matmul
from lowprec.sums import sum as sum  # noqa: A004 - numpy.sum's name, for the same thing
