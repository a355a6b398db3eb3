"""The product that training calls: the bits of matmul, for every shape, stride and processor."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import processor
import pytest
from table import assert_same

from lowprec import matmul
from lowprec.kernels.plans import processor_has
from lowprec.kernels.products.matmul import float32_product


def sequentially(a, b):
    """Multiply one term of every sum after the other, as float64 steps that are rounded once."""
    total = np.full((a.shape[0], b.shape[1]), -0.0, np.float32)
    for column, row in zip(a.T, b, strict=True):
        exact = column[:, None].astype(np.float64) * row
        total = (total + exact).astype(np.float32)  # float64 holds these sums exactly
    return total if a.shape[1] else np.zeros_like(total)


def draw(rng, rows, columns):
    """Draw numbers of few bits, whose products can be summed exactly in float64."""
    return (rng.integers(-255, 256, (rows, columns)) * 2.0 ** rng.integers(-12, 3)).astype("f")


SIDES = [1, 2, 3, 5, 8, 15, 16, 17, 33, 100, 131]


def test_every_sum_is_formed_in_the_order_of_k():
    rng = np.random.default_rng(0)
    shapes = [*itertools.product(SIDES[:7], repeat=3), (40, 300, 50), (33, 129, 17), (0, 3, 4)]
    shapes += [(3, 0, 4), (3, 4, 0), (1, 500, 100), (100, 500, 1), (1, 1, 300), (1030, 3, 20)]
    for rows, terms, columns in shapes:
        a, b = draw(rng, rows, terms), draw(rng, terms, columns)
        assert_same(float32_product(a, b), sequentially(a, b))


@pytest.mark.parametrize("rows", SIDES)
def test_it_is_matmul_of_float32(rows):
    rng = np.random.default_rng(rows)
    for terms, columns in itertools.product(SIDES[::2], SIDES):
        a, b = rng.standard_normal((rows, terms)), rng.standard_normal((terms, columns))
        a, b = a.astype("f"), b.astype("f")
        expected = matmul(a, b, inputs="float32", accumulator="float32")
        assert_same(float32_product(a, b), expected)
        for layout in ("CF", "FC", "FF"):
            left, right = np.asarray(a, order=layout[0]), np.asarray(b, order=layout[1])
            assert_same(float32_product(left, right), expected)


def test_strides_do_not_matter():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 50)).astype("f"), rng.standard_normal((50, 60)).astype("f")
    expected = float32_product(a, b)

    def views(x):
        yield np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
        yield x[::-1, ::-1].copy()[::-1, ::-1]
        yield np.pad(x, 3)[3:-3, 3:-3]
        yield np.pad(x.T, 5)[5:-5, 5:-5].T

    for left, right in itertools.product(views(a), views(b)):
        assert_same(float32_product(left, right), expected)
    ones = np.broadcast_to(np.float32(1), (50, 60))
    assert_same(float32_product(a, ones), float32_product(a, ones.copy()))


def test_results_are_written_to_out_and_nowhere_else():
    rng = np.random.default_rng(2)
    a, b = draw(rng, 9, 20), draw(rng, 20, 19)
    room = np.full((11, 24), 7, np.float32)
    out = room[1:10, 2:21]
    assert float32_product(a, b, out) is out
    assert_same(out, sequentially(a, b))
    out[...] = 7
    assert np.all(room == 7)
    with pytest.raises(ValueError, match="rows must be contiguous"):
        float32_product(a, b, np.empty((19, 9), np.float32).T)
    with pytest.raises(ValueError, match=r"the product has shape \(9, 19\)"):
        float32_product(a, b, np.empty((9, 18), np.float32))
    read_only = np.empty((9, 19), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(TypeError):
        float32_product(a, b, read_only)


def test_nothing_beyond_the_operands_is_read():
    """NaN around them would show."""
    rng = np.random.default_rng(3)
    for rows, terms, columns in [(9, 20, 19), (1, 3, 5), (40, 17, 33), (50, 130, 10)]:
        a, b = draw(rng, rows, terms), draw(rng, terms, columns)
        inner = [np.pad(x, 20, constant_values=np.nan)[20:-20, 20:-20] for x in (a, b)]
        turned = [np.pad(x.T, 20, constant_values=np.nan)[20:-20, 20:-20].T for x in (a, b)]
        for left, right in (inner, turned):
            assert_same(float32_product(left, right), sequentially(a, b))


def test_special_numbers_follow_ieee():
    inf, nan = np.inf, np.nan
    for x, y, result in [
        ([-0.0, -0.0], [1, 1], -0.0),
        ([1, -1], [1, 1], 0.0),
        ([inf, 1], [1, 1], inf),
        ([inf, inf], [1, -1], nan),
        ([inf], [0], nan),
        ([1e-30, 1e-30], [1e-15, 1e-15], 2 * np.float32(1e-45)),
        ([3e38, 3e38], [1, 1], inf),
    ]:
        got = float32_product(np.array([x], "f"), np.array([y], "f").T)[0, 0]
        assert_same(got, np.float32(result))
        assert not (np.isnan(got) and np.signbit(got))


def test_bad_operands_are_refused():
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="transpose one of them"):
        float32_product(ones, ones)
    with pytest.raises(TypeError):
        float32_product(ones.astype("d"), ones.T)
    with pytest.raises(ValueError, match="unpack"):
        float32_product(ones[0], ones.T)


def test_threads_get_the_same_bits():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((100, 300)).astype("f"), rng.standard_normal((300, 64)).astype("f")
    expected, found = float32_product(a, b), []
    work = [
        threading.Thread(target=lambda: found.extend(float32_product(a, b) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 200
    for product in found:
        assert_same(product, expected)


PROGRAM = """
import hashlib, numpy as np, lowprec as lp
from lowprec.kernels.products.matmul import float32_product
from lowprec.kernels.plans import processor_has
rng = np.random.default_rng(8)
drawn = rng.integers(-(2**23), 2**23, (2, 37, 53)), rng.integers(-32, -14, (2, 37, 53))
a, b = np.ldexp(*drawn).astype("f")
a[:, ::7] = 0
digest = hashlib.sha256(float32_product(a, b.T).tobytes())
for fmt in ("float16", "bfloat16"):
    digest.update(lp.matmul(a, b.T, inputs=fmt, accumulator=fmt).tobytes())
patterns = rng.integers(0, 2**32, (2, 37, 53), dtype=np.uint32).view("f")
patterns[~np.isfinite(patterns)] = 1
for inputs, fmt, options in (
    ("bfloat16", "bfloat16", {}),
    ("bfloat16", "float16", {}),
    ("float16", "float16", {"fused": False}),
    ("float32", "bfloat16", {"fused": False}),
    ("float16", "float8_e4m3fn", {"rounding": "toward_zero"}),
    ("float32", "float16", {"rounding": "toward_negative"}),
    ("bfloat16", "float16", {"rounding": "stochastic", "rng": 3}),
    ("float16", "bfloat16", {"rounding": "stochastic", "rng": 4, "fused": False}),
    ("bfloat16", "float16", {"order": "blocked", "block": 16, "inner": "float32"}),
):
    how = lp.Accumulator(fmt, **options)
    for x, y in ((a, b.T), (patterns[0], patterns[1].T)):
        with np.errstate(over="ignore"):
            digest.update(lp.matmul(x, y, inputs=inputs, accumulator=how).tobytes())
print(*(int(processor_has(feature)) for feature in ("avx512fp16", "avx512f", "fma")))
print(digest.hexdigest())
"""


# That of every processor: compared with others', not with the same machine's.
DIGEST = "a2a3c0991f1c4ed04f4718aa47b41495f90aa92a55edf9b23395e4e7c09f757f"


def digest_on(**variables):
    """Return which instructions a processor has, and the digest of products there."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:2]


def test_this_processor_gets_the_bits_of_all_others():
    assert digest_on()[1] == DIGEST


AVX2 = "+avx,+avx2,+fma,+f16c"
PROCESSORS = [
    pytest.param("x86-64", "", "0 0 0", marks=pytest.mark.slow),
    ("haswell", AVX2, "0 0 1"),
    pytest.param(
        "skylake-avx512", f"{AVX2},+avx512f,+avx512dq,+avx512vl", "0 1 1", marks=pytest.mark.slow
    ),
]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")
@pytest.mark.parametrize(("name", "features", "instructions"), PROCESSORS)
def test_every_processor_gets_the_same_bits(name, features, instructions):
    if "avx512f" in features and not processor_has("avx512f"):
        pytest.skip("this processor has no AVX-512")
    found, digest = digest_on(NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    assert found == instructions
    assert digest == DIGEST


def test_subnormal_numbers_count_also_where_the_thread_flushes_them():
    if "flushed" not in processor.STATES:
        pytest.skip("how this kind of processor flushes is not known here")
    x, y = np.full((8, 64), 2.0**-70, np.float32), np.full((64, 8), 2.0**-70, np.float32)
    with processor.state("flushed"):
        found = float32_product(x, y)
    # looked at as bits, and not where 0 == 2**-134
    assert np.all(found.view(np.uint32) == 1 << 149 - 134)
