"""Parts of packings that are not read: they are named and left, and never judged as weights.

A packing is known by what stands in one module (the name up to its last point): integers in the
place of a weight, or elements of one byte with scales beside them, whatever its names are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from lowprec.formats import named_formats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lowprec.tensors.tensor import Tensor

_ACTIVATIONS = re.compile(
    r"(^|[._])((input|output|k|v|q|prob|activation)_(global_)?scale|input_zero_point|kv_scale)$"
)
_SIGNS = {
    "qweight": "GPTQ or AWQ",
    "W_q": "HQQ",
    "q_weight": "EXL2",
    "SCB": "bitsandbytes' int8",
    "biases": "MLX",
    "codebooks": "AQLM",
    "Qidxs": "QuIP#",
    "weight_quantized": "ONNX",
}
_INTEGERS = tuple(np.dtype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4"))
_SMALL = tuple(fmt.dtype for fmt in named_formats().values() if fmt.dtype and fmt.bits <= 8)
_COMPANION = re.compile(r"[._]+(\w*scales?(_\w+)?|\w*zero_point|(nested_)?(absmax|quant_map))$")
_SCALE = re.compile(r"scale|absmax|zero_?point|codebook|quant_map|quant_state|^comfy_quant$")


def reasons_to_leave(tensors: Iterable[Tensor]) -> dict[str, str]:
    """Return why tensors that no packing has taken are left, by name, where they are.

    They are parts of packings that are not read, and scales of activations.
    """
    reasons: dict[str, str] = {}
    rest = {tensor.name: tensor for tensor in tensors}
    modules: dict[str, list[str]] = {}
    for name in rest:
        if _ACTIVATIONS.search(name):
            reasons[name] = "a scale of activations"
        elif name == "scaled_fp8":
            reasons[name] = "a mark of ComfyUI's, without numbers"
        else:
            modules.setdefault(name.rpartition(".")[0], []).append(name)
    for stem, names in modules.items():
        parts = set(_beside_their_names(rest, names))
        if stem:
            parts.update(_parts_of_a_module(rest, names))
        signs = [packing for sign, packing in _SIGNS.items() if f"{stem}.{sign}" in rest]
        words = f"packed as {signs[0]}" if signs else "of a packing"
        reasons.update(dict.fromkeys(parts, f"{words}, which lowprec does not read"))
    return reasons


def _beside_their_names(rest: Mapping[str, Tensor], names: list[str]) -> Iterator[str]:
    """Yield scales that begin with the name of a tensor of small elements, and that tensor."""
    for name in names:
        found = _COMPANION.search(name)
        if found is None:
            continue
        for end in ("", "_packed", "_quantized", "._data"):
            codes = rest.get(f"{name[: found.start()]}{end}")
            if codes is not None and codes.dtype in (*_INTEGERS, *_SMALL):
                yield from (name, codes.name)


def _parts_of_a_module(rest: Mapping[str, Tensor], names: list[str]) -> Iterator[str]:
    """Yield the parts of a quantized weight; a bias, and what is larger than codes, is another."""
    lasts = {name: name.rpartition(".")[2] for name in names}
    integers = [n for n in names if rest[n].dtype in _INTEGERS and len(rest[n].shape) > 1]
    small = [name for name in names if rest[name].dtype in _SMALL]
    scales = [name for name in names if _SCALE.search(lasts[name])]
    if integers:
        yield from integers
        most = max(rest[name].size for name in integers)
        yield from (n for n in names if lasts[n] != "bias" and rest[n].size <= most)
        yield from scales
    elif small and scales:
        yield from small
        yield from scales
