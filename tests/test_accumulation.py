"""Sums and inner products against the definition of each order, in fractions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import processor
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from table import DETERMINISTIC, POLICIES, STOCHASTIC, assert_same, covering

import lowprec as lp
from lowprec.accumulation import Accumulator, cumsum, dot, error_bound, matmul, mean
from lowprec.accumulation import sum as rounded_sum
from lowprec.exact.number import Number
from lowprec.exact.reference import decode_exact, round_exact

ORDERS = ["sequential", "blocked", "pairwise", "kahan", "exact"]
FORMATS = ["bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2fnuz", "e10m20"]


# The oracle ------------------------------------------------------------------------------------


class Exact:
    """A real number as a fraction and a sign, or an infinity or NaN; rounded by the reference."""

    def __init__(self, how):
        self.how = how

    def to(self, fmt, x):
        """Round a float or a (sign of zero, Fraction) to a format, as a float."""
        negative, size = x
        number = Number(negative, size)
        if number.is_nan:
            return math.nan
        code = round_exact(number, fmt, self.how.rounding, self.how.overflow)
        result = decode_exact(code, fmt)
        return math.copysign(float(result.magnitude), -1.0 if result.negative else 1.0)

    def add(self, fmt, *terms):
        return self.to(fmt, self.exact_sum(terms))

    def exact_sum(self, terms):
        """Add floats and pairs exactly, with IEEE's infinities and signs of zero."""
        terms = [as_exact(term) for term in terms]
        infinite = [negative for negative, size in terms if size == math.inf]
        if any(size is math.nan for _, size in terms) or len(set(infinite)) > 1:
            return False, math.nan
        if infinite:
            return infinite[0], math.inf
        total = sum(-size if negative else size for negative, size in terms)
        if total:
            return total < 0, abs(total)
        signs = {negative for negative, _ in terms}
        is_down = self.how.rounding is lp.Rounding.TOWARD_NEGATIVE
        return (is_down if len(signs) > 1 else signs.pop()), Fraction(0)


def as_exact(x):
    if isinstance(x, tuple):
        return x
    x = float(x)
    negative = math.copysign(1, x) < 0
    if math.isnan(x):
        return negative, math.nan
    return negative, Fraction(abs(x)) if math.isfinite(x) else math.inf


def product(x, y):
    """Multiply two floats exactly."""
    (s, a), (t, b) = as_exact(x), as_exact(y)
    sizes = [size for size in (a, b) if not isinstance(size, Fraction)]
    if sizes and (math.nan in [size for size in sizes if size is math.nan] or 0 in (a, b)):
        return False, math.nan
    return s != t, math.inf if sizes else a * b


def flipped(x):
    return (not x[0], x[1]) if isinstance(x, tuple) else -x


def defined_sum(terms, how):
    """Form the sum as the definition of the order says; terms are floats or exact pairs."""
    exact, fmt = Exact(how), how.fmt
    if not terms:
        return 0.0
    if how.order == "sequential":
        return sequential(exact, fmt, terms)
    if how.order == "blocked":
        blocks = [terms[i : i + how.block] for i in range(0, len(terms), how.block)]
        return sequential(exact, fmt, [sequential(exact, how.inner, block) for block in blocks])
    if how.order == "exact":
        return exact.add(fmt, *terms)
    if how.order == "kahan":
        s, c = exact.add(fmt, terms[0]), 0.0
        for term in terms[1:]:
            y = exact.add(fmt, term, -c)
            t = exact.add(fmt, s, y)
            c = exact.add(fmt, exact.add(fmt, t, -s), -y)
            s = t
        return s
    level = terms
    if len(level) == 1:
        return exact.add(fmt, level[0])
    while len(level) > 1:
        pairs = [exact.add(fmt, *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = pairs + list(level[len(pairs) * 2 :])
    return level[0]


def sequential(exact, fmt, terms):
    total = exact.add(fmt, terms[0])
    for term in terms[1:]:
        total = exact.add(fmt, total, term)
    return total


def defined_dot(x, y, how):
    terms = [product(*pair) for pair in zip(x, y, strict=True)]
    if not how.fused:
        inner = how.inner if how.order == "blocked" else how.fmt
        terms = [Exact(how).to(inner, term) for term in terms]
    return defined_sum(terms, how)


def accumulators(orders=ORDERS, **fields):
    inner = {"sequential": {}, "blocked": {"block": 3, "inner": "e8m12"}}
    return [Accumulator(order=order, **inner.get(order, {}), **fields) for order in orders]


def numbers(fmt, count, rng):
    """Draw numbers whose sums cancel, overflow, and fall among the subnormals."""
    fmt = lp.get_format(fmt)
    kinds = [
        rng.standard_normal(count),
        rng.integers(-4, 5, count) * fmt.smallest_subnormal * rng.choice([0.5, 1, 3], count),
        rng.choice([-1, 1, 0.75], count) * fmt.max,
        1 + rng.integers(0, 3, count) * fmt.eps / 2 + rng.choice([0, 2.0**-40], count),
        rng.choice([1, -1], count)
        * rng.choice([1.0, fmt.eps / 2, fmt.eps / 2 * (1 + 2**-20)], count),
    ]
    picked = rng.choice(len(kinds), 2)
    x = np.where(rng.random(count) < 0.5, kinds[picked[0]], kinds[picked[1]])
    return np.where(rng.random(count) < 0.02, rng.choice([0.0, -0.0, np.inf, np.nan]), x)


# Laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "rounding"), covering(FORMATS, DETERMINISTIC))
def test_every_order_is_its_definition(fmt, rounding):
    rng = np.random.default_rng([lp.get_format(fmt).bits, DETERMINISTIC.index(rounding)])
    for how in accumulators(fmt=fmt, rounding=rounding):
        for overflow, count in itertools.product(POLICIES, [1, 2, 3, 7, 12]):
            how = dataclasses.replace(how, overflow=overflow)
            x = numbers(fmt, count, rng)
            assert_same(rounded_sum(x, how), defined_sum(list(x), how), None)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32"])
def test_products_are_added_as_fused_says(order, fused, fmt):
    rng = np.random.default_rng(ORDERS.index(order))
    how = accumulators([order], fmt=fmt, fused=fused)[0]
    inputs = "bfloat16" if fmt == "bfloat16" else "float16"
    for count in [1, 2, 5, 9] * 4:
        x, y = (lp.round_to(numbers(inputs, count, rng), inputs) for _ in range(2))
        assert_same(dot(x, y, inputs=inputs, accumulator=how), defined_dot(x, y, how))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=12))
@example([2.0**1023, 2.0**1023, -(2.0**1023)])
@example([1.0, 2.0**-53, 2.0**-106])
@example([1.0, 2.0**-53, -(2.0**-106)])
@example([1.0, 2.0**-24, 2.0**-1074])
@example([5e-324, -5e-324, -5e-324])
@example([2.0**1000, 1.0, -(2.0**1000)])
def test_exact_sum_is_rounded_once(x):
    for fmt in ("float64", "float32", "bfloat16"):
        how = Accumulator(fmt, order="exact")
        assert_same(rounded_sum(x, how), defined_sum(x, how))
    if sum(map(abs, map(Fraction, x))) < 2**1023:
        assert rounded_sum(x, Accumulator("float64", order="exact")) == math.fsum(x)


def test_exact_sum_of_many_terms_carries():
    x = np.tile([2.0**52 - 1, 2.0**1000, 1.5, -(2.0**1000), -(2.0**-1074)], 40_000)
    how = Accumulator("float64", order="exact")
    assert rounded_sum(x, how) == float(40_000 * sum(map(Fraction, x[:5].tolist())))


def test_one_wide_term_cannot_hide_a_tie():
    """1 + 2**-11 is a tie in float16; whatever is added to it decides."""
    tie = [1.0, 2.0**-11]
    for tail in (2.0**-60, -(2.0**-60)):
        x = np.array([tie[0], tie[1] + (tail if tail > -1 else 0)])
        exact = Exact(Accumulator("float16")).add(lp.float16, *x.tolist())
        assert rounded_sum(x, "float16") == exact
    assert rounded_sum([1.0, 2.0**-11 + 2.0**-60], "float16") == 1 + 2.0**-10
    assert rounded_sum([1.0, 2.0**-11], "float16") == 1.0


@pytest.mark.parametrize("order", ORDERS)
def test_sums_do_not_depend_on_layout_or_blocks(order):
    rng = np.random.default_rng(7)
    how = accumulators([order], fmt="bfloat16")[0]
    x = rng.standard_normal((5, 300, 7, 40)).astype(np.float32)
    along = rounded_sum(x, how, axis=(1, 3))
    for i, j in itertools.product(range(5), range(7)):
        assert along[i, j] == rounded_sum(x[i, :, j, :], how)
    assert_same(along, rounded_sum(np.asfortranarray(x), how, axis=(3, -3)))
    assert_same(along, rounded_sum(np.repeat(x, 2, 0)[::2], how, axis=(1, 3)))
    long = np.tile(x[0, :, 0].ravel(), 6)  # longer than a block of terms
    column = np.stack([long, -long], 1)
    assert_same(rounded_sum(column, how, axis=0)[0], rounded_sum(long, how))


def test_blocks_of_terms_continue_where_the_last_one_stopped():
    x = np.random.default_rng(3).standard_normal(70_001)
    acc = np.float32(x[0])
    for term in x[1:]:
        acc = np.float32(np.float64(acc) + term)  # float64 has enough bits for these terms
    assert abs(float(rounded_sum(x, "float32")) - float(acc)) <= 4 * np.spacing(acc)
    blocked = Accumulator("float32", order="blocked", block=999, inner="float64")
    parts = [np.float64(0)] * 71
    for i in range(71):
        parts[i] = rounded_sum(x[999 * i : 999 * i + 999], "float64")
    assert rounded_sum(x, blocked) == rounded_sum(parts, "float32")
    pairs = Accumulator("float64", order="pairwise")
    level = x
    while len(level) > 1:
        level = np.append(
            level[: len(level) // 2 * 2].reshape(-1, 2).sum(1), level[len(level) // 2 * 2 :]
        )
    assert rounded_sum(x, pairs) == level[0]


def test_sum_has_numpys_shapes():
    x = np.ones((2, 3, 4), np.float32)
    for axis in (None, 0, -1, (0, 2), (), (2, 0, 1)):
        for keepdims in (False, True):
            ours, numpys = rounded_sum(x, "float16", axis, keepdims), x.sum(axis, keepdims=keepdims)
            assert ours.shape == numpys.shape
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, numpys)
    assert isinstance(rounded_sum(x, "float16"), np.float32)
    assert isinstance(rounded_sum(x, "float64"), np.float64)
    assert rounded_sum(3.5, "float16") == 3.5
    assert rounded_sum(np.array([True, True]), "float16") == 2


@pytest.mark.parametrize(("fmt", "rounding"), covering(FORMATS, [*DETERMINISTIC, "stochastic"]))
def test_every_cumulative_sum_is_the_sum_of_the_terms_so_far(fmt, rounding):
    x = np.random.default_rng(9).standard_normal((2, 70)) * 3
    x[0, :3], x[1, 40:] = (-0.0, 0.0, 1.0), x[1, 40:] * 1e30
    x[1, -2:] = np.inf, np.nan
    for how in accumulators(fmt=fmt, rounding=rounding, rng=7):
        if how.order not in ORDERS:
            continue
        found = cumsum(x, how, axis=1)
        assert found.dtype == rounded_sum(x, how).dtype
        for k in (*range(1, 10), 39, 40, 41, 63, 64, 65, 69, 70):
            assert_same(found[:, k - 1], rounded_sum(x[:, :k], how, axis=1), how)
        assert_same(cumsum(x.T, how, axis=0), found.T)


@pytest.mark.parametrize("order", ORDERS)
def test_cumulative_sums_continue_from_block_to_block(order):
    x = np.random.default_rng(4).standard_normal(70_001).astype(np.float32)
    for rounding in ("ties_to_even", "stochastic"):
        how = accumulators([order], fmt="bfloat16", rounding=rounding, rng=2)[-1]
        found = cumsum(x, how)
        for k in (1, 65_535, 65_536, 65_537, 70_001):
            assert_same(found[k - 1], rounded_sum(x[:k], how))


def test_cumulative_sums_in_float32_and_float64_are_numpys():
    x = np.random.default_rng(5).standard_normal((7, 9, 5)).astype(np.float32)
    for axis in (None, 0, 1, -1):
        assert_same(cumsum(x, "float32", axis), np.cumsum(x, axis))
        assert_same(cumsum(x.astype(float), "float64", axis), np.cumsum(x.astype(float), axis))
        assert cumsum(x, "float32", axis).flags.c_contiguous
    assert_same(cumsum(3, "float16"), np.float32([3]))
    assert cumsum(np.ones((0, 3)), "float16", axis=0).shape == (0, 3)
    assert cumsum([], "float16").shape == (0,)
    with pytest.raises(np.exceptions.AxisError):
        cumsum(x, "float16", axis=3)


@pytest.mark.parametrize(
    "how",
    [
        Accumulator(order="blas"),
        lp.tensor_core("a100", "float16"),
        Accumulator("float16", order="blocked", block=2, inner=Accumulator("float32")),
    ],
)
def test_orders_without_a_running_sum_are_refused(how):
    with pytest.raises(ValueError, match=r"no cumulative sum .*sequential, blocked"):
        cumsum([1.0, 2.0], how)


@pytest.mark.parametrize(("fmt", "rounding"), covering([*FORMATS, "e11m40", "e5m2"], DETERMINISTIC))
def test_a_mean_is_the_sum_divided_with_one_rounding(fmt, rounding):
    fmt = lp.get_format(fmt)
    rng = np.random.default_rng(6)
    scales = (1.0, fmt.smallest_subnormal, fmt.smallest_normal * 3, fmt.max / 64)
    for scale, terms in itertools.product(scales, (1, 2, 3, 7, 257, 300, 2049)):
        x = np.trunc(rng.standard_normal(terms) * 4) * scale
        for how in accumulators(fmt=fmt, rounding=rounding):
            total, expected = float(rounded_sum(x, how)), None
            if math.isfinite(total) and total:
                quotient = Fraction(total) / terms
                expected = Exact(how).to(fmt, (quotient < 0, abs(quotient)))
            else:
                expected = total
            assert_same(np.float64(mean(x, how)), np.float64(expected), (how, total, terms))


def test_means_have_numpys_shapes_and_an_exact_count():
    x = np.arange(24.0).reshape(2, 3, 4)
    for axis in (None, 0, -1, (0, 2), ()):
        for keepdims in (False, True):
            ours, numpys = mean(x, "float32", axis, keepdims), x.mean(axis, keepdims=keepdims)
            assert ours.shape == numpys.shape
            assert_same(ours, numpys.astype(np.float32))
    assert isinstance(mean(x, "float16"), np.float32)
    assert mean(x, "float64") == x.mean()
    assert np.isnan(mean([], "float16"))
    assert np.isnan(mean(np.ones((0, 3)), "float64", axis=0)).all()
    assert mean(np.ones((0, 3)), "float16", axis=1).shape == (0,)
    exact = Accumulator("bfloat16", order="exact")
    assert mean(np.ones(257), exact) == lp.round_to(256 / 257, "bfloat16")
    assert mean(np.full(70_000, 0.5), Accumulator("float16", order="exact")) == np.float32(
        lp.round_to(35_008 / 70_000, "float16")
    )


def test_stochastic_means_are_right_on_average_and_repeat():
    how = Accumulator("bfloat16", order="exact", rounding="stochastic", rng=3)
    x = np.tile([1.0, 1.0, 2.0], (4000, 1))
    found = mean(x, how, axis=1)
    assert_same(found, mean(x, how, axis=1))
    assert abs(found.mean(dtype=float) - 4 / 3) < 2e-4
    assert len(set(found.tolist())) == 2


def test_empty_sums_are_positive_zero():
    for how in accumulators(fmt="float16", rounding="toward_negative"):
        assert_same(rounded_sum([], how), 0.0)
        assert_same(rounded_sum(np.ones((0, 3)), how, axis=0), np.zeros(3))
        assert rounded_sum(np.ones((0, 3)), how, axis=1).shape == (0,)
        assert_same(dot([], [], accumulator=how), 0.0)
    assert_same(rounded_sum([-0.0], "float16"), -0.0)


@pytest.mark.parametrize(("fmt", "stalls"), [("float16", 2048), ("bfloat16", 256)])
def test_sum_of_ones_stalls(fmt, stalls):
    ones = np.ones(5000)
    assert rounded_sum(ones, fmt) == stalls
    assert dot(ones, ones, accumulator=fmt) == stalls
    for order in ("pairwise", "kahan", "exact"):
        assert rounded_sum(ones, Accumulator(fmt, order=order)) == lp.round_to(5000, fmt)


def test_naive_variance_cancels():
    x = lp.round_to(100 + np.random.default_rng(0).standard_normal(1000), "float16")
    squares = dot(x, x, inputs="float16", accumulator=Accumulator("float16", order="pairwise"))
    assert np.isinf(squares)  # 10**7 is beyond float16
    wide = dot(x, x, inputs="float16", accumulator="float32")
    naive = lp.round_to(wide / 1000, "float16") - lp.round_to((x.mean()) ** 2, "float16")
    assert abs(naive - x.var()) > 0.5 * x.var()
    centred = lp.round_to(x - x.mean(), "float16")
    assert abs(rounded_sum(centred**2, "float16") / 1000 - x.var()) < 0.05 * x.var()


# Stochastic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_draws_depend_on_key_output_and_step_alone(order, rounding):
    how = accumulators([order], fmt="bfloat16", rounding=rounding, rng=5)[0]
    x = np.random.default_rng(0).standard_normal((60, 300))
    once = rounded_sum(x, how, axis=1)
    assert_same(once, rounded_sum(x, how, axis=1))
    assert_same(once[:3], rounded_sum(x[:3], how, axis=1))
    assert_same(once, rounded_sum(np.asfortranarray(x), how, axis=1))
    other = dataclasses.replace(how, rng=6)
    assert np.any(once != rounded_sum(x, other, axis=1))


def test_subnormal_numbers_count_also_where_the_thread_flushes_them():
    if "flushed" not in processor.STATES:
        pytest.skip("how this kind of processor flushes is not known here")
    x, y = np.full((8, 64), 2.0**-66), np.full((64, 8), 2.0**-67)
    hows = ("float32", "bfloat16", Accumulator("bfloat16", fused=False, order="pairwise"))
    terms = [np.full(64, 2.0**-133, dtype) for dtype in "fd"]
    with processor.state("flushed"):
        found = [matmul(x, y, accumulator=how) for how in hows]
        found += [rounded_sum(z, how) for how in hows for z in terms]
    for result in found:  # looked at as bits, and not where 0 == 2**-127
        assert np.all(result.view(np.uint32) == 1 << 149 - 127)


def test_stochastic_sums_are_right_on_average():
    ones = np.ones((400, 1000))
    how = Accumulator("bfloat16", rounding="stochastic", rng=0)
    sums = rounded_sum(ones, how, axis=1)
    # from 256 on a step of 2 is taken with probability 1/2, and so on: unbiased, variance < n·u·n
    assert abs(sums.mean() - 1000) < 5 * sums.std() / 20
    assert 1 < sums.std() < 100


def test_stochastic_step_is_a_neighbour():
    x = np.random.default_rng(2).standard_normal((500, 2))
    how = Accumulator("float16", rounding="stochastic", rng=0)
    first = lp.round_to(x[:, 0], "float16", rounding="toward_negative")
    sums = rounded_sum(x, how, axis=1)
    exact = x.sum(1)
    spread = np.abs(lp.ulp(first, "float16")) + np.abs(lp.ulp(exact, "float16"))
    assert np.all(np.abs(sums - exact) <= spread)
    assert len(np.unique(np.sign(sums - exact))) == 2


# Bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_zero", "stochastic"])
def test_errors_stay_below_the_bound(order, fmt, rounding):
    fields = {"block": 16, "inner": "float16"} if order == "blocked" else {}
    how = Accumulator(fmt, order=order, rounding=rounding, rng=0, **fields)
    rng = np.random.default_rng(1)
    largest = 0.0
    for count in (1, 2, 3, 10, 100, 1000):
        x = rng.uniform(0.5, 1.5, (40, count))
        x[20:] *= rng.choice([-1, 1], (20, count))
        x[0] = 1 + lp.finfo(fmt).eps * 0.49
        error = np.abs(rounded_sum(x, how, axis=1) - x.sum(1))
        ratio = error / (error_bound(count, how) * np.abs(x).sum(1))
        assert ratio.max() <= 1
        largest = max(largest, ratio.max())
    assert largest > 0.2  # the bound is reached but for a small factor


@pytest.mark.parametrize("rounding", ["ties_to_even", "to_odd", "stochastic_equal"])
@pytest.mark.parametrize("fmt", ["e8m1", "e8m2", "bfloat16", "float16"])
def test_kahans_errors_stay_below_the_bound_whatever_the_terms(fmt, rounding):
    how = Accumulator(fmt, "kahan", rounding=rounding, rng=0)
    for count in (2, 3, 5, 8, 1000):
        rng = np.random.default_rng(count)
        x = rng.uniform(0.5, 1.5, (20_000 // count, count))  # with more bits than the format has
        x[::2] = 2.0 ** rng.integers(-11, 1, x[::2].shape) * x[::2]
        error = np.abs(rounded_sum(x, how, axis=1) - x.sum(1))
        assert np.all(error <= error_bound(count, how) * x.sum(1))


def test_bounds_grow_as_the_order_says():
    u = lp.float16.unit_roundoff
    assert error_bound(0) == 0
    assert error_bound(1, "float16") == pytest.approx(u)
    assert error_bound(1000, "float16") == pytest.approx((1 + u) ** 1000 - 1)
    assert error_bound(1024, Accumulator("float16", order="pairwise")) == pytest.approx(
        10 * u, 0.01
    )
    blocked = Accumulator("float16", order="blocked", block=32, inner="float32")
    assert error_bound(1000, blocked) == pytest.approx(32 * u, 0.01)
    assert error_bound(10**6, Accumulator("float16", order="exact")) == pytest.approx(u)
    kahan = Accumulator("float16", order="kahan")
    assert error_bound(1000, kahan) == pytest.approx(3 * u + 4000 * u * u, 0.01)
    assert error_bound(1, kahan) == pytest.approx(u)
    assert error_bound(10**9, Accumulator("e8m1", order="kahan")) == math.inf
    assert error_bound(10, Accumulator("float16", rounding="RZ")) == pytest.approx(20 * u, 0.01)
    assert error_bound(10**9, "float8_e4m3fn") == math.inf
    unfused = Accumulator("float16", fused=False)
    assert error_bound(9, unfused) == pytest.approx(error_bound(10, "float16"))
    with pytest.raises(ValueError, match="no terms or more"):
        error_bound(-1)


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "pairwize"}, "did you mean 'pairwise'"),
        ({"order": "blocked"}, "needs block"),
        ({"order": "blocked", "block": 0}, "1 or more"),
        ({"block": 4}, "belong to order='blocked'"),
        ({"order": "kahan", "inner": "float32"}, "belong to order='blocked'"),
        ({"order": "blas", "fmt": "float16"}, "NumPy's own float32"),
        ({"order": "blas", "fused": False}, "NumPy's own float32"),
        ({"fmt": "float64", "rounding": "toward_zero"}, "at most 51"),
        ({"fmt": "float64", "overflow": "saturate"}, "at most 51"),
        ({"rounding": "up"}, "not a rounding mode"),
        ({"fmt": "float17"}, "unknown format"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Accumulator(**fields)


def test_accumulator_is_a_value():
    how = Accumulator("e5m10", order="blocked", block=8, rounding="RZ")
    assert how == Accumulator(np.float16, "blocked", 8, "float16", rounding="toward_zero")
    assert hash(how) == hash(dataclasses.replace(how))
    assert how.inner is lp.float16
    assert how.rounding is lp.Rounding.TOWARD_ZERO
    with pytest.raises(dataclasses.FrozenInstanceError):
        how.block = 4


@pytest.mark.parametrize("dtype", ["i8", ">i8", "u8"])
def test_integers_that_float64_holds_are_terms_whatever_their_size(dtype):
    low, longest = (0, 2**64 - 1) if dtype == "u8" else (-(2**63), 1 - 2**63)
    x = np.array([2**62, 2**62, low, 2**53 + 2, 0], dtype)
    assert rounded_sum(x, Accumulator("float64", "exact")) == 2.0**63 + low + 2**53 + 2
    for bad in (2**53 + 1, 2**63 - 1, longest):
        with pytest.raises(ValueError, match=f"the term {bad} needs more than .* 53 bits"):
            rounded_sum(np.array([2**62, bad], dtype), "float16")


def test_bad_sums_are_refused():
    with pytest.raises(np.exceptions.AxisError):
        rounded_sum(np.ones(3), "float16", axis=1)
    with pytest.raises(ValueError, match="twice"):
        rounded_sum(np.ones((3, 3)), "float16", axis=(0, -2))
    with pytest.raises(ValueError, match="53 bits"):
        rounded_sum(np.array([2**53 + 1]), "float16")
    assert rounded_sum(np.array([2**53, -(2**53), 1]), "float32") == 1
    with pytest.raises(TypeError):
        rounded_sum([1j], "float16")
    with pytest.raises(TypeError):
        Accumulator(order="blocked", block=1.5)


def test_blas_is_numpys_order():
    x = np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)
    blas = Accumulator(order="blas")
    assert_same(rounded_sum(x, blas), x.sum())
    assert_same(rounded_sum(x, blas, axis=0, keepdims=True), x.sum(0, keepdims=True))
    # of two buffers: NumPy hands an array and its own transpose to another routine of the BLAS
    assert_same(matmul(x, x.T, inputs="float32", accumulator=blas), x @ x.copy().T)
