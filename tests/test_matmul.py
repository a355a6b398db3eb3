"""Matrix products: the micro-kernels against the general kernel, and that against fractions."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest
from table import DETERMINISTIC, assert_same
from test_accumulation import ORDERS, accumulators, defined_dot, numbers

import lowprec as lp
from lowprec.accumulation.accumulator import Accumulator
from lowprec.accumulation.products import dot, matmul, multiply_generally
from lowprec.accumulation.sums import RunningSums

SHAPES = [
    (1, 1, 1),
    (37, 150, 1),
    (1, 150, 37),
    (1, 7, 33),
    (2, 3, 16),
    (4, 20, 17),
    (5, 1, 32),
    (9, 300, 47),
    (17, 64, 5),
]
FAST = [
    Accumulator("float32"),
    Accumulator("float16"),
    Accumulator("bfloat16"),
    Accumulator("float16", "blocked", 16, "float32"),
    Accumulator("bfloat16", "blocked", 7, "float16"),
    Accumulator("float32", "blocked", 1000, "bfloat16"),
    Accumulator("float8_e4m3fn", overflow="saturate"),
    Accumulator("e8m12", rounding="ties_to_away"),
    Accumulator("bfloat16", rounding="toward_negative"),
]
UNFUSED = [
    Accumulator("float32", fused=False),
    Accumulator("float16", fused=False),
    Accumulator("bfloat16", fused=False),
    Accumulator("float8_e4m3fn", fused=False, overflow="saturate"),
    Accumulator("float16", fused=False, rounding="toward_negative"),
    Accumulator("bfloat16", "blocked", 7, "float16", fused=False),
]

STOCHASTIC = [
    Accumulator("float16", rounding="stochastic", rng=3),
    Accumulator("bfloat16", rounding="stochastic", rng=4),
    Accumulator("float16", fused=False, rounding="stochastic", rng=5),
    Accumulator("float8_e4m3fn", rounding="stochastic", overflow="saturate", rng=6),
    Accumulator("bfloat16", fused=False, rounding="stochastic_equal", rng=8),
    Accumulator("bfloat16", rounding="stochastic", rng=10, random_bits=20),
]
# each compiles for a second
RARE = [
    Accumulator("float8_e5m2", rounding="toward_zero"),
    Accumulator("float16", rounding="toward_positive"),
    Accumulator("float32", rounding="toward_zero", overflow="saturate"),
    Accumulator("e8m12", fused=False),
    Accumulator("bfloat16", fused=False, rounding="toward_zero", overflow="saturate"),
    Accumulator("e8m20", rounding="stochastic", rng=7),
    Accumulator("float16", rounding="stochastic", rng=9, random_bits=16),
    Accumulator("float8_e5m2", fused=False, rounding="stochastic", rng=11, random_bits=5),
]


def generally(a, b, inputs, how):
    """Multiply with the general kernel."""
    fmt = lp.get_format(inputs)
    result = np.zeros((a.shape[0], b.shape[1]), np.float32)
    sums = RunningSums.of(how, a.shape[1], products=True)
    multiply_generally((fmt, fmt), sums, a, b, result, None, 0)
    return result


def operands(fmt, shape, rng):
    """Draw two matrices whose products cancel, overflow, and fall among the subnormals."""
    m, k, n = shape
    a, b = numbers(fmt, m * k, rng).reshape(m, k), numbers(fmt, k * n, rng).reshape(k, n)
    special = rng.random((m, 1)) < 0.8
    a = np.where(special & ~np.isfinite(a), 1.0, a)
    return a, np.where(np.isfinite(b), b, 0.5)


def describe(how):
    """Name an accumulator."""
    products = "" if how.fused else "-unfused"
    bits = "" if how.random_bits is None else f"-{how.random_bits}"
    return f"{how.fmt}-{how.order}-{how.rounding.value}{bits}{products}"


@pytest.mark.parametrize(
    "how",
    [*FAST, *UNFUSED, *STOCHASTIC, *(pytest.param(how, marks=pytest.mark.slow) for how in RARE)],
    ids=describe,
)
def test_micro_kernels_are_the_general_kernel(how):
    rng = np.random.default_rng(1)
    for shape, inputs in itertools.product(SHAPES, ("float16", "bfloat16", "float32")):
        a, b = operands(inputs, shape, rng)
        assert_same(matmul(a, b, inputs=inputs, accumulator=how), generally(a, b, inputs, how))
        a, b = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
        assert_same(matmul(a, b, inputs=inputs, accumulator=how), generally(a, b, inputs, how))
        a, b = np.round(2 * a), np.round(2 * b)  # whose sums are exact, and often ties
        assert_same(matmul(a, b, inputs=inputs, accumulator=how), generally(a, b, inputs, how))


@pytest.mark.parametrize(
    "fmt",
    [
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float6_e2m3fn",
        "float4_e2m1fn",
        "bfloat16",
        "tfloat32",
    ],
)
def test_quick_steps_of_formats_are_the_general_kernel(fmt):
    rng = np.random.default_rng(2)
    largest, smallest = lp.get_format(fmt).max, max(lp.get_format(fmt).smallest_subnormal, 2.0**-70)
    for shape in ((9, 150, 35), (4, 2, 17), (3, 1, 5)):
        sizes = [(shape[0], shape[1]), (shape[1], shape[2])]
        draws = [[rng.standard_normal(size) for size in sizes] for _ in range(5)]
        draws[1] = [x / 64 for x in draws[1]]  # sums among the subnormals, and zeros of both signs
        draws[2] = [x * (rng.random(x.shape) < 0.2) for x in draws[2]]
        draws[3] = [x * 2.0 ** rng.integers(-12, 6, x.shape) for x in draws[3]]
        draws[4] = [np.round(x) * smallest for x in draws[4]]
        for a, b in draws:
            for x in (a, b):
                np.clip(x, -largest, largest, out=x)
            ours = matmul(a, b, inputs=fmt, accumulator=fmt)
            assert_same(ours, generally(a, b, fmt, Accumulator(fmt)))


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_products_near_the_ends_of_float32_are_exact(fmt):
    rng = np.random.default_rng(2)
    for low, high in [(-80, -66), (-76, -70), (50, 64), (-149, 127), (-13, -10), (-26, -22)]:
        scale = 2.0 ** rng.integers(low, high, (2, 24, 24))
        a, b = rng.choice([-1, 1, 1.5, 1.0078125], (2, 24, 24)) * scale
        got = matmul(a, b, accumulator=fmt)
        assert_same(got, generally(a, b, "bfloat16", Accumulator(fmt)))
        column = lp.round_to(b[:, 3], "bfloat16").tolist()
        assert_same(got[5, 3], defined_dot(a[5].tolist(), column, Accumulator(fmt)))


def test_every_bfloat16_step_is_one_rounding():
    """All products of two significands, added to numbers of every exponent that matters."""
    rng = np.random.default_rng(12)
    significands = np.arange(128, 256) / 128
    for exponent in range(-36, 20):
        for z in 2.0**exponent * rng.choice(significands, 5) * rng.choice([-1, 1], 5):
            a = np.stack([np.full(128, z), significands], 1)
            b = np.stack([np.ones(128), significands])
            exact = z + significands[:, np.newaxis] * significands  # of at most 53 bits
            assert_same(matmul(a, b, accumulator="bfloat16"), lp.round_to(exact, "bfloat16"))


@pytest.mark.parametrize("distance", [*range(18, 34), 60, 120])
def test_a_product_that_is_a_tie_is_decided_by_what_came_before(distance):
    """Rounding the sum to float32 first would lose that where it is small enough."""
    for x, y in [(1 + 2.0**-4, 1 + 2.0**-4), (3.0, 1 + 2.0**-7), (5.0, 1 + 2.0**-6)]:
        before = 2.0**-distance * np.array([-1, 0, 1])
        a = np.stack([before, np.full(3, x)], 1)
        b = np.tile([[1.0], [y]], 20)
        got = matmul(a, b, accumulator="bfloat16")
        below, tie, above = got[:, 7]
        assert above == lp.next_up(below, "bfloat16")
        assert tie == lp.round_to(x * y, "bfloat16")
        assert_same(got, np.tile(got[:, :1], 20))
        assert_same(matmul(-a, b, accumulator="bfloat16"), -got)


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_a_sum_of_negative_zeros_is_one(fmt):
    a = np.array([[0.0] * 150, [1.0] * 150, [0.0] * 149 + [1.0]])
    b = np.full((150, 20), -1.0)
    b[140, 5] = 1.0
    got = matmul(a, b, accumulator=fmt)
    assert_same(got, generally(a, b, "bfloat16", Accumulator(fmt)))
    assert np.signbit(got[0, 4])
    assert not np.signbit(got[0, 5])


def test_an_inexact_tie_is_not_one():
    """Rounding the float32 sum again would make these ties: 1 + 2**-11, and what hides below."""
    for tail, result in [(0.0, 1.0), (2.0**-22, 1 + 2.0**-10), (-(2.0**-22), 1.0)]:
        a = np.array([1.0, 2.0**-5, 2.0**-13 if tail else 0.0])
        b = np.array([1.0, 2.0**-6 * (1 + 2.0**-10 * (tail != 0) * np.sign(tail)), 2.0**-24])
        expected = defined_dot(a.tolist(), b.tolist(), Accumulator("float16"))
        assert dot(a, b, inputs="float16", accumulator="float16") == expected == result
    # 1 + (1 + 2**-10)**2 * 2**-11 has bits down to 2**-31, below float32's last one at 2**-23
    x = np.array([1.0, (1 + 2.0**-10) * 2.0**-5])
    y = np.array([1.0, (1 - 2.0**-10) * 2.0**-6])  # the product is just below the tie
    assert np.float32(1) + np.float32(x[1] * y[1]) == 1 + 2.0**-11
    assert dot(x, y, inputs="float16", accumulator="float16") == 1.0
    z = np.array([1 + 2.0**-10, (1 - 2.0**-10) * 2.0**-6])
    assert np.float32(z[0]) + np.float32(x[1] * y[1]) == 1 + 2.0**-10 + 2.0**-11
    assert dot(np.array([1.0, x[1]]), z, inputs="float16", accumulator="float16") == 1 + 2.0**-10


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative"])
def test_every_output_is_its_definition(order, rounding):
    rng = np.random.default_rng(3)
    how = accumulators([order], fmt="float16", rounding=rounding)[0]
    a, b = (lp.round_to(x, "float16") for x in operands("float16", (3, 10, 4), rng))
    got = matmul(a, b, inputs="float16", accumulator=how)
    for i, j in np.ndindex(got.shape):
        assert_same(got[i, j], defined_dot(a[i].tolist(), b[:, j].tolist(), how))


@pytest.mark.parametrize("fmt", ["float32", "float16", "e10m20"])
def test_large_products_are_their_parts(fmt):
    """Blocks along every dimension leave the results alone."""
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((300, 600)).astype("f"), rng.standard_normal((600, 530)).astype("f")
    whole = matmul(a, b, accumulator=fmt)
    for i, j in [(0, 0), (255, 511), (256, 512), (299, 529), (8, 31)]:
        assert_same(matmul(a[i : i + 1], b[:, j : j + 1], accumulator=fmt)[0, 0], whole[i, j])


@pytest.mark.parametrize("fmt", ["float32", "float16", "e10m20"])
@pytest.mark.parametrize("inputs", ["float16", "float32"])
def test_strides_and_dtypes_do_not_matter(fmt, inputs):
    rng = np.random.default_rng(5)
    a, b = (lp.round_to(rng.standard_normal((40, 40)), "float16").astype("f") for _ in range(2))
    plain = matmul(a, b, inputs=inputs, accumulator=fmt)

    def views(x):
        yield np.asfortranarray(x)
        yield np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
        yield x[::-1, ::-1].copy()[::-1, ::-1]
        yield x.astype(np.float64)
        yield x.astype(np.float16)
        yield x.astype(">f4")
        yield np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)

    for left, right in zip(views(a), views(b), strict=True):
        assert_same(matmul(left, b, inputs=inputs, accumulator=fmt), plain)
        assert_same(matmul(a, right, inputs=inputs, accumulator=fmt), plain)
    read_only = a.copy()
    read_only.flags.writeable = False
    assert_same(matmul(read_only, b, inputs=inputs, accumulator=fmt), plain)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((0, 2, 3), (3, 4)),
    ],
)
def test_shapes_are_numpys(left, right):
    rng = np.random.default_rng(6)
    a, b = rng.integers(-5, 5, left).astype("f"), rng.integers(-5, 5, right).astype("f")
    for how in ("float32", Accumulator("bfloat16", order="exact"), Accumulator(order="blas")):
        ours, numpys = matmul(a, b, accumulator=how), np.matmul(a, b)
        assert type(ours) is type(numpys)
        assert ours.dtype == np.float32
        assert_same(ours, numpys + 0.0)


@pytest.mark.parametrize("how", ["float16", Accumulator("float16", "pairwise")])
def test_stacks_are_their_matrices(how):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 1, 5, 9)), rng.standard_normal((3, 9, 6))
    stack = matmul(a, b, accumulator=how)
    for i, j in itertools.product(range(2), range(3)):
        assert_same(stack[i, j], matmul(a[i, 0], b[j], accumulator=how))


def test_stochastic_draws_follow_the_output():
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((3, 70, 300)), rng.standard_normal((300, 70))
    for fused in (True, False):
        how = Accumulator("bfloat16", fused=fused, rounding="stochastic", rng=1)
        whole = matmul(a, b, accumulator=how)
        assert_same(matmul(a[:1], b, accumulator=how), whole[:1])
        assert_same(matmul(a[:, ::-1][:, ::-1], np.asfortranarray(b), accumulator=how), whole)
        assert_same(matmul(a[0, :4], b, accumulator=how), whole[0, :4])
        generator = Accumulator(
            "bfloat16", fused=fused, rounding="SR", rng=np.random.default_rng(1)
        )
        first, second = (matmul(a[0], b, accumulator=generator) for _ in range(2))
        assert_same(first, whole[0])
        assert np.any(first != second)


def test_accumulators_that_differ_in_rng_alone_draw_their_own_bits():
    x = np.linspace(0.1, 0.9, 600, dtype=np.float32).reshape(5, 120)
    found = []
    for seed in (0, 1, 0, 1):  # plans are kept without the source of random bits
        how = Accumulator("bfloat16", rounding="stochastic", rng=seed)
        found.append((matmul(x, x.T, accumulator=how).tobytes(), float(lp.sum(x, how))))
    assert found[:2] == found[2:]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_stochastic_draws_do_not_depend_on_blocks():
    rng = np.random.default_rng(12)
    how = Accumulator("float16", rounding="stochastic", rng=1)
    for rows, terms, columns in ((40, 6600, 5), (6600, 40, 20), (3, 700, 700)):
        a, b = rng.standard_normal((rows, terms)), rng.standard_normal((terms, columns))
        ours = matmul(a, b, inputs="float16", accumulator=how)
        assert_same(ours, generally(a, b, "float16", how))


@pytest.mark.parametrize("order", ["sequential", "pairwise", "kahan", "exact"])
def test_random_bits_decide_how_finely_a_fraction_is_weighed(order):
    """Away from zero iff R < ⌊f·2**r⌋: for f = 3/8 never with one bit, else in 1, 3, 6 of 2**r."""
    x = np.full((20_000, 1), 1 + 3 / 8 * 2.0**-10)
    for r, chances in ((1, 0), (2, 1 / 4), (3, 3 / 8), (16, 3 / 8), (17, 3 / 8), (32, 3 / 8)):
        how = Accumulator("float16", order, rounding="stochastic", random_bits=r, rng=5)
        share = np.mean(lp.sum(x, how, axis=1) > 1)
        assert abs(share - chances) <= 5 * np.sqrt(chances / len(x))
        a = np.full((200, 1), x[0, 0])
        share = np.mean(matmul(a, np.ones((1, 100)), inputs="float32", accumulator=how) > 1)
        assert abs(share - chances) <= 5 * np.sqrt(chances / len(x))


def test_random_bits_are_those_that_sums_have_room_for():
    for fmt, most in (("float16", 32), ("e8m30", 21)):
        assert Accumulator(fmt, rounding="SR", random_bits=most).random_bits == most
        for bits in (0, most + 1):
            with pytest.raises(ValueError, match=f"random_bits is {bits}; use 1 to {most}"):
                Accumulator(fmt, rounding="SR", random_bits=bits)
    with pytest.raises(TypeError, match="use an integer from 1 to 32"):
        Accumulator("float16", random_bits=1.5)


def test_stochastic_stacks_draw_by_the_index_in_the_stack():
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((3, 4, 9)), rng.standard_normal((3, 9, 6))
    how = Accumulator("float16", rounding="stochastic", rng=1)
    fmt = lp.get_format("float16")
    sums, expected = RunningSums.of(how, 9, products=True), np.zeros((3, 4, 6), np.float32)
    for i in range(3):
        multiply_generally((fmt, fmt), sums, a[i], b[i], expected[i], None, 24 * i)
    assert_same(matmul(a, b, inputs="float16", accumulator=how), expected)


def test_stochastic_sums_that_begin_with_an_addend_draw_for_it_too():
    rng = np.random.default_rng(14)
    a, b, c = (rng.standard_normal(shape) for shape in ((4, 9), (9, 6), (4, 6)))
    how = Accumulator("float16", rounding="stochastic", rng=1)
    fmt = lp.get_format("float16")
    sums, expected = RunningSums.of(how, 10, products=True), np.zeros((4, 6), np.float32)
    multiply_generally((fmt, fmt), sums, a, b, expected, c, 0)
    assert_same(matmul(a, b, c=c, inputs="float16", accumulator=how), expected)


def test_threads_do_not_matter():
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((400, 300)).astype("f"), rng.standard_normal((300, 400)).astype("f")
    before = numba.get_num_threads()
    try:
        results = []
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(matmul(a, b, accumulator="float16"))
    finally:
        numba.set_num_threads(before)
    assert_same(results[0], results[-1])


def test_inputs_and_output_are_rounded():
    a = np.array([[1 / 3, 1000.0]])
    third = float(lp.round_to(1 / 3, "bfloat16"))
    assert matmul(a, [[1.0], [0.0]])[0, 0] == third
    assert matmul(a, [[0.0], [1000.0]], output="float16")[0, 0] == np.inf
    assert matmul(a, [[1.0], [0.0]], inputs="float64", accumulator="float64")[0, 0] == 1 / 3
    wide = matmul(a, [[1.0], [0.0]], output="float64")
    assert wide.dtype == np.float64
    assert wide[0, 0] == third
    narrow = matmul(a, np.eye(2), inputs="float64", accumulator="float64", output="float16")
    assert narrow.dtype == np.float32
    assert narrow[0, 0] == np.float16(1 / 3)


def test_float64_steps_are_fused_multiply_adds():
    rng = np.random.default_rng(10)
    x, y = rng.standard_normal((2, 9))
    for order, fused in [("sequential", True), ("kahan", True), ("pairwise", False)]:
        how = Accumulator("float64", order=order, fused=fused)
        got = dot(x, y, inputs="float64", accumulator=how)
        assert got == defined_dot(x.tolist(), y.tolist(), how)
    for how in ("float32", Accumulator("float64", "pairwise"), Accumulator("float64", "exact")):
        with pytest.raises(ValueError, match="does not hold every product of 'float64'"):
            dot(x, y, inputs="float64", accumulator=how)


def test_nan_and_infinity_follow_ieee():
    for fmt in ("float32", "float16", "bfloat16", "e10m20"):
        for x, y, result in [
            ([np.inf, 1], [1, 1], np.inf),
            ([np.inf, -np.inf], [1, 1], np.nan),
            ([np.inf], [0.0], np.nan),
            ([np.nan, 1], [0, 1], np.nan),
            ([-0.0, -0.0], [1, 1], -0.0),
            ([1.0, -1.0], [1, 1], 0.0),
        ]:
            got = dot(x, y, accumulator=fmt)
            assert_same(got, result)
            assert not (np.isnan(got) and np.signbit(got))
    payload = np.array([[0x7FFFFFFF]], np.uint32).view(np.float32)
    for fmt in ("float32", "bfloat16", Accumulator("bfloat16", "blocked", 4, "float32")):
        assert np.isnan(matmul(payload, payload, inputs="float32", accumulator=fmt))


def test_bad_products_are_refused():
    ones = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2, 3\) do not match"):
        matmul(ones, ones)
    with pytest.raises(ValueError, match="not scalars"):
        matmul(ones, 2)
    with pytest.raises(ValueError, match="broadcast"):
        matmul(np.ones((2, 3, 3)), np.ones((4, 3, 3)))
    with pytest.raises(ValueError, match="use matmul"):
        dot(np.ones((2, 3, 3)), ones.T)
    with pytest.raises(ValueError, match="1 of 6 elements are NaN"):
        matmul(
            np.where(ones.cumsum() == 3, np.nan, 1.0).reshape(2, 3), ones.T, inputs="float6_e3m2fn"
        )
    with pytest.raises(TypeError):
        matmul(ones, ones.T, inputs=3)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "e8m20"])
def test_micro_kernels_are_the_general_kernel_in_every_mode(fmt, rounding):
    rng = np.random.default_rng(11)
    for overflow, inputs in itertools.product(lp.Overflow, ("float16", "bfloat16", "float32")):
        for fused in (True, False):
            how = Accumulator(fmt, fused=fused, rounding=rounding, overflow=overflow)
            for _ in range(2):
                a, b = operands(inputs, (40, 300, 50), rng)
                ours = matmul(a, b, inputs=inputs, accumulator=how)
                assert_same(ours, generally(a, b, inputs, how))
