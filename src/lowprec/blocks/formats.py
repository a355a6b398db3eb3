"""Block formats as data: elements of few bits, a scale for each block, and the rule that finds it.

References
----------
OCP Microscaling Formats (MX) 1.0, sections 5 and 6.3; NVIDIA, "Pretraining Large Language Models
with NVFP4" (2025).
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import operator
from functools import cached_property
from typing import Any

import numpy as np

from lowprec import formats
from lowprec.common.names import did_you_mean
from lowprec.formats import (
    Format,
    FormatLike,
    float4_e2m1fn,
    float6_e2m3fn,
    float6_e3m2fn,
    float8_e4m3fn,
    float8_e5m2,
    float8_e8m0fnu,
    float32,
)


class ScaleRule(enum.Enum):
    """How the scale of a block follows from its largest magnitude, amax.

    M is the elements' largest value, emax the exponent of M, g the tensor's scale (1 without one).
    """

    FLOOR = "floor"  #: 2**(floor(log2 amax) - emax), of OCP MX 1.0; clips what exceeds M·scale
    CEIL = "ceil"  #: 2**(ceil(log2 amax) - emax)
    RCEIL = "rceil"  #: the least power of two with amax <= M·scale
    EVEN = "even"  #: floor's, doubled where amax rounds up to a power of two in the elements' grid
    AMAX = "amax"  #: amax/(M·g), rounded once to the scale's format, ties to even
    FOUR_OVER_SIX = "four_over_six"  #: amax/(6g) or amax/(4g), whichever has less squared error

    @classmethod
    def _missing_(cls, spelling: object) -> ScaleRule:
        rules = {rule.value: rule for rule in cls}
        if isinstance(spelling, str) and spelling.strip().lower() in rules:
            return rules[spelling.strip().lower()]
        near = difflib.get_close_matches(str(spelling).strip().lower(), rules, n=3, cutoff=0.5)
        error = ValueError if isinstance(spelling, str) else TypeError
        raise error(
            f"{spelling!r} is not a rule for a block's scale; {did_you_mean(near)}use one of "
            + ", ".join(map(repr, rules))
        )


_POWERS = (ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.RCEIL, ScaleRule.EVEN)
_RULES = {
    ScaleRule.FLOOR: "2^(floor(log2 amax) - emax); clips what exceeds M·scale",
    ScaleRule.CEIL: "2^(ceil(log2 amax) - emax)",
    ScaleRule.RCEIL: "the least power of two with amax ≤ M·scale",
    ScaleRule.EVEN: "floor's power, doubled where amax rounds up to the next",
    ScaleRule.AMAX: "amax/M, rounded once",
    ScaleRule.FOUR_OVER_SIX: "amax/6 or amax/4, whichever has less squared error",
}


@dataclasses.dataclass(frozen=True, repr=False)
class IntegerFormat:
    """Integers times a power of two: k·2**-fraction_bits with |k| <= 2**(bits - 1) - 1.

    They are elements of block formats. Rounding to nearest takes the even integer of two that are
    equally near, and what exceeds the largest becomes it.

    Parameters
    ----------
    name : str
        What the format is called; ignored by equality.
    bits : int
        Width with the sign, 2 to 16.
    fraction_bits : int
        How many of the bits are below the point; MX's int8 has 6.

    Raises
    ------
    ValueError
        If `bits` or `fraction_bits` is out of range.

    Examples
    --------
    >>> IntegerFormat("int8", 8).max, IntegerFormat("int8", 8, fraction_bits=6).max
    (127.0, 1.984375)
    """

    name: str = dataclasses.field(compare=False)
    bits: int
    fraction_bits: int = 0

    def __post_init__(self) -> None:
        for field in ("bits", "fraction_bits"):
            object.__setattr__(self, field, operator.index(getattr(self, field)))
        if not 2 <= self.bits <= 16:
            raise ValueError(f"{self.name!r} has {self.bits} bits; use 2 to 16")
        if not -100 <= self.fraction_bits <= 100:
            raise ValueError(
                f"{self.name!r} has {self.fraction_bits} fraction bits; use -100 to 100"
            )

    def __repr__(self) -> str:
        fraction = f", fraction_bits={self.fraction_bits}" if self.fraction_bits else ""
        return f"IntegerFormat({self.name!r}, bits={self.bits}{fraction})"

    def __str__(self) -> str:
        return self.name

    @property
    def trailing_bits(self) -> int:
        """The significand bits of the largest value below its leading one, ``bits - 2``."""
        return self.bits - 2

    @property
    def max_code(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - 1)) - 1

    @property
    def max(self) -> float:
        """The largest value."""
        return math.ldexp(self.max_code, -self.fraction_bits)

    @property
    def min(self) -> float:
        """The least value, ``-max``: the integer below it is not used."""
        return -self.max

    @property
    def emax(self) -> int:
        """The exponent of the largest value."""
        return self.trailing_bits - self.fraction_bits

    @property
    def step(self) -> float:
        """The distance of neighbouring values."""
        return math.ldexp(1.0, -self.fraction_bits)

    @cached_property
    def code_dtype(self) -> np.dtype[Any]:
        """The dtype of the integers: int8, or int16 above 8 bits."""
        return np.dtype(np.int8 if self.bits <= 8 else np.int16)


_LOWEST, _HIGHEST, _MOST_BITS = -400, 400, 21  # of elements, so that every step is exact in float64


@dataclasses.dataclass(frozen=True, repr=False)
class BlockFormat:
    """A format of blocks: elements of few bits that share a scale.

    Parameters
    ----------
    name : str
        What the format is called; ignored by equality.
    element : Format, IntegerFormat, str or dtype
        What the elements are rounded to.
    block : int, tuple of two ints, or None
        How many elements along one axis share a scale; the rows and columns of a tile of the last
        two axes; None: a whole axis.
    scale : Format, str or dtype
        What the scales are rounded to.
    rule : ScaleRule or str
        ``floor``, ``ceil``, ``rceil`` and ``even`` find a power of two and need an unsigned scale
        of precision 1; ``amax`` goes with any other scale; ``four_over_six`` with E2M1 elements,
        E4M3 scales and a tensor scale.
    tensor_scale : bool
        Whether the tensor has a second scale, one float32 number.

    Raises
    ------
    ValueError
        If the fields describe no such format.

    Examples
    --------
    >>> import lowprec as lp
    >>> lp.mxfp4.bits_per_value, lp.nvfp4.bits_per_value
    (4.25, 4.5)
    >>> fmt = lp.BlockFormat("mine", "float6_e3m2fn", 16, "float8_e8m0fnu", "rceil")
    >>> lp.round_to([1.0, 0.3, -7.0], fmt).tolist()
    [1.0, 0.3125, -7.0]
    """

    name: str = dataclasses.field(compare=False)
    element: Format | IntegerFormat
    block: int | tuple[int, int] | None
    scale: Format
    rule: ScaleRule
    tensor_scale: bool = False

    def __post_init__(self) -> None:
        def put(field: str, value: object) -> None:
            object.__setattr__(self, field, value)

        if not isinstance(self.element, IntegerFormat):
            put("element", formats.get_format(self.element))
        put("scale", formats.get_format(self.scale))
        put("rule", ScaleRule(self.rule))
        put("tensor_scale", bool(self.tensor_scale))
        put("block", _checked_block(self.name, self.block))
        self._check_element()
        self._check_scale()

    def _check_element(self) -> None:
        element = self.element
        if isinstance(element, IntegerFormat):
            return
        if not element.signed or not element.has_zero:
            lacks = "sign" if element.has_zero else "sign and no zero"
            raise ValueError(
                f"{self.name!r} has elements of {element}, which has no {lacks}; use a signed "
                "format such as 'float8_e4m3fn'"
            )
        lowest = element.emin - element.trailing_bits
        if element.precision > _MOST_BITS or lowest < _LOWEST or element.emax > _HIGHEST:
            raise ValueError(
                f"{self.name!r} has elements of {element}: precision {element.precision}, values "
                f"from 2**{lowest} to 2**{element.emax}; elements have at most {_MOST_BITS} "
                f"significand bits and lie between 2**{_LOWEST} and 2**{_HIGHEST}"
            )

    def _check_scale(self) -> None:
        scale, rule = self.scale, self.rule
        is_power = not scale.signed and scale.precision == 1
        if not scale.fits(float32):
            raise ValueError(
                f"{self.name!r} has scales of {scale}, which float32 does not hold; use a scale "
                "such as 'float8_e8m0fnu', 'float8_e4m3fn', 'bfloat16' or 'float32'"
            )
        if (rule in _POWERS) != is_power:
            needs = (
                "an unsigned scale of precision 1, such as 'float8_e8m0fnu'"
                if rule in _POWERS
                else "a scale with more than powers of two, such as 'float8_e4m3fn' or 'float32'"
            )
            raise ValueError(
                f"{self.name!r} has scales of {scale} and the rule {rule.value!r}, which needs "
                f"{needs}"
                + (f"; for {scale} use 'floor', 'ceil', 'rceil' or 'even'" if is_power else "")
            )
        if is_power and self.tensor_scale:
            raise ValueError(
                f"{self.name!r} has a tensor scale beside scales of {scale}; the rule "
                f"{rule.value!r} knows none: use tensor_scale=False, or rule='amax' with another "
                "scale"
            )
        if rule is ScaleRule.FOUR_OVER_SIX and not (
            self.element == float4_e2m1fn and scale == float8_e4m3fn and self.tensor_scale
        ):
            raise ValueError(
                f"{self.name!r} has the rule 'four_over_six', which is that of elements of "
                "float4_e2m1fn with scales of float8_e4m3fn and tensor_scale=True; use 'amax'"
            )

    def __repr__(self) -> str:
        spelling = _spelling_of(self)
        if spelling is not None:
            return spelling
        words = [repr(self.name), f"element={self.element!r}", f"block={self.block}"]
        words += [f"scale={self.scale!r}", f"rule={self.rule.value!r}"]
        words += ["tensor_scale=True"] if self.tensor_scale else []
        return f"BlockFormat({', '.join(words)})"

    def __str__(self) -> str:
        return _spelling_of(self) or self.name

    def _repr_html_(self) -> str:
        from lowprec.show.cards import bits_html, card  # loaded only where a card is shown

        element = self.element
        if isinstance(element, IntegerFormat):
            cells = {"sign": "s", "trailing": "t" * (element.bits - 1)}
        else:
            widths = {"sign": 1, "exponent": element.exponent_bits}
            widths["trailing"] = element.trailing_bits
            cells = {name: name[0] * width for name, width in widths.items() if width}
        lines = [
            ("element", f"{self.element_in_words}, up to {element.max:g}"),
            ("block", self.block_in_words),
            ("scale", str(self.scale)),
            ("rule", f"{self.rule.value}: {_RULES[self.rule]}"),
            ("tensor scale", "one float32 number" if self.tensor_scale else "none"),
        ]
        return card(str(self), f"{self.bits_per_value:.6g} bits a value", bits_html(cells), lines)

    # In words, for tables and cards

    @property
    def block_in_words(self) -> str:
        """Which elements share a scale."""
        if self.block is None:
            return "a whole axis"
        if isinstance(self.block, tuple):
            return f"tile of {self.block[0]} × {self.block[1]}"
        return f"{self.block} along an axis"

    @property
    def element_in_words(self) -> str:
        """What elements are."""
        element = self.element
        if isinstance(element, IntegerFormat):
            unit = f" / 2^{element.fraction_bits}" if element.fraction_bits else ""
            return f"int{element.bits}{unit}"
        return str(element)

    # What a measurement asks of any format

    @property
    def bits(self) -> int:
        """The width of an element."""
        return self.element.bits

    @property
    def max(self) -> float:
        """The largest value: largest element times largest scale times largest tensor scale."""
        largest = self.element.max * self.scale.max
        return largest * float32.max if self.tensor_scale else largest

    @property
    def has_nan(self) -> bool:
        """Whether a block with NaN or infinity can be marked: by the scale's NaN."""
        return self.scale.has_nan

    @property
    def has_infinity(self) -> bool:
        """Whether infinity is a value: never, as a block with infinity becomes NaN."""
        return False

    @property
    def is_tiled(self) -> bool:
        """Whether a block is a tile of the last two axes."""
        return isinstance(self.block, tuple)

    @property
    def block_size(self) -> int | None:
        """How many elements a block has, None for a whole axis."""
        return math.prod(self.block) if isinstance(self.block, tuple) else self.block

    @property
    def bits_per_value(self) -> float:
        """Element bits and the scale's bits shared among a block; a whole axis' count nothing."""
        size = self.block_size
        return float(self.element.bits) + (0.0 if size is None else self.scale.bits / size)

    @cached_property
    def code_dtype(self) -> np.dtype[Any]:
        """The dtype of the elements' codes."""
        return self.element.code_dtype

    @cached_property
    def scale_dtype(self) -> np.dtype[Any]:
        """The dtype of stored scales: of their codes, but float32 for float32."""
        return np.dtype(np.float32) if self.scale == float32 else self.scale.code_dtype

    @cached_property
    def tensor_divisor(self) -> float:
        """What the largest magnitude of a tensor is divided by for the tensor's scale: M·S."""
        largest = 256.0 if self.rule is ScaleRule.FOUR_OVER_SIX else self.scale.max
        return self.element.max * largest


AnyFormat = Format | BlockFormat
AnyFormatLike = FormatLike | BlockFormat


def _checked_block(name: str, block: Any) -> int | tuple[int, int] | None:
    if block is None:
        return None
    if isinstance(block, tuple | list):
        sizes = tuple(operator.index(size) for size in block)
        if len(sizes) != 2 or min(sizes) < 1:
            raise ValueError(
                f"{name!r} has blocks of {block!r}; a tile is two numbers of at least 1, the rows "
                "and columns of the last two axes, such as (16, 16)"
            )
        return sizes[0], sizes[1]
    size = operator.index(block)
    if size < 1:
        raise ValueError(f"{name!r} has blocks of {size}; use at least 1, or None for an axis")
    return size


# The named formats -------------------------------------------------------------------------------

NAMED: dict[str, BlockFormat] = {}


def _named(name: str, *fields: Any, **more: Any) -> BlockFormat:
    return NAMED.setdefault(name, BlockFormat(name, *fields, **more))


_FLOOR, _AMAX = ScaleRule.FLOOR, ScaleRule.AMAX
mxfp8_e4m3 = _named("mxfp8_e4m3", float8_e4m3fn, 32, float8_e8m0fnu, _FLOOR)
mxfp8_e5m2 = _named("mxfp8_e5m2", float8_e5m2, 32, float8_e8m0fnu, _FLOOR)
mxfp6_e2m3 = _named("mxfp6_e2m3", float6_e2m3fn, 32, float8_e8m0fnu, _FLOOR)
mxfp6_e3m2 = _named("mxfp6_e3m2", float6_e3m2fn, 32, float8_e8m0fnu, _FLOOR)
mxfp4 = _named("mxfp4", float4_e2m1fn, 32, float8_e8m0fnu, _FLOOR)
mxint8 = _named("mxint8", IntegerFormat("int8", 8, 6), 32, float8_e8m0fnu, _FLOOR)
nvfp4 = _named("nvfp4", float4_e2m1fn, 16, float8_e4m3fn, _AMAX, tensor_scale=True)
nvfp4_2d = _named("nvfp4_2d", float4_e2m1fn, (16, 16), float8_e4m3fn, _AMAX, tensor_scale=True)
nvfp4_46 = _named(
    "nvfp4_46", float4_e2m1fn, 16, float8_e4m3fn, ScaleRule.FOUR_OVER_SIX, tensor_scale=True
)
fp8_1x128 = _named("fp8_1x128", float8_e4m3fn, 128, float32, _AMAX)
fp8_128x128 = _named("fp8_128x128", float8_e4m3fn, (128, 128), float32, _AMAX)
int8_channel = _named("int8_channel", IntegerFormat("int8", 8), None, float32, _AMAX)
int4_g32 = _named("int4_g32", IntegerFormat("int4", 4), 32, float32, _AMAX)

_CANONICAL = {fmt: fmt for fmt in NAMED.values()}


def named_block_formats() -> dict[str, BlockFormat]:
    """Return the named block formats by name.

    Examples
    --------
    >>> named_block_formats()["mxfp4"].bits_per_value
    4.25
    """
    return dict(NAMED)


def _spelling_of(fmt: BlockFormat) -> str | None:
    """Return the text that `get_format` reads as this format, or None."""
    if fmt in _CANONICAL:
        return _CANONICAL[fmt].name
    for name, named in NAMED.items():
        fields = (named.element, named.block, named.scale, named.tensor_scale)
        if fields == (fmt.element, fmt.block, fmt.scale, fmt.tensor_scale):
            return f"{name}:{fmt.rule.value}"
    return None


def find_block_format(fmt: object) -> BlockFormat | None:
    """Return the block format that is meant, or None where something else is.

    Raises ValueError if a colon follows what is not a block format, or is followed by what is not a
        rule for it.
    """
    if isinstance(fmt, BlockFormat):
        return _CANONICAL.get(fmt, fmt)
    if not isinstance(fmt, str):
        return None
    name, colon, rule = fmt.strip().lower().partition(":")
    named = NAMED.get(name)
    if not colon:
        return named
    if named is None:
        near = difflib.get_close_matches(name, NAMED, n=3, cutoff=0.5)
        raise ValueError(
            f"{fmt!r}: {did_you_mean(near)}a rule after a colon is for a block format alone; use "
            f"one of {', '.join(NAMED)}, as in 'mxfp4:rceil'"
        )
    found = dataclasses.replace(named, name=f"{name}:{ScaleRule(rule).value}", rule=ScaleRule(rule))
    return _CANONICAL.get(found, found)


def get_format(fmt: AnyFormatLike) -> AnyFormat:
    """Find the format that is meant: of single numbers, or of blocks.

    Parameters
    ----------
    fmt : Format, BlockFormat, str or dtype
        A name such as ``"bfloat16"`` or ``"mxfp4"``; ``"e6m9"``, an IEEE-like format of 6 exponent
        and 9 trailing significand bits; ``"mxfp4:rceil"``, a block format with another rule for
        its scales. NumPy, ml_dtypes and torch dtypes are known by their names.

    Returns
    -------
    Format or BlockFormat
        The named format where the one asked for equals it.

    Raises
    ------
    ValueError
        If there is no such format; the message lists near names.
    TypeError
        If `fmt` is neither a format, a name nor a floating-point dtype.

    Examples
    --------
    >>> get_format("bfloat16"), get_format("e5m10"), get_format(np.float32)
    (bfloat16, float16, float32)
    >>> get_format("mxfp4:rceil"), get_format("nvfp4:four_over_six")
    (mxfp4:rceil, nvfp4_46)
    """
    return find_block_format(fmt) or formats.get_format(fmt)  # type: ignore[arg-type]
