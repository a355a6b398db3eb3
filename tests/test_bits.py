"""One number, exactly: against ml_dtypes and NumPy, against the oracle, and by its laws."""

import json
import math
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import oracle
import pytest
import table
from hypothesis import example, given
from hypothesis import strategies as st

import lowprec as lp
from lowprec import Format, Overflow, Rounding
from lowprec.conversion import encode, round_to
from lowprec.conversion.neighbours import next_down, next_up, ulp
from lowprec.exact import inspect
from lowprec.exact.number import Number, read_number
from lowprec.exact.reference import decode_exact, round_exact

SMALL = [fmt for fmt in lp.named_formats().values() if fmt.dtype is not None and fmt.bits <= 16]


def as_floats(numbers):
    """Return numbers as float64, signs of zero and NaN included."""
    return np.array([math.copysign(float(m), -1.0 if negative else 1.0) for negative, m in numbers])


def peer_decode(codes, fmt):
    with np.errstate(invalid="ignore"):  # NumPy warns where a NaN signals
        return np.asarray(codes, fmt.code_dtype).view(fmt.dtype).astype(np.float64)


# Decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=table.name)
def test_every_code_stands_for_what_ml_dtypes_and_numpy_say(fmt):
    codes = range(2**fmt.bits)
    ours = as_floats(decode_exact(code, fmt) for code in codes)
    theirs = peer_decode(codes, fmt)
    numbers = ~np.isnan(theirs)
    assert np.array_equal(ours[numbers].view(np.uint64), theirs[numbers].view(np.uint64))
    assert np.isnan(ours[~numbers]).all()


@pytest.mark.parametrize("fmt", table.SMALL, ids=table.name)
def test_rounding_inverts_decoding(fmt):
    for code in range(0, 2**fmt.bits, 1 if fmt.bits <= 10 else 7):
        number = decode_exact(code, fmt)
        again = round_exact(number, fmt, Rounding.TIES_TO_EVEN, Overflow.IEEE)
        assert decode_exact(again, fmt) == number
        is_unique = fmt.subnormals or number.magnitude != 0
        if is_unique and not number.is_nan:
            assert again == code


@pytest.mark.parametrize("fmt", [lp.float32, lp.float64, lp.tfloat32], ids=table.name)
def test_wide_codes_stand_for_what_numpy_says(fmt):
    # tfloat32 is float32 without its last 13 bits
    dtype, shift = (np.float32, 13) if fmt is lp.tfloat32 else (fmt.dtype.type, 0)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**fmt.bits, 2000, dtype=np.uint64)
    edges = [0, 1, fmt.max_code, fmt.max_code + 1, 1 << fmt.trailing_bits, fmt.sign_mask]
    codes = np.concatenate([codes, np.array(edges, np.uint64)])
    ours = as_floats(decode_exact(int(code), fmt) for code in codes)
    with np.errstate(invalid="ignore"):
        patterns = (codes << np.uint64(shift)).astype(f"uint{8 * dtype().itemsize}")
        theirs = patterns.view(dtype).astype(np.float64)
    table.assert_same(ours, theirs)


# Rounding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=table.name)
def test_rounding_to_nearest_agrees_with_ml_dtypes_and_numpy(fmt):
    # from float32: from float64 ml_dtypes rounds twice
    x = table.points(fmt, np.dtype(np.float32))[::3]
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        theirs = x.astype(fmt.dtype).view(fmt.code_dtype)
    ours = [
        round_exact(read_number(v), fmt, Rounding.TIES_TO_EVEN, Overflow.IEEE) for v in x.tolist()
    ]
    differ = peer_nan_as_canonical(theirs, fmt) != np.array(ours)
    if fmt is lp.float8_e8m0fnu:  # the next test says why
        differ &= (x <= 2.0**-127) | (x >= 1.5 * 2.0**-127)
    wrong = np.flatnonzero(differ)
    assert not wrong.size, (x[wrong[0]].hex(), ours[wrong[0]], theirs[wrong[0]])


def test_ml_dtypes_rounds_up_between_the_two_smallest_scales():
    # 1.125·2**-127 lies nearer to 2**-127 (code 0) than to 2**-126 (code 1)
    x = np.float32(1.125 * 2.0**-127)
    assert x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8) == 1
    assert inspect(x, "float8_e8m0fnu").code == 0


def peer_nan_as_canonical(codes, fmt):
    """Clear what the formats' makers leave open: the payload of NaN."""
    if fmt.nan_code is None:
        return codes
    nan = np.isnan(peer_decode(codes, fmt))
    sign = codes & (fmt.sign_mask if fmt.has_negative_zero else 0)
    return np.where(nan, fmt.nan_code | sign, codes)


@table.each("rounding", table.DETERMINISTIC)
@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_every_mode_and_policy_agrees_with_the_oracle(fmt, rounding):
    x = table.points(fmt, np.dtype(np.float64))
    x = np.unique(np.concatenate([x[:6], x[-6:], np.random.default_rng(1).choice(x, 40)]))
    for overflow in map(Overflow, table.policies(fmt)):
        for value in x.tolist():
            code = round_exact(read_number(value), fmt, Rounding(rounding), overflow)
            expected = oracle.round_exactly(value, fmt, rounding, overflow.value)
            table.assert_same(as_floats([decode_exact(code, fmt)]), [expected], [value])


@table.each("rounding", table.coded_deterministic_modes)
@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_the_kernels_agree_bit_for_bit(fmt, rounding):
    x = np.random.default_rng(2).choice(table.points(fmt, table.sources(fmt)[0]), 60)
    for overflow in map(Overflow, table.policies(fmt)):
        codes = encode(x, fmt, rounding=rounding, overflow=overflow).tolist()
        how = (fmt, Rounding(rounding), overflow)
        assert codes == [round_exact(read_number(value), *how) for value in x.tolist()]


@pytest.mark.parametrize(
    ("x", "fmt", "expected"),
    [
        (1 + 2.0**-8 + 2.0**-40, "bfloat16", 1.0078125),
        (16973823, "bfloat16", 16908288),
        (2**64 + 2**56 + 1, "bfloat16", 2**64 + 2**57),
        (464, "float8_e4m3fn", 448),
        ("464.00000000000000000000000000001", "float8_e4m3fn", math.nan),
    ],
)
def test_rounding_happens_once(x, fmt, expected):
    table.assert_same(as_floats([inspect(x, fmt).number]), [float(expected)])


def test_ml_dtypes_rounds_float64_twice():
    x = 1 + 2.0**-8 + 2.0**-40
    assert float(ml_dtypes.bfloat16(x)) == 1.0
    assert inspect(x).value == Fraction("1.0078125")


def test_e8m0_has_no_zero():
    fmt = lp.float8_e8m0fnu
    for nothing in (0, -0.0, -1, "-1e-99", "-inf"):
        assert inspect(nothing, fmt).kind == "quiet NaN"
    for rounding in table.DETERMINISTIC:
        assert inspect("1e-99", fmt, rounding=rounding).code == 0
    assert inspect(3, fmt).value == 4  # with p = 1 there is no even: the tie goes up
    assert inspect(3, fmt, rounding="to_odd").value == 2


def test_without_subnormals_zero_is_even_and_the_smallest_normal_odd():
    fmt = Format("mine", 5, 11, subnormals=False)
    half = Fraction(fmt.smallest_normal) / 2
    assert inspect(half, fmt).value == 0
    assert inspect(half + half / 1000, fmt).value == 2 * half
    assert inspect(half / 1000, fmt, rounding="to_odd").value == 2 * half
    assert inspect(code=1, fmt=fmt).kind == "zero"


OVERFLOWS = [
    # format, input, ieee, saturate, saturate_finite
    ("float16", "1e6", "inf", "65504", "65504"),
    ("float16", "-inf", "-inf", "-inf", "-65504"),
    ("float8_e4m3fn", "-465", "-nan", "-448", "-448"),
    ("float8_e4m3fn", "inf", "nan", "448", "448"),
    ("float8_e4m3fnuz", "-1000", "nan", "-240", "-240"),
    ("float6_e2m3fn", "8", "7.5", "7.5", "7.5"),
    ("float6_e2m3fn", "-inf", "-7.5", "-7.5", "-7.5"),
]


@pytest.mark.parametrize(("fmt", "x", *"abc"), OVERFLOWS)
def test_overflow_policies(fmt, x, a, b, c):
    results = dict(zip(("ieee", "saturate", "saturate_finite"), (a, b, c), strict=True))
    if lp.get_format(fmt).has_nan:
        results["infinite"] = a  # to nearest it is the same
    for overflow, expected in results.items():
        assert inspect(x, fmt, overflow=overflow).decimal == expected, overflow


@pytest.mark.parametrize("x", ["nan", "-nan", math.nan, np.float16("nan"), Decimal("sNaN")])
def test_nan_is_never_hidden(x):
    for overflow in Overflow:
        assert inspect(x, "float8_e4m3fn", overflow=overflow).kind == "quiet NaN"
    with pytest.raises(ValueError, match="float6_e3m2fn does not have; replace"):
        inspect(x, "float6_e3m2fn")


def test_nan_is_canonical_and_keeps_its_sign():
    assert inspect("-nan").code == 0xFFC0
    assert inspect("nan", "float8_e4m3fn").code == 0x7F
    assert inspect("-nan", "float8_e4m3fnuz").code == 0x80
    assert [inspect(code=code).kind for code in (0x7FC0, 0x7F81)] == ["quiet NaN", "signaling NaN"]


# Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "value"),
    [
        (0.1, Fraction(0.1)),
        ("0.1", Fraction(1, 10)),
        (Decimal("0.1"), Fraction(1, 10)),
        (Fraction(1, 3), Fraction(1, 3)),
        ("-1/3", Fraction(-1, 3)),
        ("0x1.8p-3", Fraction(3, 16)),
        ("-0X.8P+1", Fraction(-1)),
        ("0x1e5", Fraction(0x1E5)),
        (" +1e-3 ", Fraction(1, 1000)),
        (10**400, Fraction(10**400)),
        (np.int64(-(2**63)), Fraction(-(2**63))),
        (np.uint64(2**64 - 1), Fraction(2**64 - 1)),
        (np.float16(0.1), Fraction(0.0999755859375)),
        (ml_dtypes.bfloat16(0.1), Fraction("0.10009765625")),
        (ml_dtypes.int4(-3), Fraction(-3)),
        (np.array(0.5, np.float32), Fraction(1, 2)),
        (True, Fraction(1)),
        (np.True_, Fraction(1)),
    ],
    ids=repr,
)
def test_numbers_are_read_exactly(x, value):
    assert read_number(x).value == value
    assert inspect(x, "float64").exact == value


def test_longdouble_is_read_exactly():
    third = np.longdouble(1) / 3
    assert read_number(third).value == Fraction(*third.as_integer_ratio())


@pytest.mark.parametrize("zero", ["-0", "-0x0p0", -0.0, Decimal("-0"), np.float16(-0.0)], ids=repr)
def test_zero_keeps_its_sign(zero):
    assert read_number(zero) == Number(True, Fraction(0))
    assert inspect(zero).code == 0x8000
    assert inspect(zero, "float8_e4m3fnuz").code == 0


@pytest.mark.parametrize("text", ["", "abc", "--1", "1/0", "0x", "0x.p1", "1 2", "infinit", "0x1p"])
def test_text_that_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="is not a number; write"):
        read_number(text)


@pytest.mark.parametrize("text", ["1e999999999", "0x1p-99999999", Decimal("1e99999")], ids=str)
def test_absurd_exponents_are_refused_at_once(text):
    with pytest.raises(ValueError, match="use 1e400 or 1e-400"):
        read_number(text)


@pytest.mark.parametrize("x", [1j, np.complex64(1), b"1", [1.0], np.ones(2), np.datetime64("2020")])
def test_what_is_no_real_number_is_a_type_error(x):
    with pytest.raises(TypeError):
        inspect(x)


def test_one_number_or_one_code_is_asked_for():
    with pytest.raises(TypeError, match="or one code"):
        inspect()
    with pytest.raises(TypeError, match="or one code"):
        inspect(1, code=1)
    for code in (-1, 0x10000):
        with pytest.raises(ValueError, match="codes go up to 0xffff"):
            inspect(code=code)


@pytest.mark.parametrize("rounding", table.STOCHASTIC)
def test_stochastic_modes_are_refused_with_the_way_out(rounding):
    with pytest.raises(ValueError, match="'toward_zero' and rounding='away_from_zero'"):
        inspect(0.1, rounding=rounding)


# What an inspection says ---------------------------------------------------------------------


def test_the_fields_of_a_tenth_in_bfloat16():
    i = inspect("0.1")
    assert (i.code, i.bits, i.code_text) == (0x3DCD, "0011110111001101", "0x3dcd")
    assert i.fields == {"sign": "0", "exponent": "01111011", "trailing": "1001101"}
    assert (i.sign, i.exponent, i.trailing) == (0, 123, 0b1001101)
    assert (i.decimal, i.hex, i.kind) == ("0.10009765625", "0x1.9ap-4", "normal")
    assert (i.error, i.relative_error) == (Fraction(1, 10240), Fraction(1, 1024))
    assert (i.ulp, i.ulp_error) == (Fraction(1, 2048), Fraction(1, 5))
    assert (i.above.code, i.below.code) == (0x3DCE, 0x3DCC)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
EVERY_FORMAT = st.sampled_from(table.FORMATS)
EVERY_MODE = st.sampled_from(table.DETERMINISTIC)


@given(FINITE, EVERY_FORMAT, EVERY_MODE)
@example(2.0**-15, table.CUSTOM[6], "ties_to_even")
@example(65519.99, lp.float16, "ties_to_even")
@example(5e-324, lp.float64, "to_odd")
def test_the_error_is_less_than_a_spacing_and_half_of_it_to_nearest(x, fmt, rounding):
    if (x <= 0 and not fmt.signed) or abs(x) > fmt.max:
        return
    if not fmt.has_zero and x < fmt.smallest_normal:
        return
    i = inspect(x, fmt, rounding=rounding)
    assert i.error == i.value - Fraction(x)
    assert abs(i.ulp_error) <= (Fraction(1, 2) if rounding.startswith("ties") else 1)
    assert (abs(i.ulp_error) == 1) is False
    assert i.relative_error is None if x == 0 else i.relative_error == i.error / abs(Fraction(x))


@given(FINITE, EVERY_FORMAT)
def test_nothing_lies_between_a_value_and_its_neighbours(x, fmt):
    i = inspect(abs(x) or 1, fmt, overflow="saturate")
    for near, rounding in ((i.above, "toward_positive"), (i.below, "toward_negative")):
        if near is None or near.value is None:
            continue
        other = {"toward_positive": "toward_negative", "toward_negative": "toward_positive"}
        between = (i.value + near.value) / 2
        assert inspect(between, fmt, rounding=rounding).value == near.value
        assert inspect(between, fmt, rounding=other[rounding]).value == i.value


@pytest.mark.parametrize("fmt", [f for f in table.SMALL if f.subnormals], ids=table.name)
def test_neighbours_are_the_next_codes(fmt):
    numbers = range(0, fmt.max_code, 1 if fmt.bits <= 8 else 101)
    for code in numbers:
        above = inspect(code=code, fmt=fmt).above
        assert above.code == code + 1
        if code or not fmt.signed:
            assert above.below.code == code
        if fmt.signed and code:
            mirrored = inspect(code=code | fmt.sign_mask, fmt=fmt).below
            assert mirrored.code == above.code | fmt.sign_mask


def test_neighbours_at_the_ends():
    assert inspect(code=0x7F7F).above.kind == "infinity"
    assert inspect("inf").above is None
    assert inspect("inf").below.code == 0x7F7F
    assert inspect("-inf").above.code == 0xFF7F
    assert inspect(448, "float8_e4m3fn").above is None
    assert inspect(7.5, "float6_e2m3fn").above is None
    assert inspect(code=0, fmt="float8_e8m0fnu").below is None
    assert inspect(0).below.code == 0x8001
    assert inspect("-0").above.code == 0x0001
    assert inspect(code=0x8001).above.code == 0x8000  # nextUp of the least negative is -0
    assert inspect("nan").above is inspect("nan").below is None
    assert inspect(0, Format("mine", 5, 4, "finite", signed=False)).below is None


@pytest.mark.parametrize("fmt", [lp.float16, lp.float32, lp.float64], ids=table.name)
def test_neighbours_and_ulp_agree_with_numpy(fmt):
    rng = np.random.default_rng(2)
    codes = rng.integers(1, fmt.max_code, 200, dtype=np.uint64).astype(fmt.code_dtype)
    for code, x in zip(codes.tolist(), codes.view(fmt.dtype), strict=True):
        i = inspect(code=code, fmt=fmt)
        assert i.above.value == Fraction(float(np.nextafter(x, fmt.dtype.type(np.inf))))
        assert i.below.value == Fraction(float(np.nextafter(x, fmt.dtype.type(-np.inf))))
        assert i.ulp == Fraction(float(np.spacing(x)))


@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_neighbours_and_ulp_agree_with_the_functions_for_arrays(fmt):
    x = np.random.default_rng(3).choice(table.points(fmt, np.dtype(np.float64)), 60)
    x = x[np.abs(x) <= fmt.max]
    values = round_to(x, fmt, overflow="saturate")
    values = values[~np.isnan(values)]
    pairs = zip(values.tolist(), next_up(values, fmt), next_down(values, fmt), strict=True)
    for value, up, down in pairs:
        i = inspect(value, fmt)
        assert i.ulp == Fraction(float(ulp(value, fmt)))
        for near, expected in ((i.above, up), (i.below, down)):
            if near is None:  # where arrays say NaN, or stay
                assert np.isnan(expected) or expected == value
            else:
                table.assert_same(as_floats([near.number]), [float(expected)], [value])


@given(FINITE)
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
def test_decimal_and_hexadecimal_text_read_back_exactly(x):
    i = inspect(x, "float64")
    for text in (i.decimal, i.hex):
        assert read_number(text) == read_number(x)
    assert float.fromhex(i.hex) == float(i.decimal) == x


@given(FINITE.filter(lambda x: abs(x) >= 2.0**-1022))
def test_hexadecimal_text_is_that_of_float_hex_without_needless_zeros(x):
    digits, exponent = float(x).hex().split("p")
    assert inspect(x, "float64").hex == f"{digits.rstrip('0').rstrip('.')}p{exponent}"


@given(st.integers(0, 0xFFFF), st.sampled_from([lp.bfloat16, lp.float16]))
def test_an_inspection_as_json_says_the_same(code, fmt):
    i = inspect(code=code, fmt=fmt)
    facts = json.loads(json.dumps(i.to_dict(), allow_nan=False))
    assert (facts["code"], facts["bits"], facts["class"]) == (code, i.bits, i.kind)
    assert read_number(facts["value"]) == i.number
    w, t = fmt.exponent_bits, fmt.trailing_bits
    assert code == (facts["sign"] << w | facts["exponent"]) << t | facts["trailing"]


# Views ---------------------------------------------------------------------------------------

SHOWN = [
    inspect(0.1),
    inspect("-1/3", "float8_e4m3fnuz", rounding="RD"),
    inspect(1e39, "float16"),
    inspect(code=0xFF, fmt="float8_e8m0fnu"),
    inspect(10**5000, "float4_e2m1fn"),
    inspect(-1, Format("<mine> & yours", 5, 4, signed=False)),
    inspect(1e-9, Format("mine", 5, 11, subnormals=False)),
    inspect("inf", "float8_e4m3fn"),
    inspect(0, "bfloat16"),
]


@pytest.mark.parametrize("inspection", SHOWN, ids=lambda i: i.code_text)
def test_all_views_show_the_same_lines(inspection):
    from rich.console import Console

    from lowprec.exact.inspection import rows

    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(inspection)
    rich_text = " ".join(capture.get().split())
    html = inspection._repr_html_()
    for view in (repr(inspection), rich_text, html):
        assert inspection.code_text in view
        for label, text in rows(inspection):
            escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            shown = escaped if view is html else text
            assert label in view
            assert " ".join(shown.split()) in " ".join(view.split())
    assert "<mine>" not in html


def test_colours_tell_the_fields_apart():
    from rich.console import Console

    console = Console(width=80, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as capture:
        console.print(inspect(0.1))
    styles = ["31m0", "32m01111011", "36m1001101"]
    assert all(style in capture.get() for style in styles)


@pytest.mark.parametrize("fmt", table.FORMATS, ids=table.name)
def test_a_format_draws_a_cell_for_every_bit(fmt):
    html = fmt._repr_html_()
    assert html.count("inline-block;width:1.05em") == fmt.bits
    assert fmt.name in html


def test_a_formats_name_is_escaped():
    assert "<script>" not in Format("<script>", 5, 11)._repr_html_()
