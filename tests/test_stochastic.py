"""Stochastic rounding: exactly the stated probabilities, and bits that depend on nothing else.

`draws` recovers the random integers R of a call from results alone: the result of 1 + f·eps is
away from zero iff R < floor(f·2**r), so bisecting f with the same key finds every R. What the law
says of any other x in any other format is then checked exactly.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import oracle
import pytest
from table import LISTED, SHARED, STOCHASTIC, assert_same, name, points, sources

import lowprec as lp

every_stochastic_mode = pytest.mark.parametrize("rounding", STOCHASTIC)


def draws(key, size, random_bits):
    """Recover the random integers of `random_bits` bits behind each of `size` elements."""
    low = np.zeros(size, np.int64)  # R >= low
    for bit in reversed(range(random_bits)):
        threshold = low + (1 << bit)
        x = 1 + threshold * 2.0 ** -(7 + random_bits)  # bfloat16's eps is 2**-7
        y = lp.round_to(x, "bfloat16", rounding="stochastic", rng=key, random_bits=random_bits)
        low = np.where(y > 1, low, threshold)
    return low


def chi_square(counts):
    """Return the chi-square statistic of counts against equal probabilities."""
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def assert_uniform(counts):
    """Fail if the statistic is beyond five standard deviations of its distribution."""
    freedom = counts.size - 1
    assert chi_square(counts) < freedom + 5 * math.sqrt(2 * freedom) + 10


# Probabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize("random_bits", [1, 2, 4, 8])
def test_random_bits_are_uniform(random_bits):
    R = draws(2026, 1 << 18, random_bits)
    assert R.min() == 0
    assert R.max() == 2**random_bits - 1
    assert_uniform(np.bincount(R))


def test_random_bits_of_neighbours_are_independent():
    R = draws(5, (1 << 16) + 1, 4)
    assert_uniform(np.bincount(R[:-1] * 16 + R[1:]))
    assert_uniform(np.bincount(R[:-128] * 16 + R[128:]))


@pytest.mark.parametrize("random_bits", [12, 17, 32])
def test_every_random_bit_is_fair(random_bits):
    size = 1 << 15
    R = draws(11, size, random_bits)
    for bit in range(random_bits):
        ones = int((R >> bit & 1).sum())
        assert abs(ones - size / 2) < 5 * math.sqrt(size / 4), bit


@pytest.mark.parametrize("random_bits", [1, 4, 8])
@pytest.mark.parametrize(
    "fmt", [lp.float8_e5m2, lp.float4_e2m1fn, lp.Format("e3m2", 3, 3)], ids=name
)
def test_every_remainder_has_exactly_its_probability(fmt, random_bits):
    size = 1 << 12
    R = draws(3, size, random_bits)
    eps = fmt.eps
    for remainder in range(64):  # in units finer than 2**-random_bits, and coarser
        f = remainder / 64
        x = np.full(size, 1 + f * eps)
        how = {"rounding": "stochastic", "rng": 3, "random_bits": random_bits}
        away = lp.round_to(x, fmt, **how) > 1
        assert away.sum() == (math.floor(f * 2**random_bits) > R).sum()
        np.testing.assert_array_equal(away, math.floor(f * 2**random_bits) > R)


@pytest.mark.parametrize(
    ("fmt", "random_bits"),
    [(fmt, 32) for fmt in LISTED]
    + [(fmt, r) for fmt in (lp.bfloat16, lp.float16, lp.float8_e8m0fnu) for r in (1, 8, 17)],
    ids=name,
)
def test_away_from_zero_iff_the_draw_is_below_the_fraction(fmt, random_bits):
    x = points(fmt, sources(fmt)[-1])
    R = draws(8, x.size, random_bits)

    def toss(f):
        return np.floor(f * 2.0**random_bits) > R

    how = {"rounding": "stochastic", "rng": 8, "random_bits": random_bits}
    for overflow in ("ieee", "saturate"):
        expected = oracle.round_to(x, fmt, "stochastic", overflow, toss)
        assert_same(lp.round_to(x, fmt, overflow=overflow, **how), expected, x)


@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float16, lp.float8_e4m3fn], ids=name)
@every_stochastic_mode
def test_float32_and_the_same_float64_draw_alike(fmt, rounding):
    x = points(fmt, np.dtype(np.float32))
    for random_bits in (4, 32):
        how = {"rounding": rounding, "rng": 1, "random_bits": random_bits}
        single, double = lp.round_to(x, fmt, **how), lp.round_to(x.astype(np.float64), fmt, **how)
        assert_same(single, double, x)


def test_16_bits_from_float32_to_bfloat16_and_32_elsewhere():
    x = np.random.default_rng(0).standard_normal(20_000)
    how = {"rounding": "stochastic", "rng": 1}
    for source, fmt, bits in [
        (np.float32, "bfloat16", 16),
        (np.float64, "bfloat16", 32),
        (np.float32, "float16", 32),
        (np.float32, "float8_e5m2", 32),
    ]:
        v = x.astype(source)
        assert_same(lp.round_to(v, fmt, **how), lp.round_to(v, fmt, random_bits=bits, **how), v)


@pytest.mark.parametrize("fmt", [lp.bfloat16, lp.float16, lp.float8_e4m3fn], ids=name)
def test_stochastic_rounding_is_unbiased(fmt):
    size = 1 << 18
    for dtype in (np.float32, np.float64):
        for f in (0.001, 0.25, 0.7):
            x = np.full(size, 1 + f * fmt.eps, dtype)
            f = (float(x[0]) - 1) / fmt.eps
            for sign in (1, -1):
                y = lp.round_to(sign * x, fmt, rounding="stochastic", rng=17)
                assert np.isin(np.abs(y), [1, 1 + fmt.eps]).all()
                away = int((np.abs(y) > 1).sum())
                assert abs(away - size * f) < 5 * math.sqrt(size * f * (1 - f))


def test_subnormals_round_by_their_own_spacing():
    size = 1 << 16
    least = lp.float16.smallest_subnormal
    y = lp.round_to(np.full(size, least / 8), "float16", rounding="stochastic", rng=0)
    assert np.isin(y, [0, least]).all()
    assert abs((y > 0).sum() - size / 8) < 5 * math.sqrt(size * 7 / 64)


@pytest.mark.parametrize("f", [2.0**-30, 0.3, 0.5, 1 - 2.0**-30])
@pytest.mark.parametrize("random_bits", [None, 1])
def test_stochastic_equal_takes_either_neighbour_with_probability_a_half(f, random_bits):
    size = 1 << 16
    x = np.full(size, 1 + f * 2.0**-7)
    how = {"rounding": "stochastic_equal", "rng": 6, "random_bits": random_bits}
    for sign in (1, -1):
        y = lp.round_to(sign * x, "bfloat16", **how)
        assert np.isin(np.abs(y), [1, 1.0078125]).all()
        away = int((np.abs(y) > 1).sum())
        assert abs(away - size / 2) < 5 * math.sqrt(size / 4)


@every_stochastic_mode
def test_results_are_one_of_the_two_neighbours(rounding):
    x = np.random.default_rng(0).standard_normal(50_000)
    y = lp.round_to(x, "float16", rounding=rounding, rng=0)
    down = lp.round_to(x, "float16", rounding="toward_negative")
    up = lp.round_to(x, "float16", rounding="toward_positive")
    assert ((y == down) | (y == up)).all()
    assert (y == down).any()
    assert (y == up).any()


# What the bits depend on -----------------------------------------------------------------------

LARGE = np.random.default_rng(0).standard_normal(300_000).astype(np.float32)


@pytest.fixture
def threads():
    """Let a test set the number of threads, and put it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize(
    ("verb", "rounding", "random_bits"),
    [
        (lp.round_to, "stochastic", None),
        (lp.round_to, "stochastic", 32),
        (lp.encode, "stochastic", None),
        (lp.round_to, "stochastic_equal", 4),
    ],
)
def test_threads_change_no_bit(threads, verb, rounding, random_bits):
    how = {"rounding": rounding, "rng": 12, "random_bits": random_bits}
    x = np.resize(LARGE, SHARED)
    results = []
    for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        threads(count)
        results.append(verb(x, "bfloat16", **how).tobytes())
    assert len(set(results)) == 1


@every_stochastic_mode
def test_a_prefix_gets_the_bits_of_the_whole(rounding):
    how = {"rounding": rounding, "rng": 2}
    whole = lp.round_to(LARGE, "float8_e4m3fn", **how)
    for size in (1, 5, 127, 128, 129, 255, 256, 257, 1023, 4099, 65_537, 131_072, 299_999):
        part = lp.round_to(LARGE[:size], "float8_e4m3fn", **how)
        assert part.tobytes() == whole[:size].tobytes(), size


@every_stochastic_mode
def test_index_in_c_order_alone_counts(rounding):
    how = {"rounding": rounding, "rng": 2}
    flat = LARGE[:60_000]
    whole = lp.round_to(flat, "bfloat16", **how)
    for shape in ((60_000, 1), (100, 600), (10, 20, 300), (3, 1, 200, 100)):
        x = flat.reshape(shape)
        backward = x[..., ::-1].copy()[..., ::-1]
        for layout in (x, np.asfortranarray(x), np.repeat(x, 2, -1)[..., ::2], backward):
            y = lp.round_to(layout, "bfloat16", **how)
            assert y.tobytes() == whole.tobytes(), (shape, layout.strides)
            out = np.zeros((*shape, 2), np.float32)[..., 0]
            lp.round_to(layout, "bfloat16", out=out, **how)
            assert out.tobytes() == whole.tobytes(), (shape, layout.strides)
    x = flat.copy()
    lp.round_to(x, "bfloat16", out=x, **how)
    assert x.tobytes() == whole.tobytes()


def test_special_and_exact_elements_use_their_own_draws_only():
    x = LARGE[:1000].copy()
    plain = lp.round_to(x, "bfloat16", rounding="stochastic", rng=2)
    x[::3] = np.resize([np.nan, np.inf, 0, 1, -1e-45, 3e38], 334).astype(np.float32)
    mixed = lp.round_to(x, "bfloat16", rounding="stochastic", rng=2)
    others = np.arange(1000) % 3 != 0
    assert_same(mixed[others], plain[others])


# rng -------------------------------------------------------------------------------------------


def stochastic(rng):
    return lp.round_to(LARGE[:2000], "bfloat16", rounding="stochastic", rng=rng).tobytes()


def test_an_int_gives_the_same_bits_every_time():
    assert stochastic(1) == stochastic(1)
    assert stochastic(1) != stochastic(2)
    assert stochastic(0) != stochastic(2**64)


def test_a_seed_sequence_serves():
    assert stochastic(np.random.SeedSequence(3)) == stochastic(np.random.SeedSequence(3))
    assert stochastic(np.random.SeedSequence(3)) == stochastic(3), "as default_rng would have it"


def test_a_generator_gives_one_key_a_call():
    rng = np.random.default_rng(3)
    first, second = stochastic(rng), stochastic(rng)
    assert first != second
    rng = np.random.default_rng(3)
    assert stochastic(rng) == first
    assert stochastic(rng) == second
    assert stochastic(np.random.default_rng(3)) == stochastic(3)


def test_a_key_costs_the_generator_the_same_for_any_size():
    after = []
    for size in (1, 1000, 200_000):
        rng = np.random.default_rng(3)
        lp.round_to(LARGE[:size], "bfloat16", rounding="stochastic", rng=rng)
        after.append(rng.integers(2**63))
    assert len(set(after)) == 1


def test_none_gives_fresh_bits():
    assert stochastic(None) != stochastic(None)


def test_deterministic_modes_draw_nothing():
    rng = np.random.default_rng(3)
    lp.round_to(LARGE[:100], "bfloat16", rng=rng)
    assert rng.integers(2**63) == np.random.default_rng(3).integers(2**63)


@pytest.mark.parametrize("rng", ["0", 1.5, -1], ids=repr)
def test_other_seeds_are_refused(rng):
    with pytest.raises((TypeError, ValueError)):
        stochastic(rng)


def test_numpys_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the one that must not be used
    stochastic(None)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
