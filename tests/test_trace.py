"""Laws of trace: NumPy code in a format, line by line."""

# ruff: noqa: E501 - lists of calls

from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traced_programs import PROGRAMS, Hand

import lowprec as lp

CASES = Path(__file__).parent / "cases" / "programs"
FORMATS = ["bfloat16", "float16", "float8_e5m2", "float32", "e6m9"]


def case(name):
    spec = importlib.util.spec_from_file_location(name, CASES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traced(name, **options):
    module = case(name)
    options = {"format": module.FORMAT, "tolerance": module.TOLERANCE, **options}
    return lp.trace(module.program, *module.inputs(), **options), module


def leaves(x):
    return [leaf for item in x for leaf in leaves(item)] if isinstance(x, tuple | list) else [x]


def same_bits(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return x.shape == y.shape and x.tobytes() == y.tobytes()


# Law 1: the program written by hand ---------------------------------------------------------


@pytest.mark.parametrize("pair", PROGRAMS, ids=lambda pair: pair[0].__name__)
@pytest.mark.parametrize("fmt", FORMATS)
def test_result_is_the_program_written_with_arithmetic(pair, fmt):
    program, by_hand, args = pair
    expected = leaves(by_hand(Hand(fmt), *args))
    for budget in (True, False):
        result = leaves(lp.trace(program, *args, format=fmt, budget=budget).result)
        assert len(result) == len(expected)
        for x, y in zip(result, expected, strict=True):
            assert same_bits(x, y)
            assert same_bits(lp.round_to(x, fmt), x)


# Law 2: float64 is NumPy's -------------------------------------------------------------------


@pytest.mark.parametrize("pair", PROGRAMS, ids=lambda pair: pair[0].__name__)
def test_float64_is_numpy_and_has_nothing_to_say(pair):
    program, _, args = pair
    t = lp.trace(program, *args, format="float64")
    assert t.verdict == []
    for x, y in zip(leaves(t.result), leaves(t.shadow), strict=True):
        assert same_bits(x, y)
    for line in [*t.lines.values(), *t.inputs.values()]:
        assert not any(np.any(part) for part in [*line.born, *line.grown])


# Law 3: shares sum to the error ---------------------------------------------------------------


def check_sums(t):
    units = [*t.lines.values(), *t.inputs.values()]
    for k, output in enumerate(t.outputs):
        if np.asarray(output.result).dtype.kind != "f":
            continue
        error = np.asarray(output.result, np.float64) - output.shadow
        finite = np.isfinite(error)
        for which in ("born", "grown"):
            parts = [np.asarray(getattr(unit, which)[k]) for unit in units]
            total = sum(parts)
            sizes = sum(np.abs(part) for part in parts) + np.abs(np.where(finite, error, 0))
            assert np.all(np.abs(total - error)[finite] <= 1e-9 * sizes[finite])
            assert not np.any(total[~finite])


@pytest.mark.parametrize("pair", PROGRAMS, ids=lambda pair: pair[0].__name__)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e5m2", "float32"])
def test_shares_sum_to_the_error(pair, fmt):
    program, _, args = pair
    check_sums(lp.trace(program, *args, format=fmt))


NAMES = ("x", "y", "z")
UNARY = ["np.exp({})", "np.sin({})", "np.sqrt(np.abs({}))", "-{}", "np.tanh({})", "{}**2"]
BINARY = ["({} + {})", "({} - {})", "({} * {})", "({} / {})", "np.maximum({}, {})"]
BINARY += ["np.hypot({}, {})", "np.arctan2({}, {})", "np.where({} > 0, 1.0, {})"]


def expressions():
    atoms = st.sampled_from([*NAMES, "0.3", "np.sum(x)", "x[::-1]", "np.cumsum(y)", "float(2)"])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(UNARY), inner).map(lambda t: t[0].format(t[1])),
            st.tuples(st.sampled_from(BINARY), inner, inner).map(lambda t: t[0].format(t[1], t[2])),
        ),
        max_leaves=12,
    )


@settings(max_examples=60, deadline=None)
@given(expressions(), expressions(), st.integers(0, 2**32 - 1))
def test_shares_of_random_programs_sum_to_the_error(first, second, seed):
    space = {"np": np}
    exec(  # a program that Hypothesis writes
        f"def f(x, y, z):\n    x = x + {first} * 1.5\n    x[1:3] = y[:2]\n    return {second}, x",
        space,
    )
    rng = np.random.default_rng(seed)
    args = rng.normal(size=5), rng.uniform(0.1, 3, 5), float(rng.normal())
    for fmt in ("bfloat16", "float16"):
        check_sums(lp.trace(space["f"], *args, format=fmt))


VIEWS = """
a[1:]; a[:, ::-1]; a.T; a[0]; a[:, 1]; a.reshape(-1); a.reshape(2, 6); a[::2, 1:3]; a[a > 0]; a[[0, 2]]; a[..., None]
a.ravel(); np.flip(a, 1); a.T[1:3]; a[1:3].T[::-1]; a.flat[2:7]; np.split(a, 3)[1]; a.view(); np.moveaxis(a, 0, 1)
np.array(a); np.asarray(a); np.ascontiguousarray(a.T); np.swapaxes(a, 0, 1)[::2]; np.atleast_3d(a)
"""
STATEMENTS = """
v += 0.3; v *= 1.1; v -= b.sum(); v[...] = v * 0.7 + 0.1; v[0] = 1.3; v[-1] -= v[0] * 0.3; a = a * 1.1 + b; a -= a.mean(0)
a[1] = a[0] * 0.9; a[:, 0] /= 3.0; a[0], a[1] = a[1], a[0] * 1.0; np.multiply(a, 1.3, out=a); a[[0, 1]] = a[[1, 0]]
np.add(a, b, out=b, where=a > 0); a[b > 0.5] = b[b > 0.5] * 0.5; np.subtract.at(a, ([0, 0], [1, 1]), 0.3); a.flat[5] = 0.7
b = a @ (a.T @ b) * 0.1; b = np.cumsum(a, axis=1); b = np.where(a > 0, a, b * 0.3); a = np.concatenate([a[1:], b[:1]])
np.copyto(a, b * 1.01); a.sort(axis=1); b = a - np.max(a, axis=1, keepdims=True); a.fill(0.7); b = np.tanh(b); b = b**2
a = np.roll(a, 1, axis=0); b = np.maximum(a, b); a[1, 1] += a[0, 1] * 0.3; np.clip(a, -1.0, 1.0, out=a); a **= 2
"""


def test_random_programs_of_views_alias_as_in_numpy():
    views, statements = (
        [s.strip() for s in re.split("[;\n]", t.strip())] for t in (VIEWS, STATEMENTS)
    )
    draw = random.Random(7)
    for seed in range(50):
        lines = [f"v = {draw.choice(views)}"]
        for _ in range(draw.randint(3, 8)):
            lines += [f"v = {draw.choice(views)}"] * (draw.random() < 0.3) + [
                draw.choice(statements)
            ]
        space = {"np": np}
        exec("def f(a, b):\n " + "\n ".join([*lines, "return a, b, v"]), space)
        rng = np.random.default_rng(seed)
        args = rng.normal(size=(3, 4)), rng.uniform(0.2, 2, (3, 4))
        try:
            expected = space["f"](*(x.copy() for x in args))
        except ValueError:  # the view does not fit
            continue
        for x, y in zip(
            lp.trace(space["f"], *args, format="float64").result, expected, strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12, err_msg="\n".join(lines))
        check_sums(lp.trace(space["f"], *args))


# The six programs -----------------------------------------------------------------------------

KNOWN = {  # culprits, decoys, least set
    "benign_cancellation": ((), (18, 19, 20), ()),
    "hypotenuse_overflow": ((18,), (19, 20), (18, 19)),
    "log_of_softmax": ((17,), (20,), (17, 19, 20)),
    "moving_average": ((19, 20), (21,), (19, 20)),
    "one_pass_variance": ((20, 21, 22, 23), (24,), (20, 21, 22, 23)),
    "stagnating_clock": ((18, 19), (17,), (18, 19)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_programs_with_known_culprits(name):
    t, module = traced(name)
    culprits, decoys, least = KNOWN[name]
    named = " ".join(t.verdict).partition("keep")[0]
    for number in culprits:
        assert str(number) in named
    for number in decoys:
        assert f"line {number}" not in named
    if not culprits:
        assert t.verdict == []
    kept = t.least(module.TOLERANCE)
    assert tuple(kept.lines) == least
    assert kept.error <= module.TOLERANCE
    if least:
        assert f"keep {least[0]}" in " ".join(t.verdict)


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if known[2]])
def test_nothing_can_be_taken_from_what_is_kept(name):
    t, module = traced(name)
    kept = t.least(module.TOLERANCE)
    tried = {frozenset(lines): error for lines, error in kept.tried}
    assert tried[frozenset(kept.lines)] == kept.error
    for unit in kept.lines:
        assert tried[frozenset(kept.lines) - {unit}] > module.TOLERANCE
    assert kept.runs == len(kept.tried) <= len(t.lines) + len(t.inputs) + 2 * len(kept.lines) + 2
    again = lp.trace(
        module.program, *module.inputs(), format=module.FORMAT, keep=kept.lines, budget=False
    )
    assert max(float(output.error) for output in again.outputs) == kept.error
