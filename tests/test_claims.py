"""What pages say in numbers, between the blocks that run, is computed here again."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp
from lowprec import train

ROOT = Path(__file__).parents[1]
HALF, BRAIN = lp.float16, lp.bfloat16


def page(name):
    """Return the text of a page, every break of a line a space."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))


def power(value, digits=2):
    """Return 2.98e-08 as 2.98·10⁻⁸."""
    significand, exponent = f"{value:.{digits}e}".split("e")
    return (
        significand
        + "·10"
        + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def largest_that_becomes_zero(fmt):
    value = fmt.smallest_subnormal / 2
    assert lp.round_to(value, fmt) == 0
    assert lp.round_to(np.nextafter(value, 1), fmt) > 0
    return value


def dropped_updates():
    """Return up to where every update is dropped, and from where none is, as shares of a weight."""
    weights = np.arange(128, 256) / 128  # a binade of bfloat16
    half = lp.ulp(weights, BRAIN) / 2
    for share, changes in ((0.999, False), (1.001, True)):
        assert ((lp.round_to(weights + share * half, BRAIN) != weights) == changes).all()
    return (half / weights).min(), (half / weights).max()


LEAST, MOST = dropped_updates()
VANISHING = largest_that_becomes_zero(HALF)
DECADES = math.log10(HALF.max / HALF.smallest_normal)
BITS = HALF.precision - BRAIN.precision
SQUARES = math.floor(1e6 * math.sqrt(VANISHING)) / 1e6
CHOOSING = [
    f"its rounding error is {('a half', 'a quarter', 'an eighth')[BITS - 1]} of bfloat16's",
    f"span more than {('eight', 'nine', 'ten')[int(DECADES) - 8]} decades",
    f"rounding errors of up to {100 * BRAIN.unit_roundoff:.2f} %",
    f"gradients of up to {power(VANISHING)} become zero",
    f"every update below {math.floor(1e4 * LEAST) / 100} % of the weight",
    f"and some up to {100 * MOST:.2f} %",
    f"squares of gradients below {power(SQUARES)} become zero",
    f"float16 has {('one', 'two', 'three')[BITS - 1]} more bits",
    f"{-math.log10(HALF.unit_roundoff):.1f} digits over nine decades",
    f"from {power(HALF.smallest_normal, 1)} to {HALF.max:.0f}",
    f"bfloat16 counts to {2**BRAIN.precision}",
]
GLOSSARY = [
    f"from {power(BRAIN.smallest_normal)} down to {power(BRAIN.smallest_subnormal)}",
    f"from {power(HALF.smallest_normal)} down to {power(HALF.smallest_subnormal)}",
    f"The spacing just above 1, 2¹⁻ᵖ: {BRAIN.eps} in bfloat16",
    f"{BRAIN.bias} in bfloat16, {HALF.bias} in float16",
]


@pytest.mark.parametrize("words", CHOOSING)
def test_the_page_about_choosing_says_what_is_computed(words):
    assert words in page("docs/choosing.md")


@pytest.mark.parametrize("words", GLOSSARY)
def test_the_glossary_says_what_is_computed(words):
    assert words in page("docs/glossary.md")


def test_one_bit_is_six_decibels():
    assert "One bit is 6 dB" in page("docs/glossary.md")
    x = np.random.default_rng(0).uniform(1, 2, 10_000)
    levels = [lp.measure(x, lp.Format("f", 5, p)).sqnr_db for p in range(4, 16)]
    assert np.allclose(np.diff(levels), 6.02, atol=0.3)


def test_below_2_to_the_minus_17_bfloat16_is_the_finer_of_the_two():
    """What the first notebook says of numbers that float16 holds as subnormal ones."""
    exponents = np.arange(-24, -13)
    spacings = [lp.ulp(1.5 * 2.0**exponents, fmt) for fmt in (HALF, BRAIN)]
    assert ((spacings[1] < spacings[0]) == (exponents < -17)).all()
    assert "2⁻¹⁷ = 7.6·10⁻⁶" in page("notebooks/01_what_16_bits_can_hold.ipynb")
    assert power(2.0**-17, 1) == "7.6·10⁻⁶"


@pytest.mark.parametrize("fmt", lp.named_formats().values(), ids=str)
def test_whole_numbers_are_exact_up_to_2_to_the_p_and_the_next_is_not(fmt):
    """Where the format reaches so far: *Counts to* in the table about choosing."""
    if 2**fmt.precision + 1 > min(fmt.max, 2**25) or not fmt.has_zero:
        pytest.skip("its largest number comes before, or the numbers are too many")
    numbers = np.arange(2**fmt.precision + 1)
    assert (lp.round_to(numbers, fmt) == numbers).all()
    assert lp.round_to(2**fmt.precision + 1, fmt) != 2**fmt.precision + 1


@pytest.mark.parametrize("overflow", lp.Overflow, ids=str)
def test_the_words_about_overflow_policies_hold_in_every_format(overflow):
    """The list in the guide about casting, in every format and mode."""
    for fmt in lp.named_formats().values():
        wide = 2.0 * fmt.max if fmt.max < 1e300 else np.inf
        if overflow is lp.Overflow.INFINITE and not (fmt.has_infinity or fmt.has_nan):
            with pytest.raises(ValueError, match="has neither"):
                lp.round_to(wide, fmt, overflow=overflow)
            continue
        found = lp.round_to(np.float64([wide, np.inf]), fmt, overflow=overflow)
        replaced = np.inf if fmt.has_infinity else np.nan if fmt.has_nan else fmt.max
        is_replaced = overflow in (lp.Overflow.IEEE, lp.Overflow.INFINITE)
        clamped = replaced if is_replaced else fmt.max
        if np.isfinite(wide):
            assert np.array_equal(found[0], clamped, equal_nan=True), fmt
        keeps = overflow != lp.Overflow.SATURATE_FINITE and fmt.has_infinity
        assert np.array_equal(found[1], np.inf if keeps else clamped, equal_nan=True), fmt
        for rounding in ("toward_zero", "to_odd", "toward_negative"):
            if np.isfinite(wide):
                expected = replaced if overflow is lp.Overflow.INFINITE else fmt.max
                actual = lp.round_to(wide, fmt, rounding=rounding, overflow=overflow)
                assert np.array_equal(actual, expected, equal_nan=True), fmt


BASIC = {"add", "subtract", "multiply", "divide", "sqrt", "fma", "remainder", "minimum", "maximum"}
BASIC |= {"floor_divide", "mod", "square", "abs", "negative"}
METHODS = {name for name in dir(lp.Arithmetic) if callable(getattr(lp.Arithmetic, name))}
FUNCTIONS = {name for name in METHODS if not name.startswith("_")} - BASIC
WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
COUNTS = {  # what is counted, and how pages say it
    r"(\w+) (?:rounding )?modes": len(lp.Rounding),
    r"(\w+) deterministic modes": sum(not mode.is_stochastic for mode in lp.Rounding),
    r"(\w+) overflow policies": len(lp.Overflow),
    r"(?:under )?(\w+) policies": len(train.named_policies()),
    r"(\w+) named": len(lp.named_formats()),
    r"(\w+) elementary functions": len(FUNCTIONS),
    r"(\w+) notebooks": len(list((ROOT / "notebooks").glob("[0-9]*.ipynb"))),
}


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/guides/verification.md"])
@pytest.mark.parametrize("words", COUNTS)
def test_pages_count_right(name, words):
    for found in re.findall(words, page(name)):
        number = WORDS.index(found.lower()) if found.lower() in WORDS else found
        if str(number).isdigit():
            assert int(number) == COUNTS[words], f"{found} in {words!r}"


def test_every_count_is_somewhere():
    """The test above would not notice that the words have changed."""
    pages = page("README.md") + page("docs/index.md") + page("docs/guides/verification.md")
    for words in COUNTS:
        assert re.search(words, pages), words
