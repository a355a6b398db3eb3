"""Laws of `lowprec.jax`: the kernels' bits, eager, compiled, mapped and differentiated."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402
from table import DETERMINISTIC  # noqa: E402

import lowprec as lp  # noqa: E402
import lowprec.jax as lj  # noqa: E402
from lowprec import train  # noqa: E402

FORMATS = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e8m0fnu", "tfloat32"]


def numbers():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    return np.concatenate([x, np.float32([0.0, -0.0, np.inf, np.nan, 1e-45, -1e-40])])


def same_bits(a, b):
    np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("fmt", FORMATS)
def test_deterministic_modes_equal_the_kernels_under_jit(fmt, mode):
    x = numbers()
    expected = lp.round_to(x, fmt, rounding=mode)
    rounded = jax.jit(lambda v: lj.round_to(v, fmt, rounding=mode))(x)
    same_bits(rounded, expected)


def test_eager_jit_and_vmap_agree():
    x = numbers().reshape(-1, 1)
    eager = lj.round_to(x, "bfloat16")
    same_bits(eager, jax.jit(lambda v: lj.round_to(v, "bfloat16"))(x))
    same_bits(eager, jax.vmap(lambda v: lj.round_to(v, "bfloat16"))(x))


def test_subnormals_that_xla_flushes_are_kept():
    x = jnp.asarray(np.float32([1e-40, -3e-39]))
    same_bits(jax.jit(lambda v: lj.round_to(v, "bfloat16"))(x), lp.round_to(np.asarray(x), "bf16"))


def test_stochastic_rounding_is_eager_jit_and_vmap_over_keys():
    x = jnp.linspace(-3, 3, 100)
    keys = jax.random.split(jax.random.key(0), 4)
    eager = jnp.stack([lj.round_to(x, "bfloat16", key=key) for key in keys])
    compiled = jax.jit(lambda k: lj.round_to(x, "bfloat16", key=k))
    same_bits(eager, jnp.stack([compiled(key) for key in keys]))
    same_bits(eager, jax.vmap(lambda k: lj.round_to(x, "bfloat16", key=k))(keys))
    assert not np.array_equal(eager[0], eager[1])


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e4m3fn", "float4_e2m1fn"])
@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
def test_stochastic_rounding_compares_the_bits_with_the_fraction(fmt, overflow):
    fmt = lp.get_format(fmt)
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(3000) * np.exp2(rng.uniform(-20, 10, 3000))).astype(np.float32)
    key = jax.random.key(7)
    bits = np.asarray(jax.random.bits(key, x.shape, jnp.uint32)).astype(np.float64)
    y = np.asarray(lj.round_to(x, fmt, key=key, overflow=overflow), np.float64)
    magnitude = np.abs(x.astype(np.float64))
    e = np.maximum(np.floor(np.log2(magnitude)), fmt.emin)
    unit = np.exp2(e - fmt.trailing_bits)
    below = np.floor(magnitude / unit) * unit
    fraction = (magnitude - below) / unit
    expected = below + unit * (bits < np.floor(fraction * 2**32))
    inside = expected <= fmt.max
    np.testing.assert_array_equal(np.abs(y)[inside], expected[inside])
    over = ~inside
    if overflow == "saturate":
        assert (np.abs(y[over]) == fmt.max).all()


def test_stochastic_rounding_is_unbiased():
    x = jnp.full(100_000, 1 + 2**-9)
    y = lj.round_to(x, "bfloat16", key=jax.random.key(0))
    share = float((y > 1).mean())
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(x))


def test_the_gradient_passes_is_cut_or_is_rounded():
    x = jnp.asarray([1.0, 500.0, 0.3])
    weights = jnp.asarray([0.1, 0.1, 1e9])

    def gradient(rule):
        def f(v):
            y = lj.round_to(v, "float8_e4m3fn", overflow="saturate", gradient=rule)
            return (y * weights).sum()

        return jax.jit(jax.grad(f))(x)

    same_bits(gradient(None), weights)
    same_bits(gradient("clip"), jnp.asarray([0.1, 0.0, 1e9]))
    expected = lp.round_to(np.asarray(weights), "float8_e5m2", overflow="saturate")
    same_bits(gradient("float8_e5m2"), expected)
    both = jax.vmap(jax.grad(lambda v: lj.round_to(v, "bfloat16", key=jax.random.key(1)) ** 2))
    assert both(x).shape == (3,)


def test_narrow_floats_are_read_and_wide_ones_refused():
    same_bits(lj.round_to(jnp.float16(0.1), "e4m3fn"), lp.round_to(np.float16(0.1), "e4m3fn"))
    with pytest.raises(TypeError, match=r"lowprec\.round_to"):
        lj.round_to(jnp.asarray([1], jnp.int32), "bfloat16")
    with pytest.raises(ValueError, match=r"jax\.random\.key"):
        lj.round_to(1.0, "bfloat16", rounding="stochastic")
    with pytest.raises(ValueError, match="leave key away"):
        lj.round_to(1.0, "bfloat16", rounding="toward_zero", key=jax.random.key(0))
    with pytest.raises(ValueError, match="float32"):
        lj.round_to(1.0, "e11m20")


def test_tracers_and_keys_given_to_numpys_round_to_name_this_module():
    with pytest.raises(TypeError, match=r"lowprec\.jax"):
        jax.jit(lambda v: lp.round_to(v, "bfloat16"))(1.0)
    with pytest.raises(TypeError, match=r"lowprec\.jax"):
        lp.round_to([1.0], "bfloat16", rounding="stochastic", rng=jax.random.key(0))


def test_a_training_in_jax_is_watched_from_inside_of_jit():
    recorder = train.Recorder(every=2, policy="compute=float16")
    watching = lj.watch(recorder)
    w, x = {"dense": {"kernel": jnp.ones((4, 2)) * 1e-3}}, jnp.ones((3, 4))

    @jax.jit
    def gradients(w):
        def loss(w):
            return (watching.activation("hidden", x @ w["dense"]["kernel"]) ** 2).sum() * 1e-9

        return jax.grad(loss)(w)

    for _ in range(4):
        g = gradients(w)
        updates = jax.tree.map(lambda v: -0.1 * v, g)
        watching.step(w, g, updates)
        w = jax.tree.map(jnp.add, w, updates)
    assert (recorder.steps, recorder.recorded) == (4, 2)
    assert recorder.tracks["activation", "hidden"].whole["count"] == 2 * 6
    assert recorder.tracks["activation_gradient", "hidden"].whole.new_zero_rate == 1
    assert ("update", "dense.kernel") in recorder.tracks
    with pytest.raises(TypeError, match="Recorder"):
        lj.watch(3)


def test_lowprec_imports_jax_only_where_it_is_asked_for():
    code = "import sys, lowprec; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "try:\n    import lowprec.jax\n"
        "except ModuleNotFoundError as error:\n    assert 'lowprec[jax]' in str(error)\n"
        "else:\n    raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
