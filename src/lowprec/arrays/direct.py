"""The one way from arrays to a kernel: as they lie where they may, else block by block.

Every request asks here first. A kernel reads aligned memory in C order and of its own dtype, and
writes to memory that overlaps with none it reads, or is the same. A small call asks `run_kept` or
`place_for`, which look at what must be looked at and at nothing else; what they leave is checked in
full by the caller, and goes through `parts_in_c_order`.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lowprec.arrays.layouts import blocks_in_c_order, is_same_memory
from lowprec.arrays.sources import is_exact_integer
from lowprec.common.processor_state import exact_state, is_exact
from lowprec.common.randomness import draw_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lowprec.common.randomness import RNGLike

    Array = np.ndarray[Any, Any]

_READ: Any = ["readonly", "contig", "aligned", "nbo"]
_MOST_KEPT = 4096  # works, a few hundred bytes each


# Requests that were made before ------------------------------------------------------------------


class NoCode(enum.Enum):
    """What a format has no code for; the value is what errors call it."""

    NAN = "NaN"
    NAN_OR_NEGATIVE = "NaN or negative"


class Work(NamedTuple):
    """One kind of conversion, checked: from a source dtype to a result dtype by a kernel."""

    kernel: Callable[..., None]
    source: np.dtype[Any]  # what the kernel reads
    result: np.dtype[Any]
    is_stochastic: bool = False
    refuses: NoCode | None = None
    is_simple: bool = True  # whether contiguous arrays may go to the kernel without another look
    is_refused: Callable[[Any], bool] | None = None  # but this one


# Under the arguments as they were given: one look serves calls on small arrays, where parsing names
# again would take longer than the work.
_known: dict[Any, Work] = {}


def kept(asked: tuple[Any, ...]) -> Work | None:
    """Return what was kept for these arguments; of a list, say, there is nothing to be kept."""
    try:
        return _known.get(asked)
    except TypeError:  # the checks say what is wrong with it
        return None


def keep(asked: tuple[Any, ...], work: Work) -> Work:
    """Keep work under its arguments; the oldest goes where there are too many."""
    if len(_known) >= _MOST_KEPT:
        # another thread may be faster
        with contextlib.suppress(KeyError, RuntimeError, StopIteration):
            del _known[next(iter(_known))]
    return _known.setdefault(asked, work)


def run_kept(asked: tuple[Any, ...], x: Any, rng: RNGLike, out: Any) -> Any:
    """Run what was kept for these arguments, on an array as it lies or on a float.

    None if nothing was kept, or if more must be looked at. A stochastic mode draws its key here.
    """
    try:
        work = _known.get(asked)
    except TypeError:  # a list, say; the checks say what is wrong with it
        return None
    if work is None or not work.is_simple:
        return None
    place: Array | None
    source: Any
    if type(x) is np.ndarray:
        place, source = place_for((x,), out, work.result), x
    else:
        source = as_one(x) if out is None else None
        place = None if source is None else np.empty(1, work.result)
    if place is None or (work.is_refused is not None and work.is_refused(source)):
        return None
    work.kernel(source, place, draw_key(rng) if work.is_stochastic else 0)
    return place if source is x else place[0]


# Arrays as they lie ------------------------------------------------------------------------------


def lies_flat(x: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether a kernel that reads this dtype, or the array's own, can read it as it lies."""
    flags = x.flags
    return (
        flags.c_contiguous
        and flags.aligned
        and (x.dtype.isnative if dtype is None else x.dtype == dtype)
    )


def lies_in_place(x: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether a kernel that follows strides can read this dtype, or the array's own, as it lies."""
    return x.flags.aligned and (x.dtype.isnative if dtype is None else x.dtype == dtype)


def place_for(operands: tuple[Any, ...], out: Any, dtype: np.dtype[Any]) -> Array | None:
    """Return where a kernel may write what it makes of operands, or None if they must be looked at.

    operands: What is read; the first is an array of the dtype that the kernel reads.
    out (ndarray or None): Where the caller wants results; a new array by default.
    dtype: Of the results.
    Returns: `out` or a new array, if every operand has the shape and dtype of the first, lies in C
        order and shares no memory with `out` unless it is `out`.
    """
    first = operands[0]
    shape, kind, flags = first.shape, first.dtype, first.flags
    if not (flags.c_contiguous and flags.aligned):
        return None
    for x in operands:
        if x is not first:
            if type(x) is not np.ndarray or x.shape != shape or x.dtype is not kind:
                return None
            flags = x.flags
            if not (flags.c_contiguous and flags.aligned):
                return None
    if out is None:
        return np.empty(shape, dtype)
    if type(out) is not np.ndarray or out.shape != shape or out.dtype != dtype:
        return None
    base, flags = out.base, out.flags  # memory of others, which they may hold unseen, is not ours
    if not flags.carray or not (base is None or (type(base) is np.ndarray and base.base is None)):
        return None
    for x in operands:
        if x is not out and not (base is None and x.base is None) and np.may_share_memory(x, out):
            return None
    return out


def as_one(number: Any) -> Array | None:
    """Return a number as an array of one element; None of what needs another look."""
    kind = type(number)
    if kind is float or kind is np.float32 or kind is np.float64:
        return np.array((number,))
    return np.array((number,), np.float64) if is_exact_integer(number) else None


class OnNumbers:
    """A kernel that reads float64, to be called on numbers that are not arrays.

    They are put into arrays of one element, which are kept for the next call; another thread finds
    none there and makes its own.
    """

    def __init__(self, kernel: Callable[..., Any], result: np.dtype[Any]) -> None:
        self.kernel, self.result = kernel, result
        self._spare: list[tuple[list[Array], Array]] = []

    def __call__(self, numbers: tuple[Any, ...]) -> tuple[Any, Any] | None:
        """Return the result and what the kernel returns; None where more must be looked at."""
        for x in numbers:
            kind = type(x)
            if kind is float or kind is np.float64 or is_exact_integer(x):
                continue
            if kind is not np.float32 or not is_exact():  # widening would flush it
                return None
        try:
            kept = self._spare.pop()
        except IndexError:
            kept = [np.empty(1) for _ in numbers], np.empty(1, self.result)
        ones, place = kept
        for one, x in zip(ones, numbers, strict=True):
            one[0] = x
        told = self.kernel(ones, place)
        result = place[0]
        self._spare.append(kept)
        return result, told


def parts_in_c_order(
    operands: Sequence[Array], out: Array, source: np.dtype[Any], elements: int
) -> Iterator[tuple[Sequence[Array], Array, int]]:
    """Yield flat operands for a kernel, where it writes, and how many elements came before.

    operands: What is read, of any layout and dtype; they broadcast to `out` and may overlap with
        it.
    source: What the kernel reads.
    elements: The most that a block has where arrays cannot go as they lie.
    """
    if out.flags.carray and all(_is_readable(x, source, out) for x in operands):
        yield [x.reshape(-1) for x in operands], out.reshape(-1), 0
    elif out.size:
        first = 0
        # NumPy widens what it puts into the buffers
        with exact_state(), blocks_in_c_order(operands, out, source, elements) as blocks:
            for *xs, target in blocks:
                yield xs, target, first
                first += target.size


def pieces_of(
    x: Array, elements: int, source: np.dtype[Any] | None = None, order: Literal["C", "K"] = "C"
) -> Iterator[Array]:
    """Yield the elements of an array in contiguous pieces, for what only reads.

    elements: The most that a piece has.
    source: What the pieces are, which may be wider; by default the array's own dtype, native.
    order: C order, or K: as they lie in memory.
    Yields: Parts of the array where `lies_flat`, else a buffer that the next piece takes.
    """
    if lies_flat(x, source):
        flat = x.reshape(-1)
        for begin in range(0, x.size, elements):
            yield flat[begin : begin + elements]
    elif x.size:
        kinds = [x.dtype.newbyteorder("=") if source is None else source]
        yield from np.nditer(
            [x], ["external_loop", "buffered"], [_READ], kinds, order, buffersize=elements
        )


def blocks_of_rows(
    x: Array, terms: int, rows: int, step: int
) -> Iterator[tuple[slice, Iterator[Array]]]:
    """Yield slices of rows of `terms` elements in C order, and for each its blocks along the row.

    x: A matrix of such rows, or an array of any shape.
    rows, step: The most rows, and elements of a row, that a block has; one of whole rows alone
        has several.
    """
    is_matrix = x.ndim == 2 and x.shape[1] == terms
    elements: Any = x if is_matrix else x.reshape(-1) if x.flags.c_contiguous else x.flat

    def blocks(part: slice) -> Iterator[Array]:
        for k in range(0, terms, step):
            end = min(k + step, terms)
            if is_matrix:
                yield x[part, k:end]
            else:
                last = part.stop * terms if step >= terms else part.start * terms + end
                yield elements[part.start * terms + k : last].reshape(part.stop - part.start, -1)

    count = x.size // terms
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        yield part, blocks(part)


def _is_readable(x: Array, dtype: np.dtype[Any], out: Array) -> bool:
    """Whether a kernel can read an operand as it lies while it writes out."""
    if x.shape != out.shape or not lies_flat(x, dtype):
        return False
    return x is out or not np.may_share_memory(x, out) or is_same_memory(x, out)
