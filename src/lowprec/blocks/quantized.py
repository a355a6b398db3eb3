"""What quantizing an array gives: codes, scales, and the way back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.blocks.layouts import as_view, layout_of
from lowprec.common.processor_state import in_exact_state
from lowprec.conversion import decode

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from lowprec.blocks.formats import BlockFormat

    Array = np.ndarray[Any, Any]

_PIECE = 1 << 16  # elements


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Quantized:
    """An array in a block format; made by `quantize`.

    Attributes
    ----------
    codes : ndarray of ``fmt.code_dtype``
        The elements: codes of a format, right-aligned, or integers.
    scales : ndarray
        The codes of the scales, but float32 numbers where scales are float32; of the array's shape
        with the axis of blocks divided by their size, rounded up.
    tensor_scale : numpy.float32 or None
        The tensor's own scale.
    fmt : BlockFormat
        The format.
    axis : int
        The axis along which elements share a scale; -1 for tiles.
    shape : tuple of int
        The array's shape.

    Examples
    --------
    >>> from lowprec.blocks import quantize
    >>> q = quantize([[1.0, 2.0], [3.0, 100.0]], "mxfp8_e4m3")
    >>> q
    Quantized(mxfp8_e4m3, shape (2, 2), axis -1, 2 scales, 12 bits a value)
    >>> q.dequantize().tolist()
    [[1.0, 2.0], [3.0, 96.0]]
    """

    codes: Array
    scales: Array
    tensor_scale: np.float32 | None
    fmt: BlockFormat
    axis: int
    shape: tuple[int, ...]

    @in_exact_state
    def dequantize(self, dtype: DTypeLike | None = None) -> Array:
        """Return the values: element times scale times tensor scale, exact, then rounded once.

        Parameters
        ----------
        dtype : float32 or float64, optional
            The result's dtype, float32 by default. float64 holds every value of the named formats;
            float32 too, unless a value is 2**128 or more, which becomes infinite.

        Returns
        -------
        numpy.ndarray
            NaN in every block whose scale is NaN.

        Raises
        ------
        TypeError
            If another dtype is asked for.
        """
        from lowprec.blocks.plans import plan_of
        from lowprec.kernels.blocks.loops import make_decoding

        result = np.dtype(np.float32 if dtype is None else dtype)
        if result not in (np.float32, np.float64):
            raise TypeError(f"values are float32 or float64, not {result}; use astype afterwards")
        layout = layout_of(self.fmt, self.codes.shape, self.axis)
        grid = plan_of(self.fmt).grids[0]
        g = 1.0 if self.tensor_scale is None else float(self.tensor_scale)
        tile = np.array(layout.tile, np.int64)
        out = np.empty(self.codes.shape, result)
        decode_piece = make_decoding(self.fmt.code_dtype.name, result.name)
        for piece in layout.pieces(_PIECE) if out.size else ():
            codes, target = self.codes[piece], out[piece]
            flat = layout.flattened(codes.shape)
            values = as_view(target, flat)
            work = np.empty(flat, result) if values is None else values
            scales = _values(self.scales[layout.scales_of(piece)], self.fmt)
            shape = layout.flattened(scales.shape)
            decode_piece(codes.reshape(flat), tile, g, grid, scales.reshape(shape), work)
            if values is None:
                target[...] = work.reshape(target.shape)
        return out

    def scale_values(self) -> Array:
        """Return the scales as float64 numbers, without the tensor's; NaN where a block is."""
        return _values(self.scales, self.fmt)

    @in_exact_state
    def element_scales(self) -> Array:
        """Return what each element is multiplied by, scale times tensor scale, as float64.

        Examples
        --------
        >>> from lowprec.blocks import quantize
        >>> quantize([6.0, 3.0], "mxfp4").element_scales().tolist()
        [1.0, 1.0]
        """
        layout = layout_of(self.fmt, self.codes.shape, self.axis)
        g = 1.0 if self.tensor_scale is None else float(self.tensor_scale)
        scales = self.scale_values() * g
        for axis, unit in enumerate(layout.units):
            if unit != 1:
                scales = np.repeat(scales, unit, axis=axis)
        whole = tuple(slice(0, size) for size in self.codes.shape)
        return np.ascontiguousarray(scales[whole])

    @property
    def nbytes(self) -> int:
        """The bytes that the arrays take: one or two a code; `pack` gives the fewest."""
        scale = 0 if self.tensor_scale is None else self.tensor_scale.nbytes
        return self.codes.nbytes + self.scales.nbytes + scale

    @property
    def bits_per_value(self) -> float:
        """Bits of elements, of all the scales there are, and of the tensor's, for each value."""
        if not self.codes.size:
            return self.fmt.bits_per_value
        bits = self.codes.size * self.fmt.element.bits + self.scales.size * self.fmt.scale.bits
        return (bits + (0 if self.tensor_scale is None else 32)) / self.codes.size

    @in_exact_state
    def pack(self) -> dict[str, Any]:
        """Return the arrays with no bit unused between codes, as files and hardware keep them.

        Returns
        -------
        dict
            ``codes``: uint8, along the last axis two elements of 4 bits to a byte, four of 6 bits
            to three bytes, in general any width in as many bits, the first element in the low
            bits; a ragged end is filled with zero bits. Elements of 8 and 16 bits stay as they
            are. ``scales``, and ``tensor_scale`` where there is one. Scales are not swizzled.

        Examples
        --------
        >>> from lowprec.blocks import quantize
        >>> quantize([1.0, 0.5, 6.0], "mxfp4").pack()["codes"].tolist()
        [18, 7]
        """
        packed: dict[str, Any] = {"codes": self._packed_codes(), "scales": self.scales}
        if self.tensor_scale is not None:
            packed["tensor_scale"] = self.tensor_scale
        return packed

    def _packed_codes(self) -> Array:
        bits, codes = self.fmt.element.bits, self.codes
        if bits == 8 * codes.itemsize:
            return codes
        count = codes.shape[-1]
        words = codes.astype(f"<u{codes.itemsize}")
        places = np.arange(bits, dtype=words.dtype)
        flags = ((words[..., None] >> places) & words.dtype.type(1)).astype(np.uint8)
        flags = flags.reshape(*codes.shape[:-1], count * bits)
        return np.packbits(flags, axis=-1, bitorder="little")

    @in_exact_state
    def __repr__(self) -> str:
        scale = (
            "" if self.tensor_scale is None else f", tensor scale {float(self.tensor_scale):.6g}"
        )
        count = f"{self.scales.size} scale{'s' * (self.scales.size != 1)}"
        return (
            f"Quantized({self.fmt}, shape {self.shape}, axis {self.axis}, {count}{scale}, "
            f"{self.bits_per_value:.6g} bits a value)"
        )

    @in_exact_state
    def _repr_html_(self) -> str:
        from lowprec.show.cards import card  # loaded only where a card is shown

        fmt, scales = self.fmt, self.scales
        values = self.scale_values()
        finite = values[np.isfinite(values)]
        lines = [
            ("shape", f"{self.shape}, blocks of {fmt.block_in_words}"),
            ("axis", str(self.axis)),
            ("scales", f"{scales.shape} of {fmt.scale}"),
            ("range of scales", f"{finite.min():g} to {finite.max():g}" if finite.size else "none"),
            ("blocks with NaN", str(values.size - finite.size)),
        ]
        if self.tensor_scale is not None:
            lines.append(("tensor scale", f"{float(self.tensor_scale):.9g}"))
        lines.append(("bits a value", f"{self.bits_per_value:.6g}"))
        return card(f"Quantized {fmt}", fmt.element_in_words, "", lines)


def _values(scales: Array, fmt: BlockFormat) -> Array:
    if scales.dtype == np.float32:
        return scales.astype(np.float64, order="C")
    values: Array = decode(scales, fmt.scale, dtype=np.float64)
    return np.ascontiguousarray(values)
