"""Which torch dtype holds which format, and which tensors may be rounded."""

from __future__ import annotations

import functools
from typing import Any

import torch

from lowprec.formats import Format, float32, float64, named_formats

_ALL = {
    getattr(torch, name): fmt
    for name, fmt in named_formats().items()
    if isinstance(getattr(torch, name, None), torch.dtype)
}
FORMAT_OF: dict[torch.dtype, Format] = _ALL
"""The format of each floating-point dtype that torch has."""

DTYPE_OF: dict[Format, torch.dtype] = {fmt: dtype for dtype, fmt in _ALL.items()}
"""The dtype that torch has for a format."""

CODES = {8: torch.uint8, 16: torch.uint16, 32: torch.uint32, 64: torch.uint64}
"""Unsigned integers by their width."""

INTEGERS = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)


@functools.cache
def holds(dtype: torch.dtype, fmt: Format) -> bool:
    """Whether a dtype has every value of a format: infinities, NaN and -0 too."""
    own = FORMAT_OF.get(dtype)
    return own is not None and (
        own == fmt
        or (
            fmt.fits(own)
            and (own.has_infinity or not fmt.has_infinity)
            and own.has_nan
            and (own.has_negative_zero or not fmt.has_negative_zero)
        )
    )


def result_dtype(source: torch.dtype, fmt: Format, asked: torch.dtype | None) -> torch.dtype:
    """Return the dtype of rounded tensors.

    The source's where it holds the format, else float32 or float64; float64 for integers.

    Raises ValueError if the dtype that is asked for does not hold the format.
    """
    if asked is not None:
        if not holds(asked, fmt):
            raise ValueError(
                f"{asked} does not hold every value of {str(fmt)!r} (p={fmt.precision}, "
                f"emin={fmt.emin}, emax={fmt.emax}); leave dtype= away, and the result has a "
                "dtype that does"
            )
        return asked
    if source in INTEGERS:
        return torch.float64
    return next(d for d in (source, torch.float32, torch.float64) if holds(d, fmt))


def working_dtype(source: torch.dtype, fmt: Format) -> torch.dtype:
    """Return what is computed in: float32 for narrow sources where it holds the format."""
    if source in INTEGERS or source == torch.float64 or not fmt.fits(float32):
        return torch.float64
    return torch.float32


def check_tensor(x: Any) -> None:
    """Raise TypeError unless `x` is a dense tensor of real numbers.

    Raises TypeError: Saying what to pass instead.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"x is a {type(x).__name__}; pass a torch.Tensor, or use lowprec.round_to for arrays"
        )
    if x.is_quantized:
        raise TypeError("x is a quantized tensor; pass x.dequantize()")
    if x.is_nested:
        raise TypeError("x is a nested tensor; pass x.to_padded_tensor(0.0), or round x.unbind()")
    if x.layout is not torch.strided:
        raise TypeError(
            f"x has layout {x.layout}; pass x.to_dense(), or round x.values() and rebuild x"
        )
    if x.dtype not in FORMAT_OF and x.dtype not in INTEGERS:
        advice = "torch.view_as_real(x)" if x.dtype.is_complex else "x.to(torch.float32)"
        raise TypeError(
            f"x has dtype {x.dtype}; lowprec rounds real numbers of at most 64 bits: pass {advice}"
        )


def spell(fmt: Format) -> str:
    """Spell a format, of any kind, so that `read` finds it: operators take strings."""
    if named_formats().get(fmt.name) == fmt:
        return fmt.name
    return (
        f"e{fmt.exponent_bits}m{fmt.trailing_bits} {fmt.specials.value} bias={fmt.bias} "
        f"{'signed' if fmt.signed else 'unsigned'} "
        f"{'subnormals' if fmt.subnormals else 'no_subnormals'}"
    )


def read(spelling: str) -> Format:
    """Return the format of `spell`.

    Examples
    --------
    >>> read(spell(Format("mine", 6, 10, bias=40))) == Format("mine", 6, 10, bias=40)
    True
    """
    fmt = named_formats().get(spelling)
    if fmt is not None:
        return fmt
    widths, specials, bias, sign, subnormals = spelling.split()
    w, _, t = widths[1:].partition("m")
    return Format(
        widths,
        int(w),
        int(t) + 1,
        specials,  # type: ignore[arg-type]  # Format reads its spelling
        int(bias.removeprefix("bias=")),
        sign == "signed",
        subnormals == "subnormals",
    )


assert FORMAT_OF[torch.float64] == float64
