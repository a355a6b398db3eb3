"""Formats against the tables of their standards, NumPy's and ml_dtypes' finfo, and as values."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from math import ldexp

import ml_dtypes
import numpy as np
import pytest
import table

import lowprec as lp
from lowprec import Format, Specials

FORMATS = list(lp.named_formats().values())


# The standards -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "k", "p", "emax", "bias", "w", "t"),
    [  # IEEE 754-2019, table 3.5: parameters of the binary interchange formats
        (lp.float16, 16, 11, 15, 15, 5, 10),
        (lp.float32, 32, 24, 127, 127, 8, 23),
        (lp.float64, 64, 53, 1023, 1023, 11, 52),
    ],
)
def test_interchange_formats_have_the_parameters_of_ieee_754(fmt, k, p, emax, bias, w, t):
    assert (fmt.bits, fmt.precision, fmt.emax, fmt.bias) == (k, p, emax, bias)
    assert (fmt.exponent_bits, fmt.trailing_bits, fmt.emin) == (w, t, 1 - emax)


PUBLISHED = [
    # format, bias, max, smallest normal, largest subnormal, smallest subnormal
    # OCP 8-bit Floating Point Specification (OFP8) 1.0, table 1
    (lp.float8_e4m3fn, 7, 448, "2**-6", "0.875 * 2**-6", "2**-9"),
    (lp.float8_e5m2, 15, 57344, "2**-14", "0.75 * 2**-14", "2**-16"),
    # OCP Microscaling Formats (MX) 1.0, section 5.3.2 (FP6) and 5.3.3 (FP4)
    (lp.float6_e3m2fn, 3, 28, "0.25", "0.1875", "0.0625"),
    (lp.float6_e2m3fn, 1, 7.5, "1", "0.875", "0.125"),
    (lp.float4_e2m1fn, 1, 6, "1", "0.5", "0.5"),
    # Noune et al., 8-bit Numerical Formats for Deep Neural Networks (2022)
    (lp.float8_e4m3fnuz, 8, 240, "2**-7", "0.875 * 2**-7", "2**-10"),
    (lp.float8_e5m2fnuz, 16, 57344, "2**-15", "0.75 * 2**-15", "2**-17"),
]


@pytest.mark.parametrize(("fmt", "bias", "largest", *"abc"), PUBLISHED, ids=table.name)
def test_small_formats_have_the_published_limits(fmt, bias, largest, a, b, c):
    normal, largest_subnormal, subnormal = (eval(text) for text in (a, b, c))
    assert fmt.bias == bias
    assert (fmt.max, fmt.min) == (largest, -largest)
    assert (fmt.smallest_normal, fmt.smallest_subnormal) == (normal, subnormal)
    assert fmt.smallest_normal - fmt.smallest_subnormal == largest_subnormal


def test_special_codes_are_those_of_ofp8():
    # OFP8 1.0, table 1: E5M2 infinity is S.11111.00 and NaN S.11111.{01, 10, 11}; E4M3 has NaN
    # S.1111.111 alone, and max is S.1111.110
    assert (lp.float8_e5m2.infinity_code, lp.float8_e5m2.nan_code) == (0b11111_00, 0b11111_10)
    assert (lp.float8_e4m3fn.infinity_code, lp.float8_e4m3fn.nan_code) == (None, 0b1111_111)
    assert (lp.float8_e4m3fn.max_code, lp.float8_e5m2.max_code) == (0b1111_110, 0b11110_11)


def test_e8m0_is_the_scale_of_mx():
    # OCP MX 1.0, section 5.4.1: exponent bias 127, supported range -127 to 127, NaN is 11111111,
    # neither infinities nor zeros
    fmt = lp.float8_e8m0fnu
    assert (fmt.bits, fmt.bias, fmt.emin, fmt.emax, fmt.nan_code) == (8, 127, -127, 127, 0xFF)
    assert (fmt.max, fmt.smallest_normal) == (ldexp(1, 127), ldexp(1, -127))
    assert (fmt.signed, fmt.has_zero, fmt.has_infinity, fmt.has_nan) == (False, False, False, True)


def test_bfloat16_and_tfloat32_have_the_exponents_of_float32():
    for fmt, p in [(lp.bfloat16, 8), (lp.tfloat32, 11)]:
        assert (fmt.precision, fmt.emin, fmt.emax) == (p, -126, 127)
        assert fmt.max == (2 - 2.0 ** (1 - p)) * 2.0**127


@pytest.mark.parametrize(
    ("fmt", "infinity", "nan", "negative_zero"),
    [
        (lp.float8_e5m2, True, True, True),
        (lp.float8_e4m3fn, False, True, True),
        (lp.float8_e4m3fnuz, False, True, False),
        (lp.float6_e3m2fn, False, False, True),
    ],
    ids=table.name,
)
def test_specials_say_which_codes_are_no_numbers(fmt, infinity, nan, negative_zero):
    assert (fmt.has_infinity, fmt.has_nan, fmt.has_negative_zero) == (infinity, nan, negative_zero)


# finfo ---------------------------------------------------------------------------------------

LIMITS = [field.name for field in dataclasses.fields(lp.FInfo) if field.name != "dtype"]
DECIMAL = ["precision", "resolution"]


def peer_finfo(fmt):
    return (np.finfo if hasattr(np, fmt.name) else ml_dtypes.finfo)(fmt.dtype)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.dtype is not None], ids=table.name)
def test_finfo_has_the_names_and_values_of_numpy_and_ml_dtypes(fmt):
    ours, theirs = lp.finfo(fmt), peer_finfo(fmt)
    assert ours.dtype == fmt.dtype
    for limit in [*LIMITS, "tiny"]:
        if limit not in DECIMAL:
            assert float(getattr(ours, limit)) == float(getattr(theirs, limit)), limit


@pytest.mark.parametrize("fmt", [lp.float16, lp.float32, lp.float64], ids=table.name)
def test_decimal_digits_are_numpys(fmt):
    theirs = np.finfo(fmt.dtype)
    assert lp.finfo(fmt).precision == theirs.precision
    assert fmt.dtype.type(lp.finfo(fmt).resolution) == theirs.resolution


def test_ml_dtypes_counts_decimal_digits_of_fp8_otherwise_than_numpy():
    # NumPy: precision is int(-log10(eps)); eps of float8_e4m3fn is 1/8, which makes 0 digits
    assert ml_dtypes.finfo("float8_e4m3fn").precision == 1
    assert lp.finfo("float8_e4m3fn").precision == 0
    assert lp.finfo("float8_e4m3fn").resolution == 1.0
    assert lp.finfo("bfloat16").precision == ml_dtypes.finfo("bfloat16").precision == 2


def test_finfo_of_a_format_without_a_dtype_shows_the_format():
    assert lp.finfo("tfloat32").dtype is lp.tfloat32


# Derived properties --------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_limits_follow_from_the_fields(fmt):
    exact = [Fraction(x) for x in (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal)]
    largest, normal, smallest = exact
    assert normal == Fraction(2) ** fmt.emin
    assert Fraction(2) ** fmt.emax <= largest < Fraction(2) ** (fmt.emax + 1)
    assert normal / smallest == (2**fmt.trailing_bits if fmt.subnormals else 1)
    assert fmt.eps == 2 * fmt.unit_roundoff == 2.0 ** (1 - fmt.precision)
    assert fmt.bits == fmt.signed + fmt.exponent_bits + fmt.precision - 1
    assert fmt.max_code < 2**fmt.bits <= 2 ** (8 * fmt.code_dtype.itemsize)


@pytest.mark.parametrize("fmt", FORMATS, ids=table.name)
def test_dtype_is_that_of_numpy_or_ml_dtypes(fmt):
    if fmt is lp.tfloat32:
        assert fmt.dtype is None
    else:
        assert fmt.dtype == np.dtype(getattr(np, fmt.name, None) or getattr(ml_dtypes, fmt.name))
        assert fmt.dtype.itemsize == fmt.code_dtype.itemsize


def test_fits_means_every_value_is_held():
    order = [lp.float4_e2m1fn, lp.float8_e4m3fn, lp.float16, lp.float32, lp.float64]
    for i, narrow in enumerate(order):
        assert all(narrow.fits(wide) for wide in order[i:])
        assert not any(narrow.fits(narrower) for narrower in order[:i])
    assert not lp.bfloat16.fits(lp.float16)
    assert not lp.float16.fits(lp.bfloat16)
    coarse = lp.Format("c", 3, 22, bias=131, subnormals=False)  # finer than float32's subnormals
    assert not coarse.fits(lp.float32)
    assert not lp.bfloat16.fits(dataclasses.replace(lp.bfloat16, subnormals=False))


# Formats as values ---------------------------------------------------------------------------


def test_equality_and_hash_ignore_the_name():
    mine = Format("mine", exponent_bits=5, precision=11)
    assert mine == lp.float16
    assert hash(mine) == hash(lp.float16)
    assert mine.dtype == np.float16
    assert lp.get_format(mine) is lp.float16


@pytest.mark.parametrize(
    "change",
    [
        {"exponent_bits": 6},
        {"precision": 10},
        {"specials": Specials.FN},
        {"bias": 16},
        {"signed": False},
        {"subnormals": False},
    ],
    ids=str,
)
def test_any_other_field_makes_another_format(change):
    other = dataclasses.replace(lp.float16, **change)
    assert other != lp.float16
    assert other.dtype is None


@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_repr_evaluates_to_the_format(fmt):
    names = {"Format": Format, "Specials": Specials, **lp.named_formats()}
    again = eval(repr(fmt), names)
    assert again == fmt
    assert again.name == fmt.name


@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_copies_and_pickles_are_equal(fmt):
    assert fmt.max > 0  # a cached property, which must not get in the way
    for again in (copy.copy(fmt), copy.deepcopy(fmt), pickle.loads(pickle.dumps(fmt))):
        assert again == fmt
        assert again.name == fmt.name
        assert hash(again) == hash(fmt)


def test_a_pickle_from_another_process_is_found_in_a_dictionary():
    program = "import pickle, sys, lowprec; sys.stdout.buffer.write(pickle.dumps(lowprec.float16))"
    for seed in ("1", "2"):  # text is hashed differently in every process
        pickled = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        assert {lp.float16: "found"}.get(pickle.loads(pickled)) == "found"


def test_formats_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        lp.float16.precision = 12


# Asking for a format -------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS, ids=table.name)
def test_every_spelling_of_a_named_format_gives_the_same_object(fmt):
    spellings = [fmt, fmt.name, f" {fmt.name.upper()} ", copy.copy(fmt)]
    if fmt.dtype is not None:
        spellings += [fmt.dtype, fmt.dtype.type, fmt.dtype.newbyteorder()]
    for spelling in spellings:
        assert lp.get_format(spelling) is fmt, spelling


@pytest.mark.parametrize(
    ("spelling", "fmt"),
    [
        ("e5m10", lp.float16),
        ("e8m7", lp.bfloat16),
        ("E8M23", lp.float32),
        ("e11m52", lp.float64),
        ("e8m10", lp.tfloat32),
        ("e5m2", lp.float8_e5m2),
        ("e4m3fn", lp.float8_e4m3fn),
        ("e3m4", lp.float8_e3m4),
        ("float8_e4m3", lp.float8_e4m3),
        ("e8m0fnu", lp.float8_e8m0fnu),
        ("e8m0", lp.float8_e8m0fnu),
        ("bf16", lp.bfloat16),
        ("half", lp.float16),
        ("double", lp.float64),
        ("binary16", lp.float16),
        # safetensors
        ("F64", lp.float64),
        ("F32", lp.float32),
        ("F16", lp.float16),
        ("BF16", lp.bfloat16),
        ("F8_E4M3", lp.float8_e4m3fn),
        ("F8_E5M2", lp.float8_e5m2),
        ("F8_E8M0", lp.float8_e8m0fnu),
        ("F6_E2M3", lp.float6_e2m3fn),
        ("F6_E3M2", lp.float6_e3m2fn),
        ("F4", lp.float4_e2m1fn),
        # ONNX
        ("FLOAT8E4M3FN", lp.float8_e4m3fn),
        ("FLOAT8E4M3FNUZ", lp.float8_e4m3fnuz),
        ("FLOAT8E5M2", lp.float8_e5m2),
        ("FLOAT8E5M2FNUZ", lp.float8_e5m2fnuz),
        ("FLOAT8E8M0", lp.float8_e8m0fnu),
        ("FLOAT4E2M1", lp.float4_e2m1fn),
        ("BFLOAT16", lp.bfloat16),
        # OCP
        ("fp8_e4m3", lp.float8_e4m3fn),
        ("fp8_e5m2", lp.float8_e5m2),
        ("fp6_e2m3", lp.float6_e2m3fn),
        ("fp6_e3m2", lp.float6_e3m2fn),
        ("fp4_e2m1", lp.float4_e2m1fn),
    ],
)
def test_short_spellings(spelling, fmt):
    assert lp.get_format(spelling) is fmt


def test_a_spelling_of_an_unnamed_format_makes_it():
    fmt = lp.get_format("e6m9")
    assert fmt == Format("e6m9", exponent_bits=6, precision=10)
    assert (str(fmt), fmt.bits, fmt.emax) == ("e6m9", 16, 31)


@pytest.mark.parametrize(
    ("spelling", "ocp", "other"),
    [
        ("e4m3", "float8_e4m3fn", "float8_e4m3"),
        ("E3M2", "float6_e3m2fn", "exponent_bits=3, precision=3"),
        ("e2m3", "float6_e2m3fn", "exponent_bits=2, precision=4"),
        (" e2m1", "float4_e2m1fn", "exponent_bits=2, precision=2"),
    ],
)
def test_names_that_mean_two_formats_are_refused_with_both(spelling, ocp, other):
    with pytest.raises(ValueError, match=rf"ambiguous.*'{ocp}'.*{other}") as error:
        lp.get_format(spelling)
    for call in (lp.round_to, lp.encode, lp.measure):
        with pytest.raises(ValueError, match=ocp):
            call([1.0], spelling)
    way_out = str(error.value).partition(", or ")[2].partition(" for the one")[0]
    named = eval(way_out, {"Format": Format})
    assert lp.get_format(named).has_infinity


def test_jax_dtypes_are_formats():
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
    for name in ["float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2", "float8_e3m4"]:
        assert lp.get_format(getattr(jnp, name)).name == name
    assert lp.round_to(0.1, jnp.bfloat16) == lp.round_to(0.1, "bfloat16")
    with pytest.raises(TypeError, match="int32"):
        lp.get_format(jnp.int32)


def test_an_unsigned_format_of_precision_1_is_a_scale_or_has_a_zero():
    scale = Format("scale", 8, 1, Specials.FN, signed=False)
    assert scale is not lp.float8_e8m0fnu
    assert scale == lp.float8_e8m0fnu
    assert not scale.has_zero
    moved = dataclasses.replace(scale, bias=128)
    assert not moved.has_zero, "a scale times two is a scale"
    counted = Format("k8p1uf", 8, 1, Specials.FN, bias=128, signed=False)
    assert counted.has_zero
    assert moved != counted
    for fmt in (moved, counted):
        assert eval(repr(fmt), {"Format": Format, "Specials": Specials}) == fmt
    assert Format("own", 5, 1, Specials.FN, signed=False, zero=True).has_zero
    with pytest.raises(ValueError, match="leave out zero=False"):
        Format("signed", 5, 3, zero=False)


@pytest.mark.parametrize("specials", [Specials.FN, Specials.FNUZ, Specials.P3109])
def test_one_exponent_bit_suffices_where_a_normal_number_is_left(specials):
    fmt = Format("narrow", 1, 4, specials)
    assert fmt.max >= fmt.smallest_normal
    codes = np.arange(fmt.max_code + 1)
    np.testing.assert_array_equal(lp.encode(lp.decode(codes, fmt), fmt), codes)
    with pytest.raises(ValueError, match="no code for a normal number"):
        Format("nothing", 1, 1, Specials.FN if specials is Specials.FNUZ else specials)


def test_torch_dtypes_are_formats():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    names = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2fnuz"]
    for name in names:
        assert lp.get_format(getattr(torch, name)).name == name
    with pytest.raises(ValueError, match="int64"):
        lp.get_format(torch.int64)


@pytest.mark.parametrize(
    ("spelling", "near"),
    [
        ("bfloat61", "bfloat16"),
        ("flaot16", "float16"),
        ("float8_e4m3f", "float8_e4m3fn"),
        ("fp61", "fp16"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(spelling, near):
    with pytest.raises(ValueError, match=rf"'{spelling}'; did you mean .*'{near}'.* Use one of"):
        lp.get_format(spelling)


@pytest.mark.parametrize("kind", [np.int32, np.dtype(complex), float, 16, None])
def test_what_is_no_format_is_a_type_error(kind):
    with pytest.raises(TypeError):
        lp.get_format(kind)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exponent_bits": 1, "precision": 3}, "1 exponent bits; use 2 to 11"),
        ({"exponent_bits": 12, "precision": 3}, "12 exponent bits; use 2 to 11"),
        ({"exponent_bits": 5, "precision": 0}, "precision 0; use 1 to 53"),
        ({"exponent_bits": 5, "precision": 54}, "precision 54; use 1 to 53"),
        ({"exponent_bits": 5, "precision": 1}, "Specials.FN or Specials.FINITE"),
        (
            {"exponent_bits": 5, "precision": 3, "specials": Specials.FNUZ, "signed": False},
            "unsigned, so it has no code of -0",
        ),
        ({"exponent_bits": 11, "precision": 53, "bias": 1022}, "use another bias"),
        ({"exponent_bits": 11, "precision": 53, "bias": 1024}, "use another bias"),
        ({"exponent_bits": 5, "precision": 3, "specials": "none"}, "'none' is .* use .* 'finite'"),
    ],
    ids=str,
)
def test_fields_that_describe_no_format_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Format("mine", **fields)


def test_fractions_of_bits_are_refused():
    with pytest.raises(TypeError):
        Format("mine", exponent_bits=5.5, precision=3)


def test_numpy_integers_and_strings_serve_as_fields():
    fmt = Format("mine", exponent_bits=np.int64(4), precision=np.uint8(4), specials="FN")
    assert fmt == lp.float8_e4m3fn
    assert type(fmt.precision) is int
