"""keepbits held against xbitinfo, and rounding to it against numcodecs."""

import numpy as np
import pytest

import lowprec as lp
from lowprec.analysis.real_information import information_of_bits


def fields():
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 6, 90)
    smooth = np.sin(grid)[:, None] * np.cos(grid[:40]) * 30 + 270
    yield "temperature", (smooth + rng.normal(0, 0.05, smooth.shape)).astype("f4")
    yield "precipitation", (np.exp(smooth - 280) * rng.uniform(0.9, 1.1, smooth.shape)).astype("f4")
    yield "pressure", 1e5 + 50 * smooth + rng.normal(0, 1, smooth.shape)
    yield "wind", np.cumsum(rng.normal(size=(50, 60)), axis=1)
    yield "half", (smooth / 300 + rng.normal(0, 0.01, smooth.shape)).astype("f2")


FIELDS = dict(fields())


def peers(x, axis, level):
    """Return what xbitinfo finds: the information of each bit, and the bits to keep."""
    xr = pytest.importorskip("xarray")
    xb = pytest.importorskip("xbitinfo")
    data = xr.Dataset({"x": (tuple(f"d{i}" for i in range(x.ndim)), x)})
    info = xb.get_bitinformation(data, dim=f"d{axis}", implementation="python")
    return info["x"].values, xb.get_keepbits(info, level)["x"].item()


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.filterwarnings("ignore")
def test_keepbits_are_those_of_xbitinfo(name, axis):
    x = FIELDS[name]
    for level in (0.9, 0.99, 0.999, 1.0):
        information, expected = peers(x, axis, level)
        np.testing.assert_allclose(information_of_bits(x, axis), information, atol=1e-12)
        assert lp.keepbits(x, level, axis=axis) == max(expected, 0)


def test_the_axis_that_needs_most_bits_decides():
    x = FIELDS["wind"]
    assert lp.keepbits(x) == max(lp.keepbits(x, axis=0), lp.keepbits(x, axis=1))


def test_more_information_takes_more_bits():
    x = FIELDS["pressure"]
    found = [lp.keepbits(x, level) for level in (0.5, 0.9, 0.99, 0.9999, 1)]
    assert found == sorted(found)
    assert found[-1] == 52


def test_pairs_with_nan_are_left_out():
    x = FIELDS["temperature"].copy()
    joined = np.concatenate([x[:40], np.full((1, x.shape[1]), np.nan, "f4"), x[41:]])
    whole = information_of_bits(joined, 0)
    assert np.isfinite(whole).all()
    assert lp.keepbits(joined, axis=0) == lp.keepbits(x, axis=0)


def test_layout_and_pieces_change_nothing(monkeypatch):
    x = FIELDS["wind"]
    expected = [information_of_bits(x, axis) for axis in (0, 1)]
    monkeypatch.setattr("lowprec.analysis.real_information.PIECE", 100)
    for axis in (0, 1):
        np.testing.assert_array_equal(
            information_of_bits(np.asfortranarray(x), axis), expected[axis]
        )
    flat = x[0].copy()
    found = information_of_bits(flat, 0)
    monkeypatch.undo()
    np.testing.assert_array_equal(found, information_of_bits(flat, 0))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_rounding_is_that_of_numcodecs(dtype):
    numcodecs = pytest.importorskip("numcodecs.bitround")
    rng = np.random.default_rng(1)
    x = (rng.normal(size=500) * 2.0 ** rng.integers(-12, 12, 500)).astype(dtype)
    x = np.concatenate([x, np.array([0, -0.0, 1.5, 2.5, 3, np.inf, -np.inf], dtype)])
    for bits in range(np.finfo(dtype).nmant + 1):
        codec = numcodecs.BitRound(keepbits=bits)
        expected = codec.decode(codec.encode(x.copy()))
        found = lp.bitround(x, bits)
        assert found.dtype == x.dtype
        finite = np.isfinite(x)  # whose infinities it carries into NaN where nothing is kept
        np.testing.assert_array_equal(
            found[finite].view(f"u{x.itemsize}"), expected[finite].view(f"u{x.itemsize}")
        )
        np.testing.assert_array_equal(found[~finite], x[~finite])


def test_a_rounded_field_keeps_its_information():
    x = FIELDS["temperature"]
    bits = lp.keepbits(x)
    y = lp.bitround(x, bits)
    assert np.abs(y - x).max() <= 2.0 ** (8 - bits - 1)
    assert lp.keepbits(y) <= bits


def test_what_has_no_information_is_refused():
    with pytest.raises(ValueError, match="constant, or noise"):
        lp.keepbits(np.ones(100))
    with pytest.raises(ValueError, match="no neighbours"):
        lp.keepbits(1.0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        lp.keepbits([1.0, 2.0], 99)
    with pytest.raises(ValueError, match="use -1 to 0"):
        lp.keepbits([1.0, 2.0], axis=1)
    with pytest.raises(TypeError, match="dtype int64"):
        lp.keepbits(np.arange(5))
    with pytest.raises(ValueError, match="use 0 to 10"):
        lp.bitround(np.float16([1]), 11)
