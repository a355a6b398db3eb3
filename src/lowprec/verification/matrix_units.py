"""Checks of the presets of tensor cores: random and adversarial groups, against integers.

The oracle knows the contract and nothing of the library: it takes float32 patterns apart into
integers, multiplies significands, shifts each product to the group's least bit, adds, and rounds
the integer. NumPy's int64 holds everything: products of 48 bits, which are only shifted right.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.accumulation.matrix_units import TABLE, tensor_core
from lowprec.accumulation.products import matmul
from lowprec.formats import Format, float8_e4m3fn, float8_e5m2, get_format, tfloat32
from lowprec.rounding import Rounding
from lowprec.verification.checks import Check, Mismatch, Part, shared
from lowprec.verification.codes import operand_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lowprec.accumulation.accumulator import Accumulator

Array = np.ndarray[Any, Any]

INPUTS = tuple(dict.fromkeys(get_format(name) for row in TABLE for name in row.inputs))

_SIDE = 32  # rows of one operand and columns of the other: 1,024 groups a batch
_BATCH = _SIDE * _SIDE
_AT_ONCE = 8  # batches between two reports of progress
_FP8 = (float8_e4m3fn, float8_e5m2)
KINDS = ("any", "near", "cancelling", "zeros", "large", "small", "least", "short", "special")
_NAN = 0x7FC00000
_ZEROS = np.array([0.0, -0.0], np.float32)
_FACTORS = np.array([0.5, 1, 1, 1.0000001, 2], np.float32)  # of the sum that is undone
_FARTHEST = 62  # to the right goes every bit


class Preset(NamedTuple):
    """A matrix unit with one format of inputs, and the units that sum alike."""

    architectures: tuple[str, ...]
    inputs: Format
    output: Format

    @property
    def name(self) -> str:
        """The name of the check."""
        return f"{self.inputs} tensor_core {self.architectures[0]} to {self.output}"

    def accumulator(self, second: Format) -> Accumulator:
        """Return the preset for products with factors of a second format."""
        return tensor_core(self.architectures[0], (self.inputs, second), self.output)


def presets(fmt: Format) -> list[Preset]:
    """Return the presets that take products of a format, each way of summing once."""
    found: dict[tuple[object, ...], Preset] = {}
    for row in TABLE:
        if str(fmt) in row.inputs:
            key = (row.terms, row.fraction_bits, row.sums, row.output)
            known = found.get(key, Preset((), fmt, get_format(row.output)))
            names = (*known.architectures, row.architecture)
            found[key] = known._replace(architectures=names)
    return list(found.values())


def tensor_core_check(preset: Preset, groups: int) -> Check:
    """Return the check of a preset.

    preset: Of `presets`.
    groups: How many sums to draw; rounded up to whole batches of 1,024.
    """
    batches = -(-groups // _BATCH)
    alike = ", ".join(preset.architectures)
    return Check(
        preset.name,
        f"{batches * _BATCH:,} drawn sums as on {alike}: aligned, cut, added, rounded once",
        batches * _BATCH,
        exhaustive=False,
        run=functools.partial(_run, preset, batches),
    )


def _run(preset: Preset, batches: int, threads: int) -> Iterator[Part]:
    work = functools.partial(_judge_batches, preset, batches)
    yield from shared(work, range(0, batches, _AT_ONCE), threads)


def _judge_batches(preset: Preset, batches: int, start: int) -> Part:
    total = Part()
    for number in range(start, min(start + _AT_ONCE, batches)):
        total += _judged(preset, number)
    return total


def _judged(preset: Preset, number: int) -> Part:
    """Compare a batch of sums, bit by bit."""
    partners = _FP8 if preset.inputs in _FP8 else (preset.inputs,)
    second = partners[number // len(KINDS) % len(partners)]
    how = preset.accumulator(second)
    a, b, c = drawn((preset.inputs, second), how, number)
    out = np.asarray(matmul(a, b, c=c, accumulator=how), np.float32)
    found = out.view(np.uint32)
    expected = expected_sums(a, b, c, how, (preset.inputs.emin, second.emin), preset.output)
    wrong = np.argwhere(found != expected)
    told = tuple(
        _told(preset, a[i], b[:, j], c[i, j], expected[i, j], found[i, j])
        for i, j in wrong[:5].tolist()
    )
    return Part(found.size, len(wrong), told)


def _told(preset: Preset, a: Array, b: Array, c: Any, expected: Any, found: Any) -> Mismatch:
    operands = tuple("[" + ", ".join(float(x).hex() for x in row) + "]" for row in (a, b, [c]))
    words = (
        f"{bits:#010x} = {float(np.uint32(bits).view(np.float32))!r}" for bits in (expected, found)
    )
    return Mismatch(preset.name, "as the unit rounds", operands, *words)


# The oracle --------------------------------------------------------------------------------------


def expected_sums(
    a: Array, b: Array, c: Array, how: Accumulator, emins: tuple[int, int], output: Format
) -> Array:
    """Return the bits of every sum of products of a row with a column, by integers.

    a, b (numpy.ndarray of float32, shapes (m, n) and (n, p)): Factors.
    c (numpy.ndarray of float32, shape (m, p)): What the sums begin with.
    how: Whose parameters: ``block``, ``fraction_bits``, ``lowest_exponent``, ``rounding`` and the
        precision and exponents of ``fmt``. Overflow gives infinity.
    emins: The least exponents of the factors' formats.
    output: float32 or float16, to which c is rounded first.
    Returns: numpy.ndarray of uint32, shape (m, p).
    """
    assert how.block is not None
    sums = c if output.name == "float32" else _as_float16(c)
    for start in range(0, a.shape[1], how.block):
        group = slice(start, start + how.block)
        sums = _next_sums(a[:, group, None], b[None, group], sums, how, emins)
    return sums.view(np.uint32)


def _as_float16(c: Array) -> Array:
    with np.errstate(over="ignore"):
        return c.astype(np.float16).astype(np.float32)


def _next_sums(a: Array, b: Array, c: Array, how: Accumulator, emins: tuple[int, int]) -> Array:
    """Apply T once: to factors of shapes (m, L, 1) and (1, L, p), and addends of shape (m, p)."""
    assert how.fraction_bits is not None
    fmt = how.formats[0]
    (sa, qa, ea), (sb, qb, eb) = _taken_apart(a, emins[0]), _taken_apart(b, emins[1])
    sc, qc, ec = _taken_apart(c, fmt.emin)
    products, exponents = sa * sb, ea + eb
    m = np.where(products != 0, exponents, how.lowest_exponent).max(1)
    m = np.maximum(np.maximum(m, how.lowest_exponent), np.where(sc != 0, ec, m))
    least = m - how.fraction_bits  # the exponent of the last bit that is kept
    total = _shifted(products, qa + qb - least[:, None]).sum(1) + _shifted(sc, qc - least)
    bits = _rounded(total, least, fmt, how.rounding is Rounding.TOWARD_ZERO)
    with np.errstate(invalid="ignore"):
        exact = a.astype(np.float64) * b.astype(np.float64)
        terms = np.concatenate([exact, c[:, None].astype(np.float64)], axis=1)
        special = np.where(np.isfinite(terms), 0, terms).sum(1)
    bits = np.where(np.isinf(special), special.astype(np.float32).view(np.uint32), bits)
    return np.where(np.isnan(special), np.uint32(_NAN), bits).view(np.float32)


def _taken_apart(x: Array, emin: int) -> tuple[Array, Array, Array]:
    """Return significands with signs, the exponents of their last bits, and e(x)."""
    bits = x.view(np.uint32).astype(np.int64)
    field, trailing = bits >> 23 & 0xFF, bits & 0x7FFFFF
    magnitude = np.where(field > 0, trailing | 1 << 23, trailing)
    signed = np.where(bits >> 31 == 1, -magnitude, magnitude)
    return signed, np.maximum(field, 1) - 150, np.maximum(field - 127, emin)


def _shifted(integers: Array, places: Array) -> Array:
    """Return integers times 2**places, cut toward zero."""
    magnitudes = np.abs(integers)
    right = magnitudes >> np.clip(-places, 0, _FARTHEST)
    cut: Array = np.where(places > 0, right << np.clip(places, 0, 32), right)
    return np.asarray(np.sign(integers) * cut)


def _rounded(total: Array, least: Array, fmt: Format, cuts: bool) -> Array:
    """Return the float32 bits of total · 2**least, cut to the format or rounded ties to even."""
    magnitude = np.abs(total)
    length = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)  # exact: under 2**53
    unit = np.maximum(length - 1 + least, fmt.emin) - (fmt.precision - 1)
    drop = unit - least
    kept = _shifted(magnitude, -drop)
    if not cuts:
        lost = magnitude - (kept << np.clip(drop, 0, _FARTHEST)) * (drop > 0)
        lost = np.where(drop > 0, lost, 0)
        twice = 2 * lost - (np.int64(1) << np.clip(drop, 0, 60))
        up = (drop > 0) & ((twice > 0) | ((twice == 0) & (kept & 1 == 1)))
        kept = kept + up
    value = np.ldexp(kept.astype(np.float64), unit)
    value = np.where(value > fmt.max, np.inf, value)
    return np.where(total < 0, -value, value).astype(np.float32).view(np.uint32)


# What is drawn -----------------------------------------------------------------------------------


def drawn(
    formats: tuple[Format, Format], how: Accumulator, number: int
) -> tuple[Array, Array, Array]:
    """Return a batch: rows of one format, columns of another, and addends.

    A batch is of one kind: any codes; exponents that interact; sums that cancel; zeros; numbers
    near the largest, near the least; products near the lowest exponent; few significant bits, which
    make ties; infinities and NaN.
    """
    rng = np.random.default_rng([number, how.block or 1, how.fraction_bits or 0])
    kind, block = KINDS[number % len(KINDS)], how.block or 1
    terms = int(rng.choice([block, max(1, block - 1), 2 * block + 3, 1 + block // 2]))
    a = _values(formats[0], kind, (_SIDE, terms), how.lowest_exponent, rng)
    b = _values(formats[1], kind, (terms, _SIDE), how.lowest_exponent, rng)
    if kind == "cancelling":
        half = terms // 2
        same = rng.random((_SIDE, half)) < 0.95
        a[:, half : 2 * half] = np.where(same, a[:, :half], a[:, half : 2 * half])
        b[half : 2 * half] = -b[:half]
    return a, b, _addends(a, b, kind, rng)


def _values(
    fmt: Format, kind: str, shape: tuple[int, int], lowest: int, rng: np.random.Generator
) -> Array:
    reach = 6 if kind == "cancelling" else 14
    match kind:
        case "any" | "zeros" | "special":
            x = _any(fmt, shape, rng)
            x = np.where(np.isfinite(x) | (kind == "special"), x, np.float32(1))
            if kind == "zeros":
                x = np.where(rng.random(shape) < 0.7, np.float32(0) * np.sign(x), x)
            if kind == "special":  # most groups hold none, or one or two
                x = np.where(np.isfinite(x) | (rng.random(shape) < 0.1), x, np.float32(2))
                is_one = rng.random(shape) < 0.5 / shape[int(shape[0] == _SIDE)]
                x = np.where(is_one, rng.choice(_specials(fmt), shape), x)
            return x.astype(np.float32)
        case "large":
            low, high = fmt.emax - 2, fmt.emax
        case "small":
            low, high = fmt.emin - fmt.trailing_bits, fmt.emin + 2
        case "least":
            low = max(lowest // 2 - 7, fmt.emin - fmt.trailing_bits)
            high = max(lowest // 2 + 3, fmt.emin + 2)
        case _:
            middle = int(rng.integers(fmt.emin, fmt.emax + 1))
            low, high = max(fmt.emin, middle - reach), min(fmt.emax, middle + reach)
    places = 2 if kind == "short" else fmt.trailing_bits
    significands = 1 + rng.integers(0, 1 << places, shape) / (1 << places)
    x = np.ldexp(significands, rng.integers(low, high + 1, shape))
    unit = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - 1, fmt.emin) - fmt.trailing_bits)
    x = np.minimum(np.floor(x / unit) * unit, fmt.max)
    return np.asarray(x * rng.choice([-1.0, 1.0], shape), np.float32)


def _any(fmt: Format, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return values of any codes."""
    if fmt == tfloat32:  # float32 without its last 13 bits
        return (rng.integers(0, 1 << 19, shape) << 13).astype(np.uint32).view(np.float32)
    return operand_bits(fmt)[rng.integers(0, 1 << fmt.bits, shape)].view(np.float32)


def _specials(fmt: Format) -> Array:
    kinds = [np.nan, -np.nan, 0.0] + [np.inf, -np.inf] * (fmt.infinity_code is not None)
    return np.array(kinds, np.float32)


def _addends(a: Array, b: Array, kind: str, rng: np.random.Generator) -> Array:
    """Return what sums begin with: zeros, any float32, or what undoes the sum but for a little."""
    shape = (a.shape[0], b.shape[1])
    every = rng.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.float32)
    every = np.where(np.isfinite(every) | (kind == "special"), every, np.float32(0))
    with np.errstate(all="ignore"):
        whole = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
        undone = -whole * rng.choice(_FACTORS, shape)
    undone = np.where(np.isfinite(undone), undone, np.float32(0))
    which = rng.random(shape)
    zeros = rng.choice(_ZEROS, shape)
    chosen = np.where(which < 0.4, zeros, np.where(which < 0.7, undone, every))
    return np.asarray(chosen, np.float32)
