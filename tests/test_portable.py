"""The portable rule equals the CPU's kernels bit for bit, in every library that it runs in."""

from __future__ import annotations

import numpy as np
import pytest
from table import DETERMINISTIC, FORMATS, LISTED, each, name, policies, turning_points

import lowprec as lp
from lowprec.conversion import portable

HELD = [fmt for fmt in FORMATS if fmt.fits(lp.float32)]
FLOAT32 = np.dtype(np.float32)


def same_bits(actual, expected, x):
    actual, expected = (np.asarray(y).view(np.uint32) for y in (actual, expected))
    wrong = np.flatnonzero(actual != expected)
    message = [(float(x[i]), hex(actual[i]), hex(expected[i])) for i in wrong[:3]]
    assert not wrong.size, f"{wrong.size} differ; input, result, kernel's: {message}"


def numbers(fmt):
    """Return where rounding turns, random patterns of all exponents, and NaN of both signs."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45], np.float32)
    turning = turning_points(fmt, FLOAT32) if fmt in LISTED else drawn[:0]
    if turning.size > 2**20:  # of tfloat32: where exponents end, and every 29th
        turning = np.concatenate([turning[:5000], turning[::29], turning[-5000:]])
    return np.concatenate([special, turning, drawn])


def kernel(x, fmt, rounding, overflow):
    """Round on the CPU, NaN passing where the format has none."""
    numbers = x
    if not fmt.has_nan:
        refused = np.isnan(x) | ((x < 0) & (not fmt.signed))
        numbers = np.where(refused, np.float32(1), x)
    out = lp.round_to(numbers, fmt, rounding=rounding, overflow=overflow)
    if not fmt.has_nan:
        sign = np.copysign(np.float32(np.nan), x) if fmt.signed else np.float32(np.nan)
        out = np.where(refused, sign, out)
    return out


@each("mode", DETERMINISTIC)
@pytest.mark.parametrize("fmt", HELD, ids=name)
def test_numpy_gets_the_kernels_bits(fmt, mode):
    x = numbers(fmt)
    for overflow in policies(fmt):
        ours = portable.round_to(x, fmt, rounding=mode, overflow=overflow)
        same_bits(ours, kernel(x, fmt, mode, overflow), x)
        x = x[~(np.abs(x) < fmt.max / 2)]  # nothing else depends on the policy


@pytest.mark.parametrize("fmt", HELD, ids=name)
def test_torch_gets_the_kernels_bits(fmt):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = numbers(fmt)
    for mode in DETERMINISTIC:
        ours = portable.round_to(torch.from_numpy(x), fmt, rounding=mode)
        assert ours.dtype == torch.float32
        same_bits(ours.numpy(), kernel(x, fmt, mode, "ieee"), x)


@pytest.mark.parametrize(
    "fmt",
    [pytest.param(f, marks=pytest.mark.slow if i % 3 else ()) for i, f in enumerate(HELD)],
    ids=name,
)
def test_jax_gets_the_kernels_bits(fmt):
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
    x, i = numbers(fmt), HELD.index(fmt)
    for mode in {"ties_to_even", DETERMINISTIC[i % 8], DETERMINISTIC[(i + 3) % 8]}:  # each compiles
        ours = portable.round_to(jnp.asarray(x), fmt, rounding=mode)
        same_bits(np.asarray(ours), kernel(x, fmt, mode, "ieee"), x)


@pytest.mark.slow
@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e4m3fn", "float8_e8m0fnu"])
def test_all_patterns_of_float32_get_the_kernels_bits(fmt, mode):
    for first in range(0, 2**32, 2**24):
        x = np.arange(first, first + 2**24, dtype=np.uint32).view(np.float32)
        same_bits(portable.round_to(x, fmt, rounding=mode), lp.round_to(x, fmt, rounding=mode), x)


def test_constants_are_found_before_torchs_compiler_traces():
    torch = pytest.importorskip("torch")
    x = torch.linspace(-9, 9, 100)
    for fmt in ("float4_e2m1fn", lp.Format("mine", 6, 10, bias=40)):  # not asked for before
        compiled = torch.compile(
            lambda t, f=fmt: portable.round_to(t, f, rounding="RO"), fullgraph=True, backend="eager"
        )
        np.testing.assert_array_equal(compiled(x), lp.round_to(x.numpy(), fmt, rounding="RO"))


def test_shapes_and_scalars_pass():
    x = np.float32([[0.1, 0.2]])
    assert portable.round_to(x, "bfloat16").shape == (1, 2)
    assert portable.round_to(x[:0], "bfloat16").shape == (0, 2)
    assert portable.round_to(np.float32(0.1), "bfloat16") == lp.round_to(np.float32(0.1), "bf16")


def test_what_is_not_float32_is_refused_with_a_way_out():
    with pytest.raises(TypeError, match="float32"):
        portable.round_to(np.zeros(3), "bfloat16")
    with pytest.raises(TypeError, match=r"lowprec\.round_to"):
        portable.round_to([1.0], "bfloat16")


def test_random_modes_and_wide_formats_are_refused_with_a_way_out():
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"lowprec\.jax"):
        portable.round_to(x, "bfloat16", rounding="stochastic")
    with pytest.raises(ValueError, match="float64"):
        portable.round_to(x, "e11m20")
