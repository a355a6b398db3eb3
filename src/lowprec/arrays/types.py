"""Types of what callers pass and get: a scalar gives a NumPy scalar, anything else an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import ArrayLike

    Array = np.ndarray[Any, np.dtype[Any]]
    Scalar = float | np.bool_ | np.number[Any]
    Real = np.floating[Any]


class _Unary(Protocol):
    @overload
    def __call__(self, a: Scalar, *, out: None = None) -> Real: ...
    @overload
    def __call__(self, a: ArrayLike, *, out: Array | None = None) -> Array: ...


class _Binary(Protocol):
    @overload
    def __call__(self, a: Scalar, b: Scalar, *, out: None = None) -> Real: ...
    @overload
    def __call__(self, a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Array: ...


class _Ternary(Protocol):
    @overload
    def __call__(self, a: Scalar, b: Scalar, c: Scalar, *, out: None = None) -> Real: ...
    @overload
    def __call__(
        self, a: ArrayLike, b: ArrayLike, c: ArrayLike, *, out: Array | None = None
    ) -> Array: ...


class _UnaryMethod(Protocol):
    def __get__(self, instance: Any, owner: Any = None) -> _Unary: ...


class _BinaryMethod(Protocol):
    def __get__(self, instance: Any, owner: Any = None) -> _Binary: ...


class _TernaryMethod(Protocol):
    def __get__(self, instance: Any, owner: Any = None) -> _Ternary: ...


def unary(method: Callable[..., Any]) -> _UnaryMethod:
    """Return a method of one operand as it is, typed: a scalar gives a scalar."""
    return method


def binary(method: Callable[..., Any]) -> _BinaryMethod:
    """Return a method of two operands as it is, typed: two scalars give a scalar."""
    return method


def ternary(method: Callable[..., Any]) -> _TernaryMethod:
    """Return a method of three operands as it is, typed: three scalars give a scalar."""
    return method
