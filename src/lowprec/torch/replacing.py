"""Which of torch's functions an emulated module computes otherwise, and which are left to torch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from lowprec.torch import functions

if TYPE_CHECKING:
    from collections.abc import Callable

functional = torch.nn.functional

_PRODUCTS: dict[Any, Callable[..., Any]] = {
    functional.linear: functions.linear,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), functions.convolution),
    **dict.fromkeys(
        (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        functions.transposed_convolution,
    ),
    **dict.fromkeys(
        (
            torch.matmul,
            torch.Tensor.matmul,
            torch.Tensor.__matmul__,
            torch.mm,
            torch.Tensor.mm,
            torch.bmm,
            torch.Tensor.bmm,
        ),
        functions.matmul,
    ),
    torch.Tensor.__rmatmul__: lambda how, a, b: functions.matmul(how, b, a),
    **dict.fromkeys(
        (torch.addmm, torch.Tensor.addmm, torch.baddbmm, torch.Tensor.baddbmm), functions.addmm
    ),
    **dict.fromkeys((torch.Tensor.addmm_, torch.Tensor.baddbmm_), functions.addmm_),
    torch.einsum: functions.einsum,
    functional.scaled_dot_product_attention: functions.attention,
    functional.multi_head_attention_forward: functions.multi_head_attention,
    torch.lstm: functions.recurrent(functions.lstm_cell, True),
    torch.gru: functions.recurrent(functions.gru_cell, False),
    torch.rnn_tanh: functions.recurrent(functions.rnn_cell(torch.tanh), False),
    torch.rnn_relu: functions.recurrent(functions.rnn_cell(torch.relu), False),
    torch.lstm_cell: functions.lstm_cell,
    torch.gru_cell: functions.gru_cell,
    torch.rnn_tanh_cell: functions.rnn_cell(torch.tanh),
    torch.rnn_relu_cell: functions.rnn_cell(torch.relu),
}
_ROUNDED = {
    function: functions.rounding_after(function)
    for name in ("embedding", "layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm")
    for home in (functional, torch)
    if (function := getattr(home, name, None)) is not None
}
_REPLACED: dict[Any, Callable[..., Any]] = {**_PRODUCTS, **_ROUNDED}
_BOTH = (
    "dot vdot inner outer ger mv addmv addr addbmm det logdet slogdet inverse pinverse qr svd cov "
    "cholesky cholesky_solve cholesky_inverse triangular_solve lu_solve matrix_exp matrix_power "
    "corrcoef smm sspaddmm hspmm istft stft "
)
_PRIVATE, _FUSED = ("grouped_mm", "_foreach_mm", "_mm_v2"), "_scaled_dot_product"
_LEFT = (  # products that stay in float32 and are counted: where torch keeps them, and their names
    (torch, "", f"{_BOTH} bilinear tensordot chain_matmul kron cdist conv_tbc convolution "),
    (torch, "", "pca_lowrank svd_lowrank _addmm_activation _convolution _int_mm _trilinear"),
    (torch, "", " ".join(n for n in dir(torch) if n.endswith(_PRIVATE) or _FUSED in n)),
    (torch.Tensor, "", f"{_BOTH} addbmm_ addmv_ addr_"),
    (functional, "", "bilinear embedding_bag pairwise_distance cosine_similarity grouped_mm"),
    (functional, "", "linear_cross_entropy scaled_mm scaled_grouped_mm"),
    (torch.sparse, "sparse.", "mm addmm sampled_addmm"),
    (torch.fft, "fft.", " ".join(n for n in dir(torch.fft) if n.endswith(("fft", "fft2", "fftn")))),
    (
        torch.linalg,
        "linalg.",
        " ".join(n for n in dir(torch.linalg) if "norm" not in n and n[0] != "_"),
    ),
)


def _left_alone() -> dict[Any, str]:
    return {
        function: prefix + name
        for home, prefix, names in _LEFT
        for name in names.split()
        if not name.startswith("__") and callable(function := getattr(home, name, None))
    }


_COUNTED = _left_alone()


def replacement(func: Any) -> tuple[Callable[..., Any] | None, str]:
    """Return what replaces a function, or None, and the name to count it by where that is left."""
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        func = _torchs_own(func)
    handler = _REPLACED.get(func)
    return handler, func.__name__ if handler else _COUNTED.get(func, "")


@functools.cache
def _torchs_own(operator: Any) -> Any:
    """Return torch's function that an operator ``aten::name`` is, or the operator itself."""
    packet = getattr(operator, "overloadpacket", operator)
    namespace, _, name = packet._qualified_op_name.partition("::")
    group, _, rest = name.partition("_")
    inner = {"linalg": torch.linalg, "fft": torch.fft}.get(group)
    homes = ((torch, name), (functional, name), (torch.Tensor, name), (inner, rest))
    found = [getattr(home, spelled, None) for home, spelled in homes if namespace == "aten"]
    return next((f for f in found if f in _REPLACED or f in _COUNTED), operator)
