"""Laws of `lowprec.torch.emulate`: lowprec's products inside torch's modules, and nothing else."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import lowprec as lp  # noqa: E402
import lowprec.torch as lt  # noqa: E402
from lowprec import train  # noqa: E402

FLOAT16_SUMS = train.Policy(compute="float16", accumulate="float16")
POLICIES = [
    "mixed_bfloat16",
    "mixed_float16",
    "float32",
    FLOAT16_SUMS,
    train.Policy(compute="bfloat16", accumulate=lp.Accumulator(order="blocked", block=4)),
    train.Policy(compute="float8_e4m3fn", gradients="float8_e5m2"),
]
BLAS = train.Policy(accumulate=lp.Accumulator(order="blas"))


def rounded(x, fmt):
    return lp.round_to(x.detach(), fmt)


def run(module, *inputs, factor=None):
    """Return the result of a module and all gradients."""
    xs = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    module.zero_grad()
    y = module(*xs)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(torch.ones_like(y) * 0.37 if factor is None else factor)
    return [y.detach(), *[x.grad for x in xs if x.requires_grad]] + [
        p.grad.clone() for p in module.parameters()
    ]


# Linear --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_linear_equals_matmul_bit_for_bit_in_all_three_products(policy):
    torch.manual_seed(0)
    layer, x = nn.Linear(19, 7), torch.randn(5, 19)
    g = torch.randn(5, 7)
    formats = train.get_policy(policy).formats
    sums = train.get_policy(policy).accumulator
    c, gf = formats["compute"], formats["gradients"]
    xr, w, b = (rounded(t, c) for t in (x, layer.weight, layer.bias))
    gr = rounded(g, gf)

    def product(p, q):
        return np.float32(lp.matmul(p, q, inputs="float32", accumulator=sums))

    with lt.emulate(layer, policy):
        y, dx, dw, db = run(layer, x, factor=g)
    np.testing.assert_array_equal(y, lp.round_to(product(xr, w.T) + b, c))
    np.testing.assert_array_equal(dx, lp.round_to(product(gr, w), gf))
    np.testing.assert_array_equal(dw, lp.round_to(product(gr.T, xr), gf))
    np.testing.assert_allclose(db, lp.round_to(gr.sum(0), gf), rtol=2 * gf.eps)
    np.testing.assert_array_equal(db, rounded(db, gf))
    with torch.no_grad():
        same = lt.linear(x, layer.weight, layer.bias, policy=policy)
    assert torch.equal(same, y)


def test_linear_and_convolution_are_near_autocast():
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(256, 64), torch.randn(128, 256)),
        (nn.Conv2d(8, 16, 3, padding=1), torch.randn(4, 8, 12, 12)),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            theirs = layer(x).float()
        with lt.emulate(layer, "mixed_bfloat16"):
            ours = layer(x)
        ulp = torch.from_numpy(lp.ulp(theirs.detach().numpy(), "bfloat16"))
        assert ((ours - theirs).abs() <= ulp).float().mean() >= 0.995


def test_matmul_takes_formats_sums_bias_and_backward():
    torch.manual_seed(0)
    a, b = torch.randn(3, 40, requires_grad=True), torch.randn(40, 5, requires_grad=True)
    bias, g = torch.randn(5), torch.randn(3, 5)
    y = lt.matmul(
        a,
        b,
        inputs=("float8_e4m3fn", "bfloat16"),
        accumulator="float16",
        output="bfloat16",
        bias=bias,
        backward=("float8_e5m2", "float32"),
    )
    pair = ("float8_e4m3fn", "bfloat16")
    z = lp.matmul(a.detach(), b.detach(), inputs=pair, accumulator="float16")
    np.testing.assert_array_equal(y.detach(), lp.round_to(z + bias.numpy(), "bfloat16"))
    y.backward(g)
    da = lp.matmul(g, b.detach().T, inputs=("float8_e5m2", "bfloat16"))
    np.testing.assert_array_equal(a.grad, lp.round_to(da, "float8_e5m2"))
    db = lp.matmul(a.detach().T, g, inputs=("float8_e4m3fn", "float8_e5m2"))
    np.testing.assert_array_equal(b.grad, lp.round_to(db, "float8_e5m2"))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (4, 5)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (3, 4, 2)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
    ],
)
def test_matmul_broadcasts_as_torchs(shapes):
    torch.manual_seed(0)
    a, b = (torch.randn(shape, requires_grad=True) for shape in shapes)
    with torch.no_grad():
        expected = torch.matmul(a, b)
    y = lt.matmul(a, b, inputs="float32", accumulator=lp.Accumulator("float32", order="exact"))
    torch.testing.assert_close(y.detach(), expected)
    y.sum().backward()
    assert (a.grad.shape, b.grad.shape) == (a.shape, b.shape)


def test_block_formats_are_taken_along_the_axis_that_is_summed():
    torch.manual_seed(0)
    a, b = torch.randn(6, 64, requires_grad=True), torch.randn(64, 5, requires_grad=True)
    y = lt.matmul(a, b, inputs=("mxfp8_e4m3", "mxfp4"))
    ar = lp.round_to(a.detach(), "mxfp8_e4m3", axis=-1)
    br = lp.round_to(b.detach(), "mxfp4", axis=0)
    expected = lp.matmul(ar, br, inputs="float32")
    np.testing.assert_array_equal(y.detach(), expected)
    g = torch.randn(6, 5)
    y.backward(g)
    da = lp.matmul(
        lp.round_to(g, "mxfp8_e4m3", axis=-1),
        lp.round_to(b.detach(), "mxfp4", axis=1).T,
        inputs="float32",
    )
    np.testing.assert_array_equal(a.grad, da)
    layer = nn.Linear(64, 5)
    with lt.emulate(layer, "nvfp4"):
        z = layer(a.detach())
    w = lp.round_to(layer.weight.detach(), "nvfp4", axis=-1)
    x = lp.round_to(a.detach(), "nvfp4", axis=-1)
    product = lp.matmul(x, w.T, inputs="float32") + layer.bias.detach().numpy()
    np.testing.assert_array_equal(z.detach(), product)


def test_stochastic_sums_follow_manual_seed():
    policy = train.Policy(accumulate=lp.Accumulator("float16", rounding="stochastic"))
    layer, x = nn.Linear(50, 4), torch.randn(3, 50)
    results = []
    with lt.emulate(layer, policy):
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(layer(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


# Other modules: in float32 they are torch's own but for the order of sums ----------------------

WIDE = train.Policy(accumulate=lp.Accumulator(order="pairwise"))


class Products(nn.Module):
    """Every spelling of a product."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        y = x @ self.w + torch.mm(x, self.w) + x.matmul(self.w) + x.mm(self.w)
        y = y + torch.addmm(x, x, self.w, beta=0.5, alpha=2.0)
        s = torch.stack([x, y])
        y = y + torch.bmm(s, s.mT)[0] + torch.baddbmm(s, s, s.mT)[1]
        y = y + y.clone().addmm_(x, self.w, alpha=0.5)
        with torch.no_grad():
            torch.mm(x, self.w, out=(z := torch.empty(4, 4)))
        y = y + z + torch.einsum("...ij,jk", s, self.w)[0]
        y = y + torch.einsum("...i,k...", s, s[0]).sum()
        return y + torch.einsum("ij,jk->ik", x, self.w) + torch.einsum("bij,bkj->ik", s, s)


MODULES = {
    "linear": (lambda: nn.Linear(6, 3), [(2, 5, 6)]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), [(2, 4, 9)]),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), padding="same"), [(2, 4, 6, 5)]),
    "conv2d reflect": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        [(2, 2, 5, 5)],
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), [(2, 2, 4, 5, 4)]),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), [(2, 4, 5)]),
    "transposed2d": (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, dilation=2),
        [(2, 3, 4, 5)],
    ),
    "transposed3d": (lambda: nn.ConvTranspose3d(2, 2, 2), [(1, 2, 3, 3, 3)]),
    "products": (Products, [(4, 4)]),
    "lstm": (lambda: nn.LSTM(5, 4, 2, bidirectional=True, batch_first=True), [(3, 6, 5)]),
    "lstm projected": (lambda: nn.LSTM(5, 4, proj_size=2), [(6, 3, 5)]),
    "gru": (lambda: nn.GRU(5, 4, bias=False), [(6, 3, 5)]),
    "rnn": (lambda: nn.RNN(5, 4, nonlinearity="relu"), [(6, 3, 5)]),
    "rnn unbatched": (lambda: nn.RNN(5, 4), [(6, 5)]),
    "lstm cell": (lambda: nn.LSTMCell(5, 4), [(3, 5)]),
    "gru cell": (lambda: nn.GRUCell(5, 4), [(3, 5)]),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        [(2, 5, 8)],
    ),
    "norms": (
        lambda: nn.Sequential(nn.LayerNorm(6), nn.GroupNorm(1, 4), nn.RMSNorm(6)),
        [(2, 4, 6)],
    ),
    "batch norm": (lambda: nn.BatchNorm1d(4), [(6, 4)]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODULES)
def test_in_float32_every_module_is_torchs_own_but_for_the_order_of_sums(kind):
    torch.manual_seed(0)
    make, shapes = MODULES[kind]
    module, inputs = make(), [torch.randn(shape) for shape in shapes]
    bare = copy.deepcopy(module)
    expected = run(bare, *inputs)
    with lt.emulate(module, WIDE) as handle:
        ours = run(module, *inputs)
        assert "left in float32" not in repr(handle)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    changed = False
    with lt.emulate(module, "mixed_bfloat16"):
        narrow = run(module, *inputs)
        changed = not all(torch.equal(a, b) for a, b in zip(narrow, expected, strict=True))
    assert changed  # it was this library that multiplied


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention_is_torchs_own_but_for_the_order_of_sums(causal, masks, weights):
    torch.manual_seed(0)
    options = {"add_bias_kv": True, "add_zero_attn": True} if masks and not causal else {}
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, **options)
    q, k, v = torch.randn(4, 3, 8), torch.randn(5, 3, 6), torch.randn(5, 3, 5)
    given = {"need_weights": weights}
    if causal:
        given |= {"attn_mask": torch.ones(4, 5, dtype=torch.bool).triu(1)}
    if masks:
        padding = torch.zeros(3, 5, dtype=torch.bool)
        padding[1, 3:] = True
        given |= {"key_padding_mask": padding}
    expected = attention(q, k, v, **given)
    with lt.emulate(attention, WIDE):
        ours = attention(q, k, v, **given)
    torch.testing.assert_close(ours[0], expected[0])
    assert (ours[1] is None) == (expected[1] is None)
    if ours[1] is not None:
        torch.testing.assert_close(ours[1], expected[1])


def test_packed_sequences_run_through_emulated_recurrent_layers():
    torch.manual_seed(0)
    packed = nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (6, 4, 1)])
    for make in (nn.LSTM, nn.GRU):
        module = make(5, 4, bidirectional=True)
        expected = module(packed)
        with lt.emulate(module, WIDE):
            ours = module(packed)
        torch.testing.assert_close(ours[0].data, expected[0].data)
        states = ours[1] if isinstance(ours[1], tuple) else (ours[1],)
        theirs = expected[1] if isinstance(expected[1], tuple) else (expected[1],)
        for a, b in zip(states, theirs, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["attention", "lstm", "gru"])
def test_attention_and_recurrent_layers_err_no_more_than_autocast(kind):
    torch.manual_seed(0)
    if kind == "attention":
        x = torch.randn(8, 4, 32, 16)

        class Attention(nn.Module):
            def forward(self, q):
                return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)

        module = Attention()
    else:
        x = torch.randn(20, 16, 32)
        module = getattr(nn, kind.upper())(32, 48)

    def result(m, v):
        y = m(v)
        return (y[0] if isinstance(y, tuple) else y).double()

    exact = result(copy.deepcopy(module).double(), x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = (result(module, x) - exact).abs().mean()
    with lt.emulate(module, "mixed_bfloat16"):
        ours = (result(module, x) - exact).abs().mean()
    assert 0 < ours <= 1.1 * theirs


def test_convolution_is_unfold_and_matmul():
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 3, 6, 5), torch.randn(4, 3, 3, 2), torch.randn(4)
    for policy in ("mixed_bfloat16", FLOAT16_SUMS):
        sums = train.get_policy(policy).accumulator
        fmt = train.get_policy(policy).formats["compute"]
        columns = nn.functional.unfold(x, (3, 2), padding=1)
        rows = rounded(w, fmt).reshape(4, -1)
        z = lp.matmul(rows, rounded(columns, fmt), inputs="float32", accumulator=sums)
        expected = lp.round_to(np.float32(z) + rounded(b, fmt)[:, None], fmt)
        ours = lt.conv2d(x, w, b, padding=1, policy=policy)
        np.testing.assert_array_equal(ours.flatten(2), expected)
        last = x.to(memory_format=torch.channels_last)
        assert torch.equal(lt.conv2d(last, w, b, padding=1, policy=policy), ours)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float8", "mxfp4", "nvfp4"])
def test_meta_and_fake_tensors_give_shapes(policy):
    def shapes(device):
        with torch.device(device):
            model = nn.Sequential(nn.Conv1d(4, 32, 3), nn.LayerNorm(8), nn.Linear(8, 2))
        with lt.emulate(model, policy):
            return model(torch.empty(5, 4, 10, device=device)).shape

    assert shapes("meta") == (5, 32, 2)
    with FakeTensorMode():
        assert shapes("cpu") == (5, 32, 2)


def test_tensor_scales_keep_gradients_that_the_format_alone_would_lose():
    torch.manual_seed(1)
    for size in (2.0**40, 2.0**-40):
        x, layer = torch.randn(8, 16, requires_grad=True), nn.Linear(16, 4)
        grads = []
        for scale in (1.0, size):
            x.grad = layer.weight.grad = None
            torch.manual_seed(0)
            with lt.emulate(layer, "mixed_float8"):
                (layer(x) * torch.randn(8, 4)).sum().mul(scale).backward()
            grads.append((x.grad / scale, layer.weight.grad / scale))
        assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))
        assert grads[0][0].count_nonzero() > 100


@pytest.mark.parametrize("bad", [torch.ones(2, 2, dtype=torch.complex64), np.ones((2, 2)), None])
def test_what_holds_no_real_numbers_is_refused(bad):
    good, policy = torch.ones(2, 2), "mixed_bfloat16"
    for call in (
        lambda: lt.matmul(bad, good),
        lambda: lt.matmul(good, bad),
        lambda: lt.linear(bad, good, policy=policy),
        lambda: lt.linear(good, bad, policy=policy),
        lambda: lt.conv2d(bad, torch.ones(1, 2, 1, 1), policy=policy),
        lambda: lt.attention(good, bad, good, policy=policy),
    ):
        with pytest.raises(TypeError, match=r"torch\.Tensor|view_as_real"):
            call()


def test_embeddings_and_norms_round_their_results():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(10, 6), nn.LayerNorm(6))
    i = torch.tensor([[1, 2], [3, 3]])
    with lt.emulate(module, "mixed_bfloat16"):
        rows = module[0](i)
        y = module(i)
    np.testing.assert_array_equal(rows.detach(), rounded(module[0].weight[i], "bfloat16"))
    expected = module[1](rows)
    np.testing.assert_array_equal(y.detach(), rounded(expected, "bfloat16"))


# Rules, the handle, and what stays ---------------------------------------------------------------


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def test_the_first_rule_that_matches_counts():
    model, x = network(), torch.randn(4, 8)
    rules = {"2": BLAS, nn.Linear: "mixed_bfloat16", "*": "mixed_float16"}
    with lt.emulate(model, "float32", rules=rules) as handle:
        hidden = model[0](x)
        y = model(x)
        assert "2  Linear: float32, torch's own" in repr(handle)
        assert "compute bfloat16" in repr(handle)
    assert torch.equal(hidden, hidden.bfloat16().float())
    assert torch.equal(y, model[2](torch.relu(hidden)))


def test_rules_reach_the_modules_inside():
    model = nn.Sequential(network(), nn.Linear(3, 2))
    with lt.emulate(model, "mixed_bfloat16", rules={"0": BLAS}):
        y = model[0](torch.ones(1, 8))
    assert torch.equal(y, model[0](torch.ones(1, 8)))


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="heads"):
        lt.emulate(network(), "mixed_bfloat16", rules={"heads": "float32"})


def test_float32_in_blas_order_is_torchs_own_and_hooks_nothing():
    model, x = network(), torch.randn(4, 8)
    expected = run(copy.deepcopy(model), x)
    with lt.emulate(model, BLAS):
        assert not any(m._forward_pre_hooks for m in model.modules())
        for a, b in zip(run(model, x), expected, strict=True):
            assert torch.equal(a, b)


def state_of(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
    return [(type(m), [len(getattr(m, h)) for h in hooks], set(vars(m))) for m in model.modules()]


def test_remove_leaves_state_classes_and_hooks_after_an_exception_too():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("mine")

    model = nn.Sequential(network(), Fails())
    before, x = state_of(model), torch.randn(2, 8)
    state = copy.deepcopy(model.state_dict())
    handle = lt.emulate(model, "mixed_bfloat16")
    assert list(model.state_dict()) == list(state)
    with pytest.raises(RuntimeError, match="mine"):
        model(x)
    plain = network()
    assert torch.equal(
        plain(x), nn.functional.linear(torch.relu(plain[0](x)), *plain[2].parameters())
    )
    handle.remove()
    assert state_of(model) == before
    assert torch.equal(model[0](x), plain(x))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_a_deep_copy_is_emulated_and_independent():
    model, x = network(), torch.randn(4, 8)
    handle = lt.emulate(model, "mixed_bfloat16")
    emulated = model(x)
    copied = copy.deepcopy(model)
    handle.remove()
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(copied(x), emulated)


def test_pickling_says_what_to_do():
    model = network()
    with lt.emulate(model, "mixed_bfloat16") as handle:
        with pytest.raises(TypeError, match=r"handle\.remove\(\).*state_dict"):
            torch.save(model, io.BytesIO())
        torch.save(model.state_dict(), io.BytesIO())
        handle.remove()
        torch.save(model, io.BytesIO())


def test_what_is_left_in_float32_is_counted():
    class Distances(nn.Module):
        def forward(self, x):
            y = torch.cdist(x, x) + torch.outer(x[0], x[0]).sum() + x[0].clone().addmv_(x, x[0])
            torch.arange(4) @ torch.arange(4)  # integers are nobody's float32
            return y + torch.linalg.pinv(x) + torch.sparse.mm(x.to_sparse(), x)

    model = Distances()
    handle = lt.emulate(model, "mixed_bfloat16")
    model(torch.randn(4, 4)[:, :4])
    counts = "addmv_ 1 times, cdist 1 times, linalg.pinv 1 times, outer 1 times, sparse.mm 1 times"
    assert f"left in float32: {counts}" in repr(handle)
    handle.remove()


def test_the_handle_lists_every_module_and_what_it_computes():
    class Scores(nn.Module):
        def forward(self, q):
            return q @ q.mT

    model = nn.Sequential(nn.Sequential(Scores(), nn.ReLU()), nn.Bilinear(4, 4, 2))
    with lt.emulate(model, "mixed_bfloat16") as handle:
        told = dict(line.strip().split(": ", 1) for line in repr(handle).splitlines()[1:])
    lines = {" ".join(name.split()): what for name, what in told.items()}
    wide = "compute bfloat16, gradients bfloat16, sums in float32"
    assert lines == {
        "0 Sequential": wide,
        "0.0 Scores": wide,  # it has no parameters, and multiplies
        "0.1 ReLU": "float32 (nothing is multiplied)",
        "1 Bilinear": "float32 (left to torch)",
    }


def test_convolutions_lie_in_memory_as_torchs():
    for layout in (torch.contiguous_format, torch.channels_last):
        layer = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        x = torch.randn(2, 3, 6, 5).to(memory_format=layout)
        strides = layer(x).stride()
        with lt.emulate(layer, "mixed_bfloat16"):
            assert layer(x).stride() == strides


@pytest.mark.parametrize(
    "policy",
    ["mixed_bfloat16", "mixed_float8", train.Policy(compute="mxfp4", gradients="mxfp4"), "float32"],
)
def test_emulated_modules_are_transformed_and_differentiated_twice(policy):
    torch.manual_seed(0)
    layer, x, g = nn.Linear(32, 3), torch.randn(5, 2, 32), torch.randn(5, 2, 3)

    def loss(params, x, g):
        return (torch.func.functional_call(layer, params, (x,)) * g).sum()

    params = dict(layer.named_parameters())
    with lt.emulate(layer, policy):
        gradients = torch.func.grad(loss)(params, x, g)
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(params, x, g)
        alone = [torch.func.grad(loss)(params, *one) for one in zip(x, g, strict=True)]
        for name in params:
            assert torch.equal(each[name], torch.stack([one[name] for one in alone]))
        leaf = x.clone().requires_grad_()
        (layer(leaf) * g).sum().backward()
        for name, p in params.items():
            assert torch.equal(p.grad, gradients[name])
        layer.zero_grad()
        (dx,) = torch.autograd.grad(layer(leaf).sum(), leaf, create_graph=True)
        dx.sum().backward()  # of the sums of rounded weights
    torch.testing.assert_close(layer.weight.grad, torch.full((3, 32), 10.0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float8", "mxfp4", "random sums"])
def test_compiled_and_exported_products_get_eagers_bits(policy):
    torch.compiler.reset()
    if policy == "random sums":
        policy = train.Policy(accumulate=lp.Accumulator("float16", rounding="stochastic"))
    x, w, b = torch.randn(6, 32), torch.randn(32, 32), torch.randn(32)

    def work(x, w, b):
        return lt.linear(x, w, b, policy=policy) + lt.linear(x, w, b, policy=policy)

    results = []
    for function in (work, torch.compile(work, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        y = function(leaf, w, b)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])

    class Layer(nn.Module):
        def forward(self, x, w, b):
            return work(x, w, b)

    torch.manual_seed(0)
    assert torch.equal(torch.export.export(Layer(), (x, w, b)).module()(x, w, b), results[0][0])
    torch.compiler.reset()


def test_operands_of_float64_are_rounded_once():
    a = torch.tensor([[1 + 2.0**-8 + 2.0**-40]], dtype=torch.float64)
    assert lt.matmul(a, torch.ones(1, 1)).item() == 1.0078125
    with pytest.raises(ValueError, match="round_to"):
        lt.matmul(a, a, output="mxfp4")


def test_the_handle_says_what_is_the_optimizers():
    policy = "params=bfloat16,compute=bfloat16,update=stochastic,loss_scale=1024"
    with lt.emulate(network(), policy) as handle:
        assert "use lowprec.torch.Optimizer" in repr(handle)
        assert "use torch.amp.GradScaler" in repr(handle)


def test_emulating_twice_is_refused():
    model = network()
    with (
        lt.emulate(model, "mixed_bfloat16"),
        pytest.raises(ValueError, match="emulated already"),
    ):
        lt.emulate(model, "mixed_bfloat16")


def test_subclasses_of_weight_norm_are_matched_by_their_class():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)))
    with lt.emulate(model, BLAS, rules={nn.Linear: "mixed_bfloat16"}):
        y = model(torch.randn(2, 8))
    assert torch.equal(y, y.bfloat16().float())


@pytest.mark.filterwarnings("ignore")
def test_compiling_an_emulated_module_gives_its_own_result():
    torch.compiler.reset()
    model, x = network(), torch.randn(4, 8)
    plain = model(x)
    with lt.emulate(model, "float8_e4m3fn"):
        expected = model(x)
        compiled = torch.compile(model, backend="eager")
        assert torch.equal(compiled(x), expected)
        assert not torch.equal(expected, plain)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize(
    "make",
    [
        lambda model, x: torch.jit.trace(model, x),
        lambda model, x: torch.jit.script(model),
        lambda model, x: torch.fx.symbolic_trace(nn.Sequential(model)),
    ],
    ids=["trace", "script", "fx"],
)
def test_what_would_keep_an_emulated_module_without_its_emulation_is_refused(make):
    model = nn.Sequential(network())
    with (
        lt.emulate(model, "mixed_bfloat16"),
        pytest.raises((NotImplementedError, AttributeError), match=r"handle\.remove\(\)"),
    ):
        make(model, torch.randn(4, 8))


class Product(torch.autograd.Function):
    """A product with a backward of its own."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return torch.mm(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return torch.mm(g, b.t()), torch.mm(a.t(), g)


class Checkpointed(nn.Module):
    """Products in modules, outside of them and in a function of the caller's, computed again."""

    def __init__(self, how):
        super().__init__()
        self.how, self.inner = how, nn.Linear(8, 8)
        self.u, self.v, self.w = (nn.Parameter(torch.randn(8, 8) / 4) for _ in range(3))

    def products(self, x):
        return Product.apply(torch.tanh(self.inner(x @ self.u)), self.v) @ self.w

    def forward(self, x):
        if self.how is None:
            return self.products(x)
        return torch.utils.checkpoint.checkpoint(self.products, x, use_reentrant=self.how)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_again_is_emulated_again(reentrant):
    results = []
    for how in (None, reentrant):
        torch.manual_seed(0)
        model, x = nn.Sequential(Checkpointed(how)), torch.randn(4, 8, requires_grad=True)
        policy = "compute=float8_e4m3fn, gradients=float8_e5m2"
        with lt.emulate(model, policy, rules={"0.inner": "mixed_float16"}):
            y = model(Product.apply(x, torch.eye(8)))  # a node that is not the module's
            y.sum().backward()
        results.append([y, x.grad, *(p.grad for p in model.parameters())])
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


def test_the_backward_of_the_callers_function_is_emulated():
    class Multiplies(nn.Module):
        def forward(self, x, w):
            return Product.apply(x, w)

    a, b, g = (torch.randn(4, 4, requires_grad=True) for _ in range(3))
    model = Multiplies()
    with lt.emulate(model, "mixed_bfloat16"):
        inside = torch.autograd.grad(model(a, b), (a, b), g)
        outside = torch.autograd.grad(Product.apply(a, b), (a, b), g)
        with pytest.raises(RuntimeError):  # leaves no mode behind
            model(a, b).backward(torch.ones(3, 3))
    assert all(torch.equal(x, x.bfloat16().float()) for x in inside)
    assert not any(torch.equal(x, x.bfloat16().float()) for x in outside)


def test_operators_of_torchs_own_library_are_emulated_too():
    class Calls(nn.Module):
        def forward(self, x):
            aten = torch.ops.aten
            aten.mv(x, x[0])
            aten.linalg_inv(x)
            return aten.mm(x, x), aten.mm.default(x, x), aten.linear(x, x), aten.addmm(x, x, x)

    model, x = Calls(), torch.randn(4, 4)
    with lt.emulate(model, "mixed_bfloat16") as handle:
        for y in model(x):
            assert torch.equal(y, y.bfloat16().float())
    assert "left in float32: linalg.inv 1 times, mv 1 times" in repr(handle)


def test_products_run_under_vmap_and_with_batched_gradients():
    kernel, images = torch.randn(2, 1, 3, 3), torch.randn(3, 4, 1, 6, 6)

    def convolve(x):
        return lt.conv2d(x, kernel, policy="mixed_bfloat16")

    assert torch.equal(torch.vmap(convolve)(images), torch.stack([convolve(x) for x in images]))
    x = torch.randn(4, 8, requires_grad=True)
    y = lt.linear(x, torch.randn(3, 8), policy="mixed_bfloat16")
    g = torch.randn(5, 4, 3)
    (batch,) = torch.autograd.grad(y, x, g, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(y, x, each, retain_graph=True)[0] for each in g]
    assert torch.equal(batch, torch.stack(one_by_one))


@pytest.mark.filterwarnings("ignore")
def test_attention_is_compiled_for_shapes_that_change():
    torch.compiler.reset()

    def attend(x):
        return lt.attention(x, x, x, policy="mixed_bfloat16", causal=True)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (4, 7):
        x = torch.randn(tokens, 8)
        assert torch.equal(compiled(x), attend(x))
    torch.compiler.reset()


# Training ------------------------------------------------------------------------------------


def test_a_sequential_and_its_twin_in_torch_train_alike():
    data = train.data.digits()
    x, y = data.x_train[:256], data.y_train[:256]
    ours = train.Sequential(
        [train.Input((64,)), train.Dense(32, activation="relu"), train.Dense(10)]
    )
    params = ours.init(np.random.default_rng(0))
    history = train.fit(
        ours,
        train.Dataset(x, y, x, y),
        loss="sparse_categorical_crossentropy",
        optimizer=train.SGD(0.2),
        policy="mixed_bfloat16",
        epochs=200,
        batch_size=len(x),  # one step an epoch
        params=params,
    )
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        for i, layer in ((0, model[0]), (1, model[2])):
            layer.weight.copy_(torch.from_numpy(params[f"{i}/kernel"].T.copy()))
            layer.bias.copy_(torch.from_numpy(params[f"{i}/bias"]))
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y).long()
    losses = []
    with lt.emulate(model, "mixed_bfloat16"):
        for _ in range(200):
            optimizer.zero_grad()
            logits = model(inputs)
            loss = nn.functional.cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(losses, history.history["loss"], rtol=1.5e-2)
    accuracy = (logits.argmax(1) == targets).float().mean().item()
    assert abs(accuracy - history.history["accuracy"][-1]) <= 0.005
