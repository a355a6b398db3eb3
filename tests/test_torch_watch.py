"""Laws of `lowprec.torch.watch`: it changes no bit, sees what it says, and says what it misses."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import lowprec.torch as lt  # noqa: E402
from lowprec import train  # noqa: E402


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)


def batches(count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 8, generator=generator).to(dtype) for _ in range(count)]


def trained(model, optimizer, xs, scaler=None, factor=1.0):
    for x in xs:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean() * factor
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def watched(model, optimizer, xs, recorder=None, scaler=None, factor=1.0):
    recorder = recorder or train.Recorder(every=1)
    with lt.watch(model, recorder, scaler=scaler):
        trained(model, optimizer, xs, scaler, factor)
    return recorder


def red(recorder):
    return [finding.rule for finding in recorder.findings if finding.level == "red"]


# No bit changes ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["SGD", "AdamW", "RMSprop"])
def test_fifty_watched_steps_leave_bit_equal_weights(kind, dtype, every):
    results = []
    for is_watched in (False, True):
        model = network(dtype=dtype)
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-2, foreach=False)
        xs = batches(50, dtype)
        if is_watched:
            watched(model, optimizer, xs, train.Recorder(every=every))
        else:
            trained(model, optimizer, xs)
        state = [v for s in optimizer.state.values() for v in s.values()]
        results.append([*model.parameters(), *state, torch.get_rng_state()])
    for bare, seen in zip(*results, strict=True):
        assert torch.equal(bare, seen)


def test_remove_leaves_everything_as_it_was():
    model, scaler = network(), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def hooks():
        lists = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
        counts = [len(getattr(m, each)) for m in model.modules() for each in lists]
        return [*counts, len(optimizer._optimizer_step_pre_hooks), "step" in vars(scaler)]

    before = hooks()
    for options in ({"optimizer": optimizer}, {"scaler": scaler}, {}):
        handle = lt.watch(model, train.Recorder(), **options)
        assert hooks() != before
        handle.remove()
        assert hooks() == before
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    assert not _global_optimizer_pre_hooks


def test_copies_of_a_watched_model_are_not_watched():
    model, recorder = network(), train.Recorder(every=1)
    with lt.watch(model, recorder):
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(batches(1)[0]).sum().backward()
    assert not recorder.tracks


def test_an_exception_inside_a_forward_pass_leaves_the_next_passes_recorded():
    class Fails(nn.Module):
        fails = True

        def forward(self, x):
            if self.fails:
                raise RuntimeError("mine")
            return x

    model = nn.Sequential(nn.Linear(8, 3), Fails())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        with pytest.raises(RuntimeError, match="mine"):
            model(torch.ones(1, 8))
        refuses = model.register_forward_pre_hook(lambda *_: 1 / 0, prepend=True)
        with pytest.raises(ZeroDivisionError):  # before the pass has begun
            model(torch.ones(1, 8))
        refuses.remove()
        model[1].fails = False
        trained(model, optimizer, batches(1))
    assert ("activation", "1") in recorder.tracks


def test_parametrized_layers_and_attention_alone_are_leaves():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))
    for model, x, name in (
        (nn.Sequential(layer), torch.ones(1, 8), "0"),
        (nn.MultiheadAttention(8, 2), (torch.ones(2, 8),) * 3, "MultiheadAttention.0"),
    ):
        recorder = train.Recorder(every=1)
        watching = lt.watch(model, recorder)
        y = model(*x) if isinstance(x, tuple) else model(x)
        (y[0] if isinstance(y, tuple) else y).sum().backward()
        assert ("activation", name) in recorder.tracks
        assert "watching 1 of 1 modules" in repr(watching)
        watching.remove()


def test_neither_tensors_nor_graphs_are_kept():
    model = network()
    recorder = train.Recorder(every=1)
    handle = lt.watch(model, recorder)
    y = model(torch.ones(2, 8))
    alive = weakref.ref(y)
    del y
    gc.collect()
    assert alive() is None
    del handle


def test_what_fails_in_recording_is_told_and_never_raised(monkeypatch):
    recorder = train.Recorder(every=1)

    def broken(*arguments):
        raise ValueError("inside")

    monkeypatch.setattr(recorder, "track", broken)
    model = network()
    trained_recorder = watched(
        model, torch.optim.SGD(model.parameters(), 0.1), batches(2), recorder
    )
    assert any("inside" in note for note in trained_recorder.facts["coverage"]["notes"])


# What is seen --------------------------------------------------------------------------------


def test_tensors_of_one_parameter_meet_under_torchs_name():
    model = network()
    recorder = watched(model, torch.optim.Adam(model.parameters()), batches(3))
    for kind in ("weight", "weight_gradient", "update"):
        assert {name for k, name in recorder.tracks if k == kind} == {
            name for name, _ in model.named_parameters()
        }
    assert ("moment", "first_moment/0.weight") in recorder.tracks
    assert ("activation", "2") in recorder.tracks
    assert recorder.steps == recorder.recorded == 3


def test_recorded_numbers_are_the_tensors_own():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    (x,) = batches(1)
    before = model[0].weight.detach().clone()
    recorder = watched(model, optimizer, [x])
    gradient, update = model[0].weight.grad, model[0].weight.detach() - before
    for kind, tensor in (("weight", before), ("weight_gradient", gradient), ("update", update)):
        whole = recorder.tracks[kind, "0.weight"].whole
        assert whole["max_abs"] == tensor.abs().max().item()
        assert whole["count"] == tensor.numel()


def test_tuples_dictionaries_and_packed_sequences_are_walked():
    class Splits(nn.Module):
        def forward(self, x):
            return {"a": x * 2, "b": (x, x.long())}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.splits = nn.LSTM(8, 4), Splits()

        def forward(self, x):
            packed = nn.utils.rnn.pack_sequence([x, x[:2]])
            y, (h, _c) = self.lstm(packed)
            return self.splits(y.data)["a"].sum() + h.sum()

    model = Model()
    recorder = train.Recorder(every=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lt.watch(model, recorder, optimizer):
        model(torch.ones(4, 8)).backward()
        optimizer.step()
    names = {name for kind, name in recorder.tracks if kind == "activation"}
    assert names == {"lstm.0", "lstm.1.0", "lstm.1.1", "splits.a", "splits.b.0"}
    assert recorder.tracks["activation", "lstm.0"].whole["count"] == 6 * 4


def test_shared_modules_and_tied_weights_count_as_often_as_they_are_called():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.same = nn.Embedding(6, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, i):
            return self.head(self.same(self.same(self.embed(i))))

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        loss = model(torch.arange(6)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
    assert recorder.tracks["activation", "same"].whole["count"] == 2 * 24
    assert recorder.tracks["activation_gradient", "same"].whole["count"] == 2 * 24
    assert recorder.tracks["weight", "embed.weight"].whole["count"] == 24
    assert ("weight", "head.weight") not in recorder.tracks


def test_micro_batches_give_activations_of_each_and_weights_once():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        for x in batches(4):
            model(x).sum().backward()
        optimizer.step()
    assert recorder.tracks["activation", "2"].whole["count"] == 4 * 15
    assert recorder.tracks["weight", "0.weight"].whole["count"] == 128
    assert recorder.steps == 1


def test_validation_without_gradients_or_in_evaluation_mode_is_not_recorded():
    model = network()
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        with torch.no_grad():
            model(torch.ones(1, 8))
        model.eval()
        model(torch.ones(1, 8))
    assert not recorder.tracks
    with lt.watch(model, recorder, eval=True):
        model(torch.ones(1, 8))
    assert ("activation", "0") in recorder.tracks


def test_regions_without_gradients_inside_a_recorded_pass_count():
    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            with torch.no_grad():
                target = self.teacher(x)
            return self.student(x) - target

    model, recorder = Teacher(), train.Recorder(every=1)
    with lt.watch(model, recorder):
        model(torch.ones(2, 8))
    assert recorder.tracks["activation", "teacher"].whole["count"] == 6


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_passes_count_once(reentrant):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.second(checkpoint(self.first, x, use_reentrant=reentrant))

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        model(torch.ones(2, 8, requires_grad=True)).sum().backward()
        optimizer.step()
    for kind in ("activation", "activation_gradient"):
        assert recorder.tracks[kind, "first"].whole["count"] == 16
        assert recorder.tracks[kind, "second"].whole["count"] == 6


def test_frozen_parameters_and_missing_gradients_are_passed_by():
    model = network()
    model[0].weight.requires_grad_(False)
    extra = nn.Parameter(torch.ones(3))
    model.register_parameter("unused", extra)
    recorder = watched(model, torch.optim.Adam(model.parameters()), batches(2))
    assert ("weight_gradient", "0.weight") not in recorder.tracks
    assert ("update", "unused") not in recorder.tracks
    assert ("weight", "unused") in recorder.tracks
    assert recorder.facts["coverage"]["notes"] == []


def test_sparse_gradients_of_an_embedding_are_seen():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True))
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.tensor([1, 1, 7])).sum().backward()
            optimizer.step()
    assert recorder.tracks["weight_gradient", "0.weight"].whole["count"] == 2 * 8
    assert recorder.facts["coverage"]["notes"] == []


def test_an_optimizer_that_evaluates_a_closure_leaves_updates_unknown():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    recorder = train.Recorder(every=1)
    (x,) = batches(1)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss

    with lt.watch(model, recorder):
        optimizer.step(closure)
    assert recorder.tracks["activation", "2"].whole["count"] == 15  # the first evaluation's
    assert recorder.tracks["update", "0.weight"].whole["changes"] == 0
    assert any("unknown" in sentence for sentence in recorder.verdict)
    assert not any("Nothing to worry" in sentence for sentence in recorder.verdict)


def test_several_optimizers_are_followed():
    model = network()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model[0], model[2])]
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder, optimizers):
        model(batches(1)[0]).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert {name for kind, name in recorder.tracks if kind == "update"} == {
        name for name, _ in model.named_parameters()
    }


def test_optimizers_of_other_models_do_not_count():
    model, other = network(), network(1)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        trained(other, torch.optim.SGD(other.parameters(), 0.1), batches(3))
    assert recorder.steps == 0


# Outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (float("inf"), torch.float32, "arithmetic made an infinity of finite numbers"),
        (float("nan"), torch.float32, "arithmetic made NaN of finite numbers: look at what is"),
        (float("inf"), torch.float16, "beyond the 65504 of float16"),
        (float("nan"), torch.float16, "arithmetic made NaN of finite numbers: look at what is"),
    ],
)
def test_gradients_that_are_not_finite_are_red_and_nan_is_told_from_overflow(value, dtype, words):
    model = network().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    given = [x.to(dtype) for x in batches(3)]
    recorder = watched(model, optimizer, given, factor=value)
    assert "not finite" in red(recorder)
    assert words in recorder.verdict[0]
    assert not any("Nothing to worry" in sentence for sentence in recorder.verdict)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_data_that_are_not_finite_are_not_told_as_arithmetic_or_overflow(policy):
    for value in (float("inf"), float("nan")):
        model, given = network(), batches(2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        given[1][0, 0] = value
        recorder = train.Recorder(1, policy=policy)
        with lt.watch(model, recorder):
            trained(model, optimizer, given)
        assert "what it read was not finite already: look at the data" in recorder.verdict[0]
        alone = train.Recorder(policy=policy)
        alone.observe(0, "activation", "x", given[1])
        cure = "if they were finite before they became float16" if policy != "float32" else "look"
        assert f"{'NaN' if value != value else 'infinite'} at step 0: " in alone.verdict[0]
        assert (cure in alone.verdict[0]) == (value == value or policy == "float32")


def test_gradients_that_are_not_finite_are_red_between_recorded_steps():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = train.Recorder(every=10)
    with lt.watch(model, recorder):
        trained(model, optimizer, batches(3))
        trained(model, optimizer, batches(1), factor=float("inf"))
    assert "not finite" in red(recorder)


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_is_counted_and_red(fused):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder, scaler=scaler):
        trained(model, optimizer, batches(2), scaler)
        trained(model, optimizer, batches(1), scaler, factor=float("inf"))
        trained(model, optimizer, batches(2), scaler)
    assert (recorder.steps, recorder.skips) == (5, 1)
    assert recorder.scales == [(0, 2.0**16), (3, 2.0**15)]
    assert "skipped steps" in red(recorder)


def test_updates_lost_in_a_pure_bfloat16_model_are_red():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder):
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randn(16, 64).bfloat16()).float().square().mean().backward()
            optimizer.step()
    assert str(recorder.policy) == "bfloat16"
    assert "lost updates" in red(recorder)
    tracks = recorder.of_kind("update")
    share = sum(t.whole["lost"] for t in tracks) / sum(t.whole["changes"] for t in tracks)
    assert 0.8 < share <= 1


def test_lost_updates_are_those_that_a_float32_step_would_have_made():
    model = network(dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    (x,) = batches(1, torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recorder = watched(model, optimizer, [x])
    for name, p in model.named_parameters():
        intended = before[name].float() - 1e-3 * p.grad.float() - before[name].float()
        whole = recorder.tracks["update", name].whole
        assert whole["changes"] == (intended != 0).sum()
        assert whole["lost"] == ((intended != 0) & (p == before[name])).sum()


def test_starved_moments_are_red():
    model = network(dtype=torch.float16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8, foreach=False)
    recorder = watched(model, optimizer, batches(5, torch.float16), factor=2.0**-10)
    assert recorder.facts["starved"][1] > 0
    assert "starved moments" in red(recorder)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_scale_advised_under_a_scaler_is_that_of_the_float32_run(fused, unscale):
    advised = []
    for scale in (None, 2.0**16):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        recorder = train.Recorder(every=1)
        scaler = scale and torch.amp.GradScaler("cpu", init_scale=scale)
        with lt.watch(model, recorder, scaler=scaler):
            for x in batches(20):
                optimizer.zero_grad()
                loss = (model(x) ** 2).mean() * 2.0**-12
                if scaler is None:
                    loss.backward()
                    optimizer.step()
                    continue
                scaler.scale(loss).backward()
                if unscale:
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        advised.append(recorder.loss_scale("float16"))
    assert advised[0] == advised[1]


def test_autocast_and_a_scaler_are_recognised():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    recorder = train.Recorder(every=1)
    with lt.watch(model, recorder, scaler=scaler):
        for x in batches(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = model(x).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert recorder.policy.formats["compute"].name == "float16"
    assert recorder.steps == 3
    assert recorder.scales == [(0, 2.0**16)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_float8", "mxfp8_e4m3"])
def test_an_emulated_model_is_judged_in_its_formats(policy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer, recorder = torch.optim.AdamW(model.parameters()), train.Recorder(every=1)
    loss = 1.0 if policy == "mixed_float16" else 1e-6  # which scales of a tensor's own bear
    with lt.emulate(model, policy), lt.watch(model, recorder, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.randn(2, 32)).square().sum() * loss).backward()
            optimizer.step()
    ours = train.get_policy(policy)
    assert recorder.policy.formats["compute"] == ours.formats["compute"]
    assert str(recorder.policy.formats["params"]) == "float32"
    assert recorder.verdict[0].startswith("Nothing was lost in what was recorded")


def test_before_a_step_was_seen_the_verdict_says_so():
    model, recorder = network(), train.Recorder(every=1)
    handle = lt.watch(model, recorder)
    model(torch.ones(1, 8)).sum().backward()
    assert any("No step" in sentence for sentence in recorder.verdict)
    assert not any("Nothing to worry" in sentence for sentence in recorder.verdict)
    handle.remove()


def test_modules_that_were_not_seen_are_named_and_unknown():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.attn = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            return self.used(x)

    model, recorder = Skips(), train.Recorder(every=1)
    optimizer = torch.optim.SGD(model.used.parameters(), 0.1)
    with lt.watch(model, recorder, optimizer) as handle:
        trained(model, optimizer, batches(2))
        assert "1 of 2 modules" in repr(handle)
    assert any("1 of 2 modules; attn not seen" in sentence for sentence in recorder.verdict)
    assert not any("Nothing to worry" in sentence for sentence in recorder.verdict)


def test_recorders_of_watched_trainings_are_saved_and_loaded(tmp_path):
    model = network()
    recorder = watched(model, torch.optim.Adam(model.parameters()), batches(2))
    recorder.save(tmp_path / "run.npz")
    assert train.Recorder.load(tmp_path / "run.npz").verdict == recorder.verdict


# Compiled models -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", ["compiled then watched", "watched then compiled", "method"])
def test_compiled_models_are_seen_without_a_break(order):
    torch.compiler.reset()
    bare = network()
    optimizer = torch.optim.SGD(bare.parameters(), 0.1)
    trained(bare, optimizer, batches(2))
    model, recorder = network(), train.Recorder(every=1)
    if order == "compiled then watched":
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        compiled(torch.ones(2, 8))
        handle = lt.watch(compiled, recorder)
    elif order == "method":
        model.compile(fullgraph=True, backend="aot_eager")
        compiled = model
        handle = lt.watch(model, recorder)
    else:
        handle = lt.watch(model, recorder)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trained(compiled, optimizer, batches(2))
    handle.remove()
    for name in ("0", "1", "2"):
        for kind in ("activation", "activation_gradient"):
            assert recorder.tracks[kind, name].whole["count"] == 2 * 5 * (3 if name == "2" else 16)
    assert ("update", "0.weight") in recorder.tracks
    for a, b in zip(bare.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        lt.watch(3, train.Recorder())
    with pytest.raises(TypeError, match="Recorder"):
        lt.watch(network(), 3)
