"""The random bits are those of Philox4x32-7 at the documented counters."""

import numpy as np
import pytest

import lowprec as lp

WORD = 0xFFFFFFFF
# kat_vectors of Random123 (Salmon et al.): counter, key, result after 7 rounds
KNOWN = [
    ("00000000 " * 4, "00000000 " * 2, "5f6fb709 0d893f64 4f121f81 4f730a48"),
    ("ffffffff " * 4, "ffffffff " * 2, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "4dfccaba 190a87f0 c47362ba b6b5242a",
    ),
]


def philox(counter, key):
    """Compute in Python's integers what `kernels.philox` computes in vectors."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(7):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (q >> 32) ^ b ^ k, q & WORD, (p >> 32) ^ d ^ m, p & WORD
        k, m = (k + 0x9E3779B9) & WORD, (m + 0xBB67AE85) & WORD
    return [a, b, c, d]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    assert philox(words(counter), words(key)) == words(result)


def drawn(index, key, from_halves):
    """Return the random bits of the element with this index."""
    block, place = divmod(index, 128 if from_halves else 64)
    counter = 16 * block + place % 16
    halves = (counter & WORD, counter >> 32, 0, 0)
    word = philox(halves, (key & WORD, key >> 32))[place // 16 % 4]
    return word >> 16 * (place // 64) & 0xFFFF if from_halves else word


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_draws_the_documented_bits(dtype):
    rng = np.random.default_rng(3)
    key = int(np.random.default_rng(9).integers(2**64 - 1, dtype=np.uint64, endpoint=True))
    below = rng.uniform(1, 2, 700).astype(dtype)
    floor = lp.round_to(below, "bfloat16", rounding="toward_zero")
    fraction = (below - floor).astype(np.float64) * 2.0**7
    rounded = lp.round_to(below, "bfloat16", rounding="stochastic", rng=9)
    bits = 16 if dtype == np.float32 else 32
    for i in range(below.size):
        away = drawn(i, key, from_halves=bits == 16) < int(fraction[i] * 2.0**bits)
        assert (rounded[i] > floor[i]) == away, i
