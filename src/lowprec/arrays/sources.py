"""What may be converted: array-likes made into arrays that kernels can read, or refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping
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
    "U": "convert the strings with np.array(x, 'float64'), or x.astype('float64') of an array",
    "S": "convert the strings with np.array(x, 'float64'), or x.astype('float64') of an array",
    "V": "pass one field, as in x['name']",
    "M": "pass x.astype('int64')",
    "m": "pass x.astype('int64')",
}


@runtime_checkable
class InBlocks(Protocol):
    """An array that is read by block, as a tensor of a file: never in memory as a whole."""

    def __lowprec_blocks__(self) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the numbers in C order, so many at a time, in flat arrays."""


@functools.lru_cache(1024)  # structured dtypes have no end
def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a kernel reads such elements: one that holds them all exactly.

    dtype: What the caller's array has.
    Returns: float32, float64, int64 or uint64.
    Raises TypeError if elements are not real numbers of at most 64 bits.
    """
    native = dtype.newbyteorder("=")
    if native.name in _KERNEL_KINDS:
        return native
    if native in _NARROW_FLOATS:
        return np.dtype(np.float32)
    if native.kind in "biu":
        return np.dtype(np.float64)
    advice = _ADVICE.get(native.kind, "pass x.astype('float64')")
    if native.kind == "V" and not native.names:
        advice = _advice_on_bytes(native.itemsize)
    raise TypeError(
        f"cannot convert elements of dtype {dtype}: lowprec rounds real numbers of at most 64 "
        f"bits, from their exact values; {advice}"
    )


def _advice_on_bytes(itemsize: int) -> str:
    """Say what bytes without a meaning may be: what h5py and NumPy's files make of ml_dtypes."""
    if itemsize not in (1, 2):
        return f"these are {itemsize} bytes each without a meaning; view them as what they are"
    name = "bfloat16" if itemsize == 2 else "float8_e4m3fn"
    return f"if they are codes, of {name} say, pass lowprec.decode(x.view('u{itemsize}'), {name!r})"


def is_scalar(x: Any) -> bool:
    """Whether the result for x is a NumPy scalar, not an array."""
    return isinstance(x, int | float | np.generic)


def is_exact_integer(x: Any) -> bool:
    """Whether x is a Python integer that float64 holds, as it holds all near it."""
    return type(x) is int and -(1 << 53) <= x <= 1 << 53


def as_array(x: Any) -> np.ndarray[Any, Any]:
    """Return an array-like as an array, without a copy where it is one already.

    Raises TypeError if it holds something other than real numbers of at most 64 bits.
    Raises ValueError if it is a masked array with masked entries.
    """
    array = x if type(x) is np.ndarray else to_array(float(x) if is_exact_integer(x) else x)
    try:
        kernel_dtype(array.dtype)
    except TypeError as error:
        _say_more(x, array)
        raise error from None
    return array


def _say_more(x: Any, array: np.ndarray[Any, Any]) -> None:
    """Raise an error that knows more about what was passed than its dtype."""
    if isinstance(x, str) and x.endswith((".npy", ".npz", ".safetensors", ".pt")):
        raise TypeError(
            f"{x!r} is the name of a file; pass lowprec.tensors.open_tensors({x!r}) to compare, "
            f"or run: lowprec compare {x}"
        )
    if isinstance(x, Mapping):
        first = next(iter(x), "name")
        raise TypeError(
            f"a {type(x).__name__} holds several tensors, and one is taken: pass x[{first!r}], or "
            "the whole to lowprec.compare"
        )
    if array.dtype.kind in "US" and not _are_numbers(array):
        raise TypeError(
            f"text such as {str(array.reshape(-1)[0])!r} is not a number; for labels pass "
            "np.unique(x, return_inverse=True)[1], which numbers them"
        )
    if x is None:
        raise TypeError("None is not an array of numbers; pass one, of float64 say")


def _are_numbers(texts: np.ndarray[Any, Any]) -> bool:
    try:
        texts.astype(np.float64)
    except ValueError:
        return False
    return True


def to_array(x: Any) -> np.ndarray[Any, Any]:
    """Return an array-like of any kind as an array.

    Raises TypeError if it is a tensor that NumPy cannot see: one that requires grad, that is
        elsewhere than on the CPU, sparse, or traced by JAX; or if it holds integers that NumPy
        rounded.
    Raises ValueError if it is a masked array with masked entries.
    """
    if isinstance(x, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(x).sum())
        if masked:
            raise ValueError(
                f"{masked} of {x.size} entries are masked; choose what they stand for with "
                "x.filled(value), or pass x.compressed()"
            )
        return np.asarray(x.data)
    if isinstance(x, float | int | np.generic):
        return np.asarray(x)
    library = type(x).__module__.partition(".")[0]
    if library in _READERS:
        return _READERS[library](x)
    if _is_subclass_of_tensor(x):
        return _from_torch(x)
    if isinstance(x, list | tuple):
        x = _with_plain_items(x)
    array = np.asarray(x)
    if array.dtype == np.float64 and isinstance(x, list):
        return _with_exact_integers(x, array)
    return array


def _is_subclass_of_tensor(x: Any) -> bool:
    """Whether x is of a user's own class of torch tensors; torch is not imported to know it."""
    return any(kind.__module__ == "torch" for kind in type(x).__mro__[1:-1])


def _with_plain_items(x: Any) -> Any:
    """Return nested lists and tuples whose masked arrays and tensors are arrays."""
    return [
        item
        if type(item) in (float, int, np.ndarray)
        else _with_plain_items(item)
        if isinstance(item, list | tuple)
        else to_array(item)
        if isinstance(item, np.ma.MaskedArray)
        or type(item).__module__.partition(".")[0] in _READERS
        else item
        for item in x
    ]


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
    if tensor.requires_grad:
        raise TypeError(
            "the tensor requires grad, and its gradient would end here; pass x.detach(), or use "
            "lowprec.torch, whose rounding has a gradient"
        )
    if tensor.is_meta:
        raise TypeError(
            "the tensor is on the meta device, where it has a shape and no numbers; make it "
            "on the CPU"
        )
    if tensor.device.type != "cpu":
        raise TypeError(f"the tensor is on {tensor.device}; pass x.cpu()")
    if tensor.layout != torch.strided:
        raise TypeError(f"the tensor is {tensor.layout}; pass x.to_dense(), or x.values()")
    if tensor.is_quantized:
        raise TypeError(f"the tensor is quantized ({tensor.dtype}); pass x.dequantize()")
    tensor = tensor.resolve_neg()
    fmt = NAMED.get(str(tensor.dtype).removeprefix("torch."))
    if fmt is None or fmt.dtype is None or fmt.dtype.isbuiltin == 1:
        return np.asarray(tensor.numpy())
    codes = tensor.view({1: torch.uint8, 2: torch.int16}[fmt.dtype.itemsize])
    return np.asarray(codes.numpy()).view(fmt.dtype)


def _from_jax(x: Any) -> np.ndarray[Any, Any]:
    """Return a JAX array as NumPy sees it; refuse what has no numbers yet, or none to round."""
    if any(kind.__name__ == "Tracer" for kind in type(x).__mro__):
        raise TypeError(
            "x is traced by JAX (jit, grad, vmap) and has no numbers yet; use lowprec.jax, or call "
            "this outside of what is traced"
        )
    if str(getattr(x, "dtype", "")).startswith("key<"):
        raise TypeError(
            "x is a random key of JAX, not numbers; lowprec.jax.round_to takes one as key=, and "
            "jax.random.key_data(x) are its integers"
        )
    if hasattr(x, "todense"):
        raise TypeError(f"x is a sparse {type(x).__name__}; pass x.todense()")
    return np.asarray(x)


def _from_scipy(x: Any) -> np.ndarray[Any, Any]:
    if hasattr(x, "toarray"):
        raise TypeError(f"x is a sparse {type(x).__name__}; pass x.toarray(), or its x.data")
    return np.asarray(x)


# By the library that made x; nothing is imported before one of its objects is passed.
_READERS = {
    "torch": _from_torch,
    "jax": _from_jax,
    "jaxlib": _from_jax,
    "scipy": _from_scipy,
}
