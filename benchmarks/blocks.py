"""Block formats: lowprec's work, and torchao's, gfloat's and pychop's on the same blocks."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

import numpy as np
from recording import skip_without

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable

    from timing import Work
    from workload import Workload

_ELEMENTS = {
    "mxfp8_e4m3": "float8_e4m3fn",
    "mxfp8_e5m2": "float8_e5m2",
    "mxfp4": "float4_e2m1fn_x2",
}


def quantized(fmt: str) -> Callable[[Workload], Work]:
    """Return what quantizes: codes and scales, in memory of their own."""
    return lambda load: functools.partial(lp.quantize, load.x, fmt)


def along(axis: int, fmt: str) -> Callable[[Workload], Work]:
    """Return what rounds the workload as a square, blocks along an axis."""

    def make(load: Workload) -> Work:
        side = int(load.x.size**0.5) // 64 * 64
        x, y = (array[: side * side].reshape(side, side) for array in (load.x, load.y))
        return functools.partial(lp.round_to, x, fmt, axis=axis, out=y)

    return make


def torchao(fmt: str) -> Callable[[Workload], Work]:
    """Return torchao's quantization, on one thread."""

    def make(load: Workload) -> Work:
        torch = skip_without("torch")
        skip_without("torchao")
        torch.set_num_threads(1)
        x = torch.from_numpy(load.x[: load.x.size // 32 * 32].reshape(-1, 32).copy())
        if fmt == "nvfp4":
            module = importlib.import_module("torchao.prototype.mx_formats.nvfp4_tensor")
            scale = module.per_tensor_amax_to_scale(x.abs().max())
            return lambda: module.nvfp4_quantize(x, 16, scale)
        module = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
        return lambda: module.to_mx(x, getattr(torch, _ELEMENTS[fmt]), 32)

    return make


def gfloat(fmt: str) -> Callable[[Workload], Work]:
    """Return gfloat's rounding of blocks, one call each, of the first thousand blocks."""

    def make(load: Workload) -> Work:
        package = skip_without("gfloat")
        formats = importlib.import_module("gfloat.formats")
        info = getattr(formats, f"format_info_{fmt}" + ("_e2m1" if fmt == "mxfp4" else ""))
        rows = load.x[: 32 * 1000].astype(np.float64).reshape(-1, 32)
        scale = package.compute_scale_amax
        return lambda: [package.quantize_block(info, row, scale) for row in rows]

    return make


def pychop(fmt: str) -> Callable[[Workload], Work]:
    """Return pychop's rounding to values of blocks along the last axis; it gives no codes."""

    def make(load: Workload) -> Work:
        skip_without("pychop")
        module = importlib.import_module("pychop.np.mx_formats")
        name = {"mxfp4": "mxfp4_e2m1"}.get(fmt, fmt)
        rows = load.x[: load.x.size // 32 * 32].reshape(-1, 32)
        return functools.partial(module.mx_quantize, rows, format=name, block_size=32)

    return make
