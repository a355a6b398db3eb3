"""What may be converted: array-likes made into arrays that kernels can read, or refused."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from lowprec.formats import NAMED

if TYPE_CHECKING:
    from collections.abc import Iterator

_KERNEL_KINDS = ("float32", "float64", "int64", "uint64")
_NARROW_FLOATS = {fmt.dtype for fmt in NAMED.values() if fmt.dtype and fmt.dtype.itemsize < 4}
_ADVICE = {
    "c": "pass x.real and x.imag",
    "O": "pass them as float64, or as integers of at most 64 bits",
    "U": "convert the strings with x.astype('float64')",
    "S": "convert the strings with x.astype('float64')",
    "V": "pass one field, as in x['name']",
    "M": "pass x.astype('int64')",
    "m": "pass x.astype('int64')",
}


@runtime_checkable
class InBlocks(Protocol):
    """An array that is read by block, as a tensor of a file: never in memory as a whole."""

    def __lowprec_blocks__(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the numbers in C order, so many at a time, in flat arrays."""


@functools.cache
def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a kernel reads such elements: one that holds them all exactly.

    Parameters
    ----------
    dtype : numpy.dtype
        What the caller's array has.

    Returns
    -------
    numpy.dtype
        float32, float64, int64 or uint64.

    Raises
    ------
    TypeError
        If elements are not real numbers of at most 64 bits.
    """
    native = dtype.newbyteorder("=")
    if native.name in _KERNEL_KINDS:
        return native
    if native in _NARROW_FLOATS:
        return np.dtype(np.float32)
    if native.kind in "biu":
        return np.dtype(np.float64)
    advice = _ADVICE.get(
        native.kind if native.names or native.kind != "V" else "", "pass x.astype('float64')"
    )
    raise TypeError(
        f"cannot convert elements of dtype {dtype}: lowprec rounds real numbers of at most 64 "
        f"bits, from their exact values; {advice}"
    )


def is_scalar(x: Any) -> bool:
    """Whether the result for x is a NumPy scalar, not an array."""
    return isinstance(x, int | float | np.generic)


def as_array(x: Any) -> np.ndarray[Any, Any]:
    """Return an array-like as an array, without a copy where it is one already.

    Raises
    ------
    TypeError
        If it holds something other than real numbers of at most 64 bits.
    ValueError
        If it is a masked array with masked entries.
    """
    if isinstance(x, str) and x.endswith((".npy", ".npz", ".safetensors", ".pt")):
        raise TypeError(
            f"{x!r} is the name of a file; pass lowprec.tensors.open_tensors({x!r}) to compare, "
            f"or run: lowprec compare {x}"
        )
    array = x if type(x) is np.ndarray else to_array(x)
    kernel_dtype(array.dtype)
    return array


def to_array(x: Any) -> np.ndarray[Any, Any]:
    """Return an array-like of any kind as an array.

    Raises
    ------
    TypeError
        If it is a torch tensor elsewhere than on the CPU, or holds integers that NumPy rounded.
    ValueError
        If it is a masked array with masked entries.
    """
    if isinstance(x, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(x).sum())
        if masked:
            raise ValueError(
                f"{masked} of {x.size} entries are masked; choose what they stand for with "
                "x.filled(value), or pass x.compressed()"
            )
        return x.data
    if type(x).__module__.partition(".")[0] == "torch":
        return _from_torch(x)
    if isinstance(x, list | tuple):
        x = [to_array(item) if isinstance(item, np.ma.MaskedArray) else item for item in x]
    array = np.asarray(x)
    if array.dtype == np.float64 and isinstance(x, list):
        return _with_exact_integers(x, array)
    return array


def _with_exact_integers(x: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array of a list, refused where NumPy has rounded an integer to float64.

    NumPy makes float64 also of ``[2**64 - 1, 0]``, which uint64 holds.
    """
    items = np.asarray(x, dtype=object)
    is_integer = [isinstance(item, int | np.integer) for item in items.flat]
    for item, is_one in zip(items.flat, is_integer, strict=True):
        if is_one and int(item) != int(float(item)):
            if all(is_integer) and min(items.flat) >= 0:
                return items.astype(np.uint64)
            raise TypeError(
                f"{item} stands beside other kinds of numbers, and float64, which would hold them "
                "all, rounds it; pass integers as an array of int64 or uint64"
            )
    return array


def _from_torch(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a torch CPU tensor's memory, also where NumPy has no such dtype."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return np.asarray(tensor)
    if tensor.device.type != "cpu":
        raise TypeError(f"tensor is on {tensor.device}; pass tensor.cpu()")
    tensor = tensor.detach().resolve_neg()
    fmt = NAMED.get(str(tensor.dtype).removeprefix("torch."))
    if fmt is None or fmt.dtype is None or fmt.dtype.isbuiltin == 1:
        return np.asarray(tensor.numpy())
    codes = tensor.view({1: torch.uint8, 2: torch.int16}[fmt.dtype.itemsize])
    return np.asarray(codes.numpy()).view(fmt.dtype)
