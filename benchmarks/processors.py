"""What kernels cost on processors with fewer instructions: this one, compiled for as older ones.

Run it with ``python benchmarks/processors.py``. Every kind of processor computes in a process of
its own, in turns; each row is the least processor time of a call, as a multiple of AVX-512's. The
bits are compared too.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

AVX2 = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2"
KINDS = {
    "AVX-512": {
        "NUMBA_CPU_NAME": "skylake-avx512",
        "NUMBA_CPU_FEATURES": f"{AVX2},+avx512f,+avx512dq,+avx512bw,+avx512vl,+avx512cd",
    },
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2},
    "as it is": {},
}
ROUNDS, SECONDS = 3, 0.3
SIDE, ELEMENTS = 192, 1_000_000


def works() -> dict[str, Callable[[], np.ndarray]]:
    """Return every work by its name."""
    import lowprec as lp
    from lowprec import Accumulator

    rng = np.random.default_rng(0)
    x, out = rng.standard_normal(ELEMENTS, np.float32), np.empty(ELEMENTS, np.float32)
    found: dict[str, Callable[[], np.ndarray]] = {}
    for fmt in ("bfloat16", "float16", "float8_e4m3fn"):
        found[f"round_to {fmt}"] = lambda fmt=fmt: lp.round_to(x, fmt, out=out)
        codes = lp.encode(x, fmt)
        found[f"encode {fmt}"] = lambda fmt=fmt, codes=codes: lp.encode(x, fmt, out=codes)
        found[f"decode {fmt}"] = lambda fmt=fmt, codes=codes: lp.decode(codes, fmt, out=out)
    options = {"rounding": "stochastic", "rng": 0}
    found["round_to bfloat16, stochastic"] = lambda: lp.round_to(x, "bfloat16", **options, out=out)
    for fmt, what, how in (
        ("float16", "float16", Accumulator("float16")),
        ("bfloat16", "bfloat16", Accumulator("bfloat16")),
        ("float8_e4m3fn", "float8_e4m3fn", Accumulator("float8_e4m3fn")),
        ("float16", "blocked", Accumulator("float16", "blocked", 16, "float32")),
        ("float16", "float16, unfused", Accumulator("float16", fused=False)),
        ("bfloat16", "bfloat16, unfused", Accumulator("bfloat16", fused=False)),
        ("float16", "float16, stochastic", Accumulator("float16", **options)),
    ):
        a, b = (lp.round_to(rng.standard_normal((SIDE, SIDE)), fmt) for _ in range(2))
        a, b = a.astype(np.float32), b.astype(np.float32)
        found[f"matmul {SIDE}³, {what}"] = lambda a=a, b=b, fmt=fmt, how=how: lp.matmul(
            a, b, inputs=fmt, accumulator=how
        )
    rows = rng.standard_normal((1000, 1000), np.float32)
    for fmt in ("bfloat16", "float16"):
        how = Accumulator(fmt, "pairwise")
        found[f"sum {fmt}, pairwise"] = lambda how=how: lp.sum(rows, how, axis=1)
        found[f"sum {fmt}, side by side"] = lambda fmt=fmt: lp.sum(rows, fmt, axis=0)
    return found


def measure() -> dict[str, tuple[float, str]]:
    """Return the least time of each work in ms, and a digest of its result."""
    found = {}
    for name, work in works().items():
        digest = hashlib.sha256(np.asarray(work()).tobytes()).hexdigest()
        times, end = [], time.perf_counter() + SECONDS
        while not times or time.perf_counter() < end:
            begin = time.process_time_ns()
            work()
            times.append((time.process_time_ns() - begin) / 1e6)
        found[name] = min(times), digest
    return found


def main() -> None:
    """Print the table."""
    if "--measure" in sys.argv:
        print(json.dumps(measure()))
        return
    best: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    digests: dict[str, set[str]] = {}
    for _ in range(ROUNDS):
        for kind, variables in KINDS.items():
            command = [sys.executable, __file__, "--measure"]
            done = subprocess.run(
                command, env=os.environ | variables, capture_output=True, text=True, check=True
            )
            for name, (milliseconds, digest) in json.loads(done.stdout).items():
                least = min(best[kind].get(name, milliseconds), milliseconds)
                best[kind][name] = least
                digests.setdefault(name, set()).add(digest)
    first, *others = KINDS
    print(f"| work | {first}, ms | {' | '.join(f'{kind}, ×' for kind in others)} | same bits |")
    print("| --- | --: |" + " --: |" * len(others) + " --- |")
    for name, milliseconds in best[first].items():
        ratios = [f"{best[kind][name] / milliseconds:.2f}" for kind in others]
        same = "yes" if len(digests[name]) == 1 else "NO"
        print(f"| {name} | {milliseconds:.3f} | {' | '.join(ratios)} | {same} |")


if __name__ == "__main__":
    main()
