"""The libraries beside us, asked for the same work, into memory allocated before if they can.

Each function takes a workload, a format and a task (encode, decode or round_to) and returns a call
without arguments that returns codes (encode) or float32 values.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

import lowprec as lp

if TYPE_CHECKING:
    from collections.abc import Callable

    from timing import Work
    from workload import Workload


def astype(load: Workload, fmt: str, task: str) -> Work:
    """NumPy's casts, without the allocation: to its own float16, to ml_dtypes' bfloat16 and fp8."""
    copy = functools.partial(np.copyto, casting="unsafe")
    narrow = np.zeros(load.x.shape, lp.get_format(fmt).dtype)
    codes = narrow.view(lp.get_format(fmt).code_dtype)
    return _casts(task, copy, load.x, narrow, load.y, codes if task == "encode" else load.y)


def torch(load: Workload, fmt: str, task: str) -> Work:
    """Torch's casts on the CPU, in the workload's memory."""
    import torch

    x, y = torch.from_numpy(load.x), torch.from_numpy(load.y)
    narrow = torch.zeros(x.shape, dtype=getattr(torch, fmt))
    codes = narrow.view(getattr(torch, lp.get_format(fmt).code_dtype.name)).numpy()
    return _casts(task, torch.Tensor.copy_, x, narrow, y, codes if task == "encode" else load.y)


def _casts(
    task: str, copy: Callable[[Any, Any], object], x: Any, narrow: Any, y: Any, result: np.ndarray
) -> Work:
    """Encode by copying into an array of the format, decode by copying out of it."""
    copies = {
        "encode": [(narrow, x)],
        "decode": [(y, narrow)],
        "round_to": [(narrow, x), (y, narrow)],
    }[task]
    copy(narrow, x)  # what decode reads

    def work() -> np.ndarray:
        for target, source in copies:
            copy(target, source)
        return result

    return work


def gfloat(load: Workload, fmt: str, task: str) -> Work:
    """Gfloat's array functions; its encode alone rounds toward zero, its decode gives float64."""
    import gfloat
    import gfloat.formats

    names = {"float16": "binary16", "float8_e4m3fn": "ocp_e4m3", "float8_e5m2": "ocp_e5m2"}
    info = getattr(gfloat.formats, f"format_info_{names.get(fmt, fmt)}")
    codes = lp.encode(load.x, fmt)
    return {
        "encode": lambda: gfloat.encode_ndarray(info, gfloat.round_ndarray(info, load.x)).astype(
            codes.dtype
        ),
        "decode": lambda: gfloat.decode_ndarray(info, codes).astype(np.float32),
        "round_to": lambda: gfloat.round_ndarray(info, load.x).astype(np.float32),
    }[task]


PEERS = {"astype": astype, "torch": torch, "gfloat": gfloat}
