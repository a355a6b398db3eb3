"""The compiler: the one module that imports Numba and llvmlite, for all the others here.

Threads that convert for the first time at the same moment import the kernels at the same moment,
and Numba's own modules do not survive that. They all wait here instead, until it is there whole.
"""

import numba as numba
from llvmlite import ir as ir
from numba import types as types
from numba.core import cgutils as cgutils
from numba.core.cgutils import get_or_insert_function as get_or_insert_function
from numba.core.registry import cpu_target as cpu_target
from numba.extending import intrinsic as intrinsic
from numba.np.numpy_support import from_dtype as from_dtype
