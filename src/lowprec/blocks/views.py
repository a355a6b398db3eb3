"""Block formats and quantized arrays as cards for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowprec.blocks.formats import IntegerFormat, ScaleRule
from lowprec.blocks.words import block_in_words, element_in_words
from lowprec.conversion import decode
from lowprec.show.cards import bits_html, card

if TYPE_CHECKING:
    from lowprec.blocks.formats import BlockFormat
    from lowprec.blocks.quantized import Quantized

__all__ = ["block_format_html", "quantized_html"]

_RULES = {
    ScaleRule.FLOOR: "2^(floor(log2 amax) - emax); clips what exceeds M·scale",
    ScaleRule.CEIL: "2^(ceil(log2 amax) - emax)",
    ScaleRule.RCEIL: "the least power of two with amax ≤ M·scale",
    ScaleRule.EVEN: "floor's power, doubled where amax rounds up to the next",
    ScaleRule.AMAX: "amax/M, rounded once",
    ScaleRule.FOUR_OVER_SIX: "amax/6 or amax/4, whichever has less squared error",
}


def block_format_html(fmt: BlockFormat) -> str:
    """Return a block format's element, block, scale and rule."""
    element = fmt.element
    if isinstance(element, IntegerFormat):
        cells = {"sign": "s", "trailing": "t" * (element.bits - 1)}
    else:
        widths = {"sign": 1, "exponent": element.exponent_bits, "trailing": element.trailing_bits}
        cells = {name: name[0] * width for name, width in widths.items() if width}
    lines = [
        ("element", f"{element_in_words(fmt)}, up to {element.max:g}"),
        ("block", block_in_words(fmt)),
        ("scale", str(fmt.scale)),
        ("rule", f"{fmt.rule.value}: {_RULES[fmt.rule]}"),
        ("tensor scale", "one float32 number" if fmt.tensor_scale else "none"),
    ]
    return card(str(fmt), f"{fmt.bits_per_value:.6g} bits a value", bits_html(cells), lines)


def quantized_html(quantized: Quantized) -> str:
    """Return a quantized array's format, sizes and the range of its scales."""
    fmt, scales = quantized.fmt, quantized.scales
    values = scales if scales.dtype == np.float32 else decode(scales, fmt.scale, dtype="float64")
    finite = values[np.isfinite(values)]
    marked = values.size - finite.size
    lines = [
        ("shape", f"{quantized.shape}, blocks of {block_in_words(fmt)}"),
        ("axis", str(quantized.axis)),
        ("scales", f"{scales.shape} of {fmt.scale}"),
        ("range of scales", f"{finite.min():g} to {finite.max():g}" if finite.size else "none"),
        ("blocks with NaN", str(marked)),
    ]
    if quantized.tensor_scale is not None:
        lines.append(("tensor scale", f"{float(quantized.tensor_scale):.9g}"))
    lines.append(("bits a value", f"{quantized.bits_per_value:.6g}"))
    return card(f"Quantized {fmt}", element_in_words(fmt), "", lines)
