"""What a format does to data: how much is lost, how much is left, and where the data lie.

Arrays and tensors of files are rounded and tallied block by block, so that data of any size and
layout are measured in the memory of a few blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lowprec.analysis.counting import draw_keys, measure_blocks, measure_pieces, merge_measurements
from lowprec.analysis.measurement import Measurement
from lowprec.arrays.dask_arrays import delayed_call, is_chunked, reduce_chunks
from lowprec.arrays.sources import as_array
from lowprec.formats import Format, FormatLike, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import RenderableType

    from lowprec.tensors.tensor import Tensor

__all__ = ["Comparison", "Measurement", "as_formats", "compare", "measure"]

DEFAULT_FORMATS: tuple[FormatLike, ...] = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def as_formats(formats: FormatLike | Iterable[FormatLike]) -> list[Format]:
    """Return several formats, or the one that is asked for alone."""
    if isinstance(formats, Iterable) and not isinstance(formats, str):
        return [get_format(fmt) for fmt in formats]
    return [get_format(formats)]


def measure(
    x: npt.ArrayLike | Tensor,
    fmt: FormatLike,
    *,
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    rng: Any = None,
) -> Measurement:
    """Round an array into a format and say what happened to it; the rounded values are not kept.

    Parameters
    ----------
    x : array_like, lowprec.tensors.Tensor or dask.array.Array
        Real numbers of any dtype that `round_to` takes, of any shape and layout. Each is rounded
        once, from its exact value, and errors are taken against that exact value.
    fmt : Format, str or dtype
        The format.
    rounding, overflow : str
        As in `round_to`. A stochastic mode in which an overflow is clamped shows it only from
        twice the last spacing beyond the largest value on.
    rng : None, int, SeedSequence or Generator
        Source of the random bits of stochastic modes.

    Returns
    -------
    Measurement
        Counts and extrema are exact, means good to 1e-12. Of a dask array, a `dask.delayed` object
        that computes it.

    Raises
    ------
    TypeError, ValueError
        As in `round_to`; but NaN is counted, not refused, where the format has none.

    Examples
    --------
    >>> m = measure([0.0, 1e-8, 1 / 3, 70000.0], "float16")
    >>> m.count, m.zeros, m.new_zeros, m.overflows, m.measured
    (4, 1, 1, 1, 2)
    >>> round(m.headroom_bits, 3)
    -0.096
    """
    return _measure_each(x, [get_format(fmt)], rounding, overflow, rng)[0]


def _measure_each(
    x: npt.ArrayLike | Tensor,
    formats: list[Format],
    rounding: Rounding | str = "ties_to_even",
    overflow: Overflow | str = "ieee",
    rng: Any = None,
) -> list[Measurement]:
    from lowprec.tensors.tensor import Tensor

    if is_chunked(x):
        return _measure_chunks(x, formats, Rounding(rounding), Overflow(overflow), rng)
    blocks = x.values() if isinstance(x, Tensor) else [as_array(x)]
    return measure_blocks(blocks, formats, Rounding(rounding), Overflow(overflow), rng)


def _measure_chunks(
    x: Any, formats: list[Format], rounding: Rounding, overflow: Overflow, rng: Any
) -> list[Any]:
    """Return what computes the measurements of a dask array, chunk by chunk, and merges them."""
    how = {"formats": formats, "rounding": rounding, "overflow": overflow}
    keys = draw_keys(formats, rounding, rng)
    merged = reduce_chunks(_measure_chunk, merge_measurements, x, **how, keys=keys)
    return [merged[i] for i in range(len(formats))]


def _measure_chunk(pieces: Any, **how: Any) -> list[Measurement]:
    return measure_pieces(pieces, **how)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Measurements of named arrays in several formats; a table in a terminal and in Jupyter.

    Attributes
    ----------
    measurements : dict of str to dict of str to Measurement
        By the array's name, then the format's.
    """

    measurements: Mapping[str, Mapping[str, Measurement]]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return all figures as plain data for JSON: by array, by format, by figure."""
        from lowprec.report.worst import verdict_word

        return {
            name: {
                fmt: measured.to_dict() | {"verdict": verdict_word(measured)}
                for fmt, measured in row.items()
            }
            for name, row in self.measurements.items()
        }

    def to_html(self) -> str:
        """Return a whole page with this table, styled, that refers to nothing outside itself."""
        from lowprec.analysis.comparison import comparison_page

        return comparison_page(self)

    def __rich__(self) -> RenderableType:
        from lowprec.analysis.comparison import comparison_table

        return comparison_table(self)

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(width=100, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())

    def _repr_html_(self) -> str:
        from lowprec.analysis.comparison import comparison_fragment

        return comparison_fragment(self)


def _by_name(arrays: Any) -> Mapping[str, Any]:
    """Return named arrays: a mapping, the columns of a data frame, or one array."""
    if isinstance(arrays, Mapping):
        return arrays
    columns = getattr(arrays, "columns", None)
    if columns is None or not hasattr(arrays, "__getitem__"):
        return {"x": arrays}
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two columns are called {twice!r}; give them different names")
    return {str(name): np.asarray(arrays[name]) for name in columns}


def compare(
    arrays: npt.ArrayLike | Tensor | Mapping[str, npt.ArrayLike | Tensor],
    formats: FormatLike | Iterable[FormatLike] = DEFAULT_FORMATS,
    **how: Any,
) -> Comparison:
    """Measure one array, or several by name, in several formats.

    Parameters
    ----------
    arrays : array_like, mapping of str to array_like or Tensor, or data frame
        A single array is called ``"x"``; the columns of a data frame (of pandas or polars) are
        arrays of their names. `lowprec.tensors.open_tensors` returns such a mapping;
        the tensors of files are read once, by block.
    formats : sequence of Format, str or dtype
        The formats, in the order of the table.
    **how
        `rounding`, `overflow` and `rng`, as in `measure`.

    Returns
    -------
    Comparison
        The table of measurements. With a dask array among them, a `dask.delayed` object that
        computes it.

    Examples
    --------
    >>> table = compare({"weights": [0.1, -2.5], "grads": [1e-9, 3e-5]}, ["bfloat16", "float16"])
    >>> table.measurements["grads"]["float16"].new_zeros
    1
    >>> table.to_dict()["weights"]["bfloat16"]["overflows"]
    0
    """
    named = _by_name(arrays)
    chosen = as_formats(formats)
    for fmt, other in itertools.combinations(chosen, 2):
        if fmt.name == other.name and fmt != other:
            raise ValueError(f"two formats are called {fmt.name!r}; give them different names")
    names = [fmt.name for fmt in chosen]
    measurements = {
        name: dict(zip(names, _measure_each(x, chosen, **how), strict=True))
        for name, x in named.items()
    }
    if any(map(is_chunked, named.values())):
        return cast("Comparison", delayed_call(Comparison, measurements))
    return Comparison(measurements)
