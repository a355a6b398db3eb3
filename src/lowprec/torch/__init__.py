"""lowprec for PyTorch: tensors are rounded, models watched and accelerators emulated.

`emulating` intercepts a model's calls, `functions` replaces them, `products` rounds and multiplies.
Import it by name, ``import lowprec.torch as lt``; ``import lowprec`` never imports torch.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "lowprec.torch needs PyTorch, which is not installed; "
        "run: python -m pip install 'lowprec[torch]'",
        name="torch",
    ) from None

from lowprec.torch.blocks import Quantized, quantize
from lowprec.torch.calling import attention, conv2d, linear, matmul
from lowprec.torch.diagnosing import diagnose
from lowprec.torch.door import cast, decode, encode, round_to, round_to_
from lowprec.torch.emulating import emulate
from lowprec.torch.optimizing import Optimizer
from lowprec.torch.watching import watch

__all__ = [
    "Optimizer",
    "Quantized",
    "attention",
    "cast",
    "conv2d",
    "decode",
    "diagnose",
    "emulate",
    "encode",
    "linear",
    "matmul",
    "quantize",
    "round_to",
    "round_to_",
    "watch",
]
