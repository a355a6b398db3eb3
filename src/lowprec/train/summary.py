"""A model as a table: layers, shapes, parameters and their bytes."""

from __future__ import annotations

import dataclasses
import html
import math
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lowprec.train.layers.layer import Shape
    from lowprec.train.network import Network
    from lowprec.train.policy import Policy


class LayerLine(NamedTuple):
    """One layer of a summary."""

    number: int
    layer: str
    output_shape: Shape
    parameters: int
    trained: int  # of these


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """What `Sequential.summary` returns; it prints itself, and shows in Jupyter.

    Parameters
    ----------
    lines : tuple of LayerLine
        The layers.
    policy : Policy, optional
        Whose bytes are told.
    """

    lines: tuple[LayerLine, ...]
    policy: Policy | None = None

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(line.parameters for line in self.lines)

    @property
    def trained(self) -> int:
        """How many of them training changes, not counting moving statistics."""
        return sum(line.trained for line in self.lines)

    @property
    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (str(n), layer, f"({', '.join(['None', *map(str, shape)])})", f"{parameters:,}")
            for n, layer, shape, parameters, _ in self.lines
        ]

    @property
    def _totals(self) -> list[tuple[str, str]]:
        counts = {
            "Parameters": self.parameters,
            "Trainable": self.trained,
            "Not trainable": self.parameters - self.trained,
        }
        return [(name, f"{n:,} ({self._sizes(n)})") for name, n in counts.items()]

    def _sizes(self, count: int) -> str:
        """Return the bytes of `count` parameters, in the formats of the policy if there is one."""
        if self.policy is None:
            return f"{_bytes(4 * count)} in float32, {_bytes(2 * count)} in 16 bits"
        stored = self.policy.formats["params"]
        words = f"{_bytes(count * stored.bits / 8)} in {stored}"
        compute = self.policy.compute
        if str(compute) != str(stored):
            bits = getattr(compute, "bits", None)
            size = "" if bits is None else f"{_bytes(count * bits / 8)} "
            words += f", {size}in {compute} to compute"
        return words

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading, justify in _HEADINGS.items():
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self._rows:
            table.add_row(*map(Text, row))
        totals = [Text.assemble(f"{name + ':':<15}", (text, "bold")) for name, text in self._totals]
        return Group(table, *totals)

    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__())

    def show(self) -> None:
        """Print the table: at most as wide as the terminal, if stdout is one."""
        from lowprec.show.text import as_text

        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        print(as_text(self.__rich__(), min(width, _WIDTH)))

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th style="text-align:{side}">{heading}</th>' for heading, side in _HEADINGS.items()
        )
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{side}">{html.escape(cell)}</td>'
                for cell, side in zip(row, _HEADINGS.values(), strict=True)
            )
            + "</tr>"
            for row in self._rows
        )
        totals = "<br>".join(f"{name}: <b>{text}</b>" for name, text in self._totals)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{totals}</p>"


_WIDTH = 100  # columns
_HEADINGS = {"#": "right", "Layer": "left", "Output shape": "left", "Parameters": "right"}


def summarise(
    model: Network, input_shape: Shape | None = None, policy: Policy | None = None
) -> Summary:
    """Return a model's summary.

    input_shape: One sample's shape, where the model has no Input.
    policy: Whose bytes to tell; without one those of float32 and of 16 bits.
    Raises ValueError if the shape of the inputs is not known.
    """
    shapes = model.shapes(input_shape)
    lines = []
    for number, layer in enumerate(model.layers):
        counts = {
            name: math.prod(shape)
            for name, shape in layer.parameter_shapes(shapes[number]).items()
            if name in layer.parameters
        }
        trained = sum(counts[name] for name in layer.trained)
        lines.append(
            LayerLine(number, repr(layer), shapes[number + 1], sum(counts.values()), trained)
        )
    return Summary(tuple(lines), policy)


def _bytes(count: float) -> str:
    """Return a number of bytes with a binary unit, as Keras writes it."""
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GB"
