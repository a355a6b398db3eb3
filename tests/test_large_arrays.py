"""Large results are written past the caches, in whole cache lines: with the same bits."""

import numpy as np
import pytest

import lowprec as lp

SIZE = 7_000_003  # with a float32 result, more than plans._STREAMING_FROM


@pytest.fixture(scope="module")
def patterns():
    return np.random.default_rng(5).integers(0, 2**32, SIZE, dtype=np.uint32).view(np.float32)


def in_pieces(convert, x):
    """Convert a few pieces, small enough to go through the caches, and give their places."""
    rng = np.random.default_rng(6)
    for begin in [0, SIZE - 1000, *rng.integers(0, SIZE - 1000, 30)]:
        yield slice(begin, begin + 1000), convert(x[begin : begin + 1000])


@pytest.mark.parametrize("offset", [0, 1, 7, 16])
@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2"])
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_positive"])
def test_large_arrays_get_the_bits_of_their_pieces(patterns, fmt, rounding, offset):
    memory = np.empty(SIZE + offset, np.float32)
    out = memory[offset:]  # cache lines begin elsewhere
    memory[:offset] = -7
    lp.round_to(patterns, fmt, rounding=rounding, out=out)
    assert (memory[:offset] == -7).all()
    for place, expected in in_pieces(lambda x: lp.round_to(x, fmt, rounding=rounding), patterns):
        assert (out[place].view(np.uint32) == expected.view(np.uint32)).all()


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2"])
def test_large_arrays_of_codes_get_the_bits_of_their_pieces(fmt):
    fmt = lp.get_format(fmt)
    size = 3 * SIZE
    x = np.random.default_rng(7).standard_normal(size, np.float32)
    codes = lp.encode(x, fmt)
    values = lp.decode(codes, fmt)
    for begin in range(0, size - 1000, size // 25):
        place = slice(begin, begin + 1000)
        assert (codes[place] == lp.encode(x[place], fmt)).all()
        assert (values[place] == lp.round_to(x[place], fmt)).all()


def test_large_arrays_are_rounded_in_place(patterns):
    x = patterns.copy()
    lp.round_to(x, "bfloat16", out=x)
    for place, expected in in_pieces(lambda x: lp.round_to(x, "bfloat16"), patterns):
        assert (x[place].view(np.uint32) == expected.view(np.uint32)).all()
