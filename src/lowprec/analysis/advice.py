"""Advice: which formats hold a tensor, and the power-of-two scale that helps one which does not.

A number times 2**k in a format is the same as the number in the format with its bias raised by k:
the same significands, the same errors, the same losses. So scales are tried on the format, and the
data are never scaled, but for a format that, moved so far, float64 could not hold.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from lowprec.analysis.columns import ByColumn, columns_of, has_columns
from lowprec.analysis.counting import measure_blocks
from lowprec.analysis.measuring import DEFAULT_FORMATS, as_formats, measure
from lowprec.arrays.dask_arrays import is_chunked
from lowprec.arrays.sources import InBlocks, as_array
from lowprec.blocks.formats import BlockFormat
from lowprec.common.processor_state import in_exact_state
from lowprec.exact.number import floor_log2_ratio
from lowprec.formats import Format, float64, scaled
from lowprec.rounding import Overflow, Rounding
from lowprec.show.words import percent, superscript

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from lowprec.analysis.measurement import Measurement
    from lowprec.blocks.formats import AnyFormat, AnyFormatLike


@dataclasses.dataclass(frozen=True)
class FormatAdvice:
    """What one format does to a tensor, and what a scale would change.

    Attributes
    ----------
    fmt : Format
        The format.
    tolerance : float
        The largest relative error that counts as holding.
    measured : Measurement
        The tensor in the format.
    scale : float or None
        The power of two to multiply the tensor by; None where none helps or none is needed.
    scaled : Measurement or None
        The tensor in the format after scaling, in the tensor's own unit: its `fmt` is the format
        with another bias. Where float64 does not hold that format, it is the measurement of the
        scaled tensor, and `fmt` the format itself.
    """

    fmt: AnyFormat
    tolerance: float
    measured: Measurement
    scale: float | None = None
    scaled: Measurement | None = None

    @property
    @in_exact_state
    def holds(self) -> bool:
        """Whether nothing is lost that matters, and every relative error is within the tolerance.

        Few small values may lose more of themselves where that is little beside the tensor's size.
        """
        return _holds(self.measured, self.tolerance)

    @property
    @in_exact_state
    def holds_scaled(self) -> bool:
        """Whether it holds the tensor once scaled (or without)."""
        return self.holds or (self.scaled is not None and _holds(self.scaled, self.tolerance))

    def __str__(self) -> str:
        return f"{self.fmt} {describe(self)}"


@dataclasses.dataclass(frozen=True, repr=False)
class Advice:
    """What each format does to one tensor; ``print`` it for words.

    Attributes
    ----------
    tolerance : float
        The largest relative error that counts as holding.
    formats : tuple of FormatAdvice
        In the order asked for.
    """

    tolerance: float
    formats: tuple[FormatAdvice, ...]

    @property
    @in_exact_state
    def holding(self) -> tuple[AnyFormat, ...]:
        """The formats that hold the tensor as it is."""
        return tuple(advice.fmt for advice in self.formats if advice.holds)

    @property
    def scales(self) -> dict[str, float]:
        """The helpful scale of each format that has one, by the format's name."""
        return {str(a.fmt): a.scale for a in self.formats if a.scale is not None}

    @in_exact_state
    def to_dict(self) -> dict[str, Any]:
        """Return the advice as plain data for JSON."""
        return {
            "tolerance": self.tolerance,
            "formats": {
                str(advice.fmt): {
                    "holds": advice.holds,
                    "scale": advice.scale,
                    "holds_scaled": advice.holds_scaled,
                    "words": str(advice),
                }
                for advice in self.formats
            },
        }

    def __repr__(self) -> str:
        return "\n".join(map(str, self.formats))


@overload
def advise(
    x: npt.ArrayLike | InBlocks,
    formats: AnyFormatLike | Iterable[AnyFormatLike] | None = None,
    *,
    tolerance: float = 0.01,
    axis: int = -1,
) -> Advice: ...


@overload
def advise(
    x: Mapping[str, Any],
    formats: AnyFormatLike | Iterable[AnyFormatLike] | None = None,
    *,
    tolerance: float = 0.01,
    axis: int = -1,
) -> dict[str, Advice]: ...


@in_exact_state
def advise(
    x: npt.ArrayLike | InBlocks | Mapping[str, Any],
    formats: AnyFormatLike | Iterable[AnyFormatLike] | None = None,
    *,
    tolerance: float = 0.01,
    axis: int = -1,
) -> Advice | dict[str, Advice]:
    """Say which formats hold a tensor and which power-of-two scale helps one that does not.

    A format holds a tensor if nothing becomes zero, infinite or NaN and no relative error exceeds
    the tolerance. Values below the format's normal range are judged beside the tensor's size as
    well: at most 1 % of the numbers may become subnormal or zero, if their errors are no larger
    than one that the format makes in a number as large as the tensor's root mean square. Where a
    format does not hold a tensor, the scale nearest to 1 is proposed that brings all magnitudes
    into its range or, where they span more than that, the largest that overflows nowhere.

    Parameters
    ----------
    x : array_like, lowprec.tensors.Tensor or dask.array.Array
        The tensor; read by block, a dask array by chunk and at once. A mapping of arrays by name
        or a data frame is judged by column.
    formats : Format, str or dtype, or an iterable of them, optional
        The formats to try; bfloat16, float16, float8_e4m3fn and float8_e5m2 by default.
    tolerance : float
        The largest relative error to accept, 1 % by default.
    axis : int
        Of block formats: the axis along which elements share a scale. No scale is proposed for
        them, as they choose theirs.

    Returns
    -------
    Advice
        As data, and as words when printed. Scales are verified by measurement. Of a mapping or a
        data frame, a dict of them by name, which prints column by column.

    Raises
    ------
    ValueError
        If the tolerance is not positive.

    Examples
    --------
    >>> print(advise([0.25, 0.02, 119716.0], ["bfloat16", "float16"]))
    bfloat16 keeps every value within 0.098 %
    float16 loses 1 of 3 values to overflow: it ends at 65,504, they at 119,716; multiplied by \
2⁻¹ it keeps all within 0.023 %
    """
    if not tolerance > 0:
        raise ValueError(f"a tolerance of {tolerance} holds nothing; use a positive one, as 0.01")
    chosen = as_formats(DEFAULT_FORMATS if formats is None else formats)
    if has_columns(x):
        return ByColumn({name: advise(column, chosen, tolerance=tolerance, axis=axis)
                         for name, column in columns_of(x).items()})  # fmt: skip
    return Advice(tolerance, tuple(_advise(cast("Any", x), fmt, tolerance, axis) for fmt in chosen))


def _advise(
    x: npt.ArrayLike | InBlocks, fmt: AnyFormat, tolerance: float, axis: int
) -> FormatAdvice:
    measured = _measure(x, fmt, axis)
    advice = FormatAdvice(fmt, tolerance, measured)
    is_fine = advice.holds or is_far_from_zero(measured)  # no scale helps these
    exponent = 0 if is_fine else _exponent(measured, tolerance)
    if exponent == 0 or not isinstance(fmt, Format):
        return advice
    shifted = _shifted(fmt, exponent)
    after = _measure_scaled(x, fmt, exponent) if shifted is None else _measure(x, shifted)
    if _badness(after) >= _badness(measured) or after.collapses:
        return advice
    return dataclasses.replace(advice, scale=math.ldexp(1.0, exponent), scaled=after)


def _measure(x: npt.ArrayLike | InBlocks, fmt: AnyFormat, axis: int = -1) -> Measurement:
    measured = measure(x, fmt, axis=axis, tensor_amax=_amax(x, fmt))
    computed: Measurement = cast("Any", measured).compute() if is_chunked(x) else measured
    return computed


def _amax(x: Any, fmt: AnyFormat) -> float | None:
    """Return a dask array's largest finite magnitude where a format needs it beforehand."""
    if not (is_chunked(x) and isinstance(fmt, BlockFormat) and fmt.tensor_scale):
        return None
    return _measure(x, float64).max_abs


def _measure_scaled(x: npt.ArrayLike | InBlocks, fmt: Format, exponent: int) -> Measurement:
    """Measure the data times 2**exponent."""
    if is_chunked(x):
        return _measure(cast("Any", x).map_blocks(_times_power, exponent, dtype=np.float64), fmt)
    blocks = x.__lowprec_blocks__() if isinstance(x, InBlocks) else [as_array(x)]
    moved = (_times_power(block, exponent) for block in blocks)
    return measure_blocks(moved, [fmt], Rounding.TIES_TO_EVEN, Overflow.IEEE, None)[0]


@np.errstate(all="ignore")
def _times_power(x: np.ndarray[Any, Any], exponent: int) -> np.ndarray[Any, Any]:
    """Return x times 2**exponent as float64, of which only numbers that become tiny are rounded.

    The processor may take subnormal numbers as zero: their significands are read as integers.
    """
    x = np.asarray(x, np.float64)
    bits = x.view(np.uint64)
    significand = bits & np.uint64((1 << 52) - 1)
    is_subnormal = (bits & np.uint64(0x7FF << 52)) == 0
    unit = math.ldexp(1.0, max(exponent - 1074, -1074))  # of the significands
    normal = x * math.ldexp(1.0, exponent)
    return np.where(is_subnormal, np.copysign(significand * unit, x), normal)


def _holds(measured: Measurement, tolerance: float) -> bool:
    if measured.collapses:
        return False
    if measured.lost == 0 and measured.max_relative_error <= tolerance:
        return True
    return loses_beside_size(measured, tolerance)


NO_SCALE = "no scale helps"

_FEW = 0.01  # of the numbers: this share of small ones may be judged beside the tensor's size


def loses_beside_size(measured: Measurement, tolerance: float) -> bool:
    """Whether all that is lost is of few small values, and little beside the tensor's size.

    Their errors are at most half the smallest number of the format; beside the tensor's size that
    is little if the format rounds a number as large as the root mean square no better.
    """
    fmt, small = measured.fmt, measured.new_zeros + measured.subnormals
    if not isinstance(fmt, Format) or measured.lost > measured.new_zeros or not small:
        return False
    if small > _FEW * measured.measured or error_in_range(measured) > tolerance:
        return False
    return error_of_small(measured) <= error_in_range(measured) * size_of(measured)


def error_in_range(measured: Measurement) -> float:
    """Return the relative error up to which a format rounds in its normal range; 0 of blocks."""
    if not isinstance(measured.fmt, Format):
        return 0.0
    to_nearest = float(measured.fmt.unit_roundoff)
    return to_nearest if _is_to_nearest(measured) else 2 * to_nearest


def error_of_small(measured: Measurement) -> float:
    """Return the error up to which a format rounds below its normal range."""
    assert isinstance(measured.fmt, Format)
    return measured.fmt.smallest_subnormal * (0.5 if _is_to_nearest(measured) else 1.0)


def size_of(measured: Measurement) -> float:
    """Return the root mean square of the numbers that were measured."""
    if not measured.measured:
        return 0.0
    mean = measured.signal / measured.measured
    if 1e-300 < mean < 1e300:
        return math.sqrt(mean)
    return measured.max_abs / math.sqrt(measured.measured)  # at least so much


def _is_to_nearest(measured: Measurement) -> bool:
    return measured.rounding in _TO_NEAREST


_TO_NEAREST = (Rounding.TIES_TO_EVEN, Rounding.TIES_TO_AWAY, Rounding.TIES_TOWARD_ZERO)


def _badness(measured: Measurement) -> tuple[int, float]:
    return measured.lost, measured.max_relative_error


def _exponent(measured: Measurement, tolerance: float) -> int:
    """Return the k nearest to 0 for which the data times 2**k lie in the format's range.

    Where they span more than that it is the largest that overflows nowhere.
    """
    lowest, highest = _exponents(measured, tolerance)
    exponent = highest if lowest > highest else min(max(0, lowest), highest)
    return min(max(exponent, -1023), 1023)  # a scale is a float64


def _exponents(measured: Measurement, tolerance: float) -> tuple[int, int]:
    """Return the least and the largest k for which the data times 2**k lie in the range.

    At the lower end that is where half a spacing is within the tolerance of the smallest datum.
    """
    fmt = measured.fmt
    if measured.max_abs == 0.0 or isinstance(fmt, BlockFormat):
        return 0, 0  # the scales of blocks are chosen block by block
    smallest = max(fmt.smallest_subnormal / (2 * tolerance), fmt.smallest_subnormal)
    highest = floor_log2_ratio(fmt.max, measured.max_abs)
    lowest = -floor_log2_ratio(measured.min_abs, min(smallest, fmt.smallest_normal))
    return lowest, highest


def remedy(measured: Measurement, tolerance: float, others: Iterable[Measurement] = ()) -> str:
    """Return what to do where a format does not hold a tensor, from its measurement alone.

    Parameters
    ----------
    measured : Measurement
        The tensor in the format.
    tolerance : float
        The largest relative error to accept.
    others : iterable of Measurement
        The tensor in other formats; those that hold it are named.

    Returns
    -------
    str
        Such as ``multiply by 2⁻¹, or take bfloat16``; empty where nothing helps or is needed.
    """
    if _holds(measured, tolerance):
        return ""
    holding = [str(one.fmt) for one in others if _holds(one, max(tolerance, error_in_range(one)))]
    take = [f"take {' or '.join(holding)}"] if holding else []
    if is_far_from_zero(measured) or measured.blocks:  # `describe` says to subtract the mean
        return "".join(take)
    lowest, highest = _exponents(measured, tolerance)
    is_reached = error_in_range(measured) <= tolerance and not _without_code(measured)
    if lowest <= highest and is_reached and (lowest > 0 or highest < 0):
        power = lowest if lowest > 0 else highest
        return ", or ".join([f"multiply by 2{superscript(power)}", *take])
    if lowest > highest:
        binades = math.floor(math.log2(measured.max_abs) - math.log2(measured.min_abs)) + 1
        return "; ".join([f"{NO_SCALE}, as the values span {binades} binades", *take])
    return "".join(take)


def is_far_from_zero(measured: Measurement) -> bool:
    """Whether values collapse as their mean is large beside what varies: no scale helps these."""
    variation = measured.variation if measured.collapses else None
    return variation is not None and variation.helps_to_centre


def _without_code(measured: Measurement) -> bool:
    """Whether there are NaN or infinities that the format has no code for."""
    fmt = measured.fmt
    return bool((measured.nans and not fmt.has_nan) or (measured.infs and not fmt.has_infinity))


def _shifted(fmt: Format, exponent: int) -> Format | None:
    """Return the format whose values are those of `fmt` times 2**-exponent, if float64 can."""
    try:
        return scaled(fmt, math.ldexp(1.0, -exponent))
    except ValueError:
        return None


# Words -------------------------------------------------------------------------------------------


@in_exact_state
def describe(advice: FormatAdvice) -> str:
    """Return what the format does to the tensor, and what a scale changes, as a verb phrase."""
    measured = advice.measured
    error = percent(measured.max_relative_error)
    if measured.lost:
        words = f"loses {losses(measured)}"
        if measured.overflows and measured.max_abs > measured.fmt.max:
            words += f": it ends at {measured.fmt.max:,.6g}, they at {measured.max_abs:,.6g}"
    elif measured.max_relative_error == 0:
        words = "keeps every value exactly"
    elif loses_beside_size(measured, advice.tolerance):
        words = f"keeps every value within {percent(error_in_range(measured))} but small ones"
    elif advice.holds:
        words = f"keeps every value within {error}"
    else:
        words = f"loses none but is off by up to {error}"
        if measured.subnormals:
            are = "value becomes" if measured.subnormals == 1 else "values become"
            words += f" ({measured.subnormals:,} {are} subnormal)"
    variation = measured.variation if measured.collapses else None
    if variation is not None and not measured.lost:
        words += f", but {variation}"
    elif variation is not None and variation.helps_to_centre:
        words += f"; {variation.centring}"
    if advice.holds and loses_beside_size(measured, advice.tolerance):
        words += f", {_beside_size(measured)}"
    if measured.clipped:
        words += f"; {measured.clipped:,} are clipped to the largest element of their block"
    return words + _describe_scale(advice)


def _beside_size(measured: Measurement) -> str:
    """Say what becomes of small values, beside the tensor's size."""
    small = measured.new_zeros + measured.subnormals
    lost = f" ({measured.new_zeros:,} of them 0)" if measured.new_zeros else ""
    return (
        f"{small:,} of which{lost} become subnormal: off by up to "
        f"{error_of_small(measured):.2g} beside the tensor's size of {size_of(measured):.2g}"
    )


def _describe_scale(advice: FormatAdvice) -> str:
    if advice.scale is None or advice.scaled is None:
        return _without_scale(advice)
    times = f"; multiplied by 2{superscript(math.frexp(advice.scale)[1] - 1)} it"
    if advice.scaled.lost:
        return f"{times} still loses {advice.scaled.lost:,}"
    error = advice.scaled.max_relative_error
    return (
        f"{times} keeps all exactly" if error == 0 else f"{times} keeps all within {percent(error)}"
    )


def _without_scale(advice: FormatAdvice) -> str:
    """Say that no scale helps, where one might be expected to."""
    measured = advice.measured
    is_expected = measured.overflows or measured.new_zeros or measured.subnormals
    if advice.holds or is_far_from_zero(measured) or not is_expected or measured.blocks:
        return ""
    return f"; {NO_SCALE}"


def losses(measured: Measurement) -> str:
    """Return what is lost in words, as in "61 of 442 values to overflow"."""
    fmt = measured.fmt
    counts = {
        "beside NaN or infinity in their block" if measured.blocks else "to overflow": (
            measured.overflows
        ),
        "to zero": measured.new_zeros,
        "as it has no NaN": 0 if fmt.has_nan else measured.nans,
        "as it has no infinity": 0 if fmt.has_infinity else measured.infs,
    }
    kinds = [kind for kind, count in counts.items() if count]
    shares = ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)
    words = kinds[0] if len(kinds) == 1 else f"({shares})"
    return f"{measured.lost:,} of {measured.count:,} values {words}"
