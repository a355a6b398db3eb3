"""Berkeley TestFloat's results and flags, with tininess before and after rounding."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp

FILE = Path(__file__).parent / "data" / "testfloat_f16.npz"
MODES = {
    "near_even": "ties_to_even",
    "near_maxMag": "ties_to_away",
    "minMag": "toward_zero",
    "min": "toward_negative",
    "max": "toward_positive",
    "odd": "to_odd",
}
OPERATIONS = {
    "f16_add": "add",
    "f16_sub": "subtract",
    "f16_mul": "multiply",
    "f16_div": "divide",
    "f16_sqrt": "sqrt",
    "f16_mulAdd": "fma",
    "f16_rem": "remainder",
}
CONVERSIONS = {
    "f32_to_bf16": ("bfloat16", np.float32),
    "f32_to_f16": ("float16", np.float32),
    "f64_to_f16": ("float16", np.float64),
    "i64_to_f16": ("float16", np.int64),
    "ui64_to_f16": ("float16", np.uint64),
}
EVENTS = {"inexact": 1, "underflow": 2, "overflow": 4, "divide_by_zero": 8, "invalid": 16}
every_mode = pytest.mark.parametrize("mode", MODES)


@cache
def stored():
    with np.load(FILE) as file:
        return {key: file[key] for key in file}


def part(function, mode, name):
    return stored()[f"{function}.{mode}.{name}"]


def is_nan(codes):
    return (codes & 0x7FFF) > 0x7C00


def assert_codes(actual, expected, fmt="float16"):
    """Compare codes; any NaN is as good as any other."""
    nan = np.isnan(lp.decode(expected, fmt))
    np.testing.assert_array_equal(np.isnan(lp.decode(actual, fmt)), nan)
    np.testing.assert_array_equal(actual[~nan], expected[~nan])


def operation_cases(function, mode):
    """Return operands, results and flags of the cases in which conventions do not differ."""
    names = [name for name in ("x0", "x1", "x2") if f"{function}.{mode}.{name}" in stored()]
    operands = [part(function, mode, name) for name in names]
    keep = np.ones(operands[0].size, bool)
    for x in operands:
        keep &= ~(is_nan(x) & ((x & 0x200) == 0))
    if function == "f16_mulAdd":
        a, b, c = (np.abs(lp.decode(x, "float16")) for x in operands)
        invalid = ((a == np.inf) & (b == 0)) | ((a == 0) & (b == np.inf))
        keep &= ~(invalid & np.isnan(c))
    flags = {when: part(function, mode, f"flags_{when}")[keep] for when in ("before", "after")}
    return [x[keep] for x in operands], part(function, mode, "z")[keep], flags


@every_mode
@pytest.mark.parametrize("function", OPERATIONS)
def test_values_and_flags_of_operations(function, mode):
    operands, expected, flags = operation_cases(function, mode)
    values = [lp.decode(x, "float16") for x in operands]
    for tininess, wanted in flags.items():
        arithmetic = lp.Arithmetic("float16", rounding=MODES[mode], tininess=tininess)
        compute = getattr(arithmetic, OPERATIONS[function])
        assert_codes(lp.encode(compute(*values), "float16"), expected)
        assert {name: getattr(arithmetic.flags, name) for name in EVENTS} == {
            name: np.count_nonzero(wanted & bit) for name, bit in EVENTS.items()
        }
        for kind in np.unique(wanted):  # every case of a kind raises all of its flags, and no other
            here = wanted == kind
            arithmetic.flags.clear()
            compute(*(x[here] for x in values))
            counts = {name: getattr(arithmetic.flags, name) for name in EVENTS}
            assert counts == {
                name: np.count_nonzero(here) * bool(kind & bit) for name, bit in EVENTS.items()
            }


@every_mode
@pytest.mark.parametrize("function", CONVERSIONS)
def test_values_of_conversions(function, mode):
    fmt, dtype = CONVERSIONS[function]
    x = part(function, mode, "x0").view(dtype)
    actual = lp.encode(x, fmt, rounding=MODES[mode])
    assert_codes(actual, part(function, mode, "z"), fmt)


def test_tininess_tells_the_vectors_apart():
    differences = sum(
        np.count_nonzero(part(f, m, "flags_before") != part(f, m, "flags_after"))
        for f in OPERATIONS
        for m in MODES
    )
    assert differences > 100
