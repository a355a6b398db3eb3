"""Conversions of other libraries, each a few lines, and of a user's own function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.analysis.conformance import conformance
from lowprec.formats import NAMED, Format, Specials
from lowprec.verification.block_conformance import block_conformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.analysis.conformance import Conformance, Conversion
    from lowprec.blocks.formats import AnyFormat

    Array = np.ndarray[Any, Any]


class Target(NamedTuple):
    """A conversion and what it takes."""

    name: str
    fmt: AnyFormat
    function: Conversion
    takes_float64: bool = False

    def judged(self) -> Conformance:
        """Hold it to the right values."""
        if isinstance(self.fmt, Format):
            return conformance(
                self.function, self.fmt, target=self.name, takes_float64=self.takes_float64
            )
        return block_conformance(self.function, self.fmt, target=self.name)


def _ml_dtypes(fmt: Format) -> Conversion | None:
    import ml_dtypes

    dtype = getattr(ml_dtypes, fmt.name, None)
    return None if dtype is None else lambda x: _quietly(x, np.dtype(dtype))


def _numpy(fmt: Format) -> Conversion | None:
    return (lambda x: _quietly(x, np.dtype(np.float16))) if fmt.name == "float16" else None


def _quietly(x: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def _torch(fmt: Format) -> Conversion | None:
    from lowprec.torch.own_conversions import torch_conversion

    return torch_conversion(fmt)


def _torchao(fmt: AnyFormat) -> Conversion | None:
    from lowprec.torch.own_conversions import torchao_conversion

    return torchao_conversion(fmt)


def _jax(fmt: Format) -> Conversion | None:
    from lowprec.jax.own_conversions import jax_conversion

    return jax_conversion(fmt)


def _gfloat(fmt: Format) -> Conversion | None:
    import gfloat
    from gfloat import formats

    names = {
        "bfloat16": "format_info_bfloat16",
        "float16": "format_info_binary16",
        "tfloat32": "format_info_tf32",
        "float8_e5m2": "format_info_ocp_e5m2",
        "float8_e4m3fn": "format_info_ocp_e4m3",
        "float8_e8m0fnu": "format_info_ocp_e8m0",
        "float6_e3m2fn": "format_info_ocp_e3m2",
        "float6_e2m3fn": "format_info_ocp_e2m3",
        "float4_e2m1fn": "format_info_ocp_e2m1",
    }
    info = getattr(formats, names.get(fmt.name, ""), None)
    if info is None:
        return None
    is_finite = fmt.specials is Specials.FINITE  # there its rounding wants to be told to saturate
    return lambda x: gfloat.round_ndarray(info, x.astype(np.float64), sat=is_finite)


def _mlx(fmt: Format) -> Conversion | None:
    import mlx.core as mx

    dtype = {"bfloat16": mx.bfloat16, "float16": mx.float16}.get(fmt.name)
    if dtype is None:
        return None
    return lambda x: np.array(mx.array(x).astype(dtype).astype(mx.float32))


class _Adapter(NamedTuple):
    package: str
    find: Callable[[Any], Conversion | None]
    takes_float64: bool = False


_ADAPTERS = {
    "ml_dtypes": _Adapter("ml_dtypes", _ml_dtypes, True),
    "numpy": _Adapter("numpy", _numpy, True),
    "torch": _Adapter("torch", _torch, True),
    "torchao": _Adapter("torchao", _torchao),
    "jax": _Adapter("jax", _jax),
    "gfloat": _Adapter("gfloat", _gfloat, True),
    "mlx": _Adapter("mlx", _mlx),
}


def _found(adapter: _Adapter, fmt: AnyFormat) -> Conversion | None:
    if not isinstance(fmt, Format) and adapter.package != "torchao":
        return None  # the others have none of blocks
    return adapter.find(fmt)


def targets(name: str, fmt: AnyFormat | None = None) -> list[Target]:
    """Return the conversions of a library, or of a function, to one format or to all it has.

    Parameters
    ----------
    name : str
        ``ml_dtypes``, ``numpy``, ``torch``, ``torchao``, ``jax``, ``gfloat`` or ``mlx``; or
        ``package.module:function``, a function of a float32 array.
    fmt : Format or BlockFormat, optional
        The format; a function needs it.

    Raises
    ------
    ValueError
        If there is no such target, it has no such format, or a function is named without a format.
    ModuleNotFoundError
        If the package is missing.
    """
    if ":" in name:
        if fmt is None:
            raise ValueError(f"{name} needs --format, the format that it converts to")
        return [Target(name, fmt, _imported(name))]
    adapter = _ADAPTERS.get(name)
    if adapter is None:
        raise ValueError(
            f"{name!r} is not a known target; use one of {', '.join(_ADAPTERS)}, or "
            "package.module:function with --format"
        )
    try:
        formats: list[Any] = list(NAMED.values()) if fmt is None else [fmt]
        pairs = [(one, _found(adapter, one)) for one in formats]
    except ModuleNotFoundError as error:
        package = adapter.package
        raise ModuleNotFoundError(
            f"{name} needs {error.name}, which is not installed; run: python -m pip install "
            f"{package}",
            name=error.name,
        ) from None
    found = [
        Target(name, one, function, adapter.takes_float64)
        for one, function in pairs
        if function is not None
    ]
    if not found:
        has = ", ".join(str(one) for one in NAMED.values() if _found(adapter, one) is not None)
        raise ValueError(f"{name} has no conversion to {fmt}; it has {has}")
    return found


def _imported(name: str) -> Conversion:
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"there is no module {error.name!r}; name one that python -c 'import {module}' finds "
            "from this folder",
            name=error.name,
        ) from None
    finally:
        sys.path.remove(str(Path.cwd()))
    conversion: Conversion | None = getattr(found, function, None)
    if not callable(conversion):
        raise ValueError(f"module {module!r} has no function {function!r}")
    return conversion
