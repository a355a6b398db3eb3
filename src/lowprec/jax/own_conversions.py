"""What JAX converts by itself, for `lowprec verify --target`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from lowprec.analysis.conformance import Conversion
    from lowprec.formats import Format


def jax_conversion(fmt: Format) -> Conversion | None:
    """Return JAX's conversion to one of its dtypes."""
    dtype = getattr(jnp, fmt.name, None)
    if dtype is None or fmt.name in ("float32", "float64"):
        return None
    return lambda x: np.asarray(jnp.asarray(x, jnp.float32).astype(dtype))
