"""`compare`: named arrays measured in several formats, and the table of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lowprec.analysis.columns import columns_of, has_columns
from lowprec.analysis.measuring import DEFAULT_FORMATS, as_formats, measure_each
from lowprec.arrays.dask_arrays import delayed_call, is_chunked
from lowprec.common.processor_state import in_exact_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from rich.console import RenderableType

    from lowprec.analysis.measurement import Measurement
    from lowprec.arrays.sources import InBlocks
    from lowprec.blocks.formats import AnyFormatLike


class LeftOut(NamedTuple):
    """A tensor that was not measured: its bytes, and why."""

    nbytes: int
    reason: str


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Measurements of named arrays in several formats; a table in a terminal and in Jupyter.

    Attributes
    ----------
    measurements : dict of str to dict of str to Measurement
        By the array's name, then the format's.
    left_out : dict of str to LeftOut
        The tensors of files that were not measured, by name: integers of a model, and what belongs
        to a packing that lowprec does not read.
    tolerance : float or None
        The largest relative error that counts as holding; None judges each format by what it can.
    """

    measurements: Mapping[str, Mapping[str, Measurement]]
    left_out: Mapping[str, LeftOut] = dataclasses.field(default_factory=dict)
    tolerance: float | None = None

    @in_exact_state
    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return all figures as plain data for JSON: by array, by format, by figure.

        Where tensors were left out, ``"left_out"`` has their number, bytes and reasons by name.
        """
        from lowprec.analysis.judgement import verdict_word

        figures: dict[str, Any] = {
            name: {
                fmt: measured.to_dict() | {"verdict": verdict_word(measured, self.tolerance)}
                for fmt, measured in row.items()
            }
            for name, row in self.measurements.items()
        }
        if self.left_out:
            figures["left_out"] = {
                "tensors": len(self.left_out),
                "bytes": sum(one.nbytes for one in self.left_out.values()),
                "names": {name: one.reason for name, one in self.left_out.items()},
            }
        return figures

    @in_exact_state
    def to_html(self) -> str:
        """Return a whole page with this table, styled, that refers to nothing outside itself."""
        from lowprec.analysis.comparison_views import comparison_page

        return comparison_page(self.measurements, self.left_out, self.tolerance)

    @in_exact_state
    def __rich__(self) -> RenderableType:
        from lowprec.analysis.comparison_views import comparison_table

        return comparison_table(self.measurements, self.left_out, self.tolerance)

    @in_exact_state
    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(width=100, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())

    @in_exact_state
    def _repr_html_(self) -> str:
        from lowprec.analysis.comparison_views import comparison_fragment

        return comparison_fragment(self.measurements, self.left_out, self.tolerance)


def _left_out(arrays: Any) -> dict[str, LeftOut]:
    """Return what is not measured of the tensors of files."""
    if not isinstance(arrays, Mapping):
        return {}
    left = {name: LeftOut(x.nbytes, x.left) for name, x in arrays.items() if getattr(x, "left", "")}
    return {**getattr(arrays, "left_out", {}), **left}


@in_exact_state
def compare(
    arrays: npt.ArrayLike | InBlocks | Mapping[str, npt.ArrayLike | InBlocks],
    formats: AnyFormatLike | Iterable[AnyFormatLike] = DEFAULT_FORMATS,
    *,
    tolerance: float | None = None,
    **how: Any,
) -> Comparison:
    """Measure one array, or several by name, in several formats.

    Parameters
    ----------
    arrays : array_like, mapping of str to array_like or Tensor, or data frame
        A single array is called ``"x"``; the columns of a data frame (of pandas or polars) are
        arrays of their names. `lowprec.tensors.open_tensors` returns a mapping whose tensors are
        read once, by block.
    formats : sequence of Format, BlockFormat, str or dtype
        The formats, in the order of the table.
    tolerance : float, optional
        The largest relative error that counts as holding; by default 1 % or one rounding of the
        format, whichever is more.
    **how
        `rounding`, `overflow`, `rng`, `axis` and `tensor_amax`, as in `measure`.

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
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"a tolerance of {tolerance} holds nothing; use a positive one, as 0.01")
    named: Mapping[str, Any] = columns_of(arrays) if has_columns(arrays) else {"x": arrays}
    chosen = as_formats(formats)
    for fmt, other in itertools.combinations(chosen, 2):
        if str(fmt) == str(other) and fmt != other:
            raise ValueError(f"two formats are called {str(fmt)!r}; give them different names")
    names = [str(fmt) for fmt in chosen]
    measurements = {
        name: dict(zip(names, measure_each(x, chosen, **how), strict=True))
        for name, x in named.items()
    }
    if any(map(is_chunked, named.values())):
        return cast("Comparison", delayed_call(Comparison, measurements))
    return Comparison(measurements, _left_out(arrays), tolerance)
