"""Codes of a byte each beside one tensor of scales, which libraries name in many ways."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from lowprec.formats import (
    float8_e4m3fn,
)
from lowprec.tensors.kinds.safetensors import PackedBits
from lowprec.tensors.packings.laid_out import bytes_of_floats, plain_codes
from lowprec.tensors.packings.parts import BYTES, FP8, Found, Model, need, one_number

if TYPE_CHECKING:
    from lowprec.tensors.tensor import Tensor


def read_scaled(model: Model, name: str, base: str) -> Found | None:
    """Read ``weight`` beside ``weight_scale``: fp8 or int8, or ModelOpt's bytes of NVFP4.

    DeepSeek's own programs call the scale ``scale``, ComfyUI ``scale_weight``; optimum-quanto has
    ``weight._data`` and ``weight._scale``, ONNX Runtime ``w_quantized``, int8 or uint8, ``w_scale``
    and ``w_zero_point``.
    """
    codes = model.get(base)
    if codes is None:
        return None
    scale = model.tensors[name]
    stem = base.removesuffix("._data").removesuffix("_quantized")
    need(model.get(f"{stem}._shift") is None, "its elements are shifted")
    in_all = model.get(f"{base}_scale_2")
    packed = _as_bytes(codes)
    is_known = scale.dtype == float8_e4m3fn.dtype or (packed is not codes and scale.dtype in BYTES)
    if packed.dtype == np.uint8 and len(codes.shape) >= 2 and is_known:
        need(len(scale.shape) == len(codes.shape), "its shapes")
        return bytes_of_floats(packed, scale, one_number(in_all), base, divides=False)
    is_onnx = base.endswith("_quantized")
    if codes.dtype not in FP8 and codes.dtype != np.int8 and not is_onnx:
        return None  # a number of another meaning: a norm's scale beside its weight
    need(not is_onnx or (codes.dtype.name in ("int8", "uint8") and scale.size == 1), "its axis")
    kind = "onnx" if is_onnx else "float" if codes.dtype in FP8 else "int"
    found = plain_codes(model, codes, scale, stem if is_onnx else base, kind)
    return found._replace(tensor=dataclasses.replace(found.tensor, name=stem))


def _as_bytes(codes: Tensor) -> Tensor:
    """Return elements that share bytes as these bytes, where a row has whole ones."""
    source = codes.source
    if not isinstance(source, PackedBits) or not codes.shape or codes.shape[-1] * source.bits % 8:
        return codes
    shape = (*codes.shape[:-1], codes.shape[-1] * source.bits // 8)
    return dataclasses.replace(
        codes, shape=shape, dtype=np.dtype(np.uint8), source=source.packed, fmt=None
    )


def read_inverse(model: Model, name: str, base: str) -> Found | None:
    """Read ``weight`` beside ``weight_scale_inv``, which is multiplied by, tiles of 128 × 128."""
    codes, scale = model.get(base), model.tensors[name]
    if codes is None:
        return None
    if codes.dtype == np.int8 and len(codes.shape) == 2 and scale.dtype in BYTES:
        return bytes_of_floats(codes, scale, None, base, divides=False)
    need(codes.dtype in FP8, f"its codes are {codes.dtype}")
    found = plain_codes(model, codes, scale, base, "float")
    return found._replace(tensor=dataclasses.replace(found.tensor, packing="fp8"))
