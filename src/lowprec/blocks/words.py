"""Block formats in words, for tables and cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.blocks.formats import IntegerFormat

if TYPE_CHECKING:
    from lowprec.blocks.formats import BlockFormat

__all__ = ["block_in_words", "element_in_words"]


def block_in_words(fmt: BlockFormat) -> str:
    """Return which elements share a scale."""
    if fmt.block is None:
        return "a whole axis"
    if isinstance(fmt.block, tuple):
        return f"tile of {fmt.block[0]} × {fmt.block[1]}"
    return f"{fmt.block} along an axis"


def element_in_words(fmt: BlockFormat) -> str:
    """Return what elements are."""
    element = fmt.element
    if isinstance(element, IntegerFormat):
        unit = f" / 2^{element.fraction_bits}" if element.fraction_bits else ""
        return f"int{element.bits}{unit}"
    return str(element)
