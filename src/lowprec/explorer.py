"""A bit explorer for Jupyter: type a number or click its bits, and see it in every format."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec import blocks
from lowprec.exact import Inspection, inspect
from lowprec.formats import Format, FormatLike, float16, float64, get_format
from lowprec.show.cards import COLOURS, bits_html

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowprec.blocks import BlockFormat
    from lowprec.blocks.formats import AnyFormatLike

__all__ = ["Explorer"]

_FORMATS = ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
_CELL = (
    "padding:.15em .9em .15em 0;text-align:left;vertical-align:top;white-space:nowrap;"
    "border:none;background:none"
)
_HEADINGS = ("format", "bits", "value", "relative error", "below", "above")


class Explorer:
    """One number in several formats, with the bits of one of them to click.

    Jupyter shows it. A click on a bit flips it, and the number becomes the value of the new code;
    what is typed may be anything that `inspect` reads, such as ``0.1``, ``1/3`` or ``0x1.8p-3``.
    Where a notebook is only shown, as on a code host, the table of the first number remains.

    Parameters
    ----------
    x : str or real number
        The number to begin with.
    fmt : Format, str or dtype
        The format whose bits are shown to click.
    formats : iterable of Format, BlockFormat, str or dtype
        The formats of the table; `fmt` is put before them where it is missing. In a block format
        the number is the first of a block.
    beside : array_like of real numbers
        The other numbers of that block, which share its scale.

    Raises
    ------
    ModuleNotFoundError
        Without ipywidgets, naming the extra to install.
    ValueError
        If the text is not a number, or is NaN and the format has none.

    Examples
    --------
    >>> explorer = Explorer("0.1", "bfloat16")  # doctest: +SKIP
    >>> explorer.flip(0)  # doctest: +SKIP
    >>> explorer.text, explorer.inspection.code_text  # doctest: +SKIP
    ('0.099609375', '0x3dcc')
    """

    def __init__(
        self,
        x: object = "0.1",
        fmt: FormatLike = "bfloat16",
        formats: Iterable[AnyFormatLike] = _FORMATS,
        beside: Iterable[float] = (),
    ) -> None:
        self._format = get_format(fmt)
        known = [blocks.get_format(other) for other in formats]
        self.formats = known if self._format in known else [self._format, *known]
        self.beside = tuple(map(float, beside))
        self.text = str(x)
        self.inspection = inspect(self.text, self._format)
        self._problem = ""
        self._build(_ipywidgets())
        self._show()

    # What can be done with it ---------------------------------------------------------------------

    def type(self, text: str) -> None:
        """Take another number; text that is none is answered above the table."""
        if text != self.text or self._problem:
            self._read(text, self._format)

    def choose(self, fmt: FormatLike) -> None:
        """Show the bits of another format; one that has no NaN for it is answered likewise."""
        if (chosen := get_format(fmt)) != self._format:
            self._read(self.text, chosen)

    def flip(self, bit: int) -> None:
        """Flip a bit of the code, counted from the right."""
        self._take(self.inspection.code ^ 1 << bit)

    def step(self, direction: int) -> None:
        """Go to the next larger value (+1) or the next smaller one (-1), if there is one."""
        near = self.inspection.above if direction > 0 else self.inspection.below
        if near is not None:
            self._take(near.code)

    def _read(self, text: str, fmt: Format) -> None:
        try:
            self.inspection = inspect(text, fmt)
        except ValueError as error:
            self._problem = str(error)
        else:
            self.text, self._format, self._problem = text, fmt, ""
        self._show()

    def _take(self, code: int) -> None:
        self.inspection = inspect(code=code, fmt=self._format)
        self.text, self._problem = self.inspection.decimal, ""
        self._show()

    # What is seen ---------------------------------------------------------------------------------

    def _build(self, widgets: Any) -> None:
        """Make the controls once; `_show` brings them up to date."""
        self._widgets = widgets
        wide = widgets.Layout(width="22em")
        self.number = widgets.Text(
            description="number", continuous_update=False, layout=wide, value=self.text
        )
        self.chooser = widgets.Dropdown(
            description="bits of",
            options=[fmt.name for fmt in self.formats if isinstance(fmt, Format)],
        )
        self.down = widgets.Button(description="next below", icon="arrow-down")
        self.up = widgets.Button(description="next above", icon="arrow-up")
        self.bits = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self.table = widgets.HTML()
        self.widget = widgets.VBox(
            [
                widgets.HBox([self.number, self.chooser], layout=self.bits.layout),
                self.bits,
                widgets.HBox([self.down, self.up]),
                self.table,
            ]
        )
        self.number.observe(lambda change: self.type(change["new"]), "value")
        self.chooser.observe(lambda change: self.choose(change["new"]), "value")
        self.down.on_click(lambda _: self.step(-1))
        self.up.on_click(lambda _: self.step(+1))

    def _show(self) -> None:
        if not self._problem:
            self.number.value = self.text
        self.chooser.value = self._format.name
        digits = [(name, digit) for name, bits in self.inspection.fields.items() for digit in bits]
        self.bits.children = [
            self._button(len(digits) - 1 - place, field, digit)
            for place, (field, digit) in enumerate(digits)
        ]
        problem = f'<p role="alert">{html.escape(self._problem)}</p>' if self._problem else ""
        self.table.value = problem + self._repr_html_()

    def _button(self, bit: int, field: str, digit: str) -> Any:
        button = self._widgets.Button(
            description=digit,
            tooltip=f"{field} bit, 2^{bit} of the code",
            layout=self._widgets.Layout(width="2em", margin="1px", padding="0"),
            style={"button_color": COLOURS[field], "text_color": "white"},
        )
        button.on_click(lambda _: self.flip(bit))
        return button

    def _repr_html_(self) -> str:
        """Return the table, which needs no widgets to be seen."""
        head = "".join(f'<th style="{_CELL};opacity:.75">{name}</th>' for name in _HEADINGS)
        rows = "".join(
            _row(self.text, fmt)
            if isinstance(fmt, Format)
            else _block_row(self.text, fmt, self.beside)
            for fmt in self.formats
        )
        return (
            f'<div style="overflow-x:auto"><b>{html.escape(self.text)}</b>'
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def _repr_mimebundle_(self, **which: Any) -> dict[str, Any]:
        """Return the widget, and the table for where widgets cannot be."""
        bundle: dict[str, Any] = dict(self.widget._repr_mimebundle_(**which))
        bundle["text/html"] = self._repr_html_()
        bundle["text/plain"] = repr(self)
        return bundle

    def __repr__(self) -> str:
        return f"Explorer({self.text!r}, {self._format.name!r})"


def _row(text: str, fmt: Format) -> str:
    """Return the line of one format: its bits, value, error and neighbours."""
    try:
        found = inspect(text, fmt)
    except ValueError as error:  # NaN, which the format does not have
        cells = [fmt.name, html.escape(str(error)), *["–"] * 4]
    else:
        cells = [fmt.name, bits_html(found.fields), _value(found), _error(found)]
        cells += [_value(found.below), _value(found.above)]
    row = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{row}</tr>'


def _block_row(text: str, fmt: BlockFormat, beside: tuple[float, ...]) -> str:
    """Return the line of a block format: the element's bits, and its value with the scale."""
    x = float(inspect(text, float64).decimal)
    row = np.array([x, *beside])
    block = row if fmt.block_size is None else row[: fmt.block_size]
    try:
        q = blocks.quantize(block[None] if fmt.is_tiled else block, fmt)
    except ValueError as error:  # NaN, which no scale marks
        cells = [str(fmt), html.escape(str(error)), *["–"] * 4]
    else:
        value = float(q.dequantize("float64").flat[0])
        scale = float(q.scale_values().flat[0])
        scale *= 1.0 if q.tensor_scale is None else float(q.tensor_scale)
        code, element = int(q.codes.flat[0]), fmt.element
        if isinstance(element, Format):
            bits, single = bits_html(inspect(code=code, fmt=element).fields), element
        else:
            digits = format(code % 2**element.bits, f"0{element.bits}b")
            bits, single = bits_html({"sign": digits[0], "trailing": digits[1:]}), float16
        shown = f"{_figure(value, single.precision)} = {_figure(value / scale, 11)} × {scale:.9g}"
        relative = (value - x) / x if x and math.isfinite(x) else None
        cells = [str(fmt), bits, shown if math.isfinite(scale) else "nan"]
        cells += [_relative(relative), "–", "–"]
    row_html = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{row_html}</tr>'


def _relative(error: float | None) -> str:
    if error is None or math.isnan(error):
        return "–"
    return f"{error:+.2g}" if error else "exact"


def _error(found: Inspection) -> str:
    error = found.relative_error
    return _relative(None if error is None else float(error))


def _value(found: Inspection | None) -> str:
    """Return a value with as many digits as tell it from its neighbours."""
    if found is None:
        return "–"
    if found.value is None or found.value == 0:
        return found.decimal
    return _figure(float(found.value), found.fmt.precision)


def _figure(value: float, precision: int) -> str:
    return f"{value:.{2 + precision * 30103 // 100000}g}"


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the explorer needs {error.name}, which is not installed; "
            'run: pip install "lowprec[notebooks]"',
            name=error.name,
        ) from error
    return ipywidgets
