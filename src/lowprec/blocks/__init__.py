"""Block formats: numbers of few bits that share a scale, exactly, by every scale rule.

`BlockFormat` says what they are, `quantize` makes them, and `round_to` takes them as formats.
`formats` has the formats and names the scale rules, which `lowprec.kernels.blocks` apply; `layouts`
says how an array is cut into blocks, `quantizing` leads them to the kernels.
"""

from lowprec.blocks.formats import (
    BlockFormat,
    IntegerFormat,
    ScaleRule,
    fp8_1x128,
    fp8_128x128,
    get_format,
    int4_g32,
    int8_channel,
    mxfp4,
    mxfp6_e2m3,
    mxfp6_e3m2,
    mxfp8_e4m3,
    mxfp8_e5m2,
    mxint8,
    named_block_formats,
    nvfp4,
    nvfp4_2d,
    nvfp4_46,
)
from lowprec.blocks.quantized import Quantized
from lowprec.blocks.quantizing import quantize

__all__ = [
    "BlockFormat",
    "IntegerFormat",
    "Quantized",
    "ScaleRule",
    "fp8_1x128",
    "fp8_128x128",
    "get_format",
    "int4_g32",
    "int8_channel",
    "mxfp4",
    "mxfp6_e2m3",
    "mxfp6_e3m2",
    "mxfp8_e4m3",
    "mxfp8_e5m2",
    "mxint8",
    "named_block_formats",
    "nvfp4",
    "nvfp4_2d",
    "nvfp4_46",
    "quantize",
]
