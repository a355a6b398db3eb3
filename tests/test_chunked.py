"""Dask arrays: lazy, and the same bits as one array in memory, whatever the chunks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

import lowprec as lp
from lowprec.arrays.dask_arrays import pieces_in_c_order

da = pytest.importorskip("dask.array", reason="dask is not installed")

X = np.random.default_rng(5).standard_normal((6, 10, 14)).astype(np.float32)
CHUNKINGS = [(6, 10, 14), (1, 10, 14), (2, 3, 14), (6, 10, 5), (5, 7, 3), (2, 1, 7)]
FUNCTIONS = {"round_to": lp.round_to, "encode": lp.encode, "cast": lp.cast}
MODES = ["ties_to_even", "toward_positive", "stochastic", "stochastic_equal"]


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("chunks", CHUNKINGS, ids=str)
def test_chunks_change_no_bits(name, rounding, chunks):
    convert, how = FUNCTIONS[name], {"rounding": rounding, "rng": 3}
    for fmt in ("bfloat16", "float8_e4m3fn"):
        lazy = convert(da.from_array(X, chunks=chunks), fmt, **how)
        expected = convert(X, fmt, **how)
        assert isinstance(lazy, da.Array)
        assert (lazy.dtype, lazy.shape) == (expected.dtype, expected.shape)
        assert lazy.compute(scheduler="sync").tobytes() == expected.tobytes()


@pytest.mark.parametrize("chunks", CHUNKINGS[::2], ids=str)
def test_codes_decode_lazily(chunks):
    codes = lp.encode(X, "float16")
    lazy = lp.decode(da.from_array(codes, chunks=chunks), "float16")
    assert lazy.compute().tobytes() == lp.decode(codes, "float16").tobytes()
    wide = lp.decode(da.from_array(codes, chunks=chunks), "float16", dtype="float64")
    assert wide.dtype == np.float64


def test_what_are_no_codes_is_refused_before_it_is_computed():
    with pytest.raises(TypeError, match="float32; decode takes integers or float16"):
        lp.decode(da.from_array(np.ones(3, np.float32)), "float16")
    with pytest.raises(TypeError, match="bfloat16; decode takes integers or float16"):
        lp.decode(da.from_array(lp.cast([1.0], "bfloat16")), "float16")
    assert lp.decode(da.from_array(np.float16([1.5])), "float16").compute() == [1.5]


def test_a_generator_is_drawn_from_when_called_not_when_computed():
    rng = np.random.default_rng(0)
    first, second = (
        lp.round_to(da.from_array(X), "bfloat16", rounding="stochastic", rng=rng) for _ in range(2)
    )
    after = rng.integers(2**32)
    assert not np.array_equal(first.compute(), second.compute())
    assert np.array_equal(first.compute(), first.rechunk((1, 2, 3)).compute())
    rng = np.random.default_rng(0)
    for lazy in (first, second):
        now = lp.round_to(X, "bfloat16", rounding="stochastic", rng=rng)
        assert np.array_equal(lazy.compute(), now)
    assert rng.integers(2**32) == after


@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic"])
@pytest.mark.parametrize("chunks", CHUNKINGS[:-1], ids=str)
def test_measurements_of_chunks_are_those_of_the_whole(chunks, rounding):
    how = {"rounding": rounding, "rng": 4}
    lazy = lp.measure(da.from_array(X, chunks=chunks), "float8_e4m3fn", **how)
    assert_alike(lazy.compute(scheduler="sync"), lp.measure(X, "float8_e4m3fn", **how))


def test_a_comparison_of_chunks_is_that_of_the_whole():
    formats = ["bfloat16", "float16"]
    lazy = lp.compare({"lazy": da.from_array(X, chunks=(2, 5, 14)), "here": X[0]}, formats)
    table = lazy.compute(scheduler="sync")
    expected = lp.compare({"lazy": X, "here": X[0]}, formats).measurements
    assert isinstance(table, lp.Comparison)
    for name, row in expected.items():
        for fmt, measured in row.items():
            assert_alike(table.measurements[name][fmt], measured)


def assert_alike(found, expected):
    """Counts and extrema are the same, means good to 1e-12."""
    for field in dataclasses.fields(lp.Measurement):
        if not field.compare:
            continue
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ("relative_error_sum", "signal", "noise"):
            assert abs(a - b) <= Fraction(1, 10**12) * b, field.name
        else:
            assert a == b, field.name


def test_pieces_cover_every_element_once_and_in_its_place():
    whole = (3, 4, 5)
    places = np.arange(60).reshape(whole)
    cuts = [[pair for pair in product(range(n + 1), repeat=2) if pair[0] < pair[1]] for n in whole]
    for (a, b), (c, d), (e, f) in product(*cuts):
        chunk = places[a:b, c:d, e:f]
        found = [
            range(place, place + last - first)
            for first, last, place in pieces_in_c_order(chunk.shape, (a, c, e), whole)
        ]
        assert [i for piece in found for i in piece] == chunk.reshape(-1).tolist()
        assert all(one.stop < two.start for one, two in pairwise(found))


def test_advice_about_chunks_is_that_about_the_whole():
    for x in (X, X * 1e9):
        advice = lp.advise(da.from_array(x, chunks=(2, 3, 5)))
        assert advice.to_dict() == lp.advise(x).to_dict()


def test_arrays_without_axes_or_elements_are_converted_too():
    assert lp.round_to(da.from_array(np.float32(0.1)), "bfloat16").compute() == lp.round_to(
        np.float32(0.1), "bfloat16"
    )
    how = {"rounding": "stochastic", "rng": 1}
    scalar = lp.round_to(da.from_array(np.array(0.1)), "bfloat16", **how)
    assert scalar.compute() == lp.round_to(np.array(0.1), "bfloat16", **how)
    assert lp.round_to(da.zeros((0, 3)), "bfloat16", **how).compute().shape == (0, 3)


CHUNK_OF_NAN = r"in a chunk of shape \(6, 10, 14\), 840 of 840 elements are NaN"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: lp.round_to(x, "bfloat16", out=X), TypeError, "leave out="),
        (lambda x: lp.round_to(x, "e11m30"), ValueError, "pass x as float64"),
        (lambda x: lp.round_to(x[x > 0], "bfloat16", rounding="SR"), ValueError, "chunk_sizes"),
        (lambda x: lp.encode(x * np.nan, "float6_e2m3fn").compute(), ValueError, CHUNK_OF_NAN),
        (
            lambda x: lp.encode(x * np.nan, "float6_e2m3fn", rounding="SR").compute(),
            ValueError,
            CHUNK_OF_NAN,
        ),
        (lambda x: lp.round_to(x.astype(complex), "bfloat16"), TypeError, "x.real"),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(da.from_array(X))


def test_dask_is_not_imported_without_being_used():
    program = (
        "import sys, lowprec; lowprec.round_to([1.0], 'bfloat16'); print('dask' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
