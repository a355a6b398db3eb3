"""The formats of IEEE P3109 with 3 to 8 bits: all 120 tables, from the report's own formula.

Nothing of the library is used to compute what is expected: `value` is the definition of decoding
(interim report 3, section 4.7), and a number is rounded by looking for its neighbours in the list
of all values.
"""

from __future__ import annotations

import bisect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from table import DETERMINISTIC, assert_same

import lowprec as lp
from lowprec import Format, Specials

NAMES = [
    f"p3109_k{k}p{p}{sign}{domain}"
    for k in range(3, 9)
    for sign in "su"
    for p in range(1, k + (sign == "u"))
    for domain in "ef"
]
every_name = pytest.mark.parametrize("name", NAMES)


def parts(name):
    """Return bits, precision, whether it is signed and whether its domain is extended."""
    k, p = name.removeprefix("p3109_k")[:-2].split("p")
    return int(k), int(p), name[-2] == "s", name[-1] == "e"


def value(code, name):
    """Return what a code stands for: a Fraction, an infinity or NaN."""
    k, p, signed, extended = parts(name)
    if signed:
        if code == 2 ** (k - 1):
            return math.nan
        if code > 2 ** (k - 1):
            return -value(code - 2 ** (k - 1), name)
        if extended and code == 2 ** (k - 1) - 1:
            return math.inf
        bias = Fraction(2) ** (k - p - 1)
    else:
        if code == 2**k - 1:
            return math.nan
        if extended and code == 2**k - 2:
            return math.inf
        bias = Fraction(2) ** (k - p)
    assert bias.denominator == 1
    exponent, trailing = divmod(code, 2 ** (p - 1))
    significand = Fraction(trailing, 2 ** (p - 1)) + (exponent > 0)
    return significand * Fraction(2) ** int(max(exponent, 1) - bias)


class Expected:
    """Encoding by a search in the list of magnitudes, and the next one were there no largest."""

    def __init__(self, name):
        k, p, self.signed, self.extended = parts(name)
        self.sign = 2 ** (k - 1) if self.signed else 0
        self.nan = 2 ** (k - 1) if self.signed else 2**k - 1
        half = 2 ** (k - 1) if self.signed else 2**k
        codes = [code for code in range(half) if isinstance(value(code, name), Fraction)]
        assert codes == list(range(len(codes)))
        self.values = [value(code, name) for code in codes]
        exponent, trailing = divmod(len(codes), 2 ** (p - 1))
        bias = 2 ** (k - p - 1) if self.signed else 2 ** (k - p)
        significand = Fraction(trailing, 2 ** (p - 1)) + 1
        self.values.append(significand * Fraction(2) ** (exponent - bias))
        self.max_code = len(codes) - 1

    def rounded(self, x, mode):
        """Return the code of a number's magnitude, as if there were no largest; None for others."""
        if not math.isfinite(x) or (x < 0 and not self.signed):
            return None
        return self.round(abs(Fraction(x)), math.copysign(1, x) < 0, mode)

    def encode(self, x, code, mode, overflow):
        """Return the code of a float64 whose magnitude was rounded."""
        negative = math.copysign(1, x) < 0
        if math.isnan(x) or (negative and x != 0 and not self.signed):
            return self.nan
        if code is None:
            return self.beyond(negative, overflow, x)
        if code > self.max_code:
            stays = mode in ("toward_zero", "to_odd")
            stays |= mode == ("toward_positive" if negative else "toward_negative")
            if not (overflow == "ieee" and stays):
                return self.beyond(negative, overflow, x)
            code = self.max_code
        return code | (self.sign if negative and code else 0)

    def beyond(self, negative, overflow, x):
        finite = overflow == "saturate_finite"
        finite |= overflow == "saturate" and not (self.extended and math.isinf(x))
        if not finite and not self.extended:
            return self.nan
        return (self.max_code + (not finite)) | (self.sign if negative else 0)

    def round(self, size, negative, mode):
        """Return the code of the magnitude; parity is the code's."""
        if size >= self.values[-1]:
            return len(self.values) - 1
        code = bisect.bisect_right(self.values, size) - 1
        below, above = self.values[code : code + 2]
        if size == below:
            return code
        side = size - (below + above) / 2
        away = {
            "ties_to_even": side > 0 or (side == 0 and code % 2 == 1),
            "ties_to_away": side >= 0,
            "ties_toward_zero": side > 0,
            "toward_zero": False,
            "away_from_zero": True,
            "toward_positive": not negative,
            "toward_negative": negative,
            "to_odd": code % 2 == 0,
        }[mode]
        return code + away


def test_there_are_120():
    assert len(NAMES) == len(set(NAMES)) == 120


@every_name
def test_codes_decode_as_the_formula_says(name):
    k, p, signed, extended = parts(name)
    fmt = lp.get_format(name)
    assert (fmt.bits, fmt.precision, fmt.signed) == (k, p, signed)
    assert fmt.bias == 2 ** (fmt.exponent_bits - 1)
    assert (fmt.has_infinity, fmt.has_nan, fmt.has_zero) == (extended, True, True)
    expected = np.array([float(value(code, name)) for code in range(2**k)])
    assert_same(np.abs(lp.decode(np.arange(2**k), fmt, dtype="float64")), np.abs(expected))
    actual = lp.decode(np.arange(2**k), fmt, dtype="float64")
    numbers = ~np.isnan(expected)
    assert_same(actual[numbers], expected[numbers])
    for code in range(2**k):
        x = lp.inspect(code=code, fmt=fmt)
        exact = value(code, name)
        assert (
            x.value == exact if isinstance(exact, Fraction) else not isinstance(x.value, Fraction)
        )


@every_name
def test_every_mode_picks_the_neighbour_in_the_table(name):
    fmt, expected = lp.get_format(name), Expected(name)
    values = [float(v) for v in expected.values]
    turns = values + [(a + b) / 2 for a, b in itertools.pairwise(values)]
    turns += [2 * values[-1], 1e30, math.inf, 5e-324]
    sizes = [s for v in turns for s in (math.nextafter(v, 0), v, math.nextafter(v, math.inf))]
    x = np.unique(np.array([*sizes, *(-s for s in sizes), 0.0, math.nan]))
    i = NAMES.index(name)
    for mode in {"ties_to_even", "to_odd", DETERMINISTIC[i % 8], DETERMINISTIC[i // 8 % 8]}:
        rounded = [expected.rounded(float(v), mode) for v in x]
        for overflow in ("ieee", "infinite", "saturate", "saturate_finite"):
            pairs = zip(x.tolist(), rounded, strict=True)
            codes = [expected.encode(v, code, mode, overflow) for v, code in pairs]
            how = {"rounding": mode, "overflow": overflow}
            np.testing.assert_array_equal(lp.encode(x, fmt, **how), codes, f"{mode} {overflow}")
            y = lp.round_to(x, fmt, **how)
            assert_same(y, lp.decode(codes, fmt, dtype="float64"), x)
            some = slice(len(codes) % 7, None, 29)
            exact = [lp.inspect(v, fmt, **how).code for v in x[some].tolist()]
            assert exact == codes[some], f"{mode} {overflow}"
    with np.errstate(all="ignore"):
        narrow = np.unique(x.astype(np.float32)[::3])
    for mode in ("ties_to_even", "to_odd"):
        wide = narrow.astype(np.float64).tolist()
        codes = [expected.encode(v, expected.rounded(v, mode), mode, "ieee") for v in wide]
        np.testing.assert_array_equal(lp.encode(narrow, fmt, rounding=mode), codes)


def test_finite_domains_are_the_formats_that_are_known():
    assert lp.get_format("p3109_k8p3sf") is lp.float8_e5m2fnuz
    assert lp.get_format("P3109_K8P4SF") is lp.float8_e4m3fnuz
    assert lp.get_format("binary8p3se") == Format("x", 5, 3, Specials.P3109)
    assert lp.get_format("p3109_k8p1uf") == Format("x", 8, 1, "fn", bias=128, signed=False)
    assert lp.get_format("p3109_k8p1uf") != lp.float8_e8m0fnu
    assert lp.get_format("p3109_k16p11se").max == 65504 - 32


@pytest.mark.parametrize("name", ["p3109_k2p1se", "p3109_k8p8se", "p3109_k8p9ue", "p3109_k8p0sf"])
def test_spellings_of_no_format_are_refused(name):
    with pytest.raises(ValueError, match=r"P3109.*precision from 1 to"):
        lp.get_format(name)
