"""What a policy does to arrays: the only place where training meets formats."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lowprec.accumulation import Accumulator, matmul
from lowprec.arrays.direct import lies_flat
from lowprec.formats import Format, float32, float64
from lowprec.rounding import Overflow, Rounding
from lowprec.train.block_operands import BlockOperands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lowprec.train.policy import Policy

    RNG = Callable[[], np.random.Generator]

Array = np.ndarray[Any, Any]
_SINGLE = Accumulator("float32")
_SMALL = 1 << 16  # elements
_LARGEST_POWER = 100  # of two by which numbers are multiplied without a look at the ends of float32


class Numerics:
    """What a policy does to the arrays of a training step.

    Arrays are float32, or float64 under a policy whose formats are all float64. Every rounding is
    to nearest with ties to even, but for stochastic updates. NaN stays NaN in every format.


    Examples
    --------
    >>> from lowprec.train.policy import get_policy
    >>> numerics = Numerics(get_policy("mixed_bfloat16"))
    >>> numerics.compute(np.float32([0.1]))
    array([0.10009766], dtype=float32)
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.dtype: np.dtype[Any] = np.dtype(np.float64 if policy.is_float64 else np.float32)
        formats = policy.formats
        scaled = policy.tensor_scales
        self._compute = _rounder(formats["compute"], self.dtype, scaled)
        self._gradient = _rounder(formats["gradients"], self.dtype, scaled)
        self._gradient_in_place = _rounder(formats["gradients"], self.dtype, scaled, in_place=True)
        self._params = _rounder(formats["params"], self.dtype)
        self._state = _rounder(formats["state"], self.dtype)
        self._is_fused = self.dtype == np.float32 and not scaled
        self._product = _product(policy)
        self.stores_float32 = policy.update == "nearest" and all(
            formats[kept] == float32 for kept in ("params", "state")
        )
        self._blocks = BlockOperands(policy) if policy.has_blocks else None

    def at(self, policy: Policy) -> Numerics:
        """Return the numerics of a place that follows another policy."""
        return self if policy == self.policy else numerics_of(policy)

    def array(self, x: Any) -> Array:
        """Return numbers as an array of the dtype in which training computes."""
        return np.ascontiguousarray(x, self.dtype)

    def arrays(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """Return every parameter as such an array."""
        return {name: self.array(values) for name, values in params.items()}

    # In layers -----------------------------------------------------------------------------------

    def compute(self, x: Array) -> Array:
        """Round to the format of weights, inputs and activations; float32 returns `x` itself."""
        return self._compute(x)

    def gradient(self, g: Array) -> Array:
        """Round to the format of gradients that leave a layer."""
        return self._gradient(g)

    # The three products of a layer, whose operands are quantized before in block formats

    def forward_product(self, x: Array, kernel: Array) -> Array:
        """Return x · kernel, of inputs (samples, features); the sums are not rounded again."""
        if self._blocks is not None:
            x, kernel = self._blocks.forward(x, kernel)
        return self.matmul(x, kernel)

    def kernel_gradient(self, x: Array, dz: Array, rng: RNG) -> Array:
        """Return xᵀ · dz, rounded to the format of gradients; `rng` is the layer's."""
        if self._blocks is None:
            return self.gradient_product(x.T, dz)
        return self.gradient_product(*self._blocks.kernel_gradient(x, dz, rng))

    def input_gradient(self, dz: Array, kernel: Array, rng: RNG) -> Array:
        """Return dz · kernelᵀ, rounded to the format of gradients."""
        if self._blocks is None:
            return self.gradient_product(dz, kernel.T)
        return self.gradient_product(*self._blocks.input_gradient(dz, kernel, rng))

    def input_gradient_sums(self, dz: Array, kernel: Array, rng: RNG) -> Array:
        """Return dz · kernelᵀ; the sums are not rounded again."""
        if self._blocks is None:
            return self.matmul(dz, kernel.T)
        return self.matmul(*self._blocks.input_gradient(dz, kernel, rng))

    def gradient_product(self, a: Array, b: Array) -> Array:
        """Multiply matrices, and round the sums to the format of gradients."""
        product = self._product(a, b)
        return self._gradient_in_place(np.ascontiguousarray(product))

    def matmul(self, a: Array, b: Array) -> Array:
        """Multiply matrices, accumulated as the policy says; the sums are not rounded again."""
        return self._product(a, b)

    def biased(self, z: Array, bias: Array | None, relu: bool = False) -> Array:
        """Round the float32 sum of z and bias once to compute, then take ``max(., 0)`` if asked.

        `z` may be overwritten.
        """
        if self._is_fused:
            if bias is None:
                bias = _zeros(z.shape[-1])
            z = np.ascontiguousarray(z)
            self._sum(z, bias, relu)
            return z
        if bias is not None:
            z = z + bias
        z = self._compute(z)
        return np.where(z <= 0, z.dtype.type(0), z) if relu else z

    def relu_gradient(self, dy: Array, y: Array) -> Array:
        """Return dy where y > 0, else 0."""
        if self.dtype != np.float32:
            return np.where(y > 0, dy, dy.dtype.type(0))
        masked: Array = self._passes.masked(np.ascontiguousarray(dy), np.ascontiguousarray(y))
        return masked

    @functools.cached_property
    def affine(self) -> Any:
        """A fully connected layer in a call for each pass; None where steps are made one by one.

        The bits are the same.
        """
        is_plain = self._is_fused and self._blocks is None
        if not is_plain or self.policy.accumulator != _SINGLE:
            return None
        formats = self.policy.formats
        return self._passes.Affine(formats["compute"], formats["gradients"], self._hear_all)

    _hear_all: Any = None  # what is told of all that a layer rounded at once

    # In the loop ---------------------------------------------------------------------------------

    def params(self, w: Array) -> Array:
        """Round to the format in which parameters are stored."""
        return self._params(w)

    def state(self, s: Array) -> Array:
        """Round to the format of the optimizer's state."""
        return self._state(s)

    def updated(self, w: Array, update: Array) -> Array:
        """Return the sum of a parameter and its update, rounded as parameters are stored.

        It takes the place of the update; `w` stays as it is.
        """
        if self.dtype != np.float32:
            return w + update
        result = np.ascontiguousarray(update)
        self._parameter_sum(result, np.ascontiguousarray(w).reshape(-1))
        return result

    def updated_at_random(self, w: Array, update: Array, key: int) -> Array:
        """Return the float32 sum of a parameter and its update, rounded stochastically."""
        from lowprec.conversion.requests import round_piece

        total = np.ascontiguousarray(w + update)
        if total.dtype != np.float32 or self.policy.params == float32:
            return total
        fmt = self.policy.formats["params"]
        how = (Rounding.STOCHASTIC, Overflow.IEEE)
        return round_piece(total.reshape(-1), fmt, how, key, 0).reshape(total.shape)

    def is_finite(self, arrays: dict[str, Array]) -> bool:
        """Return whether no array holds an infinity or NaN."""
        if self.dtype != np.float32:
            return all(bool(np.isfinite(x).all()) for x in arrays.values())
        return bool(self._passes.all_finite([np.ascontiguousarray(x) for x in arrays.values()]))

    def unscale(self, gradients: dict[str, Array], factor: np.float32) -> bool:
        """Multiply gradients in place; return whether all were finite, else some are as before."""
        are_contiguous = all(map(lies_flat, gradients.values()))
        if self.dtype != np.float32 or not are_contiguous:  # a layer of the user's may give any
            finite = self.is_finite(gradients)
            with np.errstate(all="ignore"):
                for gradient in gradients.values():
                    gradient *= factor
            return finite
        multiply = self._passes.multiply
        return all(multiply(gradient, factor) for gradient in gradients.values())

    @functools.cached_property
    def _passes(self) -> Any:
        from lowprec.kernels import training  # imports Numba

        return training

    @functools.cached_property
    def _sum(self) -> Any:
        return self._passes.Sum(self.policy.formats["compute"], Overflow.IEEE)

    @functools.cached_property
    def _parameter_sum(self) -> Any:
        return self._passes.Sum(self.policy.formats["params"], Overflow.IEEE)


@functools.lru_cache(maxsize=64)
def numerics_of(policy: Policy) -> Numerics:
    """Return a policy's numerics, made once."""
    return Numerics(policy)


@functools.cache
def _zeros(size: int) -> Array:
    return np.zeros(size, np.float32)


def _rounder(
    fmt: Format, dtype: np.dtype[Any], scaled: bool = False, in_place: bool = False
) -> Callable[[Array], Array]:
    """Return what rounds an array to a format, under a power of two of its own if `scaled`.

    With `in_place` the result may take the place of the array, which is contiguous.
    """
    if fmt == (float32 if dtype == np.float32 else float64):
        return lambda x: x
    if scaled:
        round_array = _kernel(fmt, dtype.name, Overflow.SATURATE)
        return functools.partial(_round_scaled, fmt, round_array)
    return _kernel(fmt, dtype.name, Overflow.IEEE, in_place)


def _kernel(
    fmt: Format, dtype: str, overflow: Overflow, in_place: bool = False
) -> Callable[[Array], Array]:
    from lowprec.kernels.plans import conversion_kernel  # imports Numba

    kernel = conversion_kernel(fmt, dtype, dtype, Rounding.TIES_TO_EVEN, overflow)
    loop, constants = kernel.loop, kernel.constants

    def round_array(x: Array) -> Array:
        if not x.flags.c_contiguous:
            x = np.ascontiguousarray(x)
        out = x if in_place else np.empty_like(x)
        source, target = (x, out) if x.ndim == 1 else (x.reshape(-1), out.reshape(-1))
        if x.size < _SMALL:  # where a look at the number of threads would cost too much
            loop(source, target, constants, 1)
        else:
            kernel(source, target)
        return out

    return round_array


def _round_scaled(fmt: Format, round_array: Callable[[Array], Array], x: Array) -> Array:
    largest = float(np.abs(x).max(initial=0))
    if not largest < math.inf:  # infinities and NaN do not say how to scale the rest
        largest = float(np.abs(x).max(initial=0, where=np.isfinite(x)))
    if largest == 0:
        return round_array(x)
    k = tensor_exponent(fmt, largest)
    with np.errstate(under="ignore", over="ignore"):
        if abs(k) > _LARGEST_POWER:
            scaled: Array = np.ldexp(x, k)
            return _saturated(np.ldexp(round_array(scaled), -k), x, fmt)
        rounded: Array = round_array(x * x.dtype.type(2.0**k)) * x.dtype.type(2.0**-k)
        return rounded


def _saturated(y: Array, x: Array, fmt: Format) -> Array:
    """Return y, with what has left the dtype's range at its last value of the precision."""
    last = math.ldexp(2 - fmt.eps, np.finfo(y.dtype).maxexp - 1)
    has_left = np.isinf(y) & np.isfinite(x)
    return np.asarray(np.where(has_left, np.copysign(y.dtype.type(last), y), y))


def tensor_exponent(fmt: Format, largest: float) -> int:
    """Return the largest k for which largest·2**k does not exceed the format's maximum.

    Examples
    --------
    >>> from lowprec.formats import float8_e4m3fn
    >>> tensor_exponent(float8_e4m3fn, 1.0), tensor_exponent(float8_e4m3fn, 449.0)
    (8, -1)
    """
    significand, exponent = math.frexp(fmt.max)
    its_significand, its_exponent = math.frexp(largest)
    return exponent - its_exponent - (its_significand > significand)


def _product(policy: Policy) -> Callable[[Array, Array], Array]:
    """Return the policy's product of two matrices."""
    accumulator = policy.accumulator
    if policy.is_float64:
        return functools.partial(matmul, inputs="float64", accumulator=accumulator)
    if accumulator == _SINGLE:
        from lowprec.kernels.products.matmul import float32_product  # imports Numba

        return cast("Callable[[Array, Array], Array]", float32_product)
    product = functools.partial(matmul, inputs="float32", accumulator=accumulator)
    return lambda a, b: product(a, b).astype(np.float32, copy=False)
