"""Packings of torchao, which texts of the file describe."""

from __future__ import annotations

import dataclasses

import numpy as np

from lowprec.formats import (
    float4_e2m1fn,
    float8_e4m3fn,
)
from lowprec.tensors.packings.laid_out import bytes_of_floats, plain_codes
from lowprec.tensors.packings.parts import BYTES, FP8, Found, Model, need, one_number, read_json


def read_torchao(model: Model, name: str, base: str) -> Found | None:
    """Read ``module._weight_qdata`` beside ``module._weight_scale``, which texts describe."""
    module, _, last = base.rpartition(".")
    whole = f"{module}.{last.removeprefix('_')}".lstrip(".")
    codes, scale = model.tensors[name], model.get(f"{base}_scale")
    need(scale is not None and last.startswith("_"), "it has no scale of torchao's beside it")
    assert scale is not None
    told = read_json(model.texts.get(whole, "{}"))
    data = told.get("_data", {}) if isinstance(told, dict) else {}
    kind = str(told.get("_type", "")) if isinstance(told, dict) else ""
    need(not data.get("is_swizzled_scales"), "its scales are swizzled")
    need(model.get(f"{base}_act_pre_scale") is None, "its inputs are scaled before")
    in_all = one_number(model.get(f"{base}_per_tensor_scale"))
    zero = model.get(f"{base}_zero_point")
    packed = codes.dtype in (np.dtype(np.uint8), np.dtype(float4_e2m1fn.dtype))
    if packed and len(codes.shape) == 2 and scale.dtype in (float8_e4m3fn.dtype, *BYTES):
        need(codes.dtype == np.uint8, f"codes of {codes.dtype}")
        found = bytes_of_floats(codes, scale, in_all, whole, divides=False)
    else:
        need(codes.dtype in FP8 or codes.dtype == np.int8, f"{kind or 'torchao'} {codes.dtype}")
        need("Int4" not in kind, f"packed as torchao's {kind}")
        renamed = model._replace(tensors={f"{whole}_zero_point": zero} if zero is not None else {})
        found = plain_codes(renamed, codes, scale, whole, "float")
    used = {*found.used, *(t.name for t in (zero,) if t is not None)}
    optional = (f"{base}_act_per_tensor_scale",)
    used.update(other for other in optional if other in model.tensors)
    tensor = dataclasses.replace(found.tensor, packing=f"torchao {kind}".strip())
    return Found(tensor, tuple(used))
