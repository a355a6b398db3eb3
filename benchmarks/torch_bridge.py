"""What `lowprec.torch` costs beside torch: ratios of processor time, in turns, on one thread.

Run it with ``python benchmarks/torch_bridge.py``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch_gpt import SmallGPT, step

import lowprec.torch as lt
from lowprec import Accumulator, train

if TYPE_CHECKING:
    from collections.abc import Callable


def ratio(work: Callable[[], object], baseline: Callable[[], object], rounds: int = 15) -> float:
    """Return the ratio of the two's processor times: the median of turns, each after a warm-up."""
    work(), baseline()
    found = []
    for _ in range(rounds):
        times = []
        for function in (work, baseline):
            begin = time.process_time()
            function()
            times.append(time.process_time() - begin)
        found.append(times[0] / times[1])
    return sorted(found)[rounds // 2]


def repeated(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that calls another so many times."""

    def run() -> None:
        for _ in range(times):
            function()

    return run


def rounding() -> dict[str, float]:
    """Compare conversions with what torch offers."""
    x, small = torch.randn(1_000_000), torch.randn(100)
    e4m3 = torch.float8_e4m3fn
    ours = repeated(lambda: lt.round_to(x, "bfloat16"), 20)
    few = repeated(lambda: lt.round_to(small, "bfloat16"), 2000)
    random = {"rounding": "stochastic"}
    return {
        "round_to bfloat16, 10⁶ / clone": ratio(ours, repeated(x.clone, 20)),
        "torch's fp8 round trip / round_to e4m3fn, 10⁶": ratio(
            lambda: x.to(e4m3).float(), lambda: lt.round_to(x, "float8_e4m3fn")
        ),
        "stochastic / nearest, n = 100": ratio(
            repeated(lambda: lt.round_to(small, "bfloat16", **random), 2000), few
        ),
        "stochastic / nearest, 10⁶": ratio(
            repeated(lambda: lt.round_to(x, "bfloat16", **random), 20), ours
        ),
        "n = 100, microseconds": _microseconds(few, 2000),
        "n = 100 with gradient, microseconds": _microseconds(
            repeated(lambda: lt.round_to(leaf, "bfloat16"), 2000), 2000
        )
        if (leaf := small.clone().requires_grad_()) is not None
        else 0.0,
    }


def _microseconds(function: Callable[[], None], calls: int) -> float:
    times = []
    for _ in range(9):
        begin = time.process_time()
        function()
        times.append((time.process_time() - begin) / calls * 1e6)
    return min(times)


def watching() -> dict[str, float]:
    """Compare 40 steps of a small GPT, watched, with 40 bare ones."""
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, 96, (16, 65), generator=generator) for _ in range(40)]

    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for each in tokens:
            step(model, optimizer, each)

    def pair() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = SmallGPT()
        return model, torch.optim.AdamW(model.parameters())

    bare, found = pair(), {}
    for every in (10, 1):
        seen = pair()
        lt.watch(seen[0], train.Recorder(every=every), seen[1])
        name = f"watch, every={every}, 40 steps of a GPT / bare"
        found[name] = ratio(lambda seen=seen: steps(*seen), lambda: steps(*bare), 5)
    return found


def products() -> dict[str, float]:
    """Compare a linear layer of 256³ under every kind of sum with torch's own in float32."""
    x, w, bias = torch.randn(256, 256), torch.randn(256, 256), torch.randn(256)
    random = {"rounding": "stochastic", "random_bits": 16}
    names = ("float16", "bfloat16", "tfloat32", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn")
    found = {name: (name, Accumulator(name)) for name in names}
    found["unfused float16"] = "float16", Accumulator("float16", fused=False)
    found["stochastic float16, 16 random bits"] = "float16", Accumulator("float16", **random)
    bare = repeated(lambda: torch.nn.functional.linear(x, w, bias), 4)
    ratios = {}
    for name, (fmt, how) in found.items():
        policy = train.Policy(compute=fmt, accumulate=how)
        work = repeated(lambda policy=policy: lt.linear(x, w, bias, policy=policy), 4)
        with torch.no_grad():
            ratios[f"Linear 256³, {name} / torch float32"] = ratio(work, bare)
    return ratios


def optimizing() -> dict[str, float]:
    """Compare 10 steps of a small GPT under narrow parameters and state with 10 bare ones."""
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, 96, (16, 65), generator=generator) for _ in range(10)]

    def steps(update: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = SmallGPT()
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters())
        if update:
            optimizer = lt.Optimizer(optimizer, update=update)
        return lambda: [step(model, optimizer, each) for each in tokens]

    bare = steps("")
    return {
        f"Optimizer, {update}, 10 steps of a GPT / bare": ratio(steps(update), bare, 5)
        for update in ("stochastic", "kahan")
    }


def main() -> None:
    """Print every ratio."""
    torch.set_num_threads(1)
    for group in (rounding, products, watching, optimizing):
        for name, value in group().items():
            print(f"{value:8.2f}  {name}", flush=True)


if __name__ == "__main__":
    main()
