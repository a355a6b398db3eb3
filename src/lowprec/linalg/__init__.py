"""Linear algebra in a format: factors and solutions with every operation rounded once.

`lu`, `cholesky`, `qr` and `solve` are the textbook algorithms in a documented order of operations;
`refine` repairs a solution from factors of few bits by iterative refinement or GMRES.
"""

from lowprec.linalg.factorizations import LU, cholesky, lu, qr
from lowprec.linalg.refinement import Refinement, refine
from lowprec.linalg.solving import solve

__all__ = ["LU", "Refinement", "cholesky", "lu", "qr", "refine", "solve"]
