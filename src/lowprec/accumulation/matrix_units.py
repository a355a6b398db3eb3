"""The matrix units of GPUs as accumulators: how many terms, how many bits, which last rounding.

Each preset is a published model of hardware; the table says which of its parameters public results
of the hardware decide, and how many of them it gives bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lowprec.accumulation.accumulator import Accumulator
from lowprec.common.names import did_you_mean
from lowprec.formats import Format, FormatLike, get_format
from lowprec.rounding import Overflow, Rounding

if TYPE_CHECKING:
    from rich.console import RenderableType

_HALF, _FLOAT32 = "float16", "float32"
_FP8 = ("float8_e4m3fn", "float8_e5m2")
_CUT = "e8m13"  # float32 of which 14 significant bits are kept
_MODELS = "Khattak, Mikaitis (2025), MATLAB-tensor-core"
_SIMULATOR = "Xie et al. (2025), MMA-Sim"


class TensorCore(NamedTuple):
    """One row of the table: what a matrix unit does with one kind of inputs."""

    architecture: str
    inputs: tuple[str, ...]
    output: str
    terms: int  # L, products that are added at once
    fraction_bits: int  # k
    sums: str  # the format of sums: the output's, or narrower values in it
    rounding: str
    decided_by: str  # what public hardware results decide; the rest is the model's
    vectors: str  # how many of them agree
    source: str


def _row(
    architecture: str,
    inputs: tuple[str, ...],
    output: str,
    size: tuple[int, int],
    vectors: int | None,
    decided: str = "L, k, cutting, unnormalised products",
    sums: str | None = None,
) -> TensorCore:
    rounding = "ties_to_even" if output == _HALF else "toward_zero"
    if output == _HALF:
        decided = decided.replace("L, k,", "L,")
    agree = "no public vectors" if vectors is None else f"{vectors} of {vectors}"
    return TensorCore(
        architecture,
        inputs,
        output,
        *size,
        sums or output,
        rounding,
        "model only" if vectors is None else decided,
        agree,
        _SIMULATOR if vectors is None else _MODELS,
    )


_ONE_SIZE = "k, cutting, unnormalised products"  # the vectors have one group's terms at most


def _ampere(name: str, *, has_fp8: bool = False, has_half_fp8: bool = False) -> list[TensorCore]:
    rows = [
        _row(name, (_HALF,), _FLOAT32, (8, 24), 75),
        _row(name, ("bfloat16",), _FLOAT32, (8, 24), 75),
        _row(name, (_HALF,), _HALF, (8, 24), 75),
        _row(name, ("tfloat32",), _FLOAT32, (4, 24), 75),
    ]
    if has_fp8:
        rows.append(_row(name, _FP8, _FLOAT32, (16, 13), 150, sums=_CUT))
        rows.append(_row(name, _FP8, _HALF, (16, 13), 150 if has_half_fp8 else None))
    return rows


def _hopper(name: str, *, has_fp8: bool) -> list[TensorCore]:
    rows = [
        _row(name, (_HALF,), _FLOAT32, (16, 25), 75),
        _row(name, ("bfloat16",), _FLOAT32, (16, 25), 75),
        _row(name, (_HALF,), _HALF, (16, 25), 75),
        _row(name, ("tfloat32",), _FLOAT32, (8, 25), 75, _ONE_SIZE),
    ]
    if has_fp8:
        decided = "L, k, cutting, unnormalised products; the vectors have no addend"
        rows.append(_row(name, _FP8, _FLOAT32, (32, 13), 150, decided, sums=_CUT))
    return rows


TABLE = (
    _row("v100", (_HALF,), _FLOAT32, (4, 23), 75),
    _row("v100", (_HALF,), _HALF, (4, 23), 75),
    _row("turing", (_HALF,), _FLOAT32, (8, 24), None),
    _row("turing", (_HALF,), _HALF, (8, 24), None),
    *_ampere("a100"),
    *_ampere("a2"),
    *_ampere("ada", has_fp8=True, has_half_fp8=True),
    *_ampere("l40s", has_fp8=True),
    *_hopper("h100", has_fp8=True),
    *_hopper("h200", has_fp8=True),
    *_hopper("b200", has_fp8=False),
    _row("b200_tcgen05", _FP8, _FLOAT32, (32, 25), None),
)
_UNSETTLED = {
    ("h100", _HALF): "fp8 to float16 on Hopper",
    ("h200", _HALF): "fp8 to float16 on Hopper",
    ("b200", _HALF): "fp8 to float16 on Blackwell",
    ("b200", _FLOAT32): "fp8 to float32 by mma.sync of B200",
}


def tensor_core(
    architecture: str,
    inputs: FormatLike | tuple[FormatLike, FormatLike],
    output: FormatLike = "float32",
) -> Accumulator:
    """Return how a GPU's matrix unit sums products, as an accumulator.

    Parameters
    ----------
    architecture : str
        ``v100``, ``turing``, ``a100``, ``a2``, ``ada``, ``l40s``, ``h100``, ``h200``, ``b200`` or
        ``b200_tcgen05``.
    inputs : Format, str or dtype, or two of them
        The factors' format: float16, bfloat16, tfloat32, float8_e4m3fn or float8_e5m2; a pair of
        fp8 formats may differ.
    output : Format, str or dtype
        float32 or float16.

    Returns
    -------
    Accumulator
        With ``order="aligned"``; `dot` and `matmul` take their default inputs from it, and refuse
        others. Products of fp8 that go to float32 are kept to 14 significant bits (``e8m13``).

    Raises
    ------
    ValueError
        If there is no such unit, or its behaviour is not settled.

    Examples
    --------
    >>> from lowprec import dot
    >>> h100 = tensor_core("h100", inputs="float8_e4m3fn")
    >>> float(dot([256.0] + [1.0] * 31, [256.0] + [1.0] * 31, accumulator=h100))
    65536.0

    References
    ----------
    Fasi, Higham, Mikaitis, Pranesh (2021), "Numerical behavior of NVIDIA tensor cores"; Khattak,
    Mikaitis (2025), "Accurate models of NVIDIA tensor cores"; Xie et al. (2025), MMA-Sim.
    """
    name = str(architecture).lower()
    names = list(dict.fromkeys(row.architecture for row in TABLE))
    if name not in names:
        import difflib

        near = difflib.get_close_matches(name, names)
        raise ValueError(
            f"{architecture!r} is not a known architecture; {did_you_mean(near)}"
            f"use one of {', '.join(names)}"
        )
    pair = inputs if isinstance(inputs, tuple) else (inputs, inputs)
    factors = tuple(get_format(fmt) for fmt in pair)
    result = get_format(output)
    for row in TABLE:
        known = [get_format(fmt) for fmt in row.inputs]
        fits = row.architecture == name and get_format(row.output) == result
        if fits and len(factors) == 2 and all(fmt in known for fmt in factors):
            return _accumulator(row, (factors[0], factors[1]))
    raise ValueError(_missing(name, factors, result))


def _accumulator(row: TensorCore, factors: tuple[Format, Format]) -> Accumulator:
    return Accumulator(
        row.sums,
        order="aligned",
        block=row.terms,
        fraction_bits=row.fraction_bits,
        rounding=Rounding(row.rounding),
        overflow=Overflow.INFINITE,
        inputs=factors,
    )


def _missing(name: str, factors: tuple[Format, ...], output: Format) -> str:
    asked = " and ".join(dict.fromkeys(map(str, factors)))
    unsettled = _UNSETTLED.get((name, output.name))
    if unsettled is not None and all(fmt.name in _FP8 for fmt in factors):
        return (
            f"what {unsettled} computes is not settled: no published model gives the results of "
            "the hardware; use another output or architecture, as tensor_cores() lists them"
        )
    has = "; ".join(
        f"{' or '.join(row.inputs)} to {row.output}" for row in TABLE if row.architecture == name
    )
    return f"{name} has no product of {asked} to {output}; it has {has}"


class TensorCores(tuple[TensorCore, ...]):
    """The rows of `tensor_cores`; they print as a table."""

    __slots__ = ()

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        headings = ("unit", "inputs → output", "L", "k", "rounding", "decided by", "vectors")
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="right" if place in (2, 3) else "left")
        for row in self:
            names = ", ".join(row.inputs)
            sums = "" if row.sums == row.output else f" as {row.sums}"
            table.add_row(
                row.architecture,
                f"{names} → {row.output}{sums}",
                str(row.terms),
                str(row.fraction_bits),
                row.rounding,
                row.decided_by,
                row.vectors,
            )
        return table

    def __repr__(self) -> str:
        from lowprec.show.text import as_text

        return as_text(self.__rich__(), 110)


def tensor_cores() -> TensorCores:
    """Print the table of matrix units, and return its rows.

    Returns
    -------
    tuple of TensorCore
        What is in the table and the source of each row. Exponents of subnormal inputs, zero terms,
        the lowest exponent, overflow, signs of zero and NaN are decided by no public result: they
        are those of the published models.

    Examples
    --------
    >>> rows = tensor_cores()  # doctest: +ELLIPSIS
    unit ...
    >>> rows[0].terms, rows[0].fraction_bits, rows[0].vectors
    (4, 23, '75 of 75')
    """
    rows = TensorCores(TABLE)
    print(repr(rows))
    return rows
