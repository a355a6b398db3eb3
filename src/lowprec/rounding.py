"""Rounding directions and overflow policies: the enumerations and their accepted spellings.

Names follow IEEE 754-2019 (section 4.3); `to_odd` is the jamming mode of Boldo and Melquiond
(2008), `stochastic` is mode 1 and `stochastic_equal` mode 2 of Connolly, Higham and Mary (2021).
"""

from __future__ import annotations

import difflib
import enum
from typing import Literal, TypeVar

from lowprec.common.names import did_you_mean

__all__ = ["Overflow", "OverflowLike", "Rounding", "RoundingLike"]

_Choice = TypeVar("_Choice", bound="_Spelled")


class _Spelled(enum.Enum):
    """An enumeration whose members are asked for by member, by value or by a short name."""

    @classmethod
    def _short_names(cls) -> dict[str, str]:
        return {}

    @classmethod
    def _missing_(cls, spelling: object) -> _Spelled:
        """Find a member by a spelling that is no value; list the near ones when there is none."""
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
        kind = cls.__name__.lower()
        error = ValueError if isinstance(spelling, str) else TypeError
        raise error(f"{spelling!r} is no {kind} mode; {did_you_mean(near)}use one of {choices}")


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
    "inf": "ieee",
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

    @property
    def is_stochastic(self) -> bool:
        """Whether the mode draws random bits."""
        return self in (Rounding.STOCHASTIC, Rounding.STOCHASTIC_EQUAL)

    def overflows_to_max(self, negative: bool) -> bool:
        """Whether a finite overflow of this sign gives the largest finite value (section 7.4)."""
        toward_other_side = Rounding.TOWARD_POSITIVE if negative else Rounding.TOWARD_NEGATIVE
        return self in (Rounding.TOWARD_ZERO, Rounding.TO_ODD, toward_other_side)


class Overflow(_Spelled):
    """What becomes of a value beyond the largest finite one.

    ``ieee``: infinity; NaN in a format without infinities, ±max in one with neither.
    ``saturate``: finite values go to ±max; infinities stay where the format has them, else ±max.
    ``saturate_finite``: infinities go to ±max too.
    """

    IEEE = "ieee"
    SATURATE = "saturate"
    SATURATE_FINITE = "saturate_finite"


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
OverflowName = Literal["ieee", "saturate", "saturate_finite"]
RoundingLike = Rounding | RoundingName
OverflowLike = Overflow | OverflowName
