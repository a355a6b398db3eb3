"""Processors without AVX-512 and F16C get the same bits, from other rules and narrower vectors."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp

PROGRAM = """
import hashlib, numpy as np, lowprec as lp
from lowprec.kernels import functions
from lowprec.kernels.plans import processor_has
patterns = np.random.default_rng(8).integers(0, 2**32, 40_003, dtype=np.uint32).view(np.float32)
usual = patterns[(abs(patterns) > 1e-3) & (abs(patterns) < 80)]
digest = hashlib.sha256()
for fmt in ("bfloat16", "float16", "float8_e4m3fn", "tfloat32"):
    for rounding in ("ties_to_even", "away_from_zero", "toward_positive", "stochastic"):
        digest.update(lp.round_to(patterns, fmt, rounding=rounding, rng=1).tobytes())
        digest.update(lp.encode(patterns, fmt, rounding=rounding, rng=1).tobytes())
    digest.update(lp.decode(lp.encode(patterns, fmt), fmt).tobytes())
arithmetic = lp.Arithmetic("bfloat16")
for name in ("add", "multiply", "divide", "remainder"):
    digest.update(getattr(arithmetic, name)(patterns, patterns[::-1]).tobytes())
for name in ("sqrt", "exp", "sin"):
    digest.update(getattr(arithmetic, name)(patterns).tobytes())
for order in ("sequential", "pairwise", "kahan", "exact"):
    for x in (usual, patterns):
        sums = lp.sum(x[:2000].reshape(20, 100), lp.Accumulator("bfloat16", order=order), axis=1)
        digest.update(sums.tobytes())
for name in ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "elu", "softplus_tanh"):
    for x in (usual, patterns, usual.astype(np.float64)):
        y = getattr(functions, name)(x)
        digest.update(np.where(np.isnan(y), np.nan, y).tobytes())
print(processor_has("f16c") or processor_has("avx512f"), digest.hexdigest())
"""


# That of every processor: compared with others', not with the same machine's.
DIGEST = "d0cce44a3885e265a3f6f057690c81a76f1a4745cc1e6685640d2ec609eadad8"


def run(**variables):
    environment = os.environ | variables
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_this_processor_gets_the_bits_of_all_others():
    assert run()[1] == DIGEST


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of x86-64")
def test_a_plain_processor_gets_the_same_bits():
    plain, digest = run(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="")
    assert plain == "False", "this processor has instructions that it should not use"
    assert digest == DIGEST


def test_torch_that_flushes_subnormal_numbers_changes_nothing():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.array([1e-40, -1e-45, 2e-38, 0.0], np.float32)
    codes = np.arange(5, dtype=np.uint16)

    def results():
        return [
            *(lp.encode(x, "float16", rounding=mode) for mode in ("RU", "RA", "RO")),
            lp.round_to(x, "bfloat16").view(np.uint32),
            lp.encode(x, "float8_e8m0fnu", rounding="RNE"),
            lp.decode(codes, "bfloat16").view(np.uint32),
            [lp.measure(x, "bfloat16").subnormals],
        ]

    expected = results()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        found = results()
    finally:
        torch.set_flush_denormal(False)
    for ours, right in zip(found, expected, strict=True):  # in the usual state again, and bits
        assert list(ours) == list(right)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of x86-64")
def test_kernels_of_two_processors_are_kept_in_files_of_two_names(tmp_path):
    """Workers and machines that share a folder would otherwise take each other's instructions."""
    program = "import lowprec as lp; lp.round_to([0.1], 'bfloat16')"
    names = []
    for kind in ({}, {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}):
        environment = os.environ | kind | {"NUMBA_CACHE_DIR": str(tmp_path / str(len(names)))}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=900)
        found = {path.name for path in Path(environment["NUMBA_CACHE_DIR"]).rglob("*.nbi")}
        assert found
        names.append(found)
    assert not names[0] & names[1]
