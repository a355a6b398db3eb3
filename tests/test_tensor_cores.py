"""Aligned sums: hardware's results, an oracle in Python integers, and what belongs to them."""

from __future__ import annotations

import functools
import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp
from lowprec.accumulation.matrix_units import TABLE
from lowprec.exact import Number, decode_exact, round_exact

DATA = Path(__file__).parent / "data" / "tensor_cores.npz"
NAMES = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "tf32": "tfloat32",
    "E4M3": "float8_e4m3fn",
    "E5M2": "float8_e5m2",
    "fp32": "float32",
}


@functools.cache
def vectors():
    with np.load(DATA) as file:
        return dict(file)


SETS = sorted({key.rpartition(".")[0] for key in vectors()})
UNSETTLED = {"H100.E4M3.fp16", "H100.E5M2.fp16", "H200.E4M3.fp16", "H200.E5M2.fp16"}
UNSETTLED |= {f"B200.{fmt}.{output}" for fmt in ("E4M3", "E5M2") for output in ("fp16", "fp32")}
SETTLED = [name for name in SETS if name not in UNSETTLED]


def values(codes, fmt):
    """Decode; tfloat32 is stored as float32."""
    if fmt == "tfloat32":
        return codes.view(np.float32)
    return lp.decode(codes, fmt)


# Hardware ------------------------------------------------------------------------------------


def test_there_are_forty_settled_sets():
    assert len(SETTLED) == 40


@pytest.mark.parametrize("name", SETTLED)
def test_hardware_gives_the_same(name):
    gpu, kind, output = name.split(".")
    fmt = NAMES[kind]
    how = lp.tensor_core(gpu.lower(), inputs=fmt, output=NAMES[output])
    data = {part: vectors()[f"{name}.{part}"] for part in "abcd"}
    a, b = values(data["a"], fmt), values(data["b"], fmt)
    c, d = data["c"].view(np.float32), data["d"].view(np.float32)
    has_addend = not (gpu in ("H100", "H200") and kind in ("E4M3", "E5M2"))
    got = np.array(
        [
            lp.dot(x, y, c=z if has_addend else None, accumulator=how)
            for x, y, z in zip(a, b, c, strict=True)
        ]
    )
    assert got.dtype == np.float32
    assert got.tobytes() == d.tobytes()


def test_the_table_counts_the_vectors_that_agree():
    for row in TABLE:
        keys = {fmt: kind for kind, fmt in NAMES.items()}
        spelled = {name.lower(): name for name in ("V100", "A100", "A2", "H100", "H200", "B200")}
        spelled |= {"ada": "Ada", "l40s": "L40S"}
        gpu = spelled.get(row.architecture, "none")
        output = "fp16" if row.output == "float16" else "fp32"
        sets = [f"{gpu}.{keys[fmt]}.{output}" for fmt in row.inputs]
        count = 75 * sum(name in SETTLED for name in sets)
        assert row.vectors == (f"{count} of {count}" if count else "no public vectors"), row


# The oracle ----------------------------------------------------------------------------------


def exponent(x, emin):
    """Return max(⌊log2 |x|⌋, emin) of a Fraction that is not 0."""
    n, d = abs(x).as_integer_ratio()
    e = n.bit_length() - d.bit_length()
    if Fraction(2) ** e > abs(x):
        e -= 1
    return max(e, emin)


def exact(x):
    return Fraction(float(x))


def oracle(a, b, c, how, emins):
    """Return T applied to each group in order, in Python integers."""
    fmt = how.fmt
    total = float(c)
    for first in range(0, len(a), how.block):
        pairs = list(zip(a[first : first + how.block], b[first : first + how.block], strict=True))
        products = [float(x) * float(y) for x, y in pairs]
        special = [p for p in (*products, total) if not math.isfinite(p)]
        if special:
            signs = {math.copysign(1, p) for p in special}
            bad = any(map(math.isnan, special)) or len(signs) > 1
            total = math.nan if bad else special[0]
            continue
        terms = [
            (exact(x) * exact(y), exponent(exact(x), emins[0]) + exponent(exact(y), emins[1]))
            for x, y in pairs
            if x and y
        ]
        if total:
            terms.append((exact(total), exponent(exact(total), fmt.emin)))
        m = max([how.lowest_exponent, *(e for _, e in terms)])
        unit = Fraction(2) ** (m - how.fraction_bits)
        integers = [int(x / unit) for x, _ in terms]  # int() goes toward zero
        whole = sum(integers) * unit
        code = round_exact(Number(whole < 0, abs(whole)), fmt, how.rounding, how.overflow)
        number = decode_exact(code, fmt)
        if number.is_nan:
            total = math.nan
        else:
            total = -float(number.magnitude) if number.negative else float(number.magnitude)
            if whole == 0:
                total = 0.0
    return total


def bits(x):
    return np.float64(x).tobytes()


def operand(rng, fmt, kind):
    """Return a value of a format that is unkind to sums."""
    w = int(rng.random() * 2**fmt.bits)
    if kind == "special":
        return float(lp.decode([w], fmt)[0])
    while True:
        value = float(lp.decode([int(rng.random() * 2**fmt.bits)], fmt)[0])
        if math.isfinite(value):
            break
    if kind == "small":
        return float(lp.round_to(math.ldexp(rng.choice([-1, 1]) * rng.random(), fmt.emin), fmt))
    if kind == "alike":
        return float(lp.round_to(rng.choice([-1, 1]) * (1 + rng.random()), fmt))
    if kind == "zeros":
        return value if rng.random() < 0.3 else rng.choice([0.0, -0.0])
    if kind == "large":
        return float(lp.round_to(math.copysign(fmt.max * (1 - rng.random() / 8), value), fmt))
    return value


PRESETS = [(row.architecture, fmt, row.output) for row in TABLE for fmt in row.inputs]
DISTINCT = list(
    {
        (row.terms, row.fraction_bits, row.sums, fmt): (row.architecture, fmt, row.output)
        for row in TABLE
        for fmt in row.inputs
    }.values()
)
KINDS = ["any", "small", "alike", "zeros", "large", "special"]


def check_against_the_oracle(how, fmt, groups, seed):
    rng = random.Random(seed)
    columns = max(1, groups // len(KINDS))
    for kind in KINDS:
        terms = rng.choice([how.block, how.block - 1 or 1, 2 * how.block + 3])
        a = [operand(rng, fmt, kind) for _ in range(terms)]
        b = np.array([[operand(rng, fmt, kind) for _ in range(columns)] for _ in range(terms)])
        if kind == "alike":  # cancellation: the second half undoes the first but for a little
            half = terms // 2
            a[half : 2 * half] = a[:half]
            b[half : 2 * half] = -b[:half]
        c = np.array([rng.choice([0.0, -0.0, 1.0, -3e-39, 7e37, 65504.0]) for _ in range(columns)])
        c = (c * (rng.random() if kind != "zeros" else 0)).astype(np.float32)
        got = lp.matmul([a], b, c=[c], inputs=fmt, accumulator=how)[0]
        enters = lp.round_to(c, "float16") if how.fmt == lp.float16 else c
        for j in range(columns):
            expected = oracle(a, b[:, j], enters[j], how, (fmt.emin, fmt.emin))
            if math.isnan(expected):
                assert np.isnan(got[j])
                assert not np.signbit(got[j])
            else:
                assert bits(got[j]) == bits(expected), (kind, a, b[:, j], c[j])


@pytest.mark.parametrize(("name", "fmt", "output"), DISTINCT, ids=["-".join(p) for p in DISTINCT])
def test_the_integer_oracle_agrees(name, fmt, output):
    how = lp.tensor_core(name, inputs=fmt, output=output)
    check_against_the_oracle(how, lp.get_format(fmt), 2000, f"{name} {fmt} {output}")


@pytest.mark.parametrize(
    "how",
    [
        lp.Accumulator("float32", order="aligned", block=3, fraction_bits=40),
        lp.Accumulator("bfloat16", order="aligned", block=5, fraction_bits=3, rounding="RU"),
        lp.Accumulator("float16", order="aligned", block=7, fraction_bits=56, rounding="RD"),
        lp.Accumulator(
            "e8m13", order="aligned", block=4, fraction_bits=11, lowest_exponent=-20, rounding="RZ"
        ),
        lp.Accumulator("e6m30", order="aligned", block=2, fraction_bits=20, rounding="to_odd"),
    ],
    ids=lambda how: f"{how.fmt}-{how.fraction_bits}",
)
@pytest.mark.parametrize("fmt", ["float16", "float32", "e4m10"])
def test_other_parameters_agree_with_the_oracle(how, fmt):
    check_against_the_oracle(how, lp.get_format(fmt), 120, f"{how} {fmt}")


# Laws ----------------------------------------------------------------------------------------


def test_ones_stall_where_their_exponent_leaves_the_window():
    a, b = [256.0] + [1.0] * 31, [256.0] + [1.0] * 31
    h100 = lp.tensor_core("h100", inputs="float8_e4m3fn")
    assert lp.dot(a, b, accumulator=h100) == 65536
    assert lp.dot(a, b, inputs="float8_e4m3fn", accumulator="float32") == 65567
    ones = np.ones(100_000)
    assert lp.dot(ones, ones, accumulator=h100) == 16384


def test_promotion_restores_the_digits():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 448, (2, 16, 4096))
    a, b = (lp.round_to(x, "float8_e4m3fn") for x in (a, b))
    plain = lp.tensor_core("h100", inputs="float8_e4m3fn")
    promoted = lp.Accumulator("float32", order="blocked", block=128, inner=plain)
    truth = (a * b).sum(axis=1)  # exact: integers times 2**-18 below 2**53
    errors = {}
    for name, how in (("plain", plain), ("promoted", promoted)):
        got = np.array([lp.dot(x, y, accumulator=how) for x, y in zip(a, b, strict=True)])
        errors[name] = float(np.median(abs(got - truth) / truth))
    assert 4e-2 < errors["plain"] < 1.2e-1
    assert 1e-4 < errors["promoted"] < 2e-3


def test_nested_sums_are_the_inner_sums_added_in_order():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((5, 70)), rng.standard_normal((70, 6))
    for inner in (
        lp.tensor_core("a100", inputs="float16"),
        lp.Accumulator("float16", order="kahan"),
        lp.Accumulator("bfloat16", order="pairwise", fused=False),
    ):
        how = lp.Accumulator("float16", order="blocked", block=32, inner=inner, rounding="RZ")
        got = lp.matmul(a, b, inputs="float16", accumulator=how)
        total = lp.round_to(
            lp.matmul(a[:, :32], b[:32], inputs="float16", accumulator=inner).astype(np.float64),
            "float16",
            rounding="RZ",
        )
        for k in (32, 64):
            part = lp.matmul(a[:, k : k + 32], b[k : k + 32], inputs="float16", accumulator=inner)
            total = lp.round_to(total + part.astype(np.float64), "float16", rounding="RZ")
        assert got.tobytes() == total.astype(got.dtype).tobytes()


@pytest.mark.parametrize("order", ["sequential", "blocked", "kahan", "pairwise", "exact"])
@pytest.mark.parametrize("fmt", ["float32", "float16", "e6m9", "float8_e5m2"])
@pytest.mark.parametrize("fused", [True, False])
def test_an_addend_is_the_first_term(order, fmt, fused):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((3, 9)), rng.standard_normal((9, 4))
    c = rng.standard_normal((3, 4)) * 3
    how = lp.Accumulator(fmt, order=order, block=4 if order == "blocked" else None, fused=fused)
    got = lp.matmul(a, b, c=c, inputs="bfloat16", accumulator=how)
    factors = lp.round_to(a, "bfloat16"), lp.round_to(b, "bfloat16")
    for i in range(3):
        for j in range(4):
            products = factors[0][i] * factors[1][:, j]
            if not fused:
                products = lp.round_to(products, fmt)
            if order == "blocked":
                plain = lp.Accumulator(fmt)
                sums = [lp.sum(products[k : k + 4], plain) for k in (0, 4, 8)]
                expected = lp.sum(np.array([c[i, j], *map(float, sums)]), plain)
            else:
                expected = lp.sum(np.array([c[i, j], *products]), lp.Accumulator(fmt, order=order))
            assert bits(got[i, j]) == bits(expected)


def test_an_addend_broadcasts_and_serves_vectors_stacks_and_empty_products():
    a, b = np.ones((2, 3, 4)), np.ones((4, 5))
    assert (lp.matmul(a, b, c=np.arange(5)) == 4 + np.arange(5)).all()
    assert lp.dot([1, 2], [3, 4], c=0.5) == 11.5
    assert (lp.matmul(np.ones((2, 0)), np.ones((0, 3)), c=7.03125) == 7.03125).all()
    assert lp.matmul(np.ones((2, 0)), np.ones((0, 3)), c=257, accumulator="bfloat16")[0, 0] == 256
    with pytest.raises(ValueError, match=r"c has shape \(3,\), which does not broadcast"):
        lp.matmul(np.ones((2, 4)), b, c=np.ones(3))
    with pytest.raises(ValueError, match="begins with nothing"):
        lp.matmul([[1.0]], [[1.0]], c=1.0, accumulator=lp.Accumulator("float32", order="blas"))


@pytest.mark.parametrize(
    ("dtype", "emin"), [("float32", -126), ("float16", -14), ("float64", -1022)]
)
def test_sums_are_products_with_one(dtype, emin):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((6, 300)) * np.exp(rng.standard_normal((6, 300)) * 5)
    x[::2] *= 2.0**-40  # all below 1, and of float16 subnormal
    x = np.clip(x, -65504, 65504).astype(dtype)
    how = lp.Accumulator("float32", order="aligned", block=8, fraction_bits=24, rounding="RZ")
    got = lp.sum(x, how, axis=1)
    for row, total in zip(x, got, strict=True):
        expected = oracle(row, np.ones(len(row)), 0.0, how, (emin, 0))
        assert bits(total) == bits(expected)
    assert lp.sum(np.ones(200_000), how) == 200_000
    assert lp.sum(np.ones((0,)), how) == 0


@pytest.mark.parametrize(("unit", "fmt"), [("a100", "bfloat16"), ("v100", "float16")])
def test_an_output_is_the_same_among_others(unit, fmt):
    """Rows whose results float32 cannot hold in passing are computed again, the others are not."""
    how, rng = lp.tensor_core(unit, inputs=fmt), np.random.default_rng(5)
    a = lp.round_to(rng.standard_normal((7, 300)).astype(np.float32), fmt)
    b = lp.round_to(rng.standard_normal((300, 70)).astype(np.float32), fmt)
    a[1], a[3, 5], b[7, 60] = lp.round_to(a[1] * np.float32(2.0**-60), fmt), np.inf, np.nan
    b[:, 8] *= np.float32(2.0**-70) if fmt == "bfloat16" else 0
    c = np.zeros((7, 70), np.float32)
    c[2, :3] = np.inf, np.nan, 2e-39
    got = lp.matmul(a, b, c=c, accumulator=how)
    for i, j in itertools.product(range(7), (0, 1, 2, 8, 31, 32, 60, 69)):
        alone = lp.matmul(a[i : i + 1], b[:, j : j + 1], c=c[i, j], accumulator=how)
        assert got[i, j].tobytes() == alone.tobytes(), (i, j)


def test_pairs_of_formats():
    how = lp.tensor_core("ada", inputs=("float8_e4m3fn", "float8_e5m2"))
    a, b = [[448.0, 1.0]], [[0.25], [57344.0]]
    assert lp.matmul(a, b, accumulator=how)[0, 0] == 57456
    got = lp.matmul([[257.0]], [[257.0]], inputs=("bfloat16", "float16"))
    assert got[0, 0] == 256 * 257


def test_error_bound_holds_for_aligned_and_nested_sums():
    rng = np.random.default_rng(4)
    core = lp.tensor_core("h100", inputs="float16")
    for how in (core, lp.Accumulator("float32", order="blocked", block=40, inner=core)):
        for n in (1, 16, 100, 1000):
            x = rng.uniform(0.5, 1, (20, n)).astype(np.float16).astype(np.float64)
            y = rng.uniform(-1, 1, (20, n)).astype(np.float16).astype(np.float64)
            y[y == 0] = 1
            bound = lp.error_bound(n, how)
            for p, q in zip(x, y, strict=True):
                truth = sum(
                    (Fraction(float(s)) * Fraction(float(t)) for s, t in zip(p, q, strict=True)),
                    Fraction(0),
                )
                size = sum(
                    abs(Fraction(float(s)) * Fraction(float(t))) for s, t in zip(p, q, strict=True)
                )
                error = abs(Fraction(float(lp.dot(p, q, accumulator=how))) - truth)
                assert error <= Fraction(bound) * size


# Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "h101", "inputs": "float16"}, r"not a known architecture; did you mean"),
        ({"name": "v100", "inputs": "bfloat16"}, r"v100 has no product of bfloat16 to float32"),
        ({"name": "h100", "inputs": "float8_e5m2", "output": "float16"}, "not settled"),
        ({"name": "b200", "inputs": "float8_e4m3fn"}, "not settled"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message):
    name = arguments.pop("name")
    with pytest.raises(ValueError, match=message):
        lp.tensor_core(name, **arguments)


def test_other_inputs_are_refused():
    how = lp.tensor_core("a100", inputs="float16")
    with pytest.raises(ValueError, match="takes products of float16, not of bfloat16"):
        lp.dot([1.0], [1.0], inputs="bfloat16", accumulator=how)
    outer = lp.Accumulator("float32", order="blocked", block=8, inner=how)
    assert lp.dot([1 + 2.0**-9], [1.0], accumulator=outer) == 1 + 2.0**-9  # of float16, by default
    with pytest.raises(ValueError, match="takes products of float16"):
        lp.dot([1.0], [1.0], inputs="float32", accumulator=outer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "aligned", "fraction_bits": 24}, "needs block"),
        ({"order": "aligned", "block": 8}, "needs fraction_bits"),
        ({"order": "aligned", "block": 8, "fraction_bits": 60}, "integers of 62 bits hold"),
        ({"order": "aligned", "block": 8, "fraction_bits": 0}, "integers of 62 bits hold"),
        (
            {"order": "aligned", "block": 8, "fraction_bits": 9, "rounding": "stochastic"},
            "deterministic",
        ),
        ({"order": "aligned", "block": 8, "fraction_bits": 9, "fused": False}, "exact products"),
        ({"fraction_bits": 9}, "belong to order='aligned'"),
        ({"order": "aligned", "block": 8, "fraction_bits": 9, "inner": "float16"}, "inner belong"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        lp.Accumulator("float32", **fields)


def test_what_counts_is_an_int():
    for fields in ({"block": 2.5, "fraction_bits": 9}, {"block": 8, "fraction_bits": 9.5}):
        with pytest.raises(TypeError, match=r"is \d\.5; it counts, so pass an int"):
            lp.Accumulator("float32", order="aligned", **fields)
