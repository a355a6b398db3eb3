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
from lowprec.kernels.plans import processor_has
patterns = np.random.default_rng(8).integers(0, 2**32, 40_003, dtype=np.uint32).view(np.float32)
digest = hashlib.sha256()
for fmt in ("bfloat16", "float16", "float8_e4m3fn", "tfloat32"):
    for rounding in ("ties_to_even", "away_from_zero", "toward_positive", "stochastic"):
        digest.update(lp.round_to(patterns, fmt, rounding=rounding, rng=1).tobytes())
        digest.update(lp.encode(patterns, fmt, rounding=rounding, rng=1).tobytes())
    digest.update(lp.decode(lp.encode(patterns, fmt), fmt).tobytes())
print(processor_has("f16c") or processor_has("avx512f"), digest.hexdigest())
"""


def run(**variables):
    environment = os.environ | variables
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of x86-64")
def test_a_plain_processor_gets_the_same_bits():
    plain, digest = run(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="")
    assert plain == "False", "this processor has instructions that it should not use"
    assert digest == run()[1]


def test_flushing_subnormal_numbers_elsewhere_changes_nothing():
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
    for ours, right in zip(found, expected, strict=True):
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
