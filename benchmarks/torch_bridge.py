"""What `lowprec.torch` costs: pairs of works, torch's and ours, that are measured in turns.

Run it with ``python benchmarks/torch_bridge.py`` for processor time on one thread.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from timing import Quartiles, interleaved
from torch_gpt import SmallGPT, step

import lowprec.torch as lt
from lowprec import Accumulator, train
from lowprec.conversion import portable

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]
    Pair = tuple[Work, Work]  # the baseline, and what is held against it


def repeated(times: int, function: Callable[..., object], *arguments: Any, **options: Any) -> Work:
    """Return what calls a function so many times."""

    def run() -> None:
        for _ in range(times):
            function(*arguments, **options)

    return run


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Rounding ------------------------------------------------------------------------------------


def clone() -> Pair:
    """Compare rounding to bfloat16 with a clone."""
    x = _normal(10**6)
    return x.clone, lambda: lt.round_to(x, "bfloat16")


def fp8_round_trip() -> Pair:
    """Compare torch's round trip through fp8 with ours: torch's time over ours."""
    x = _normal(10**6)
    return lambda: lt.round_to(x, "float8_e4m3fn"), lambda: x.to(torch.float8_e4m3fn).float()


def stochastic(n: int, calls: int) -> Pair:
    """Compare stochastic rounding with rounding to nearest."""
    x = _normal(n)
    nearest = repeated(calls, lt.round_to, x, "bfloat16")
    return nearest, repeated(calls, lt.round_to, x, "bfloat16", rounding="stochastic")


def qtorch(n: int, rounding: str, calls: int, *, inverse: bool = False) -> Pair:
    """Compare with QPyTorch's rounding; `inverse` gives its time over ours."""
    from qtorch.quant import float_quantize

    x = _normal(n)
    theirs = repeated(calls, float_quantize, x, 8, 7, rounding=rounding)
    mode = "ties_to_even" if rounding == "nearest" else "stochastic"
    ours = repeated(calls, lt.round_to, x, "bfloat16", rounding=mode)
    return (ours, theirs) if inverse else (theirs, ours)


def qtorch_gradient() -> Pair:
    """Compare n = 100 with a gradient with QPyTorch's quantizer."""
    from qtorch import FloatingPoint
    from qtorch.quant import quantizer

    x = _normal(100).requires_grad_()
    fmt = FloatingPoint(exp=8, man=7)
    theirs = quantizer(fmt, fmt, forward_rounding="nearest", backward_rounding="nearest")
    return repeated(1000, theirs, x), repeated(1000, lt.round_to, x, "bfloat16")


def compiled_rule(fmt: str) -> Pair:
    """Compare the portable rule, compiled, with the kernel."""
    x = _normal(10**6)
    rule = torch.compile(functools.partial(portable.round_to, fmt=fmt), fullgraph=True)
    return lambda: lt.round_to(x, fmt), lambda: rule(x)


# Products ------------------------------------------------------------------------------------

SUMS = {
    **{
        name: (name, Accumulator(name))
        for name in (
            "float16", "bfloat16", "tfloat32", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn"
        )
    },
    "unfused float16": ("float16", Accumulator("float16", fused=False)),
    "stochastic float16, 16 random bits": (
        "float16",
        Accumulator("float16", rounding="stochastic", random_bits=16),
    ),
}  # fmt: skip


def linear(name: str) -> Pair:
    """Compare a linear layer of 256³ with torch's in float32."""
    fmt, how = SUMS[name]
    policy = train.Policy(compute=fmt, accumulate=how)
    x, w, bias = _normal(256, 256), _normal(256, 256), _normal(256)
    bare = torch.no_grad()(functools.partial(torch.nn.functional.linear, x, w, bias))
    return bare, torch.no_grad()(functools.partial(lt.linear, x, w, bias, policy=policy))


def perceptron() -> Pair:
    """Compare a step of a perceptron, 256-256-10 on 128 samples, with float16 sums."""
    x, y = _normal(128, 256), torch.arange(128) % 10
    works = []
    for policy in (None, train.Policy(compute="float16", accumulate="float16")):
        torch.manual_seed(0)
        layers = torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        if policy is not None:
            lt.emulate(model, policy)

        def train_once(model: Any = model, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        works.append(train_once)
    return works[0], works[1]


# A small GPT ---------------------------------------------------------------------------------


def _gpt(change: Callable[[Any, Any], Any], count: int) -> Work:
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, 96, (16, 65), generator=generator) for _ in range(count)]
    torch.manual_seed(0)
    model = SmallGPT()
    optimizer: Any = torch.optim.AdamW(model.parameters())
    optimizer = change(model, optimizer) or optimizer
    return lambda: [step(model, optimizer, each) for each in tokens]


def watching(every: int) -> Pair:
    """Compare ten watched steps with bare ones."""

    def change(model: Any, optimizer: Any) -> None:
        lt.watch(model, train.Recorder(every=every), optimizer)

    return _gpt(lambda *_: None, 10), _gpt(change, 10)


def narrow_optimizer(update: str) -> Pair:
    """Compare ten steps under narrow parameters and state with bare ones."""
    return _gpt(lambda *_: None, 10), _gpt(lambda m, o: lt.Optimizer(o, update=update), 10)


# JAX -----------------------------------------------------------------------------------------


def jax_copy() -> Pair:
    """Compare `lowprec.jax.round_to` under jit with a copy."""
    import jax

    import lowprec.jax as lj

    x = jax.numpy.asarray(_normal(10**6).numpy())
    rounded = jax.jit(functools.partial(lj.round_to, fmt="bfloat16"))
    copied = jax.jit(lambda x: x.copy())
    return lambda: copied(x).block_until_ready(), lambda: rounded(x).block_until_ready()


def jax_call() -> Pair:
    """Compare a call of `lowprec.jax.round_to` under jit, n = 100, with 20 microseconds."""
    import jax

    import lowprec.jax as lj

    x = jax.numpy.asarray(_normal(100).numpy())
    rounded = jax.jit(functools.partial(lj.round_to, fmt="bfloat16"))

    def wait() -> None:
        end = time.process_time() + 1000 * 20e-6
        while time.process_time() < end:
            continue

    return wait, repeated(1000, lambda: rounded(x).block_until_ready())


ROWS: dict[str, tuple[float, str, bool, tuple[str, ...], Callable[[], Pair]]] = {
    "lt.round_to bfloat16, 10⁶": (1.5, "× clone", False, (), clone),
    "lt.round_to float8_e4m3fn, 10⁶": (10, "× torch's speed", True, (), fp8_round_trip),
    "lt.round_to stochastic, n = 100": (
        1.5, "× nearest", False, (), functools.partial(stochastic, 100, 1000)
    ),
    "lt.round_to stochastic, 10⁶": (
        4, "× nearest", False, (), functools.partial(stochastic, 10**6, 1)
    ),
    "lt.round_to, n = 100, beside qtorch": (
        1.5, "× qtorch", False, ("qtorch",), functools.partial(qtorch, 100, "nearest", 1000)
    ),
    "lt.round_to, n = 100, gradient, beside qtorch": (
        2.2, "× qtorch", False, ("qtorch",), qtorch_gradient
    ),
    **{
        f"lt.round_to {rounding}, 10⁶, beside qtorch": (
            limit, "× qtorch's speed", True, ("qtorch",),
            functools.partial(qtorch, 10**6, rounding, 1, inverse=True),
        )
        for rounding, limit in (("nearest", 30), ("stochastic", 40))
    },
    **{
        f"portable rule compiled, {fmt}, 10⁶": (
            limit, "× kernel", False, (), functools.partial(compiled_rule, fmt)
        )
        for fmt, limit in (("bfloat16", 2), ("float16", 5), ("float8_e4m3fn", 5))
    },
    **{
        f"lt.linear 256³, {name}": (
            {"float16": 2.5, "unfused float16": 10}.get(name, 30 if "random" in name else 4),
            "× torch float32", False, (), functools.partial(linear, name),
        )
        for name in SUMS
    },
    "lt.emulate, step of a perceptron": (3.5, "× torch float32", False, (), perceptron),
    **{
        f"lt.watch, every={every}, step of a GPT": (
            limit, "× bare", False, (), functools.partial(watching, every)
        )
        for every, limit in ((10, 1.08), (1, 1.7))
    },
    **{
        f"lt.Optimizer, {update}, step of a GPT": (
            1.15, "× bare", False, (), functools.partial(narrow_optimizer, update)
        )
        for update in ("stochastic", "kahan")
    },
    "lowprec.jax.round_to under jit, 10⁶": (4, "× copy", False, ("jax",), jax_copy),
    "lowprec.jax.round_to under jit, n = 100": (1, "× 20 µs", False, ("jax",), jax_call),
}  # fmt: skip
"""Every row of the bridges: its limit, the unit, whether that is the least, what it needs."""


def measured(name: str, seconds: float) -> Quartiles:
    """Return the quartiles of a row, by processor time on one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        below, above = ROWS[name][-1]()
        times = interleaved([below, above], seconds=seconds, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)
    return Quartiles.of(times[:, 1] / times[:, 0])


def main(words: list[str]) -> None:
    """Print every row whose name has one of the words, or every row."""
    for name, (limit, unit, is_least, *_) in ROWS.items():
        if words and not any(word in name for word in words):
            continue
        try:
            found = f"{measured(name, 2.0).median:8.2f}"
        except ModuleNotFoundError as error:
            found = f"({error.name} is missing)"
        print(f"{found}  {'≥' if is_least else '≤'} {limit:g} {unit}: {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
