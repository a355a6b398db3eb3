"""NumPy code run in a format, line by line: where error is born, where it grows, what to keep.

`trace` is the door. The room is called as its door is: ``lowprec.trace(f, x)`` runs it. `tracing`
runs a program, `places` knows its lines, `values` are its numbers, whose operators ask `engine`.
`doors` stands in front of `numpy` and `math`, and `functions` has NumPy's functions in a format;
`shares` says what an operation passes on of an error, `verdict` names lines, `least` finds what
must stay wide.
"""

import inspect as _inspect
import sys as _sys
from types import ModuleType as _ModuleType
from typing import Any as _Any

from lowprec.trace.least import Keep
from lowprec.trace.magic import load_ipython_extension as load_ipython_extension
from lowprec.trace.outcomes import Error, Line, Output
from lowprec.trace.tracing import Trace, trace

__all__ = ["Error", "Keep", "Line", "Output", "Trace", "trace"]


def _signature() -> _inspect.Signature:
    own = _inspect.signature(trace)
    room = _inspect.Parameter("room", _inspect.Parameter.POSITIONAL_ONLY)
    first, *rest = own.parameters.values()
    first = first.replace(kind=_inspect.Parameter.POSITIONAL_ONLY)
    return own.replace(parameters=[room, first, *rest])


class _Room(_ModuleType):
    """A room that is called: ``lowprec.trace`` is the function and the place of its kin."""

    def __call__(self, f: _Any, *args: _Any, **options: _Any) -> Trace:
        return trace(f, *args, **options)

    __call__.__signature__ = _signature()  # type: ignore[attr-defined]


_sys.modules[__name__].__class__ = _Room
