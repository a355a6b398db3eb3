"""Where randomness comes from: an `rng` of SPEC 7, from which each call draws one key.

``rng=None`` draws fresh bits, everywhere. It is the default where values are rounded (`round_to`,
`Arithmetic`, `Accumulator`, `measure`, `convert`) and where a model is given parameters or asked
for an answer (`init`, `apply`, `predict`). The functions of training (`train.fit`, `gradients`,
`search`, `find_learning_rate`, `Dataset.split` and the data sets) default to ``rng=0``, so that a
training that is run again is the same.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    RNGLike = np.random.Generator | np.random.SeedSequence | int | None


@functools.cache  # numpy.random is imported where it is first needed
def _of_64_bits() -> tuple[type, ...]:
    return np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64


def as_generator(rng: RNGLike) -> np.random.Generator:
    """Return the generator that `rng` stands for.

    Raises TypeError if it is not None, an int, a SeedSequence or a Generator, such as a key of JAX.
    Raises ValueError if it is negative.
    """
    try:
        return np.random.default_rng(rng)
    except TypeError:
        kind, hint = type(rng), ""
        if kind.__module__.partition(".")[0] in ("jax", "jaxlib"):
            hint = "; lowprec.jax takes keys of JAX, and int(jax.random.bits(key)) is an int"
        elif kind.__module__.partition(".")[0] == "torch":
            hint = "; of a torch.Generator, generator.initial_seed() is an int"
        raise TypeError(
            f"rng is a {kind.__name__}; pass None, an int, a numpy.random.SeedSequence or a "
            f"numpy.random.Generator{hint}"
        ) from None
    except ValueError:
        raise ValueError(f"rng={rng!r} is negative; pass an int from 0 on") from None


def draw_key(rng: RNGLike) -> int:
    """Draw the key of one stochastic call."""
    generator = rng if type(rng) is np.random.Generator else as_generator(rng)
    if type(generator.bit_generator) in _of_64_bits():  # the same number in a tenth of the time
        return int(generator.bit_generator.random_raw())
    return int(generator.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
