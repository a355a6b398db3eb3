"""Experts of gpt-oss in MXFP4, which lie as the transpose of their weight."""

from __future__ import annotations

import dataclasses

import numpy as np

from lowprec import blocks
from lowprec.formats import (
    float4_e2m1fn,
    float8_e8m0fnu,
)
from lowprec.tensors.packings.parts import BYTES, Found, Model, Parts, need, values_of
from lowprec.tensors.quantized import Codes, Grid, QuantizedTensor, Scales


def read_blocks(model: Model, name: str, base: str) -> Found | None:
    """Read ``*_blocks`` beside ``*_scales``: MXFP4 of experts, of the transpose of their weight."""
    blocks_, scale = model.tensors[name], model.get(f"{base}_scales")
    if scale is None:
        return None
    need(
        blocks_.dtype == np.uint8
        and scale.dtype in BYTES
        and len(blocks_.shape) == 4
        and blocks_.shape[-1] == 16
        and scale.shape == blocks_.shape[:-1],
        f"blocks of shape {blocks_.shape} and scales of shape {scale.shape}",
    )
    experts, rows, groups, width = blocks_.shape
    columns = groups * 2 * width
    parts = Parts(
        base,
        "mxfp4 of gpt-oss",
        (experts, rows, columns),
        blocks.mxfp4,
        Codes(blocks_, experts * rows, columns, 4, groups * width),
        values_of(float4_e2m1fn),
        Scales(scale, experts * rows, groups, values_of(float8_e8m0fnu)),
        (1, 32),
        (blocks_, scale),
    )
    found = parts.found()
    tensor = dataclasses.replace(
        found.tensor,
        shape=(experts, columns, rows),
        source=dataclasses.replace(_grid(found.tensor), is_transposed=True),
        axis=-2,
        scale_shape=(experts, groups, rows),
    )
    return found._replace(tensor=tensor)


def _grid(tensor: QuantizedTensor) -> Grid:
    assert isinstance(tensor.source, Grid), "as it was made"
    return tensor.source
