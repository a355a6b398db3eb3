"""lowprec: what happens to my numbers in 16 bits, where, and what do I do about it?"""  # noqa: D400

from importlib import import_module as _import_module
from types import ModuleType as _Module
from typing import TYPE_CHECKING, Any

from lowprec import forks as forks  # notes forks from here on
from lowprec.conversion import cast as cast
from lowprec.conversion import decode as decode
from lowprec.conversion import encode as encode
from lowprec.conversion import round_to as round_to
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
from lowprec.formats import get_format as get_format
from lowprec.formats import named_formats as named_formats
from lowprec.formats import tfloat32 as tfloat32
from lowprec.limits import FInfo as FInfo
from lowprec.limits import finfo as finfo
from lowprec.rounding import Overflow as Overflow
from lowprec.rounding import Rounding as Rounding

if TYPE_CHECKING:
    from lowprec import tensors as tensors
    from lowprec import train as train
    from lowprec.accumulation import Accumulator as Accumulator
    from lowprec.accumulation import dot as dot
    from lowprec.accumulation import error_bound as error_bound
    from lowprec.accumulation import matmul as matmul
    from lowprec.accumulation import sum as sum  # noqa: A004 - numpy.sum's name, for the same thing
    from lowprec.advice import Advice as Advice
    from lowprec.advice import advise as advise
    from lowprec.analysis import Comparison as Comparison
    from lowprec.analysis import compare as compare
    from lowprec.analysis import measure as measure
    from lowprec.arithmetic import Arithmetic as Arithmetic
    from lowprec.bits import Inspection as Inspection
    from lowprec.bits import inspect as inspect
    from lowprec.flags import Events as Events
    from lowprec.flags import Flags as Flags
    from lowprec.measurement import Measurement as Measurement
    from lowprec.neighbours import next_down as next_down
    from lowprec.neighbours import next_up as next_up
    from lowprec.neighbours import ulp as ulp

__version__ = "0.1.0"

# Modules that are loaded when one of their names is first asked for: a program that only converts
# does not wait for the rest.
_LATER = {
    "accumulation": ["Accumulator", "dot", "error_bound", "matmul", "sum"],
    "advice": ["Advice", "advise"],
    "analysis": ["Comparison", "compare", "measure"],
    "arithmetic": ["Arithmetic"],
    "bits": ["Inspection", "inspect"],
    "flags": ["Events", "Flags"],
    "measurement": ["Measurement"],
    "neighbours": ["next_down", "next_up", "ulp"],
    "tensors": ["tensors"],
    "train": ["train"],
}
_HOME = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import_module(f"{__name__}.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME} - {"Any", "TYPE_CHECKING"})


__all__ = [
    name
    for name in __dir__()
    if not (name.startswith("_") or name == "tensors" or isinstance(globals().get(name), _Module))
]  # a star does not load what reads files
