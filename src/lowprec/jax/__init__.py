"""lowprec for JAX: arrays are rounded under jit, vmap and grad, and trainings watched.

Import it by name, ``import lowprec.jax as lj``; ``import lowprec`` never imports JAX.
"""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "jax":
        raise
    raise ModuleNotFoundError(
        "lowprec.jax needs JAX, which is not installed; run: python -m pip install 'lowprec[jax]'",
        name="jax",
    ) from None

from lowprec.jax.rounding import round_to
from lowprec.jax.watching import watch

__all__ = ["round_to", "watch"]
