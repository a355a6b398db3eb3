"""Laws of `lowprec.torch`'s conversions: lowprec's bits, through all that torch does to functions.

Every one is `lowprec.round_to`'s result, whose own oracle stands in `test_laws`.
"""

from __future__ import annotations

import copy
import functools
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from table import FORMATS, name  # noqa: E402

import lowprec as lp  # noqa: E402
import lowprec.torch as lt  # noqa: E402

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = {
    "contiguous": lambda: torch.randn(2, 3, 4, 5),
    "transposed": lambda: torch.randn(4, 5).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "every other": lambda: torch.randn(4, 10)[:, ::2],
    "expanded": lambda: torch.randn(4, 1).expand(4, 5),
    "0-d": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
    "permuted": lambda: torch.randn(2, 3, 4).permute(2, 0, 1),
}
MODES = ["ties_to_even", "toward_zero", "stochastic"]


def tensor(layout, dtype, scale=1.0):
    torch.manual_seed(0)
    x = LAYOUTS[layout]()
    if layout == "expanded":
        return (x[:, :1] * scale).to(dtype).expand(4, 5)
    if dtype == torch.float32:
        return x
    converted = torch.empty_strided(x.shape, x.stride(), dtype=dtype)
    return converted.copy_(x * scale)


def as_float64(x):
    return x.detach().double().contiguous().numpy()


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    views = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    a, b = (t.detach().contiguous().view(views[t.dtype.itemsize]) for t in (a, b))
    assert torch.equal(a, b)


# Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gets_lowprecs_values_and_the_strides_of_empty_like(layout, dtype):
    x = tensor(layout, dtype, 100.0)
    for fmt in ("bfloat16", "float16", "float8_e4m3fn", "float4_e2m1fn"):
        y = lt.round_to(x, fmt)
        np.testing.assert_array_equal(as_float64(y), lp.round_to(as_float64(x), fmt))
        assert y.stride() == torch.empty_like(x).stride()
        assert y.data_ptr() != x.data_ptr() or not x.numel()


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_every_format_gets_lowprecs_bits(fmt):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**63, 3000, dtype=np.uint64).view(np.float64)
    with np.errstate(over="ignore"):
        drawn = rng.standard_normal(3000) * fmt.max
    x = np.concatenate([x, drawn, [0.0, -0.0, np.inf]])
    x = x if fmt.signed else np.abs(x)
    x = x if fmt.has_nan else x[np.isfinite(x) & ((x != 0) | fmt.has_zero)]
    for mode in ("ties_to_even", "toward_negative", "to_odd"):
        ours = lt.round_to(torch.from_numpy(x), fmt, rounding=mode)
        theirs = lp.round_to(x, fmt, rounding=mode)
        assert_same_bits(ours, torch.from_numpy(theirs))
        codes = lt.encode(torch.from_numpy(x), fmt, rounding=mode)
        np.testing.assert_array_equal(codes.numpy(), lp.encode(x, fmt, rounding=mode))
        assert_same_bits(lt.decode(codes, fmt, dtype=torch.float64), ours)


def test_a_format_without_a_name_is_spelled_for_the_operator():
    fmt = lp.Format("mine", 4, 3, lp.Specials.FN, bias=9, signed=False, subnormals=False)
    x = torch.rand(100) * 10
    assert_same_bits(lt.round_to(x, fmt), torch.from_numpy(lp.round_to(x.numpy(), fmt)))


@pytest.mark.parametrize(
    ("source", "fmt", "result"),
    [
        (torch.float32, "bfloat16", torch.float32),
        (torch.float16, "bfloat16", torch.float32),
        (torch.float16, "float8_e4m3fn", torch.float16),
        (torch.bfloat16, "float16", torch.float32),
        (torch.bfloat16, "float8_e5m2", torch.bfloat16),
        (torch.bfloat16, "bfloat16", torch.bfloat16),
        (torch.float8_e4m3fn, "float4_e2m1fn", torch.float8_e4m3fn),
        (torch.float8_e4m3fn, "float8_e4m3", torch.float32),  # infinities
        (torch.float8_e4m3fnuz, "float4_e2m1fn", torch.float32),  # -0
        (torch.float32, "e11m20", torch.float64),
        (torch.float64, "bfloat16", torch.float64),
        (torch.int64, "bfloat16", torch.float64),
        (torch.bool, "bfloat16", torch.float64),
    ],
    ids=str,
)
def test_the_result_keeps_the_sources_dtype_where_it_holds_the_format(source, fmt, result):
    x = torch.tensor([1, 0, 1]).to(source)
    y = lt.round_to(x, fmt)
    assert y.dtype == result
    assert y.double().tolist() == [1.0, 0.0, 1.0]


def test_a_dtype_that_is_asked_for_is_the_results_or_refused():
    x = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64)
    y = lt.round_to(x, "bfloat16", dtype=torch.bfloat16)
    assert y.dtype == torch.bfloat16
    assert y.item() == 1.0078125  # one rounding; torch's own goes through float32
    with pytest.raises(ValueError, match="does not hold"):
        lt.round_to(x, "bfloat16", dtype=torch.float16)


def test_integers_are_rounded_from_their_exact_value():
    x = torch.tensor([16973823])
    assert lt.round_to(x, "bfloat16").item() == 16908288
    assert x.to(torch.bfloat16).item() != 16908288  # torch rounds twice


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, *FLOATS[:2]], ids=str)
def test_nan_keeps_its_sign_in_every_dtype(source):
    x = torch.tensor([np.nan, -np.nan]).to(source)
    for fmt in ("bfloat16", "float8_e5m2", "float4_e2m1fn"):
        y = lt.round_to(x, fmt)
        assert y.isnan().all()
        assert torch.signbit(y).tolist() == torch.signbit(x).tolist()


def test_nan_without_a_code_stays_nan_unless_that_is_an_error():
    x = torch.tensor([1.0, np.nan])
    assert lt.round_to(x, "float4_e2m1fn").isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="1 of 2 elements are NaN"):
        lt.round_to(x, "float4_e2m1fn", strict=True)
    for convert in (lt.encode, lt.cast):
        with pytest.raises(ValueError, match="1 of 2 elements are NaN"):
            convert(x, "float4_e2m1fn")
    lt.round_to(x[:1], "float4_e2m1fn", strict=True)


def test_cast_gives_torchs_dtype_and_codes_where_it_has_none():
    x = torch.randn(1000)
    for fmt in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
        y = lt.cast(x, fmt)
        assert y.dtype == getattr(torch, fmt)
        assert torch.equal(y.float(), x.to(y.dtype).float())
        assert_same_bits(lt.decode(y, fmt), lt.round_to(x, fmt))
    assert lt.cast(x, "float6_e2m3fn").dtype == torch.uint8
    assert lt.cast(x, "tfloat32").dtype == torch.uint32
    y = lt.cast(x.requires_grad_(), "bfloat16")
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 1000


def test_torch_rounds_e4m3_past_its_largest_value_as_we_do_or_we_learn():
    x = torch.tensor([464.0, 465.0, 1e9])
    assert lt.cast(x, "float8_e4m3fn").float().tolist()[:1] == [448.0]
    assert lt.cast(x, "float8_e4m3fn").float().isnan().tolist() == [False, True, True]


def test_decode_refuses_what_are_no_codes():
    with pytest.raises(TypeError, match="takes integers"):
        lt.decode(torch.zeros(2), "bfloat16")
    with pytest.raises(ValueError, match="codes are 0 to"):
        lt.decode(torch.tensor([64]), "float6_e2m3fn")
    with pytest.raises(TypeError, match="float32 or float64"):
        lt.decode(torch.tensor([1]), "bfloat16", dtype=torch.float16)


def test_subnormals_that_torch_flushes_are_rounded():
    x = torch.tensor([1e-40, 0.1])
    expected = lp.round_to(x, "bfloat16").tolist()
    torch.set_flush_denormal(True)
    try:
        ours = [lt.round_to(x, "bfloat16"), lt.round_to(x.bfloat16(), "bfloat16")]
    finally:
        torch.set_flush_denormal(False)
    for y in ours:
        assert y.tolist() == expected
    assert expected[0] > 0


# What is refused -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: torch.eye(2).to_sparse(), "to_dense"),
        (lambda: torch.eye(2).to_sparse_csr(), "to_dense"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)]), "to_padded_tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged), "padded"),
        (lambda: torch.eye(2).to(torch.complex64), "view_as_real"),
        (lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "dequantize"),
        (lambda: np.eye(2), r"lowprec\.round_to"),
        (lambda: [1.0], r"lowprec\.round_to"),
    ],
)
def test_other_kinds_of_tensors_are_refused_with_what_to_pass(make, advice):
    x = make()
    for convert in (lt.round_to, lt.round_to_, lt.encode, lt.cast):
        with pytest.raises(TypeError, match=advice):
            convert(x, "bfloat16")


def test_meta_and_fake_tensors_give_shapes():
    x = torch.empty(3, 4, device="meta").t()
    y = lt.round_to(x, "bfloat16")
    assert (y.shape, y.stride(), y.device.type) == ((4, 3), x.stride(), "meta")
    assert lt.encode(x, "bfloat16").dtype == torch.uint16
    assert lt.decode(torch.empty(3, dtype=torch.uint8, device="meta"), "e5m2").shape == (3,)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert lt.round_to(torch.empty(3), "bfloat16", rounding="SR").shape == (3,)
        assert lt.round_to(torch.empty(3, device="cuda"), "bfloat16").device.type == "cuda"


def test_what_another_device_cannot_do_says_what_to_do():
    from lowprec.torch import operators

    meta = torch.empty(3, device="meta")
    for how in (
        "bfloat16, stochastic, ieee",
        "e11m20 ieee bias=1023 signed subnormals, ties_to_even, ieee",
    ):
        with pytest.raises(NotImplementedError, match=r"x\.cpu\(\)"):
            operators._round_elsewhere(meta, how, torch.float32)
    with pytest.raises(NotImplementedError, match=r"x\.cpu\(\)"):
        operators._round_elsewhere(meta.double(), "bfloat16, ties_to_even, ieee", torch.float64)
    with pytest.raises(NotImplementedError, match=r"x\.cpu\(\)"):
        operators._encode_elsewhere(meta)
    y = operators._round_elsewhere(torch.randn(9), "float16, ties_to_even, ieee", torch.float32)
    assert y.shape == (9,)


# Gradients -----------------------------------------------------------------------------------


def test_the_gradient_passes_is_cut_or_is_rounded():
    x = torch.tensor([1.0, 500.0, -500.0, 0.3], requires_grad=True)
    weights = torch.tensor([0.1, 0.1, 0.1, 1e9])
    (lt.round_to(x, "float8_e4m3fn") * weights).nansum().backward()
    assert x.grad.tolist()[0] == weights.tolist()[0]
    x.grad = None
    y = lt.round_to(x, "float8_e4m3fn", overflow="saturate", gradient="clip")
    (y * weights).sum().backward()
    assert x.grad.tolist() == [weights[0].item(), 0.0, 0.0, 1e9]
    x.grad = None
    y = lt.round_to(x, "float8_e4m3fn", overflow="saturate", gradient="float8_e5m2")
    (y * weights).sum().backward()
    expected = lp.round_to(weights, "float8_e5m2", overflow="saturate")
    assert x.grad.tolist() == expected.tolist()
    assert x.grad[3] == lp.float8_e5m2.max


@pytest.mark.parametrize("gradient", [None, "clip", "bfloat16"])
def test_double_backward_goes_through(gradient):
    x = torch.tensor([0.3, 0.7], requires_grad=True)
    y = lt.round_to(x**3, "bfloat16", gradient=gradient)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 6 * x.detach(), rtol=0.01, atol=0)


def test_the_gradient_has_the_dtype_of_the_source():
    x = torch.tensor([0.1], dtype=torch.bfloat16, requires_grad=True)
    y = lt.round_to(x, "float16", gradient="clip")
    assert y.dtype == torch.float32
    y.backward()
    assert x.grad.dtype == torch.bfloat16


def test_integers_have_no_gradient():
    assert not lt.round_to(torch.tensor([3]), "bfloat16").requires_grad


def test_transforms_of_functions_work():
    x = torch.linspace(-2, 2, 12).reshape(3, 4)

    def f(v):
        return lt.round_to(v, "bfloat16", gradient="clip").pow(2).sum()

    rounded = 2 * lt.round_to(x, "bfloat16")
    torch.testing.assert_close(torch.func.grad(f)(x), rounded)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(f))(x), rounded)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(f), in_dims=1)(x), rounded.T)
    twice = torch.func.jacrev(torch.func.jacrev(f))(x[0])
    torch.testing.assert_close(twice, 2 * torch.eye(4))
    assert torch.equal(
        torch.func.vmap(lambda v: lt.round_to(v, "e4m3fn"))(x), lt.round_to(x, "e4m3fn")
    )
    nested = torch.func.vmap(torch.func.vmap(lambda v: lt.round_to(v, "e4m3fn")))
    assert torch.equal(nested(x), lt.round_to(x, "e4m3fn"))


# Stochastic ----------------------------------------------------------------------------------


def test_manual_seed_governs_and_every_call_draws_once():
    x = torch.full((64,), 0.1)
    torch.manual_seed(3)
    first, second = (lt.round_to(x, "bfloat16", rounding="SR") for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(lt.round_to(x, "bfloat16", rounding="SR"), first)
    generator = torch.Generator().manual_seed(5)
    third = lt.round_to(x, "bfloat16", rounding="SR", generator=generator)
    generator.manual_seed(5)
    assert torch.equal(lt.round_to(x, "bfloat16", rounding="SR", generator=generator), third)


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "every other", "permuted"])
def test_random_bits_follow_the_index_and_not_the_strides(layout):
    x = tensor(layout, torch.float32)
    results = []
    for y in (x, x.contiguous()):
        torch.manual_seed(0)
        results.append(lt.round_to(y, "float8_e5m2", rounding="stochastic"))
    assert torch.equal(*results)


def test_the_index_runs_on_over_a_batch():
    x = torch.full((4, 50), 0.1)
    torch.manual_seed(0)
    whole = lt.round_to(x, "bfloat16", rounding="SR")
    torch.manual_seed(0)
    mapped = torch.func.vmap(lambda v: lt.round_to(v, "bfloat16", rounding="SR"))(x)
    assert torch.equal(whole, mapped)
    assert not torch.equal(mapped[0], mapped[1])
    torch.manual_seed(0)
    by_generator = torch.func.vmap(
        lambda v: lt.round_to(v, "bfloat16", rounding="SR", generator=torch.default_generator)
    )
    assert torch.equal(by_generator(x), whole)


def test_stochastic_rounding_is_unbiased():
    x = torch.full((200_000,), 1 + 2**-9)
    torch.manual_seed(0)
    y = lt.round_to(x, "bfloat16", rounding="stochastic")
    share = (y > 1).double().mean().item()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(x))


# In place ------------------------------------------------------------------------------------


def test_in_place_returns_the_tensor_and_moves_its_version():
    x = torch.randn(5, 4).t()
    expected, version = lt.round_to(x, "bfloat16"), x._version
    assert lt.round_to_(x, "bfloat16") is x
    assert x._version == version + 1
    assert torch.equal(x, expected)


def test_in_place_invalidates_what_backward_would_need():
    x = torch.randn(3, requires_grad=True)
    y = x * 1
    z = y.exp()
    with torch.no_grad():
        lt.round_to_(z, "bfloat16")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("gradient", [None, "clip", "bfloat16"])
def test_in_place_is_differentiable_on_an_intermediate(gradient):
    x = torch.tensor([0.1, 1e6], requires_grad=True)
    y = x * 1
    z = lt.round_to_(y, "float16", overflow="saturate", gradient=gradient)
    assert z is y
    z.sum().backward()
    assert x.grad.tolist() == [1.0, 0.0 if gradient == "clip" else 1.0]


def test_in_place_refuses_what_it_cannot_do():
    leaf = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        lt.round_to_(leaf, "bfloat16")
    with torch.no_grad():
        lt.round_to_(leaf, "bfloat16")
    with pytest.raises(ValueError, match="does not hold"):
        lt.round_to_(torch.randn(3, dtype=torch.float16), "bfloat16")
    with pytest.raises(ValueError, match="does not hold"):
        lt.round_to_(torch.tensor([3]), "bfloat16")
    with pytest.raises(RuntimeError, match="share memory"):
        lt.round_to_(torch.randn(1).expand(4), "bfloat16")


# Operators -----------------------------------------------------------------------------------


def captured(function, *arguments):
    """Return the calls of this library's operators that a function makes."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(function)(*arguments).graph
    return [
        (node.target, node.args[1:]) for node in graph.nodes if str(node.target)[:7] == "lowprec"
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_passes(layout, dtype):
    x = tensor(layout, dtype)
    for function in (lt.round_to, lt.encode):
        ((operator, rest),) = captured(functools.partial(function, fmt="float8_e5m2"), x)
        torch.library.opcheck(operator, (x.detach().requires_grad_(), *rest))
    operator, rest = captured(lambda v: lt.round_to(v, "e5m2", rounding="SR"), x)[-1]
    torch.library.opcheck(operator, (x, *rest[:-1], torch.tensor(7)))
    if layout != "expanded":
        ((operator, rest),) = captured(lambda v: lt.round_to_(v.clone(), "float8_e5m2"), x)
        torch.library.opcheck(operator, (x.clone(), *rest))
    codes = lt.encode(x, "float8_e5m2")
    ((operator, rest),) = captured(lambda v: lt.decode(v, "float8_e5m2"), codes)
    torch.library.opcheck(operator, (codes, *rest))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_gets_eagers_bits(backend, mode):
    def f(x):
        y = lt.round_to(x, "bfloat16", rounding=mode, gradient="clip")
        return y + 2 * lt.round_to(x, lp.float8_e5m2, rounding=mode, gradient=lp.float8_e5m2)

    x = torch.randn(40, 3, requires_grad=True)
    results = []
    for run in (f, torch.compile(f, fullgraph=True, backend=backend)):
        torch.manual_seed(11)
        y = run(x)
        (gradient,) = torch.autograd.grad(y.sin().sum(), x)
        results.append((y, gradient))
    assert_same_bits(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_batch_is_rounded_in_place():
    x = torch.randn(3, 4)
    for axis in (0, 1):
        changed = x.clone()
        torch.vmap(lambda v: lt.round_to_(v, "bfloat16"), axis, axis)(changed)
        assert_same_bits(changed, lt.round_to(x, "bfloat16"))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize(
    "run",
    [
        lambda x: lt.round_to(x, "float8_e4m3fn", rounding="SR"),
        lambda x: lt.round_to(x, "mxfp4"),
        lambda x: lt.matmul(x, x.mT, accumulator="float16"),
    ],
)
def test_traced_code_rounds_what_it_is_given(run):
    traced = torch.jit.trace(run, torch.zeros(4, 32), check_trace=False)
    x = torch.randn(4, 32, requires_grad=True)
    results = []
    for f in (traced, run):
        torch.manual_seed(3)
        results += [f(x), torch.autograd.grad(f(x).sum(), x)[0]]
    for traced_result, result in zip(results[:2], results[2:], strict=True):
        assert torch.equal(traced_result, result)


@pytest.mark.filterwarnings("ignore")
def test_compiled_calls_draw_keys_of_their_own_each_time():
    @torch.compile(fullgraph=True)
    def f(x):
        return (
            lt.round_to(x, "bfloat16", rounding="SR"),
            lt.round_to(x, "bfloat16", rounding="SR"),
        )

    x = torch.full((64,), 0.1)
    a, b = f(x)
    c, _ = f(x)
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.filterwarnings("ignore")
def test_export_and_make_fx_get_eagers_bits():
    from torch.fx.experimental.proxy_tensor import make_fx

    class Rounded(torch.nn.Module):
        def forward(self, x):
            return lt.round_to(x, "float16") + lt.decode(lt.encode(x, "e4m3fn"), "e4m3fn")

    x, model = torch.randn(3, 4), Rounded()
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
    assert torch.equal(make_fx(model)(x)(x), model(x))
    drawn = make_fx(lambda v: lt.round_to(v, "bfloat16", rounding="SR"))(x)
    for run in (drawn, lambda v: lt.round_to(v, "bfloat16", rounding="SR")):
        torch.manual_seed(0)
        expected = run(x)
        torch.manual_seed(0)
        assert torch.equal(run(x), expected)


@pytest.mark.filterwarnings("ignore")
def test_compiled_code_rounds_in_place():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def f(x):
        y = x * 2
        lt.round_to_(y, "bfloat16")
        return y

    x = torch.randn(10)
    assert torch.equal(f(x), lt.round_to(x * 2, "bfloat16"))


# Elsewhere -----------------------------------------------------------------------------------


def test_lowprec_imports_torch_only_where_it_is_asked_for():
    code = "import sys, lowprec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    import lowprec.torch\n"
        "except ModuleNotFoundError as error:\n    assert 'lowprec[torch]' in str(error)\n"
        "else:\n    raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_axis_belongs_to_block_formats():
    with pytest.raises(ValueError, match="axis"):
        lt.round_to(torch.zeros(3), "bfloat16", axis=0)


def test_results_are_deep_copied_like_any_tensor():
    y = lt.round_to(torch.randn(3), "bfloat16")
    assert torch.equal(copy.deepcopy(y), y)


def test_bad_names_are_answered_by_near_ones():
    with pytest.raises(ValueError, match="bfloat16"):
        lt.round_to(torch.zeros(3), "bfloat17")
    with pytest.raises(ValueError, match="ties_to_even"):
        lt.round_to(torch.zeros(3), "bfloat16", rounding="nearest")


class Rounded(torch.utils.data.Dataset):
    """A data set whose samples are rounded in the worker that loads them."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return lt.round_to(torch.full((4,), 0.1 * (i + 1)), "bfloat16")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_loader_round_alike(how):
    loader = torch.utils.data.DataLoader(
        Rounded(), batch_size=4, num_workers=1, multiprocessing_context=how
    )
    expected = torch.stack([Rounded()[i] for i in range(8)])
    assert torch.equal(torch.cat(list(loader)), expected)
