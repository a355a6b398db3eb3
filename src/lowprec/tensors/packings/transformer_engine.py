"""Packings of TransformerEngine."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from lowprec.formats import (
    float8_e4m3fn,
)
from lowprec.tensors.packings.laid_out import plain_codes
from lowprec.tensors.packings.parts import BYTES, FP8, Found, Model, UnknownLayoutError, need
from lowprec.tensors.sources import Viewed

if TYPE_CHECKING:
    from lowprec.tensors.tensor import Tensor


def read_engine(model: Model, name: str, base: str) -> Found | None:
    """Read TransformerEngine's ``_rowwise_data`` or ``_data`` beside their ``_scale_inv``."""
    codes = model.tensors[name]
    stem = name.removesuffix("_data")
    scale = model.get(f"{stem}_scale_inv")
    if scale is None:
        return None
    whole = re.sub(r"[._]+(rowwise)?_?$", "", stem)
    amax = model.get(f"{whole}._amax_rowwise")
    extra = [n for n in model.tensors if re.match(re.escape(whole) + r"\._?(columnwise|amax)", n)]
    if amax is not None:
        raise UnknownLayoutError("TransformerEngine's NVFP4, whose scales are laid out for a GPU")
    fp8 = codes
    if codes.dtype == np.uint8 and scale.dtype in (np.dtype(np.float32), *BYTES):
        fp8 = dataclasses.replace(
            codes,
            dtype=np.dtype(float8_e4m3fn.dtype),
            source=Viewed(codes.source, np.dtype(float8_e4m3fn.dtype)),
            fmt=float8_e4m3fn,
        )
    need(fp8.dtype in FP8, f"its codes are {codes.dtype}")
    scale = _unpadded(fp8, scale)
    found = plain_codes(model._replace(tensors={}), fp8, scale, whole, "float")
    tensor = dataclasses.replace(found.tensor, packing="TransformerEngine", stored=(codes, scale))
    return Found(tensor, (codes.name, scale.name, *extra))


def _unpadded(codes: Tensor, scale: Tensor) -> Tensor:
    """Return scales; refuse those that are padded to the tiles of a GPU."""
    if scale.size == 1 or len(codes.shape) != 2 or scale.dtype not in BYTES:
        return scale
    need(
        scale.shape == (codes.shape[0], -(-codes.shape[1] // 32)),
        f"its scales of shape {scale.shape} are padded for a GPU",
    )
    return scale
