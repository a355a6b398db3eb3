"""Floating-point formats as data: one frozen value each, everything else derived.

A format is a sign, `w` exponent bits and a significand of precision `p` (its leading bit, which is
not stored, counted). A new format is one line at the end of this file.

References
----------
IEEE 754-2019, section 3.3 and table 3.5; OCP 8-bit Floating Point Specification (OFP8) 1.0,
table 1; OCP Microscaling Formats (MX) 1.0, section 5.3; IEEE P3109, "Arithmetic Formats for
Machine Learning", interim report 3.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import operator
import re
import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, assert_never

import ml_dtypes
import numpy as np

from lowprec.common.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Format",
    "FormatLike",
    "Specials",
    "get_format",
    "named_formats",
]


class Specials(enum.Enum):
    """Which codes are not finite numbers."""

    IEEE = "ieee"  #: the all-ones exponent holds infinities and NaNs
    FN = "fn"  #: no infinities; NaN has all exponent and significand bits set
    FNUZ = "fnuz"  #: no infinities and no -0; the only NaN has the code of -0
    FINITE = "finite"  #: neither infinities nor NaN
    #: IEEE P3109's extended domain: the only NaN has the code of -0, or all bits set where the
    #: format is unsigned; infinities have the largest code that is left of each sign
    P3109 = "p3109"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        kinds = ", ".join(repr(kind.value) for kind in cls)
        raise ValueError(f"{value!r} is not a kind of special values; use one of {kinds}")


_SPECIALS = {
    Specials.IEEE: "±infinity and NaN",
    Specials.FN: "no infinity; NaN is all ones",
    Specials.FNUZ: "no infinity, no -0; one NaN",
    Specials.FINITE: "neither infinity nor NaN",
    Specials.P3109: "±infinity, no -0; one NaN",
}


@dataclasses.dataclass(frozen=True, repr=False)
class Format:
    """A binary floating-point format.

    Parameters
    ----------
    name : str
        What the format is called; ignored by equality.
    exponent_bits : int
        Width `w` of the exponent field, 1 to 11 (2 to 11 where infinities and NaN take a whole
        exponent, as IEEE's do).
    precision : int
        Significand bits `p` with the leading one, 1 to 53.
    specials : Specials
        Which codes are infinities and NaN.
    bias : int, optional
        Exponent bias; by default ``2**(w-1) - 1``, in P3109 ``2**(w-1)``.
    signed : bool
        Whether there is a sign bit.
    subnormals : bool
        Whether codes with exponent field 0 are subnormal numbers; otherwise they are all ±0.
    zero : bool, optional
        Whether zero is a value. Only an unsigned format with ``p = 1`` may be without it: it is
        then a scale, as float8_e8m0fnu, and is one by default, unless it is P3109's (has its
        specials or its bias).

    Raises
    ------
    ValueError
        If the fields describe no format, or one with values that float64 cannot hold.

    Examples
    --------
    >>> fmt = Format("e6m9", exponent_bits=6, precision=10)
    >>> fmt.bits, fmt.emax, fmt.max
    (16, 31, 4290772992.0)
    >>> get_format("e5m10") is float16
    True
    """

    name: str = dataclasses.field(compare=False)
    exponent_bits: int
    precision: int
    specials: Specials = Specials.IEEE
    bias: int | None = None
    signed: bool = True
    subnormals: bool = True
    zero: bool | None = None

    def __post_init__(self) -> None:
        for field in ("exponent_bits", "precision"):
            object.__setattr__(self, field, operator.index(getattr(self, field)))
        w, p = self.exponent_bits, self.precision
        if not isinstance(self.specials, Specials):
            object.__setattr__(self, "specials", Specials(str(self.specials).lower()))
        for field in ("signed", "subnormals"):
            object.__setattr__(self, field, bool(getattr(self, field)))
        fewest = 2 if self.specials is Specials.IEEE else 1
        if not fewest <= w <= 11:
            raise ValueError(f"{self.name!r} has {w} exponent bits; use {fewest} to 11")
        if not 1 <= p <= 53:
            raise ValueError(f"{self.name!r} has precision {p}; use 1 to 53 (float64 has 53)")
        if self.specials is Specials.IEEE and p == 1:
            raise ValueError(
                f"{self.name!r} has precision 1, which leaves no bit to tell infinity from NaN; "
                "use specials=Specials.FN or Specials.FINITE"
            )
        if self.specials is Specials.FNUZ and not self.signed:
            raise ValueError(
                f"{self.name!r} is unsigned, so it has no code of -0 to hold NaN; "
                "use specials=Specials.FN"
            )
        bias = self._default_bias if self.bias is None else operator.index(self.bias)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "zero", self._checked_zero(bias))
        if p == 1:  # no trailing bits, so no subnormals: both spellings are the same format
            object.__setattr__(self, "subnormals", False)
        if self.max_code < (1 << self.trailing_bits if self.has_zero else 0):
            raise ValueError(
                f"{self.name!r} has {w} exponent bit{'s' * (w > 1)}, and its special values leave "
                "no code for a normal number; use 2 to 11 exponent bits"
            )
        if self.emin < -1022 or self.emax > 1023:
            raise ValueError(
                f"{self.name!r} has normal numbers from 2**{self.emin} to 2**{self.emax}, float64 "
                f"from 2**-1022 to 2**1023; use another bias (now {bias})"
            )
        kind = list(Specials).index(self.specials)  # a hash of numbers alone survives pickling
        key = (w, p, kind, bias, self.signed, self.subnormals, self.zero)
        object.__setattr__(self, "_hash", hash(key))

    @property
    def _default_bias(self) -> int:
        half = 1 << (self.exponent_bits - 1)
        return half if self.specials is Specials.P3109 else half - 1

    def _checked_zero(self, bias: int) -> bool:
        """Return whether there is a zero; see `zero` among the parameters."""
        may_lack = not self.signed and self.precision == 1 and self.specials is not Specials.P3109
        if self.zero is None:
            is_p3109 = self.specials is Specials.FN and bias == 2 ** (self.exponent_bits - 1)
            return not may_lack or is_p3109
        if not (self.zero or may_lack):
            raise ValueError(
                f"{self.name!r} has a sign, a precision above 1 or P3109's special values, and so "
                "a zero; leave out zero=False"
            )
        return bool(self.zero)

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        if NAMED.get(self.name) == self:
            return self.name
        words = [repr(self.name), f"exponent_bits={self.exponent_bits}"]
        words.append(f"precision={self.precision}")
        if self.specials is not Specials.IEEE:
            words.append(f"specials={self.specials}")
        if self.bias != self._default_bias:
            words.append(f"bias={self.bias}")
        words += [f"{flag}=False" for flag in ("signed", "subnormals") if not getattr(self, flag)]
        if self.zero != dataclasses.replace(self, zero=None).zero:
            words.append(f"zero={self.zero}")
        return f"Format({', '.join(words)})"

    def __str__(self) -> str:
        return self.name

    def _repr_html_(self) -> str:
        from lowprec.show.cards import bits_html, card  # loaded only where a card is shown
        from lowprec.show.words import figure

        widths = {
            "sign": int(self.signed),
            "exponent": self.exponent_bits,
            "trailing": self.trailing_bits,
        }
        cells = {name: name[0] * width for name, width in widths.items() if width}
        summary = f"{self.bits} bits, bias {self.bias}, {_SPECIALS[self.specials]}"
        smallest = figure(self.smallest_subnormal) if self.subnormals else "none"
        figures = [
            ("precision", f"{self.precision} bit{'s' if self.precision > 1 else ''}"),
            ("max", figure(self.max)),
            ("smallest normal", figure(self.smallest_normal)),
            ("smallest subnormal", smallest),
            ("eps", figure(self.eps)),
            ("dynamic range", f"{self.decades:.1f} decades"),
        ]
        return card(self.name, summary, bits_html(cells), figures)

    # Widths ------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """Storage width `k`: sign, exponent and trailing significand bits."""
        return int(self.signed) + self.exponent_bits + self.trailing_bits

    @property
    def trailing_bits(self) -> int:
        """Stored significand bits, ``t = p - 1``."""
        return self.precision - 1

    @cached_property
    def code_dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer dtype that holds a code (right-aligned)."""
        return np.dtype(f"uint{max(8, 1 << (self.bits - 1).bit_length())}")

    @cached_property
    def dtype(self) -> np.dtype[Any] | None:
        """The NumPy or ml_dtypes dtype of this format, or None where neither has one."""
        return _DTYPES.get(self)

    # Specials ----------------------------------------------------------------------------------

    @property
    def has_zero(self) -> bool:
        """Whether zero is a value: false only for scales (unsigned with precision 1)."""
        return bool(self.zero)

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 is a value."""
        return self.signed and not self.has_nan_at_negative_zero

    @property
    def has_nan_at_negative_zero(self) -> bool:
        """Whether the only NaN has the code that -0 has in other formats."""
        match self.specials:
            case Specials.FNUZ:
                return True
            case Specials.P3109:
                return self.signed
            case Specials.IEEE | Specials.FN | Specials.FINITE:
                return False
            case _:
                assert_never(self.specials)

    @property
    def has_infinity(self) -> bool:
        """Whether infinities are values."""
        match self.specials:
            case Specials.IEEE | Specials.P3109:
                return True
            case Specials.FN | Specials.FNUZ | Specials.FINITE:
                return False
            case _:
                assert_never(self.specials)

    @property
    def has_nan(self) -> bool:
        """Whether NaN has a code."""
        return self.specials is not Specials.FINITE

    @property
    def counts_exponent_parity(self) -> bool:
        """Whether the exponent field tells even values from odd ones.

        It does where the precision is 1 and every significand is odd (IEEE P3109). float8_e8m0fnu,
        with whatever bias, is the exception: as in ml_dtypes all its values are odd, so that ties
        go to the larger one.
        """
        is_e8m0 = not self.has_zero and self.exponent_bits == 8 and self.specials is Specials.FN
        return self.precision == 1 and not is_e8m0

    # Codes -------------------------------------------------------------------------------------

    @property
    def sign_mask(self) -> int:
        """The sign bit of a code, 0 where there is none."""
        return 1 << (self.bits - 1) if self.signed else 0

    @property
    def max_code(self) -> int:
        """The code of `max`."""
        magnitudes = 1 << (self.exponent_bits + self.trailing_bits)
        match self.specials:
            case Specials.IEEE:
                return magnitudes - (1 << self.trailing_bits) - 1
            case Specials.FN:
                return magnitudes - 2
            case Specials.FNUZ | Specials.FINITE:
                return magnitudes - 1
            case Specials.P3109:  # an infinity, and NaN where there is no code of -0 for it
                return magnitudes - (2 if self.signed else 3)
            case _:
                assert_never(self.specials)

    @property
    def max_is_odd(self) -> bool:
        """Whether `max` is odd where ties go to even."""
        has_odd_significand = self.precision == 1 and not self.counts_exponent_parity
        return has_odd_significand or bool(self.max_code & 1)

    @property
    def infinity_code(self) -> int | None:
        """The code of +infinity, or None."""
        return self.max_code + 1 if self.has_infinity else None

    @property
    def nan_code(self) -> int | None:
        """The code of the canonical quiet NaN with a clear sign, or None.

        Where the only NaN has the code of -0 (FNUZ, signed P3109) it is that one.
        """
        match self.specials:
            case Specials.IEEE:
                return (self.max_code + 1) | 1 << (self.trailing_bits - 1)
            case Specials.FN:
                return self.max_code + 1
            case Specials.FNUZ:
                return self.sign_mask
            case Specials.P3109:
                return self.sign_mask if self.signed else self.max_code + 2
            case Specials.FINITE:
                return None
            case _:
                assert_never(self.specials)

    # Range and precision -----------------------------------------------------------------------

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number."""
        return int(self.has_zero) - self._bias

    @property
    def emax(self) -> int:
        """Exponent of the largest finite number."""
        return (self.max_code >> self.trailing_bits) - self._bias

    @cached_property
    def max(self) -> float:
        """The largest finite value."""
        trailing = self.max_code & ((1 << self.trailing_bits) - 1)
        significand = (1 << self.trailing_bits) | trailing
        return math.ldexp(significand, self.emax - self.trailing_bits)

    @property
    def min(self) -> float:
        """The least finite value: ``-max``, or the smallest value of an unsigned format."""
        if self.signed:
            return -self.max
        return 0.0 if self.has_zero else self.smallest_normal

    @cached_property
    def smallest_normal(self) -> float:
        """The smallest positive normal number, ``2**emin``."""
        return math.ldexp(1.0, self.emin)

    @cached_property
    def smallest_subnormal(self) -> float:
        """The smallest positive value: `smallest_normal` where there are no subnormals."""
        exponent = self.emin - self._subnormal_bits
        if exponent >= -1022:
            return math.ldexp(1.0, exponent)
        # ldexp would give 0 where the processor flushes subnormal numbers
        value: float = struct.unpack("<d", struct.pack("<Q", 1 << (exponent + 1074)))[0]
        return value

    @property
    def eps(self) -> float:
        """The spacing of values just above 1, ``2**(1-p)``."""
        return math.ldexp(1.0, 1 - self.precision)

    @property
    def unit_roundoff(self) -> float:
        """The relative error bound of rounding to nearest, ``2**-p``."""
        return math.ldexp(1.0, -self.precision)

    @property
    def decades(self) -> float:
        """The dynamic range in powers of ten, ``log10(max / smallest_subnormal)``."""
        return math.log10(self.max) - math.log10(self.smallest_subnormal)

    def fits(self, other: Format) -> bool:
        """Whether `other` holds every finite value of this format.

        Examples
        --------
        >>> float16.fits(float32), float16.fits(bfloat16), bfloat16.fits(float32)
        (True, False, True)
        """
        are_normal = self.emin - self._subnormal_bits >= other.emin
        finest, other_finest = self.emin - self.trailing_bits, other.emin - other.trailing_bits
        return (
            self.precision <= other.precision
            and self.max <= other.max
            and (are_normal or (other.subnormals and finest >= other_finest))
            and (other.signed or not self.signed)
            and (other.has_zero or not self.has_zero)
        )

    @property
    def _bias(self) -> int:
        assert self.bias is not None  # __post_init__ replaces None
        return self.bias

    @property
    def _subnormal_bits(self) -> int:
        return self.trailing_bits if self.subnormals else 0


FormatLike = Format | str | np.dtype[Any] | type


def get_format(fmt: FormatLike) -> Format:
    """Find the format that is meant: a `Format`, a name, ``"e6m9"``, or a dtype.

    Parameters
    ----------
    fmt : Format, str or dtype
        ``eXmY`` is an IEEE-like format of X exponent and Y trailing significand bits, but ``e4m3``,
        ``e3m2``, ``e2m3`` and ``e2m1``, which name OCP's formats elsewhere, are refused.
        ``p3109_k8p3se`` is IEEE P3109's: 8 bits, precision 3, signed (or ``u``), extended (or
        ``f``, finite). Names of safetensors (``F8_E4M3``), ONNX (``FLOAT8E4M3FN``) and OCP
        (``fp8_e4m3``), ``half``, ``double`` and ``binary16`` are known, and the dtypes of NumPy,
        ml_dtypes, jax.numpy and torch.

    Returns
    -------
    Format
        The named format where the one asked for equals it.

    Raises
    ------
    ValueError
        If there is no such format, or a name means two; the message lists near names.
    TypeError
        If `fmt` is neither a format, a name nor a floating-point dtype.

    Examples
    --------
    >>> get_format("bfloat16"), get_format("e5m10"), get_format(np.float32)
    (bfloat16, float16, float32)
    """
    if isinstance(fmt, Format):
        return _CANONICAL.get(fmt, fmt)
    if isinstance(fmt, str):
        known = _SPELLINGS.get(fmt)
        return known if known is not None else _parse(fmt)
    # jax.numpy's dtypes are classes that bear one of NumPy's
    dtype = getattr(fmt, "dtype", fmt) if isinstance(fmt, type) else fmt
    is_scalar_type = isinstance(fmt, type) and issubclass(fmt, np.generic)
    if isinstance(dtype, np.dtype) or is_scalar_type:
        found = NAMED.get(np.dtype(fmt).name)
        if found is not None:
            return found
        raise TypeError(
            f"{fmt!r} is not a binary floating-point dtype that lowprec knows; pass float16, "
            "float32, float64, an ml_dtypes dtype, or a name such as 'bfloat16' or 'e5m10'"
        )
    if type(fmt).__module__ == "torch" and type(fmt).__name__ == "dtype":
        return get_format(str(fmt).removeprefix("torch.").removesuffix("_x2"))
    refuse_family(fmt)
    raise TypeError(
        f"{fmt!r} is a {type(fmt).__name__}; pass a lowprec.Format, a name such as 'bfloat16' or "
        "'e5m10', or a NumPy or ml_dtypes dtype"
    )


def named_formats() -> Mapping[str, Format]:
    """Return the named formats by name, in the order of the family table."""
    return dict(NAMED)


class FormatOfBlocks(Protocol):
    """What types say of a block format: `lowprec.blocks.BlockFormat` stands in a later room."""

    @property
    def bits_per_value(self) -> float:
        """Element bits and the scale's bits shared among a block."""


# Formats of blocks belong to a later module (lowprec.blocks), which enters its finder here.
_FAMILY: dict[str, Any] = {}
_finders: list[tuple[Callable[[object], Any], Callable[..., Any]]] = []


def enter_family(
    find: Callable[[object], Any], names: Mapping[str, Any], round_array: Callable[..., Any]
) -> None:
    """Let `find` return what is meant by something that is not a `Format`, or None.

    `round_array` is `lowprec.round_to` of what it finds, with the same options.
    """
    _finders.append((find, round_array))
    _FAMILY.update(names)


def family_format(fmt: object) -> Any:
    """Return the format of blocks that is meant, or None."""
    return next((found for find, _ in _finders if (found := find(fmt)) is not None), None)


def round_family(x: Any, fmt: object, **options: Any) -> Any:
    """Round an array to what `family_format` found."""
    round_array = next(round_array for find, round_array in _finders if find(fmt) is not None)
    return round_array(x, fmt, **options)


def refuse_family(fmt: object) -> None:
    """Raise if a format of blocks stands where that of single numbers is needed."""
    found = family_format(fmt)
    if found is not None:
        raise TypeError(
            f"{found!r} is a block format, whose elements share a scale; here each number stands "
            f"alone: use a format such as {str(found.element)!r}, or round whole arrays with "
            f"lowprec.round_to(x, {str(found)!r}) and lowprec.quantize"
        )


def _parse(spelling: str) -> Format:
    key = spelling.strip().lower()
    if key in _SPELLINGS:
        return _SPELLINGS[key]
    if key in _AMBIGUOUS:
        ocp, other = _AMBIGUOUS[key]
        raise ValueError(
            f"{spelling!r} is ambiguous; use {ocp.name!r} for OCP's format (largest value "
            f"{ocp.max:g}), or {other} for the one with IEEE's infinities and NaN"
        )
    if match := re.fullmatch(r"e(\d{1,3})m(\d{1,3})", key):
        w, t = int(match[1]), int(match[2])
        fmt = Format(key, exponent_bits=w, precision=t + 1)
        return _CANONICAL.get(fmt, fmt)
    if match := re.fullmatch(r"(?:p3109_k|binary)(\d{1,2})p(\d{1,2})([su])([ef])", key):
        return _parse_p3109(spelling, int(match[1]), int(match[2]), match[3] == "s", match[4])
    near = [name for name in NAMED if len(key) > 3 and name.startswith(key)][:3]
    refuse_family(spelling)
    near = near or difflib.get_close_matches(key, [*_SPELLINGS, *_FAMILY], n=3, cutoff=0.5)
    hint = f"{did_you_mean(near)}Use" if near else "use"
    raise ValueError(
        f"unknown format {spelling!r}; {hint} "
        f"one of {', '.join(NAMED)}, or 'eXmY' with X exponent and Y trailing significand bits"
    )


def scaled(fmt: Format, scale: float) -> Format:
    """Return the format whose values are those of `fmt` times a power of two.

    Raises
    ------
    ValueError
        If the scale is not a power of two, or float64 cannot hold the values.
    """
    if scale == 1.0:
        return fmt
    significand, exponent = math.frexp(scale)
    if significand != 0.5:
        raise ValueError(f"a scale of {scale!r} is not a power of two")
    assert fmt.bias is not None
    name = f"{fmt.name} × 2**{exponent - 1}"
    return dataclasses.replace(fmt, name=name, bias=fmt.bias - (exponent - 1))


def _parse_p3109(spelling: str, k: int, p: int, signed: bool, domain: str) -> Format:
    """Return IEEE P3109's format of k bits and precision p; its domain is extended or finite."""
    w = k - p + (not signed)
    if k < 3 or p < 1 or w < 1:
        raise ValueError(
            f"{spelling!r} is not a format of IEEE P3109: it has at least 3 bits, and a precision "
            f"from 1 to {'one less than that' if signed else 'that'}"
        )
    finite = Specials.FNUZ if signed else Specials.FN
    specials = Specials.P3109 if domain == "e" else finite
    name = f"p3109_k{k}p{p}{'s' if signed else 'u'}{domain}"
    fmt = Format(name, w, p, specials, bias=2 ** (w - 1), signed=signed)
    return _CANONICAL.get(fmt, fmt)


NAMED: dict[str, Format] = {}


def _named(name: str, exponent_bits: int, precision: int, **fields: Any) -> Format:
    return NAMED.setdefault(name, Format(name, exponent_bits, precision, **fields))


float64 = _named("float64", 11, 53)
float32 = _named("float32", 8, 24)
tfloat32 = _named("tfloat32", 8, 11)
bfloat16 = _named("bfloat16", 8, 8)
float16 = _named("float16", 5, 11)
float8_e5m2 = _named("float8_e5m2", 5, 3)
float8_e4m3fn = _named("float8_e4m3fn", 4, 4, specials=Specials.FN)
float8_e4m3 = _named("float8_e4m3", 4, 4)
float8_e3m4 = _named("float8_e3m4", 3, 5)
float8_e5m2fnuz = _named("float8_e5m2fnuz", 5, 3, specials=Specials.FNUZ, bias=16)
float8_e4m3fnuz = _named("float8_e4m3fnuz", 4, 4, specials=Specials.FNUZ, bias=8)
float8_e4m3b11fnuz = _named("float8_e4m3b11fnuz", 4, 4, specials=Specials.FNUZ, bias=11)
float8_e8m0fnu = _named("float8_e8m0fnu", 8, 1, specials=Specials.FN, signed=False)
float6_e3m2fn = _named("float6_e3m2fn", 3, 3, specials=Specials.FINITE)
float6_e2m3fn = _named("float6_e2m3fn", 2, 4, specials=Specials.FINITE)
float4_e2m1fn = _named("float4_e2m1fn", 2, 2, specials=Specials.FINITE)

_CANONICAL = {fmt: fmt for fmt in NAMED.values()}
# What the field means by these is OCP's; what they spell is IEEE-like.
_AMBIGUOUS = {
    "e4m3": (float8_e4m3fn, "'float8_e4m3'"),
    "e3m2": (float6_e3m2fn, "Format('e3m2', exponent_bits=3, precision=3)"),
    "e2m3": (float6_e2m3fn, "Format('e2m3', exponent_bits=2, precision=4)"),
    "e2m1": (float4_e2m1fn, "Format('e2m1', exponent_bits=2, precision=2)"),
}
_ALIASES = {
    "bf16": bfloat16,
    "fp16": float16,
    "fp32": float32,
    "fp64": float64,
    "tf32": tfloat32,
    "half": float16,
    "single": float32,
    "double": float64,
    "binary16": float16,
    "binary32": float32,
    "binary64": float64,
    "e8m0": float8_e8m0fnu,
}
_TAILS = {
    name.partition("_")[2]: fmt
    for name, fmt in NAMED.items()
    if "_" in name and name != "float8_e4m3"
}
_OCP = {  # by the names of the specifications, whose tail is OCP's format
    "8_e4m3": float8_e4m3fn,
    "8_e5m2": float8_e5m2,
    "8_e8m0": float8_e8m0fnu,
    "6_e2m3": float6_e2m3fn,
    "6_e3m2": float6_e3m2fn,
    "4_e2m1": float4_e2m1fn,
}
_WITH_TAILS = {  # "8_e4m3fn" and its kin
    name.removeprefix("float"): fmt
    for name, fmt in NAMED.items()
    if "_" in name and name != "float8_e4m3"
}
_ELSEWHERE = {
    "f64": float64,
    "f32": float32,
    "f16": float16,
    "f4": float4_e2m1fn,  # safetensors
    **{f"fp{tail}": fmt for tail, fmt in (_WITH_TAILS | _OCP).items()},  # OCP
    **{f"f{tail}": fmt for tail, fmt in (_WITH_TAILS | _OCP).items()},  # safetensors
    **{f"float{tail.replace('_', '')}": fmt for tail, fmt in (_WITH_TAILS | _OCP).items()},  # ONNX
}
del _ELSEWHERE["float8e4m3"]  # ONNX has none of this name
_SPELLINGS: dict[str, Format] = _ELSEWHERE | NAMED | _TAILS | _ALIASES
_DTYPES: dict[Format, np.dtype[Any]] = {
    fmt: np.dtype(getattr(np, name, None) or getattr(ml_dtypes, name))
    for name, fmt in NAMED.items()
    if hasattr(np, name) or hasattr(ml_dtypes, name)
}
