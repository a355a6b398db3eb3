"""Rounding directions and overflow policies: the enumerations and their accepted spellings.

Names follow IEEE 754-2019 (section 4.3); `to_odd` is the jamming mode of Boldo and Melquiond
(2008), `stochastic` is mode 1 and `stochastic_equal` mode 2 of Connolly, Higham and Mary (2021).
"""

from __future__ import annotations

import difflib
import enum
import functools
from typing import Literal, NamedTuple, Protocol, TypeVar, assert_never

from lowprec.common.names import did_you_mean, with_article

__all__ = [
    "Overflow",
    "OverflowLike",
    "OverflowRule",
    "Reach",
    "Rounding",
    "RoundingLike",
    "checked_overflow",
    "is_usual",
    "overflow_rule",
]

_Choice = TypeVar("_Choice", bound="_Spelled")


class _Spelled(enum.Enum):
    """An enumeration whose members are asked for by member, by value or by a short name."""

    @classmethod
    def _short_names(cls) -> dict[str, str]:
        return {}

    @classmethod
    def _missing_(cls, spelling: object) -> _Spelled:
        """Find a member by a spelling that is not a value; list the near ones where none is."""
        short = cls._short_names()
        if isinstance(spelling, str):
            key = spelling.strip()
            value = short.get(key.upper(), key.lower())
            if value in (member.value for member in cls):
                return cls(value)
        values = [str(member.value) for member in cls]
        word = str(spelling).strip().lower()
        near = difflib.get_close_matches(word, values, n=3, cutoff=0.5)
        if word in _OTHER_WORDS:
            near = [_OTHER_WORDS[word]]
        choices = ", ".join(map(repr, [*values, *short]))
        kind = with_article(f"{cls.__name__.lower()} mode")
        error = ValueError if isinstance(spelling, str) else TypeError
        raise error(f"{spelling!r} is not {kind}; {did_you_mean(near)}use one of {choices}")


# What other libraries call it: answered by a hint, since not all of them mean quite the same.
_OTHER_WORDS = {
    "nearest": "ties_to_even",
    "nearest_even": "ties_to_even",
    "half_even": "ties_to_even",
    "half_up": "ties_to_away",
    "up": "toward_positive",
    "ceil": "toward_positive",
    "down": "toward_negative",
    "floor": "toward_negative",
    "trunc": "toward_zero",
    "truncate": "toward_zero",
    "random": "stochastic",
    "clip": "saturate",
    "clamp": "saturate",
    "inf": "infinite",
    "infinity": "infinite",
    "ovfinf": "infinite",
}


class Rounding(_Spelled):
    """How a value between two neighbours of a format is replaced by one of them.

    A member, its value or its short name may be given wherever a rounding is asked for.

    Examples
    --------
    >>> Rounding("RNE") is Rounding("ties_to_even") is Rounding.TIES_TO_EVEN
    True
    """

    TIES_TO_EVEN = "ties_to_even"
    TIES_TO_AWAY = "ties_to_away"
    TIES_TOWARD_ZERO = "ties_toward_zero"
    TOWARD_ZERO = "toward_zero"
    AWAY_FROM_ZERO = "away_from_zero"
    TOWARD_POSITIVE = "toward_positive"
    TOWARD_NEGATIVE = "toward_negative"
    TO_ODD = "to_odd"
    STOCHASTIC = "stochastic"
    STOCHASTIC_EQUAL = "stochastic_equal"

    @classmethod
    def _short_names(cls) -> dict[str, str]:
        return {
            "RNE": "ties_to_even",
            "RNA": "ties_to_away",
            "RNZ": "ties_toward_zero",
            "RZ": "toward_zero",
            "RA": "away_from_zero",
            "RU": "toward_positive",
            "RD": "toward_negative",
            "RO": "to_odd",
            "SR": "stochastic",
            "SE": "stochastic_equal",
        }

    @functools.cached_property  # which every call asks for
    def is_stochastic(self) -> bool:
        """Whether the mode draws random bits."""
        rule = overflow_rule(self, negative=False, is_odd=True)
        return rule.possible != rule.certain

    @property
    def is_nearest(self) -> bool:
        """Whether the nearest value is taken, and the mode says what becomes of ties."""
        return overflow_rule(self, negative=False, is_odd=True).certain.steps == 0.5

    @property
    def weighs_fraction(self) -> bool:
        """Whether it matters how far the exact value is from its neighbours, beyond nearer or not.

        The other modes only ask whether it is a neighbour, nearer to one of them, or half-way.
        """
        return self.is_stochastic and self is not Rounding.STOCHASTIC_EQUAL

    @property
    def gives_negative_zero(self) -> bool:
        """Whether x + (-x) is -0 (IEEE 754-2019, section 6.3)."""
        return self is Rounding.TOWARD_NEGATIVE

    @property
    def looks_at_parity(self) -> bool:
        """Whether it matters which of two neighbours is odd."""
        odd, even = (overflow_rule(self, negative=False, is_odd=is_odd) for is_odd in (True, False))
        return odd != even

    def overflows_to_max(self, negative: bool) -> bool:
        """Whether a finite overflow of this sign gives the largest finite value (section 7.4)."""
        return overflow_rule(self, negative=negative, is_odd=True).gives_max


class Overflow(_Spelled):
    """What becomes of a value beyond the largest finite one.

    ``ieee``: what the rounding mode gives (IEEE 754-2019, section 7.4): ±max in the modes that
    round an overflow toward zero, else infinity; NaN in a format without infinities, ±max in one
    with neither.
    ``saturate``: finite values go to ±max; infinities stay where the format has them, else ±max.
    ``saturate_finite``: infinities go to ±max too.
    ``infinite``: infinity whatever the mode; NaN in a format without infinities. A format with
    neither is refused with a ValueError. IEEE P3109 calls it OvfInf.
    """

    IEEE = "ieee"
    SATURATE = "saturate"
    SATURATE_FINITE = "saturate_finite"
    INFINITE = "infinite"


class Reach(NamedTuple):
    """From where between two neighbours a magnitude is rounded to the larger one."""

    steps: float  #: of their distance, beyond the smaller one: 0, 1/2 or 1
    is_included: bool  #: whether exactly that place is rounded to the larger one, too


class OverflowRule(NamedTuple):
    """Where a rounding mode begins to overflow, and whether it then stays at the largest value.

    The neighbours are the largest finite value and the value that would follow if the exponent were
    unbounded. From `possible` on a magnitude may be rounded to the latter, from `certain` on it is.
    Only a mode that draws random bits tells the two apart.
    """

    possible: Reach
    certain: Reach
    gives_max: bool  #: whether ``ieee`` overflow gives the largest finite value


def overflow_rule(rounding: Rounding, *, negative: bool, is_odd: bool) -> OverflowRule:
    """Return where a mode begins to overflow: the only place that says so.

    negative: Whether the overflowing number is negative.
    is_odd: Whether the largest finite value is odd; the value after it is then even, and
        conversely.
    Returns: The same rule tells where magnitudes are rounded to the larger of any two neighbours of
        which the smaller one is odd or is not.

    Examples
    --------
    >>> overflow_rule(Rounding.TIES_TO_EVEN, negative=False, is_odd=True).certain
    Reach(steps=0.5, is_included=True)

    References
    ----------
    IEEE 754-2019, sections 4.3 and 7.4.
    """
    beyond, at_next = Reach(0.0, False), Reach(1.0, True)
    match rounding:
        case Rounding.TIES_TO_EVEN:
            return _certain(Reach(0.5, is_odd))
        case Rounding.TIES_TO_AWAY:
            return _certain(Reach(0.5, True))
        case Rounding.TIES_TOWARD_ZERO:
            return _certain(Reach(0.5, False))
        case Rounding.TOWARD_ZERO:
            return _certain(at_next, gives_max=True)
        case Rounding.AWAY_FROM_ZERO:
            return _certain(beyond)
        case Rounding.TOWARD_POSITIVE:
            return _certain(at_next, gives_max=True) if negative else _certain(beyond)
        case Rounding.TOWARD_NEGATIVE:
            return _certain(beyond) if negative else _certain(at_next, gives_max=True)
        case Rounding.TO_ODD:
            return _certain(at_next if is_odd else beyond, gives_max=True)
        case Rounding.STOCHASTIC | Rounding.STOCHASTIC_EQUAL:
            return OverflowRule(beyond, at_next, gives_max=False)
        case _:
            assert_never(rounding)


def _certain(reach: Reach, *, gives_max: bool = False) -> OverflowRule:
    return OverflowRule(reach, reach, gives_max)


def is_usual(rounding: Rounding, overflow: Overflow) -> bool:
    """Whether ties go to even and overflow to infinity, as hardware does."""
    to_infinity = overflow in (Overflow.IEEE, Overflow.INFINITE)
    return rounding is Rounding.TIES_TO_EVEN and to_infinity


RoundingName = Literal[
    "ties_to_even",
    "ties_to_away",
    "ties_toward_zero",
    "toward_zero",
    "away_from_zero",
    "toward_positive",
    "toward_negative",
    "to_odd",
    "stochastic",
    "stochastic_equal",
    "RNE",
    "RNA",
    "RNZ",
    "RZ",
    "RA",
    "RU",
    "RD",
    "RO",
    "SR",
    "SE",
]
OverflowName = Literal["ieee", "saturate", "saturate_finite", "infinite"]
RoundingLike = Rounding | RoundingName
OverflowLike = Overflow | OverflowName


class HasSpecials(Protocol):
    """What an overflow asks of a format."""

    @property
    def has_infinity(self) -> bool: ...

    @property
    def has_nan(self) -> bool: ...

    @property
    def max(self) -> float: ...


def checked_overflow(overflow: OverflowLike, fmt: HasSpecials) -> Overflow:
    """Return the overflow policy that is meant, if the format can follow it.

    Raises ValueError if there is no such policy, or it is ``infinite`` and the format has neither
        infinities nor NaN.
    """
    policy = Overflow(overflow)
    if policy is Overflow.INFINITE and not (fmt.has_infinity or fmt.has_nan):
        raise ValueError(
            f"overflow='infinite' makes an infinity, or NaN, of every overflow, and {str(fmt)!r} "
            f"has neither; use 'ieee' or 'saturate', which give ±{fmt.max:g}"
        )
    return policy
