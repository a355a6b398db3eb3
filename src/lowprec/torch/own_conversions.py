"""What PyTorch and torchao convert by themselves, for `lowprec verify --target`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lowprec.blocks.formats import ScaleRule
from lowprec.conversion import decode
from lowprec.formats import Format

if TYPE_CHECKING:
    from lowprec.analysis.conformance import Conversion
    from lowprec.blocks.formats import AnyFormat, BlockFormat

    Array = np.ndarray[Any, Any]


def torch_conversion(fmt: Format) -> Conversion | None:
    """Return PyTorch's conversion to one of its dtypes, to codes."""
    dtype = getattr(torch, fmt.name, None)
    if not isinstance(dtype, torch.dtype) or fmt.name in ("float4_e2m1fn_x2", "float32", "float64"):
        return None
    codes = {8: torch.uint8, 16: torch.int16}[fmt.bits]
    return lambda x: torch.from_numpy(x).to(dtype).view(codes).numpy()


def torchao_conversion(fmt: AnyFormat) -> Conversion | None:
    """Return torchao's conversion to fp6, fp4 or a block format of OCP, to values."""
    if not isinstance(fmt, Format):
        return _torchao_blocks(fmt)
    from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked

    sizes = {"float6_e3m2fn": (3, 2), "float6_e2m3fn": (2, 3), "float4_e2m1fn": (2, 1)}
    size = sizes.get(fmt.name)
    if size is None:
        return None
    return lambda x: _f32_to_floatx_unpacked(torch.from_numpy(x), *size).numpy()


def _torchao_blocks(fmt: BlockFormat) -> Conversion | None:
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
