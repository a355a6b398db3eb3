"""The operators ``lowprec::…``, which eager mode, torch.compile, export and functorch run alike.

An operator takes plain values: formats and modes are spelled in one string. Each has a kernel for
the CPU, one of torch's own operations for other devices where that can be, a fake one that knows
shapes, a rule for vmap and one for autograd.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from lowprec.conversion import portable
from lowprec.formats import float32
from lowprec.torch import cpu
from lowprec.torch.requests import read_request

_LIBRARY = torch.library.Library("lowprec", "DEF")
ACCELERATORS = ("CUDA", "MPS", "XLA", "XPU", "HPU", "PrivateUse1")
"""Dispatch keys of the devices that are not the CPU."""


def define(schema: str, *tags: Any) -> None:
    """Define an operator of this library."""
    _LIBRARY.define(schema, tags=tags)


def implement(name: str, function: Any, *keys: str) -> None:
    """Register what an operator does under dispatch keys."""
    for key in keys:
        _LIBRARY.impl(name, function, key)


def register_fake(name: str, function: Any) -> None:
    """Register what an operator does to shapes."""
    torch.library.register_fake(f"lowprec::{name}", function, lib=_LIBRARY)


def register_gradient(name: str, backward: Any, setup_context: Any = None) -> None:
    """Register what an operator does to gradients."""
    torch.library.register_autograd(
        f"lowprec::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )


def register_vmap(name: str, function: Any) -> None:
    """Register what an operator does under vmap."""
    torch.library.register_vmap(f"lowprec::{name}", function, lib=_LIBRARY)


# Keys ----------------------------------------------------------------------------------------

_local = threading.local()


def draw(generator: torch.Generator | None = None) -> int:
    """Draw the key of one stochastic call, from torch's CPU generator by default."""
    try:
        tensor, array = _local.kept
    except AttributeError:
        tensor = torch.empty((), dtype=torch.int64, device="cpu")
        array = tensor.numpy()
        _local.kept = tensor, array
    tensor.random_() if generator is None else tensor.random_(generator=generator)
    return int(array)


def _draw_key(place: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    return torch.tensor(draw(generator), dtype=torch.int64)


define(
    "draw_key(Tensor place, *, Generator? generator=None) -> Tensor",
    torch.Tag.nondeterministic_seeded,
)
implement("draw_key", _draw_key, "CPU")
register_fake("draw_key", lambda place, generator=None: place.new_empty((), dtype=torch.int64))


def draw_key(generator: torch.Generator | None = None) -> torch.Tensor:
    """Draw a key when the operator runs.

    torch's compiler makes one of two equal calls, but for those that it knows to be random. An
    empty tensor of its own sets each call apart, because ``torch.empty`` is one of these.
    """
    place = torch.empty(0, device="cpu")
    operator = torch.ops.lowprec.draw_key.default
    return operator(place) if generator is None else operator(place, generator=generator)


def as_key(key: torch.Tensor | None) -> int:
    """Return a key as the kernels take it."""
    return 0 if key is None else int(key.item())


# Rounding ------------------------------------------------------------------------------------


def _round(
    x: torch.Tensor, how: str, dtype: torch.dtype, key: torch.Tensor | None = None
) -> torch.Tensor:
    return cpu.round_tensor(x, how, dtype, as_key(key))


def _round_elsewhere(
    x: torch.Tensor, how: str, dtype: torch.dtype, key: torch.Tensor | None = None
) -> torch.Tensor:
    """Round a tensor of another device with torch's own operations there."""
    fmt, rounding, overflow, *_ = read_request(how)
    advice = ""
    if x.dtype != torch.float32 or dtype != torch.float32:
        advice = f"float32 tensors alone are rounded there, not {x.dtype} to {dtype}"
    elif rounding.is_stochastic:
        advice = f"{rounding.value!r} draws its random bits on the CPU alone"
    elif not fmt.fits(float32):
        advice = f"float32 does not hold {fmt}"
    if advice:
        raise NotImplementedError(
            f"x is on {x.device}: {advice}; pass x.float() with a deterministic mode, or round "
            "x.cpu() and move the result"
        )
    constants = portable.constants_of(fmt, rounding, overflow)
    return portable.round_array(torch, x, constants)


def _round_fake(
    x: torch.Tensor, how: str, dtype: torch.dtype, key: torch.Tensor | None = None
) -> torch.Tensor:
    return torch.empty_like(x, dtype=dtype)


def _round_context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.dtype = inputs[0].dtype


def _round_gradient(ctx: Any, gradient: torch.Tensor) -> Any:
    return gradient.to(ctx.dtype), None, None, None


def _first(x: torch.Tensor, dim: int | None) -> torch.Tensor:
    """Move a batch in front, so that elements are counted through it."""
    return x if dim is None else x.movedim(dim, 0)


def _round_batch(info: Any, in_dims: Any, x: torch.Tensor, *how: Any) -> Any:
    if any(dim is not None for dim in in_dims[1:]):
        raise NotImplementedError("a batch of keys; draw one key a call, outside of vmap")
    return torch.ops.lowprec.round_to.default(_first(x, in_dims[0]), *how), 0


define("round_to(Tensor x, str how, ScalarType dtype, Tensor? key=None) -> Tensor")
implement("round_to", _round, "CPU")
implement("round_to", _round_elsewhere, *ACCELERATORS)
register_fake("round_to", _round_fake)
register_gradient("round_to", _round_gradient, _round_context)
register_vmap("round_to", _round_batch)
round_to = torch.ops.lowprec.round_to.default


# In place ------------------------------------------------------------------------------------


def _round_here(x: torch.Tensor, how: str, key: torch.Tensor | None = None) -> None:
    cpu.round_in_place(x, how, as_key(key))


def _round_there(x: torch.Tensor, how: str, key: torch.Tensor | None = None) -> None:
    x.copy_(_round_elsewhere(x, how, x.dtype, key))


def _count_version(keys: Any, x: torch.Tensor, how: str, key: torch.Tensor | None = None) -> None:
    """Move the version counter, by which autograd notices what was overwritten."""
    after = torch._C._after_ADInplaceOrView_keyset
    torch.ops.lowprec.round_to_.default.redispatch(keys & after, x, how, key)
    torch.autograd.graph.increment_version(x)


def _round_batch_(info: Any, in_dims: Any, x: torch.Tensor, *how: Any) -> Any:
    torch.ops.lowprec.round_to_.default(_first(x, in_dims[0]), *how)
    return None, None


define("round_to_(Tensor(a!) x, str how, Tensor? key=None) -> ()")
implement("round_to_", _round_here, "CPU")
implement("round_to_", _round_there, *ACCELERATORS)
register_fake("round_to_", lambda x, how, key=None: None)
_LIBRARY.impl("round_to_", _count_version, "ADInplaceOrView", with_keyset=True)
register_vmap("round_to_", _round_batch_)
round_to_ = torch.ops.lowprec.round_to_.default


# Codes ---------------------------------------------------------------------------------------


def _encode_elsewhere(x: torch.Tensor, *how: Any) -> torch.Tensor:
    raise NotImplementedError(
        f"x is on {x.device}, where lowprec has no codes; encode x.cpu() and move the result"
    )


def _encode_batch(info: Any, in_dims: Any, x: torch.Tensor, *how: Any) -> Any:
    return torch.ops.lowprec.encode.default(_first(x, in_dims[0]), *how), 0


define("encode(Tensor x, str how, ScalarType dtype, Tensor? key=None) -> Tensor")
implement("encode", _round, "CPU")
implement("encode", _encode_elsewhere, *ACCELERATORS)
register_fake("encode", _round_fake)
register_vmap("encode", _encode_batch)
encode = torch.ops.lowprec.encode.default


def _decode(codes: torch.Tensor, fmt: str, dtype: torch.dtype) -> torch.Tensor:
    return cpu.decode_tensor(codes, fmt, dtype)


def _decode_elsewhere(codes: torch.Tensor, *how: Any) -> torch.Tensor:
    raise NotImplementedError(
        f"codes are on {codes.device}, where lowprec reads none; decode codes.cpu() and move the "
        "result"
    )


def _decode_batch(info: Any, in_dims: Any, codes: torch.Tensor, *how: Any) -> Any:
    return torch.ops.lowprec.decode.default(_first(codes, in_dims[0]), *how), 0


define("decode(Tensor codes, str fmt, ScalarType dtype) -> Tensor")
implement("decode", _decode, "CPU")
implement("decode", _decode_elsewhere, *ACCELERATORS)
register_fake("decode", lambda codes, fmt, dtype: torch.empty_like(codes, dtype=dtype))
register_vmap("decode", _decode_batch)
decode = torch.ops.lowprec.decode.default
