"""Conversions of other libraries, each a few lines, and of a user's own function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.blocks.formats import ScaleRule
from lowprec.conversion import decode
from lowprec.formats import NAMED, Format, Specials
from lowprec.verification.block_conformance import block_conformance
from lowprec.verification.conformance import conformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.blocks.formats import AnyFormat, BlockFormat
    from lowprec.verification.conformance import Conformance, Conversion

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
    import torch

    dtype = getattr(torch, fmt.name, None)
    if not isinstance(dtype, torch.dtype) or fmt.name in ("float4_e2m1fn_x2", "float32", "float64"):
        return None
    codes = {8: torch.uint8, 16: torch.int16}[fmt.bits]
    return lambda x: torch.from_numpy(x).to(dtype).view(codes).numpy()


def _jax(fmt: Format) -> Conversion | None:
    import jax.numpy as jnp

    dtype = getattr(jnp, fmt.name, None)
    if dtype is None or fmt.name in ("float32", "float64"):
        return None
    return lambda x: np.asarray(jnp.asarray(x, jnp.float32).astype(dtype))


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


def _torchao(fmt: AnyFormat) -> Conversion | None:
    import torch

    if not isinstance(fmt, Format):
        return _torchao_blocks(fmt)
    from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked

    sizes = {"float6_e3m2fn": (3, 2), "float6_e2m3fn": (2, 3), "float4_e2m1fn": (2, 1)}
    size = sizes.get(fmt.name)
    if size is None:
        return None
    return lambda x: _f32_to_floatx_unpacked(torch.from_numpy(x), *size).numpy()


def _torchao_blocks(fmt: BlockFormat) -> Conversion | None:
    import torch
    from torchao.prototype.mx_formats import mx_tensor as mx

    elements: dict[str, Any] = {
        "float8_e4m3fn": torch.float8_e4m3fn,
        "float8_e5m2": torch.float8_e5m2,
        "float6_e2m3fn": "fp6_e2m3",
        "float6_e3m2fn": "fp6_e3m2",
        "float4_e2m1fn": torch.float4_e2m1fn_x2,
    }
    inner = fmt.element
    element = elements.get(inner.name)
    if (
        element is None
        or not isinstance(inner, Format)
        or fmt.block != 32
        or fmt.rule is ScaleRule.AMAX
        or fmt.tensor_scale
    ):
        return None
    mode = mx.ScaleCalculationMode(fmt.rule.value)

    def convert(x: Array) -> Array:
        scales, codes = mx.to_mx(torch.from_numpy(x), element, 32, mode)
        codes = codes.view(torch.uint8)
        if fmt.element.name == "float4_e2m1fn":
            codes = mx.unpack_uint4(codes)
        values = decode(codes.numpy().reshape(x.shape), inner, dtype="float64")
        stored = scales.view(torch.uint8).numpy().reshape(-1, 1)
        steps: Array = decode(stored, fmt.scale, dtype="float64")
        with np.errstate(invalid="ignore"):
            return np.asarray(values * steps)

    return convert


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
