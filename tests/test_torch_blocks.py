"""Block formats of `lowprec.torch`: lowprec's bits, gradients, transforms and compiled code."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import lowprec as lp  # noqa: E402
import lowprec.torch as lt  # noqa: E402

NAMES = sorted(lp.blocks.named_block_formats())
MINE = lp.BlockFormat("mine", "float6_e3m2fn", 8, "bfloat16", "amax")
UNMARKED = lp.BlockFormat("unmarked", "float6_e3m2fn", 8, lp.Format("s", 5, 3, "finite"), "amax")


def normal(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return (3 * torch.randn(*shape)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fmt", [*NAMES, MINE, "mxfp4:rceil"], ids=str)
def test_every_block_format_gets_lowprecs_bits(fmt, dtype):
    x = normal(5, 40, dtype=dtype)
    x[1, 3], x[2] = float("nan"), 0.0
    source = x.double().numpy() if dtype == torch.float64 else x.float().numpy()
    expected = lp.round_to(source, fmt)
    y = lt.round_to(x, fmt)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_array_equal(y.numpy().view(f"u{y.itemsize}"), expected.view(f"u{y.itemsize}"))
    q, theirs = lt.quantize(x, fmt), lp.quantize(source, fmt)
    np.testing.assert_array_equal(q.codes.numpy(), theirs.codes)
    np.testing.assert_array_equal(q.scales.numpy(), theirs.scales)
    assert (q.tensor_scale is None) == (theirs.tensor_scale is None)
    assert q.tensor_scale is None or q.tensor_scale.item() == float(theirs.tensor_scale)
    assert torch.equal(q.dequantize(y.dtype).nan_to_num(7.0), y.nan_to_num(7.0))
    assert (q.nbytes, q.bits_per_value, repr(q)) == (
        theirs.nbytes, theirs.bits_per_value, repr(theirs),
    )  # fmt: skip
    for name, part in theirs.pack().items():
        np.testing.assert_array_equal(q.pack()[name].numpy(), part)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_blocks_lie_along_the_axis_and_strides_are_kept(axis):
    x = normal(2, 64, 3, 4).to(memory_format=torch.channels_last)
    y = lt.round_to(x, "mxfp8_e4m3", axis=axis)
    np.testing.assert_array_equal(y.numpy(), lp.round_to(x.numpy(), "mxfp8_e4m3", axis=axis))
    assert y.stride() == x.stride()


def test_integers_give_float64_and_dtype_overrides():
    x = torch.arange(64)
    assert lt.round_to(x, "mxfp4").dtype == torch.float64
    assert lt.round_to(normal(64), "mxfp4", dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match=r"\.to\(torch\.bfloat16\)"):
        lt.round_to(normal(64), "mxfp4", dtype=torch.bfloat16)


def test_nan_that_no_scale_marks_stays_and_leaves_the_others_alone():
    x = normal(16)
    x[3] = float("nan")
    y = lt.round_to(x, UNMARKED)
    assert y.isnan().nonzero().tolist() == [[3]]
    rest = torch.where(x.isnan(), 0, x)
    kept = torch.arange(16) != 3
    assert torch.equal(y[kept], lt.round_to(rest, UNMARKED)[kept])
    with pytest.raises(ValueError, match="NaN"):
        lt.quantize(x, UNMARKED)
    with pytest.raises(ValueError, match="NaN"):
        lt.round_to(x, UNMARKED, strict=True)


# Gradients -----------------------------------------------------------------------------------


def test_the_gradient_passes_is_cut_or_is_rounded():
    x = normal(4, 64).requires_grad_()
    upstream = normal(4, 64)
    (lt.round_to(x, "mxfp4") * upstream).sum().backward()
    assert torch.equal(x.grad, upstream)
    x.grad = None
    (lt.round_to(x, "mxfp4", gradient="clip") * upstream).sum().backward()
    q = lp.quantize(x.detach().numpy(), "mxfp4")
    limits = 6.0 * np.repeat(q.scale_values(), 32, axis=1)
    beyond = np.abs(x.detach().numpy()) > limits
    assert beyond.sum() == lp.measure(x.detach().numpy(), "mxfp4").clipped > 0
    np.testing.assert_array_equal(x.grad, np.where(beyond, 0, upstream))
    for gradient in ("float8_e5m2", "mxfp8_e5m2"):
        x.grad = None
        (lt.round_to(x, "nvfp4", gradient=gradient) * upstream).sum().backward()
        assert torch.equal(x.grad, lt.round_to(upstream, gradient))
    x.grad = None  # also of a format of single numbers
    (lt.round_to(x, "bfloat16", gradient="mxfp8_e5m2", axis=0) * upstream).sum().backward()
    assert torch.equal(x.grad, lt.round_to(upstream, "mxfp8_e5m2", axis=0))


def test_blocks_are_rounded_in_place():
    x = normal(4, 64)
    expected, version = lt.round_to(x, "nvfp4", tensor_amax=5.0), x._version
    assert lt.round_to_(x, "nvfp4", tensor_amax=5.0) is x
    assert x._version > version
    assert torch.equal(x, expected)
    np.testing.assert_array_equal(
        expected, lp.round_to(normal(4, 64).numpy(), "nvfp4", tensor_amax=5.0)
    )
    leaf = normal(4, 64).requires_grad_()
    lt.round_to_(leaf * 2, "mxfp4", gradient="clip", axis=0).sum().backward()
    other = normal(4, 64).requires_grad_()
    lt.round_to(other * 2, "mxfp4", gradient="clip", axis=0).sum().backward()
    assert torch.equal(leaf.grad, other.grad)


def test_transforms_of_functions_give_each_example_blocks_of_its_own():
    x = normal(3, 2, 48)
    for fmt in ("mxfp4", "nvfp4"):
        each = torch.stack([lt.round_to(v, fmt, axis=1) for v in x])
        assert torch.equal(torch.func.vmap(lambda v, f=fmt: lt.round_to(v, f, axis=1))(x), each)

        def f(v, fmt=fmt):
            return lt.round_to(v, fmt, gradient="mxfp8_e5m2").pow(2).sum()

        grads = torch.stack([torch.func.grad(f)(v) for v in x])
        assert torch.equal(torch.func.vmap(torch.func.grad(f))(x), grads)
    torch.manual_seed(0)
    same = torch.linspace(0.1, 1.0, 64).expand(2, 64)
    drawn = torch.func.vmap(lambda v: lt.round_to(v, "nvfp4", rounding="SR"))
    assert not torch.equal(*drawn(same))
    jacobian = torch.func.jacrev(lambda v: lt.round_to(v, "mxfp4"))(x[0, 0])
    assert torch.equal(jacobian, torch.eye(48))


def test_manual_seed_and_generators_govern():
    x = torch.full((64,), 0.3)
    generator = torch.Generator()
    drawn = [
        lt.round_to(x, "mxfp4", rounding="SR", generator=generator.manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    codes = lt.quantize(x, "mxfp4", rounding="SR", generator=generator.manual_seed(0))
    assert torch.equal(codes.dequantize(), drawn[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic"])
def test_compiled_code_gets_eagers_bits(rounding):
    def f(x):
        return lt.round_to(x, "nvfp4", rounding=rounding, gradient="mxfp8_e5m2") * 2

    results = []
    for run in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        x = normal(4, 64).requires_grad_()
        torch.manual_seed(1)
        y = run(x)
        y.pow(2).sum().backward()
        results.append((y.detach(), x.grad))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "empty", "expanded"])
def test_opcheck_passes(layout, dtype):
    x = {
        "contiguous": lambda: normal(4, 64),
        "transposed": lambda: normal(64, 4).t(),
        "empty": lambda: normal(0, 64),
        "expanded": lambda: normal(4, 1).expand(4, 64),
    }[layout]().to(dtype)  # fmt: skip
    ops = torch.ops.lowprec
    lt.round_to(x, "nvfp4")
    how = ("nvfp4", -1, None, "ties_to_even")
    leaf = x.detach().requires_grad_()
    torch.library.opcheck(ops.round_blocks.default, (leaf, *how, torch.float32, None))
    torch.library.opcheck(ops.quantize.default, (x, *how, None))
    torch.library.opcheck(ops.clips.default, (x, *how[:3]))


def test_meta_tensors_give_shapes_and_other_devices_say_what_to_do():
    x = torch.empty(4, 33, device="meta")
    assert lt.round_to(x, "mxfp4").shape == (4, 33)
    q = torch.ops.lowprec.quantize.default(x, "mxfp4", -1, None, "ties_to_even", None)
    assert [tuple(part.shape) for part in q] == [(4, 33), (4, 2), ()]


# Products ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_products_have_gradients_batches_and_pass_opcheck():
    operator = torch.ops.lowprec.matmul.default
    a, b = normal(3, 4, 8), normal(8, 5)
    lt.matmul(a[0], b, accumulator="float16")
    how = ("bfloat16", "bfloat16", repr(lp.Accumulator("float16")))
    torch.library.opcheck(operator, (a.clone().requires_grad_(), b.clone().requires_grad_(), *how))
    each = torch.stack([operator(one, b, *how) for one in a])
    assert torch.equal(torch.func.vmap(lambda v: operator(v, b, *how))(a), each)
    back = torch.func.vmap(lambda v: operator(b.mT, v, *how), in_dims=2, out_dims=2)(
        a.permute(2, 1, 0)
    )
    assert torch.equal(back, torch.stack([operator(b.mT, one.mT, *how) for one in a], 2))
    expected = lp.matmul(a.numpy(), b.numpy(), inputs="bfloat16", accumulator="float16")
    np.testing.assert_array_equal(operator(a, b, *how).numpy(), expected)


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: lt.quantize(x, "bfloat16"), TypeError, "round_to"),
        (lambda x: lt.quantize(x[0, 0], "mxfp4"), ValueError, "axis"),
        (lambda x: lt.round_to(x[0, 0], "mxfp4"), ValueError, "axis"),
        (lambda x: lt.round_to(x[0], "nvfp4_2d"), ValueError, "axes"),
        (lambda x: lt.round_to(x, "mxfp4", overflow="saturate"), ValueError, "overflow"),
        (lambda x: lt.round_to(x, "mxfp4", random_bits=8), ValueError, "random_bits"),
        (lambda x: lt.quantize(x, "mxfp4", tensor_amax=3.0), ValueError, "tensor_amax"),
        (lambda x: lt.round_to(x, "mxfp4:nearest"), ValueError, "rule"),
        (lambda x: lt.round_to(x.to_sparse(), "mxfp4"), TypeError, "to_dense"),
        (lambda x: lt.round_to(x.to(torch.complex64), "mxfp4"), TypeError, "view_as_real"),
        (lambda x: lt.round_to(x, ["mxfp4"]), TypeError, "list"),
        (lambda x: lt.encode(x, "mxfp4"), TypeError, "quantize"),
        (lambda x: lt.round_to(x, "mxfp4", tensor_amax=3.0), ValueError, "tensor_amax"),
        (lambda x: lt.round_to(x, "bfloat16", tensor_amax=3.0), ValueError, "tensor_amax"),
        (lambda x: lt.round_to(x, "mxfp4", gradient="klip"), ValueError, "'clip'"),
        (lambda x: lt.round_to_(x.half(), "mxfp4"), ValueError, "round_to"),
        (lambda x: lp.quantize(x, "nvfp4", tensor_amax="3"), TypeError, "number"),
    ],
)
def test_errors_say_what_to_do(call, error, words):
    with pytest.raises(error, match=words):
        call(normal(2, 32))


def test_quantized_tensors_are_copied_and_pickled():
    q = lt.quantize(normal(4, 64), "nvfp4")
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other.dequantize(), q.dequantize())
