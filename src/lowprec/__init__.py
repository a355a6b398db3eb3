"""lowprec: what happens to my numbers in 16 bits, where, and what do I do about it?"""  # noqa: D400

from importlib import import_module as _import_module
from types import ModuleType as _Module
from typing import TYPE_CHECKING
from typing import Any as _Any

from lowprec.blocks import BlockFormat as BlockFormat
from lowprec.blocks import IntegerFormat as IntegerFormat
from lowprec.blocks import Quantized as Quantized
from lowprec.blocks import ScaleRule as ScaleRule
from lowprec.blocks import fp8_1x128 as fp8_1x128
from lowprec.blocks import fp8_128x128 as fp8_128x128
from lowprec.blocks import get_format as get_format
from lowprec.blocks import int4_g32 as int4_g32
from lowprec.blocks import int8_channel as int8_channel
from lowprec.blocks import mxfp4 as mxfp4
from lowprec.blocks import mxfp6_e2m3 as mxfp6_e2m3
from lowprec.blocks import mxfp6_e3m2 as mxfp6_e3m2
from lowprec.blocks import mxfp8_e4m3 as mxfp8_e4m3
from lowprec.blocks import mxfp8_e5m2 as mxfp8_e5m2
from lowprec.blocks import mxint8 as mxint8
from lowprec.blocks import named_block_formats as named_block_formats
from lowprec.blocks import nvfp4 as nvfp4
from lowprec.blocks import nvfp4_2d as nvfp4_2d
from lowprec.blocks import nvfp4_46 as nvfp4_46
from lowprec.blocks import quantize as quantize
from lowprec.common import forks as _forks  # notes forks from here on  # noqa: F401
from lowprec.common import version as _version
from lowprec.conversion import cast as cast
from lowprec.conversion import decode as decode
from lowprec.conversion import encode as encode
from lowprec.conversion import next_down as next_down
from lowprec.conversion import next_up as next_up
from lowprec.conversion import round_to as round_to
from lowprec.conversion import ulp as ulp
from lowprec.formats import Format as Format
from lowprec.formats import Specials as Specials
from lowprec.formats import bfloat16 as bfloat16
from lowprec.formats import float4_e2m1fn as float4_e2m1fn
from lowprec.formats import float6_e2m3fn as float6_e2m3fn
from lowprec.formats import float6_e3m2fn as float6_e3m2fn
from lowprec.formats import float8_e3m4 as float8_e3m4
from lowprec.formats import float8_e4m3 as float8_e4m3
from lowprec.formats import float8_e4m3b11fnuz as float8_e4m3b11fnuz
from lowprec.formats import float8_e4m3fn as float8_e4m3fn
from lowprec.formats import float8_e4m3fnuz as float8_e4m3fnuz
from lowprec.formats import float8_e5m2 as float8_e5m2
from lowprec.formats import float8_e5m2fnuz as float8_e5m2fnuz
from lowprec.formats import float8_e8m0fnu as float8_e8m0fnu
from lowprec.formats import float16 as float16
from lowprec.formats import float32 as float32
from lowprec.formats import float64 as float64
from lowprec.formats import named_formats as named_formats
from lowprec.formats import tfloat32 as tfloat32
from lowprec.rounding import Overflow as Overflow
from lowprec.rounding import Rounding as Rounding

if TYPE_CHECKING:
    from lowprec import linalg as linalg
    from lowprec import tensors as tensors
    from lowprec import train as train
    from lowprec.accumulation import Accumulator as Accumulator
    from lowprec.accumulation import cumsum as cumsum
    from lowprec.accumulation import dot as dot
    from lowprec.accumulation import error_bound as error_bound
    from lowprec.accumulation import matmul as matmul
    from lowprec.accumulation import mean as mean
    from lowprec.accumulation import sum as sum  # noqa: A004 - numpy.sum's name, for the same thing
    from lowprec.accumulation import tensor_core as tensor_core
    from lowprec.accumulation import tensor_cores as tensor_cores
    from lowprec.analysis import Advice as Advice
    from lowprec.analysis import Comparison as Comparison
    from lowprec.analysis import Difference as Difference
    from lowprec.analysis import Measurement as Measurement
    from lowprec.analysis import advise as advise
    from lowprec.analysis import bitround as bitround
    from lowprec.analysis import compare as compare
    from lowprec.analysis import diff as diff
    from lowprec.analysis import keepbits as keepbits
    from lowprec.analysis import measure as measure
    from lowprec.arithmetic import Arithmetic as Arithmetic
    from lowprec.arithmetic import Events as Events
    from lowprec.arithmetic import Flags as Flags
    from lowprec.exact import FInfo as FInfo
    from lowprec.exact import Inspection as Inspection
    from lowprec.exact import finfo as finfo
    from lowprec.exact import inspect as inspect
    from lowprec.trace import Trace as Trace
    from lowprec.trace import trace as trace

__version__ = _version.VERSION

# Every named format, one that was added a minute ago included, is an attribute; the imports above
# tell type checkers.
globals().update({**named_formats(), **named_block_formats()})

# Rooms that are loaded when one of their names is first asked for: a program that only converts
# does not wait for the rest.
_LATER = {
    "accumulation": [
        "Accumulator",
        "cumsum",
        "dot",
        "error_bound",
        "matmul",
        "mean",
        "sum",
        "tensor_core",
        "tensor_cores",
    ],
    "analysis": [
        "Advice",
        "Comparison",
        "Difference",
        "Measurement",
        "advise",
        "bitround",
        "compare",
        "diff",
        "keepbits",
        "measure",
    ],
    "arithmetic": ["Arithmetic", "Events", "Flags"],
    "exact": ["FInfo", "Inspection", "finfo", "inspect"],
    "trace": ["Trace"],
}
_HOME = {name: room for room, names in _LATER.items() for name in names}
_ROOMS = ["linalg", "tensors", "trace", "train"]  # doors of their own: ``lowprec.train.fit``

# A star import replaces no built-in (`sum`) and loads nothing that reads files (`tensors`).
_FIRST = {name for name, value in globals().items() if not isinstance(value, _Module)}
__all__ = sorted(
    name
    for name in {*_FIRST, *_HOME, "trace", "train"} - {"TYPE_CHECKING", "sum"}
    if not name.startswith("_")
)


def __getattr__(name: str) -> _Any:
    if name in _ROOMS:
        return _import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "sum", "__all__", "__version__"})
