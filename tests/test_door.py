"""What the door takes: any array-like of any layout; what it gives back; how it refuses."""

from __future__ import annotations

import tracemalloc
import warnings

import ml_dtypes
import numpy as np
import pytest
from table import assert_same

import lowprec as lp

VERBS = [lp.round_to, lp.encode, lp.cast]
RNG = np.random.default_rng(0)
BLOCK = RNG.standard_normal((6, 40, 50)).astype(np.float32)

LAYOUTS = {
    "contiguous": BLOCK,
    "fortran": np.asfortranarray(BLOCK),
    "transposed": BLOCK.transpose(2, 0, 1),
    "reversed": BLOCK[::-1, :, ::-1],
    "steps": BLOCK[::2, 1::3, ::7],
    "one column": BLOCK[:, :, 3],
    "broadcast": np.broadcast_to(BLOCK[0, 0], (5, 50)),
    "broadcast column": np.broadcast_to(BLOCK[:1, :, :1], (3, 40, 20)),
    "one element": BLOCK[:1, :1, :1],
    "empty": BLOCK[:0],
    "empty inside": BLOCK[:, 3:3, :],
    "many dimensions": BLOCK.reshape(1, 6, 2, 1, 20, 5, 1, 10, 1).swapaxes(2, 7),
    "big-endian": BLOCK.astype(">f4"),
    "big-endian float64": BLOCK.astype(">f8")[:, ::-1],
    "unaligned": np.frombuffer(b"\0" + BLOCK.tobytes(), np.uint8)[1:].view(np.float32),
    "field of a record": np.rec.fromarrays([BLOCK[0, 0], BLOCK[0, 1]], names="a,b")["b"],
    "float64": BLOCK.astype(np.float64).T,
    "int16": (BLOCK * 1000).astype(np.int16)[:, ::-2],
    "big-endian int64": (BLOCK * 1e15).astype(">i8"),
    "uint64 reversed": (abs(BLOCK) * 1e18).astype(np.uint64)[::-1, ::-1],
    "float16 steps": BLOCK.astype(np.float16)[::2, ::3],
    "bfloat16 transposed": BLOCK.astype(ml_dtypes.bfloat16).T,
    "fp8 reversed": BLOCK.astype(ml_dtypes.float8_e4m3fn)[:, :, ::-1],
    "bool column": (BLOCK > 0)[:, :, 1],
}
every_layout = pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS)
every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


def native(x):
    """Return a contiguous copy in C order and native byte order."""
    return np.array(x, x.dtype.newbyteorder("="), order="C")


# Layouts -------------------------------------------------------------------------------------


@every_verb
@every_layout
def test_layout_changes_no_bit(x, verb):
    y = verb(x, "float16")
    expected = verb(native(x).ravel(), "float16").reshape(x.shape)
    assert y.shape == x.shape
    assert y.dtype == expected.dtype
    assert y.dtype.isnative
    assert y.tobytes() == expected.tobytes()


@every_layout
def test_layout_changes_no_random_bit(x):
    how = {"rounding": "stochastic", "rng": 7, "random_bits": 20}
    y = lp.round_to(x, "bfloat16", **how)
    assert y.tobytes() == lp.round_to(native(x), "bfloat16", **how).tobytes()


@every_layout
def test_input_is_left_alone(x):
    before = x.tobytes()
    lp.round_to(x, "float8_e5m2")
    assert x.tobytes() == before


@every_layout
def test_decode_takes_any_layout(x):
    codes = lp.encode(x, "float16")
    strided = np.zeros((*codes.shape, 3), codes.dtype)[..., 1]
    strided[...] = codes
    assert_same(lp.decode(strided, "float16"), lp.decode(codes, "float16"))
    swapped = codes.astype(codes.dtype.newbyteorder())
    assert_same(lp.decode(swapped, "float16"), lp.decode(codes, "float16"))


def test_read_only_input_serves():
    x = BLOCK.copy()
    x.flags.writeable = False
    assert_same(lp.round_to(x, "bfloat16"), lp.round_to(BLOCK, "bfloat16"))


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 127, 128, 129, 1000, 4097, 100_003])
def test_every_size_gives_each_element_its_own_result(size):
    x = RNG.standard_normal(size).astype(np.float32)
    one_by_one = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_same(lp.round_to(x, "bfloat16"), one_by_one, x)
    assert_same(lp.round_to(x[::-1], "bfloat16"), one_by_one[::-1], x[::-1])
    assert_same(lp.round_to(np.repeat(x, 2)[::2], "bfloat16"), one_by_one, x)


# What comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.1, 1, True, np.float64(0.1), np.int8(1), np.uint64(3)])
def test_float64_for_python_numbers_and_integers(x):
    y = lp.round_to(x, "bfloat16")
    assert isinstance(y, np.float64)
    assert y == lp.round_to(np.array([x]), "bfloat16")[0]


@pytest.mark.parametrize("x", [np.float32(0.1), np.float16(0.1), ml_dtypes.bfloat16(0.1)])
def test_float32_for_narrower_scalars(x):
    y = lp.round_to(x, "float8_e5m2")
    assert isinstance(y, np.float32)
    assert y == np.float32(0.09375)


def test_scalars_give_scalars():
    assert lp.round_to(0.1, "bfloat16") == 0.10009765625
    code = lp.encode(0.1, "bfloat16")
    assert isinstance(code, np.uint16)
    assert code == 0x3DCD
    number = lp.cast(0.1, "bfloat16")
    assert isinstance(number, ml_dtypes.bfloat16)
    assert isinstance(lp.decode(np.uint16(0x3DCD), "bfloat16"), np.float32)
    assert lp.decode(0x3DCD, "bfloat16") == np.float32(0.10009765625)


@every_verb
def test_0_d_arrays_serve(verb):
    y = verb(np.array(0.1), "float16")
    assert np.shape(y) == ()
    assert y == verb([0.1], "float16")[0]
    out = np.empty((), np.asarray(y).dtype)
    assert verb(np.array(0.1), "float16", out=out) is out
    assert out == y


def test_big_python_integers_are_64_bit_integers():
    assert lp.round_to(2**63, "bfloat16") == 2.0**63
    assert lp.round_to(2**64 - 1, "float64") == 2.0**64
    with pytest.raises(TypeError, match="64"):
        lp.round_to(2**64, "bfloat16")


def test_lists_of_integers_are_exact_wherever_a_dtype_holds_them():
    big = [2**64 - 1, 0, True, 2**53 + 1]  # float64 to NumPy
    up = lp.round_to([big, big], "e11m51", rounding="toward_negative")
    assert up.tolist() == [[2.0**64 - 2**12, 0, 1, 2.0**53]] * 2
    assert lp.encode((np.int64(2**53 + 1), np.uint64(3)), "float64", rounding="RU")[0] & 1
    for beside in (-1, 0.5):
        with pytest.raises(TypeError, match=f"{2**64 - 1} stands beside other kinds"):
            lp.round_to([beside, 2**64 - 1], "float64")


def test_lists_and_ranges_serve():
    assert lp.encode([1.0, 65504, 1e-8], lp.float16).tolist() == [0x3C00, 0x7BFF, 0]
    assert lp.round_to([[1, 2], [3, 257]], "bfloat16").tolist() == [[1, 2], [3, 256]]
    assert lp.round_to(range(255, 260), "bfloat16").tolist() == [255, 256, 256, 258, 260]
    assert lp.round_to([], "bfloat16").shape == (0,)
    assert lp.round_to((np.float32(0.1),), "bfloat16").dtype == np.float32


def test_objects_with_array_serve():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.array([0.1, 0.2], np.float32)

    assert lp.round_to(Series(), "bfloat16").dtype == np.float32


def test_a_format_is_asked_for_in_any_spelling():
    for fmt in (lp.float16, "float16", "e5m10", np.float16, np.dtype("float16"), "fp16"):
        assert lp.round_to(0.1, fmt) == np.float16(0.1)
    for mode in ("toward_zero", "RZ", "rz", lp.Rounding.TOWARD_ZERO):
        assert lp.round_to(1.9, "float4_e2m1fn", rounding=mode) == 1.5
    policy = lp.Overflow.SATURATE
    assert lp.round_to(1e9, "float16", overflow=policy) == 65504


# out= ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["ties_to_even", "toward_negative", "stochastic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_may_be_the_input(dtype, rounding):
    how = {"rounding": rounding, "rng": 1}
    for x in (BLOCK.astype(dtype), BLOCK.astype(dtype).T[::2], BLOCK.astype(dtype)[::-1, 3]):
        x = x.copy(order="K")
        expected = lp.round_to(x, "bfloat16", **how)
        assert lp.round_to(x, "bfloat16", out=x, **how) is x
        assert_same(x, expected)


def test_out_may_have_any_strides():
    expected = lp.round_to(BLOCK, "float16")
    for out in (
        np.zeros((50, 40, 6), np.float32).T,
        np.zeros((6, 80, 50), np.float32)[:, ::-2],
        np.zeros((6, 40, 50, 2), np.float32)[..., 1],
    ):
        assert lp.round_to(BLOCK, "float16", out=out) is out
        assert_same(out, expected)
    codes = np.zeros((6, 40, 100), np.uint16)[..., ::2]
    lp.encode(BLOCK, "float16", out=codes)
    np.testing.assert_array_equal(codes, lp.encode(BLOCK, "float16"))


def test_out_between_the_elements_stays():
    ground = np.full((6, 40, 100), 7, np.float32)
    lp.round_to(BLOCK, "float16", out=ground[..., ::2])
    assert (ground[..., 1::2] == 7).all()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.s_[:-1], np.s_[1:]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:], np.s_[::-1]),
        (np.s_[:5000], np.s_[::2]),
        (np.s_[::2], np.s_[:5000]),
    ],
)
def test_partial_overlap_gives_what_a_copy_would(source, target):
    ground = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    for rounding in ("ties_to_even", "stochastic"):
        x = ground.copy()
        how = {"rounding": rounding, "rng": 4}
        expected = lp.round_to(x[source].copy(), "float8_e4m3fn", **how)
        lp.round_to(x[source], "float8_e4m3fn", out=x[target], **how)
        assert_same(x[target], expected)


def test_nan_without_a_code_is_refused_before_anything_is_written():
    x = np.linspace(-2, 2, 40_000, dtype=np.float32)
    wanted = lp.round_to(x, "float4_e2m1fn")  # later calls find what this one kept
    assert_same(lp.round_to(x, "float4_e2m1fn", out=x.copy()), wanted)
    x[[31_000, 39_999]] = np.nan
    for out in (np.full_like(x, 7), np.full(2 * x.size, 7, np.float32)[::2], x.copy()):
        before = out.copy()
        with pytest.raises(ValueError, match=r"^2 of 40000 .* index \(31000,\)"):
            lp.round_to(x, "float4_e2m1fn", out=out)
        assert_same(out, before)
    for number in (np.nan, np.float32(np.nan), [0.0, np.nan]):
        with pytest.raises(ValueError, match="NaN"):
            lp.encode(number, "float4_e2m1fn")


def test_codes_may_overwrite_the_input():
    x = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    expected = lp.encode(x, "bfloat16")
    out = x.view(np.uint16)[:5000]
    lp.encode(x, "bfloat16", out=out)
    np.testing.assert_array_equal(out, expected)
    codes = np.zeros(10_000, np.uint16)
    codes[:5000] = expected
    out = codes.view(np.float32)
    lp.decode(codes[:5000], "bfloat16", out=out)
    assert_same(out, lp.decode(expected, "bfloat16"))


@pytest.mark.parametrize(
    ("out", "word"),
    [
        (np.zeros((6, 40, 51), np.float32), "shape"),
        (np.zeros(12_000, np.float32), "shape"),
        (np.zeros((6, 40, 50), np.float64), "float32"),
        (np.zeros((6, 40, 50), np.float16), "float32"),
        (np.zeros((6, 40, 50), np.int32), "float32"),
        (np.broadcast_to(np.float32(0), (6, 40, 50)), "read-only|writ"),
        ([0.0], "array"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(out, word):
    with pytest.raises((TypeError, ValueError), match=word):
        lp.round_to(BLOCK, "bfloat16", out=out)
    assert not np.any(out), "nothing is written"


def test_out_of_the_wrong_dtype_names_the_right_one():
    with pytest.raises(TypeError, match="uint16"):
        lp.encode(BLOCK, "bfloat16", out=np.zeros(BLOCK.shape, np.uint8))
    with pytest.raises(TypeError, match="float64"):
        lp.round_to([1, 2], "bfloat16", out=np.zeros(2, np.float32))


def test_rounding_in_place_allocates_nothing_of_the_inputs_size():
    x = np.ones((2000, 1000), np.float32)
    for view in (x, x.T, x[:, ::2]):
        for fmt in ("bfloat16", "float4_e2m1fn"):
            for rounding in ("ties_to_even", "stochastic"):
                lp.round_to(view, fmt, rounding=rounding, rng=0, out=view)
                tracemalloc.start()
                lp.round_to(view, fmt, rounding=rounding, rng=0, out=view)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 1_000_000, (view.strides, fmt, rounding)


# torch ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="tensors are taken where torch is installed")


def test_torch_tensors_serve(torch):
    x = torch.tensor([[0.1, 1e9], [3.0, -2.0]])
    for tensor in (x, x.T, x[:, ::1][1:], x.clone().requires_grad_().detach()):
        y = lp.round_to(tensor, "float16")
        assert isinstance(y, np.ndarray)
        assert_same(y, lp.round_to(tensor.detach().numpy(), "float16"))
    assert lp.round_to(torch.tensor([2**62 + 1, 3]), "bfloat16").dtype == np.float64
    assert lp.round_to(torch.tensor(0.1), "bfloat16") == np.float32(0.10009765625)


def test_torch_narrow_tensors_serve(torch):
    x = torch.tensor([0.1, 240.0, -3.0])
    narrow = "bfloat16 float16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
    for name in narrow.split():
        tensor = x.to(getattr(torch, name))
        expected = tensor.float().numpy()
        for given in (tensor, torch.stack([tensor, tensor]).T[:, 1]):
            y = lp.round_to(given, "float32")
            assert y.dtype == np.float32
            assert_same(y, expected)
    assert lp.round_to(x.bfloat16(), "float8_e5m2").tolist() == [0.09375, 256, -3]
    both = lp.round_to([x.bfloat16(), x.bfloat16()], "float8_e5m2")
    assert both.tolist() == [[0.09375, 256, -3]] * 2


def test_no_gradient_is_lost_without_a_word(torch):
    """What NumPy cannot see, `numpy.asarray` refuses too."""
    w = torch.ones(3, requires_grad=True)
    calls = [
        lambda x: lp.round_to(x, "bfloat16"),
        lambda x: lp.encode(x, "bfloat16"),
        lambda x: lp.cast(x, "bfloat16"),
        lambda x: lp.ulp(x, "bfloat16"),
        lambda x: lp.sum(x, "bfloat16"),
        lambda x: lp.matmul(x, np.ones(3)),
        lambda x: lp.Arithmetic("bfloat16").add(1, x),
        lambda x: lp.measure(x, "bfloat16"),
    ]
    for call in calls:
        for given in (w, torch.nn.Parameter(w.detach().bfloat16()), [w, w], (w[0], w[1], w[2])):
            with pytest.raises(TypeError, match=r"pass x\.detach\(\), or use lowprec\.torch"):
                call(given)
        call(w.detach())


def test_the_memory_of_a_tensor_is_no_place_for_results(torch):
    """Torch counts a tensor's changes, so that backward knows what is stale; NumPy's it misses."""
    w = torch.ones(3, requires_grad=True)
    x, half = np.float32([1, 2, 3]), lp.Arithmetic("bfloat16")
    views = [
        w.detach().numpy(),
        w.detach().numpy()[::1],
        np.asarray(w.detach()).view("u4").view("f4"),
        np.frombuffer(w.detach().numpy().data, np.float32),
        np.from_dlpack(w.detach()),
    ]
    for out in views:
        calls = [
            lambda out=out: lp.round_to(w.detach(), "bfloat16", out=out),
            lambda out=out: lp.round_to(out, "bfloat16", out=out),
            lambda out=out: lp.round_to(x, "bfloat16", out=out),
            lambda out=out: lp.encode(x, "float32", out=out.view("u4")),
            lambda out=out: lp.cast(x, "float32", out=out),
            lambda out=out: lp.decode(np.uint16([1, 2, 3]), "bfloat16", out=out),
            lambda out=out: lp.round_to(np.float32([1, 2, 3]), "mxfp8_e4m3", out=out),
            lambda out=out: half.add(x, x, out=out),
            lambda out=out: half.exp(x, out=out),
            lambda out=out: half.fma(x, x, 1, out=out),
        ]
        for call in calls * 2:  # the second time by the short way
            with pytest.raises(ValueError, match="the memory of a torch tensor"):
                call()
    assert w.tolist() == [1, 1, 1]
    mine = np.float32([1 / 3, 2, 3])
    with pytest.raises(ValueError, match="the memory of a torch tensor"):
        lp.round_to(torch.from_numpy(mine), "bfloat16", out=mine)
    with pytest.raises(ValueError, match="the memory of a torch tensor"):
        half.add(torch.from_numpy(mine), 1, out=mine)
    base = np.zeros((2, 3), np.float32)
    for out in (base[0], base.T[:, 1], np.frombuffer(bytearray(12), np.float32)):
        assert lp.round_to(w.detach(), "bfloat16", out=out) is out


def test_torch_dtypes_name_formats(torch):
    assert lp.round_to(0.1, torch.bfloat16) == 0.10009765625


# Refusals ------------------------------------------------------------------------------------


@every_verb
@pytest.mark.parametrize(
    ("x", "way_out"),
    [
        (np.array([1 + 2j]), r"\.real|abs"),
        (1j, r"\.real|abs"),
        (np.array(["0.1"]), "float"),
        ("0.1", "float"),
        (np.array([b"0.1"]), "float"),
        (np.array([None, 1.0]), "float64"),
        (np.array([1.0, 2], object), "float64"),
        (np.array([1.0], np.longdouble), "float64"),
        (np.longdouble(1), "float64"),
        (np.array([(1.0, 2.0)], "f4,f4"), "field"),
        (np.array(["2020-01-01"], "datetime64[D]"), "float64|int"),
        (np.array([3], "timedelta64[s]"), "float64|int"),
        (None, "float64"),
    ],
    ids=repr,
)
def test_other_kinds_are_a_type_error_that_says_what_to_pass(verb, x, way_out):
    with pytest.raises(TypeError, match=way_out):
        verb(x, "bfloat16")


@every_verb
def test_masked_entries_are_refused_not_used(verb):
    x = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    with pytest.raises((TypeError, ValueError), match="mask"):
        verb(x, "bfloat16")
    open_array = np.ma.masked_array([1.0, 2.0, 3.0])
    assert verb(open_array, "bfloat16").tolist() == verb([1.0, 2.0, 3.0], "bfloat16").tolist()


def test_ragged_lists_are_refused():
    with pytest.raises((TypeError, ValueError)):
        lp.round_to([[1.0], [2.0, 3.0]], "bfloat16")


@every_verb
def test_unknown_names_list_near_ones(verb):
    with pytest.raises(ValueError, match="bfloat16"):
        verb(1.0, "bfloat61")
    with pytest.raises(ValueError, match="ties_to_even"):
        verb(1.0, "bfloat16", rounding="tie_to_even")
    with pytest.raises(ValueError, match="saturate"):
        verb(1.0, "bfloat16", overflow="saturated")
    with pytest.raises(TypeError, match="bfloat16"):
        verb(1.0, 16)


@pytest.mark.parametrize("fmt", ["e11m20", "float64", "e9m3", "e10m5"])
def test_a_format_too_wide_for_the_source_names_the_source_that_would_do(fmt):
    x = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"float32.*float64"):
        lp.round_to(x, fmt)
    with pytest.raises(ValueError, match="float64"):
        lp.round_to(x.astype(np.float16), fmt)
    with pytest.raises(ValueError, match="float64"):
        lp.decode(lp.encode(x, fmt), fmt, dtype=np.float32)
    assert lp.decode(lp.encode(x, fmt), fmt).tolist() == [1.0] * 3, "encode has no limit"
    assert lp.round_to(x.astype(np.float64), fmt).tolist() == [1.0] * 3


def test_cast_needs_a_format_with_a_dtype():
    with pytest.raises((TypeError, ValueError), match=r"encode|dtype"):
        lp.cast(1.0, "e6m9")


@pytest.mark.parametrize("codes", [[0.5], [-1], [2**16]])
def test_decode_refuses_what_is_no_code(codes):
    with pytest.raises((TypeError, ValueError)):
        lp.decode(codes, "bfloat16")


@pytest.mark.parametrize("random_bits", [0, -1, 65, 1.5])
def test_random_bits_out_of_range_are_refused(random_bits):
    with pytest.raises((TypeError, ValueError), match=r"random_bits|integer"):
        lp.round_to(1.1, "bfloat16", rounding="stochastic", rng=0, random_bits=random_bits)


@every_verb
def test_nothing_warns(verb):
    x = np.array([np.nan, np.inf, -np.inf, 1e300, -1e-300, 0.0])
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        verb(x, "float16")
        verb(x, "float8_e8m0fnu")


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_no_element_makes_numpy_warn(dtype):
    """Not a NaN that signals, nor one that ml_dtypes compares, nor a subnormal result."""
    bits = 8 * np.dtype(dtype).itemsize
    codes = np.arange(2 ** min(bits, 16)).astype(f"u{bits // 8}") << max(bits - 16, 0)
    x = (codes | (codes >> 16 if bits > 16 else 0)).view(dtype)
    unsigned = lp.Format("unsigned", 4, 4, lp.Specials.FINITE, signed=False)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for fmt in ("float32", "bfloat16", "float8_e4m3fnuz"):
            for verb in (lp.round_to, lp.encode, lp.ulp, lp.next_up, lp.next_down, lp.measure):
                verb(x, fmt)
        with pytest.raises(ValueError, match="NaN or negative"):
            lp.encode(x, unsigned)


def test_codes_come_as_other_arrays_do():
    masked = np.ma.array([0x3C00, 0x3C00], mask=[True, False], dtype="u2")
    with pytest.raises(ValueError, match="1 of 2 entries are masked"):
        lp.decode(masked, "float16")
    assert lp.decode(np.array([1.5], ">f2"), "float16").tolist() == [1.5]
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.tensor([1.5], dtype=torch.bfloat16)
    assert lp.decode(tensor, "bfloat16").tolist() == [1.5]


def test_masked_arrays_in_a_list_are_refused():
    for item in (np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.masked):
        with pytest.raises(ValueError, match="masked"):
            lp.round_to([item, item], "bfloat16")
