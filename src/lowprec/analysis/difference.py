"""`diff`: two arrays, or two sets of named arrays, against each other, element by element."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec.analysis.difference_figures import Element, Figures
from lowprec.analysis.error_percentiles import Errors
from lowprec.arrays.sources import InBlocks, as_array
from lowprec.blocks.formats import AnyFormat, AnyFormatLike, BlockFormat, IntegerFormat, get_format
from lowprec.common.processor_state import in_exact_state
from lowprec.formats import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    Array = np.ndarray[Any, Any]
    Blocks = Iterator[Array]

_BLOCK = 1 << 17  # elements
_MOST_WORST = 5
_HALVES = 2.0**32


@dataclasses.dataclass(frozen=True, repr=False)
class Difference(Figures):
    """How two arrays, or two sets of named arrays, differ; made by `diff`.

    Attributes
    ----------
    fmt : Format, BlockFormat or None
        What the distance is counted in; None where the tensors have several, or are integers.
    count : int
        Elements that were compared.
    equal : int
        Elements that are the same: one value, with one sign where it is zero, or NaN in both.
    max_ulps : float
        The largest distance in steps of the format; infinity where one element alone is NaN, or
        one alone infinite, or the two are infinities of different signs.
    max_abs, max_rel : float
        The largest ``|y - x|`` and ``|y - x| / |x|``; the latter is infinite where x alone is zero.
    percentiles : dict of str to dict of str to float
        Of ``"ulps"``, ``"abs"`` and ``"rel"``, over all elements that were compared: ``"50"``,
        ``"90"``, ``"99"`` and ``"99.9"`` percent are at most this. Exact as long as at most
        1,048,576 elements differ, else to a tenth of a percent.
    first, worst : Element or None
        The first element in C order that differs, and the first of those that are farthest apart;
        None where none differs.
    most_distant : tuple of Element
        The worst elements, at most five, in descending order of distance.
    unbounded : int
        Elements whose distance is infinite.
    missing, extra : tuple of str
        Names that y lacks, and those that x lacks.
    shapes : dict of str to pair of shapes
        The tensors that have different shapes, which were not compared.
    tensors : dict of str to Difference
        The tensors that were compared, one by one; empty in each of them.
    """

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data for JSON, None in place of infinity and NaN."""
        from lowprec.analysis.difference_views import as_data

        return as_data(self)

    def to_html(self) -> str:
        """Return a whole page with the table, styled, that refers to nothing outside itself."""
        from lowprec.analysis.difference_views import difference_page

        return difference_page(self)

    def __rich__(self) -> RenderableType:
        from lowprec.analysis.difference_views import difference_table

        return difference_table(self)

    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        from lowprec.analysis.difference_views import difference_fragment

        return difference_fragment(self)


@in_exact_state
def diff(x: Any, y: Any, fmt: AnyFormatLike | None = None, *, axis: int = -1) -> Difference:
    """Compare two arrays, or two sets of named arrays, element by element.

    Parameters
    ----------
    x, y : array_like, Tensor, or mapping of str to these
        What is compared; `lowprec.tensors.open_tensors` returns such a mapping, whose tensors are
        read by block. x is the reference: relative errors are relative to its elements.
    fmt : Format, BlockFormat, str or dtype, optional
        What the distance is counted in; by default, for each tensor, the narrower of the two
        formats. Between values of the format, the distance is the number of steps from one to the
        other; a number between two values counts by its place between them, so that one rounding
        to nearest is at most half a step. In a block format a step is that of the element times
        the block's scale; the scales are y's where y is stored in this format, else x's.
    axis : int
        Of block formats: the axis along which elements share a scale.

    Raises
    ------
    TypeError
        If the elements are not real numbers, or an array is compared with a mapping.

    Examples
    --------
    >>> found = diff([1.0, 2.0, 3.0], [1.0, 2.015625, 3.0], "bfloat16")
    >>> found.count, found.equal, found.max_ulps, found.worst.index
    (3, 2, 1.0, (1,))
    >>> diff({"w": [0.1]}, {"w": [0.1], "b": [0.0]}).extra
    ('b',)
    """
    chosen = None if fmt is None else get_format(fmt)
    if isinstance(x, Mapping) != isinstance(y, Mapping):
        raise TypeError(
            f"a {type(x).__name__} and a {type(y).__name__} cannot be compared; pass two arrays, "
            "or two mappings of names to arrays"
        )
    if not isinstance(x, Mapping):
        x, y = {"x": x}, {"x": y}
        compared = _compare_named(x, y, chosen, axis)
        if compared.tensors:  # one tensor is not a set
            one: Difference = compared.tensors["x"]
            return dataclasses.replace(one, shapes=compared.shapes)
        return compared
    return _compare_named(x, y, chosen, axis)


def _compare_named(
    xs: Mapping[str, Any], ys: Mapping[str, Any], fmt: AnyFormat | None, axis: int
) -> Difference:
    total, parts, shapes = _ErrorTally(), dict[str, Difference](), {}
    for name in xs:
        if name not in ys:
            continue
        x, y = _Side.of(xs[name]), _Side.of(ys[name])
        if x.shape != y.shape:
            shapes[name] = (x.shape, y.shape)
            continue
        step = narrower(x.fmt, y.fmt) if fmt is None else fmt
        tally = _ErrorTally()
        for one in (tally, total):
            one.begin(name, x.shape)
        _compare_pair(x, y, step, axis, (tally, total))
        parts[name] = tally.result(step)
    formats = {part.fmt for part in parts.values()}
    common = formats.pop() if len(formats) == 1 else None
    return dataclasses.replace(
        total.result(fmt or common),
        missing=tuple(name for name in xs if name not in ys),
        extra=tuple(name for name in ys if name not in xs),
        shapes=shapes,
        tensors=parts,
    )


def narrower(one: AnyFormat | None, other: AnyFormat | None) -> AnyFormat | None:
    """Return the format of fewer bits a value; of formats as wide, that of less precision."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=_width)


def _width(fmt: AnyFormat) -> tuple[float, int]:
    if isinstance(fmt, BlockFormat):
        return fmt.bits_per_value, 0
    return float(fmt.bits), fmt.precision


class _Side(NamedTuple):
    """An array, or a tensor that is read by block."""

    whole: Any
    shape: tuple[int, ...]
    fmt: AnyFormat | None

    @classmethod
    def of(cls, x: Any) -> _Side:
        if type(x) is not np.ndarray and isinstance(x, InBlocks) and hasattr(x, "shape"):
            return cls(x, tuple(x.shape), getattr(x, "fmt", None))
        array = as_array(x)
        try:
            fmt = get_format(array.dtype) if array.dtype.kind in "fV" else None
        except (TypeError, ValueError):
            fmt = None
        return cls(array, array.shape, fmt)

    def blocks(self) -> Blocks:
        if isinstance(self.whole, np.ndarray):
            flat = self.whole.reshape(-1)  # copies where strides ask for it
            return (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))
        return _regular(self.whole.__lowprec_blocks__())

    def array(self) -> Array:
        if isinstance(self.whole, np.ndarray):
            return self.whole
        parts = list(self.whole.__lowprec_blocks__())
        return (np.concatenate(parts) if parts else np.zeros(0)).reshape(self.shape)

    def steps(self, fmt: BlockFormat) -> Blocks | None:
        """Return each element's scale, where this side is stored in the format; else None."""
        scales = getattr(self.whole, "element_scales", None)
        return _regular(scales()) if scales is not None and self.fmt == fmt else None


def _regular(blocks: Blocks) -> Blocks:
    """Yield the same elements in blocks of one size."""
    kept: list[Array] = []
    size = 0
    for block in blocks:
        kept.append(block)
        size += block.size
        while size >= _BLOCK:
            joined = np.concatenate(kept) if len(kept) > 1 else kept[0]
            yield joined[:_BLOCK]
            kept = [joined[_BLOCK:]]
            size -= _BLOCK
    if size:
        yield np.concatenate(kept)


def _compare_pair(
    x: _Side, y: _Side, fmt: AnyFormat | None, axis: int, tallies: tuple[_ErrorTally, ...]
) -> None:
    element: Format | IntegerFormat | None
    element, steps = None, None
    if not isinstance(fmt, BlockFormat):
        element = fmt
    else:
        element, steps = fmt.element, y.steps(fmt) or x.steps(fmt) or _steps_of(x, fmt, axis)
    start = 0
    for left, right in zip(x.blocks(), y.blocks(), strict=True):
        scale = None if steps is None else next(steps)
        found = _differing(left, right, element, scale)
        for tally in tallies:
            tally.add(left.size, start, found)
        start += left.size


def _steps_of(x: _Side, fmt: BlockFormat, axis: int) -> Blocks:
    """Yield each element's scale, as x has it when it is quantized."""
    from lowprec.analysis.block_measuring import as_number
    from lowprec.blocks import quantize
    from lowprec.blocks.layouts import layout_of
    from lowprec.blocks.quantizing import tensor_amax_of
    from lowprec.blocks.streams import can_be_streamed, pieces_in_order

    if not math.prod(x.shape):
        return iter(())
    layout, amax = layout_of(fmt, x.shape, axis), None
    if can_be_streamed(layout):
        pieces = pieces_in_order(x.blocks(), layout, _BLOCK)
        if fmt.tensor_scale:
            amax = as_number(max(map(tensor_amax_of, x.blocks())))
    else:
        pieces = iter([x.array()])
    scales = (quantize(piece, fmt, axis=axis, tensor_amax=amax) for piece in pieces)
    return _regular(scale.element_scales().reshape(-1) for scale in scales)


class _Differing(NamedTuple):
    """The elements of a block that are not the same."""

    places: Array
    x: Array
    y: Array
    ulps: Array
    abs: Array
    rel: Array


@np.errstate(all="ignore")
def _differing(x: Array, y: Array, fmt: Any, scale: Array | None) -> _Differing:
    if any(z.dtype.kind in "iu" and z.dtype.itemsize == 8 for z in (x, y)):
        places, a, b, distance = _apart_exactly(x, y)
    else:
        a, b = x.astype(np.float64), y.astype(np.float64)
        same = (a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))
        places = np.flatnonzero(~same)
        a, b = a[places], b[places]
        distance = np.abs(a - b)
    apart = ~(np.isfinite(a) & np.isfinite(b))
    distance[apart] = np.inf
    rel = np.where(distance == 0, 0.0, distance / np.abs(a))
    rel[apart] = np.inf
    if fmt is None:
        ulps = distance
    elif scale is None:
        ulps = _steps_between(a, b, fmt)
    else:
        unit = scale[places]
        unit = np.where((unit > 0) & np.isfinite(unit), unit, 1.0)
        ulps = _steps_between(a / unit, b / unit, fmt)
    if a.size and isinstance(fmt, Format):  # 64-bit integers that float64 rounds to one number
        hidden = (a == b) & (distance > 0)
        ulps = np.where(hidden, distance / np.ldexp(1.0, np.frexp(a)[1] - fmt.precision), ulps)
    return _Differing(places, a, b, np.where(apart, np.inf, ulps), distance, rel)


def _apart_exactly(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Return where 64-bit integers differ, both values and the distance, from 32 bits at a time."""
    (high_x, low_x), (high_y, low_y) = _halves(x), _halves(y)
    same = (high_x == high_y) & (low_x == low_y)
    places = np.flatnonzero(~same)
    distance = np.abs((high_x - high_y)[places] + (low_x - low_y)[places])
    return places, (high_x + low_x)[places], (high_y + low_y)[places], distance


def _halves(x: Array) -> tuple[Array, Array]:
    """Return numbers as a multiple of 2**32 and a rest, which float64 holds exactly."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        low = (x & x.dtype.type(0xFFFFFFFF)).astype(np.float64)
        return (x >> x.dtype.type(32)).astype(np.float64) * _HALVES, low
    wide = x.astype(np.float64)
    high = np.where(np.isfinite(wide), np.floor(wide / _HALVES) * _HALVES, wide)
    return high, np.where(np.isfinite(wide), wide - high, 0.0)


def _steps_between(x: Array, y: Array, fmt: Format | IntegerFormat) -> Array:
    """Return how many steps of a format lie between numbers.

    A step is the spacing of the format's values, which goes on beyond its largest. Within a binade
    the place of a number is its significand, so that all here is exact but very long distances.
    """
    if isinstance(fmt, IntegerFormat):
        return np.asarray(np.abs(x - y) / fmt.step)
    unit = float(1 << fmt.trailing_bits)
    # zero and the smallest normal number are neighbours where nothing lies between
    below = 1.0 / unit if fmt.has_zero and not fmt.subnormals else 1.0
    (level, part), (level_y, part_y) = _place(x, fmt, below), _place(y, fmt, below)
    together = np.signbit(x) == np.signbit(y)
    apart = (level - level_y) + (part - part_y)
    around = (level + level_y) + (part + part_y)
    return np.asarray(np.where(together, np.abs(apart), around) * unit)


def _place(x: Array, fmt: Format, below: float) -> tuple[Array, Array]:
    """Return a magnitude's binade, counted from zero, and its place in it, from 0 to 1."""
    size = np.abs(x)
    significand, exponent = np.frexp(size)
    level = (exponent - 1 - fmt.emin).astype(np.float64)
    if not fmt.has_zero:
        return level, 2 * significand - 1
    small = size < math.ldexp(1.0, fmt.emin)
    part = np.where(small, np.ldexp(size, -fmt.emin) * below, 2 * significand - 1)
    return np.where(small, 0.0, level + below), part


class _ErrorTally:
    """The figures of a difference, added up."""

    def __init__(self) -> None:
        self.name = ""
        self.count = self.equal = self.unbounded = 0
        self.errors = {"ulps": Errors(), "abs": Errors(), "rel": Errors()}
        self.first: Element | None = None
        self.worst: list[Element] = []
        self.shape: tuple[int, ...] = ()

    def begin(self, name: str, shape: tuple[int, ...]) -> None:
        """Note the name and the shape of the tensor that follows."""
        self.name, self.shape = name, shape

    def add(self, size: int, start: int, found: _Differing) -> None:
        """Add a block."""
        self.count += size
        self.equal += size - found.places.size
        for kind, errors in self.errors.items():
            errors.add(size, getattr(found, kind))
        if not found.places.size:
            return
        self.unbounded += int(np.isinf(found.ulps).sum())
        order = np.lexsort((found.places, -found.abs, -found.ulps))[:_MOST_WORST]
        self.worst = sorted(
            [*self.worst, *(self._element(i, start, found) for i in order)],
            key=lambda element: (-element.ulps, -element.abs),
        )[:_MOST_WORST]
        if self.first is None:
            self.first = self._element(0, start, found)

    def _element(self, i: int, start: int, found: _Differing) -> Element:
        index = np.unravel_index(start + int(found.places[i]), self.shape) if self.shape else ()
        figures = (found.x, found.y, found.ulps, found.abs, found.rel)
        return Element(self.name, tuple(map(int, index)), *(float(one[i]) for one in figures))

    def result(self, fmt: AnyFormat | None) -> Difference:
        """Return the figures."""
        return Difference(
            fmt,
            self.count,
            self.equal,
            self.errors["ulps"].largest,
            self.errors["abs"].largest,
            self.errors["rel"].largest,
            {kind: errors.percentiles() for kind, errors in self.errors.items()},
            self.first,
            self.worst[0] if self.worst else None,
            tuple(self.worst),
            self.unbounded,
        )
