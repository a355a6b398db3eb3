"""Matrix products, `einsum` and their kin, by the accumulator of the line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.trace.functions.reductions import matrix_product, summed
from lowprec.trace.functions.table import FUNCTIONS, implements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowprec.trace.engine import Engine
    from lowprec.trace.places import Site
    from lowprec.trace.values import Traced


@implements(np.matmul)
def _matmul(engine: Engine, a: Any, b: Any, *, site: Site | None = None, **kwargs: Any) -> Any:
    return matrix_product(engine, a, b, engine.site("matmul") if site is None else site)


@implements(np.dot)
def _dot(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    site = engine.site("dot")
    if x.ndim == 0 or y.ndim == 0:
        return engine.elementwise(np.multiply, (x, y), site)
    if x.ndim <= 2 and y.ndim <= 2:
        return matrix_product(engine, x, y, site)
    return _tensordot(engine, x, y, ((x.ndim - 1,), (max(y.ndim - 2, 0),)))


@implements(np.vdot)
def _vdot(engine: Engine, a: Any, b: Any) -> Any:
    return _dot(
        engine, engine.reshaped(engine.array(a), (-1,)), engine.reshaped(engine.array(b), (-1,))
    )


@implements(np.inner)
def _inner(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    if x.ndim == 0 or y.ndim == 0:
        return _dot(engine, x, y)
    return _tensordot(engine, x, y, ((x.ndim - 1,), (y.ndim - 1,)))


@implements(np.outer)
def _outer_product(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.reshaped(engine.array(a), (-1, 1)), engine.reshaped(engine.array(b), (1, -1))
    return x * y


@implements(np.tensordot)
def _tensordot(engine: Engine, a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = engine.array(a), engine.array(b)
    if isinstance(axes, int):
        axes = (tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes)))
    left, right = ([axes[k]] if isinstance(axes[k], int) else list(axes[k]) for k in (0, 1))
    left, right = [d % x.ndim for d in left], [d % y.ndim for d in right]
    free_x = [d for d in range(x.ndim) if d not in left]
    free_y = [d for d in range(y.ndim) if d not in right]
    shape = [x.shape[d] for d in free_x] + [y.shape[d] for d in free_y]
    terms = math.prod(x.shape[d] for d in left)
    flat_x = engine.moved(x, lambda v: np.transpose(v, free_x + left).reshape(-1, terms))
    flat_y = engine.moved(y, lambda v: np.transpose(v, right + free_y).reshape(terms, -1))
    product = matrix_product(engine, flat_x, flat_y, engine.site("tensordot"))
    return engine.lowered(np.reshape(engine.array(product), shape))


@implements(np.einsum)
def _einsum(engine: Engine, *operands: Any, **kwargs: Any) -> Any:
    """Return a sum of products: two operands at a time, products exact within a sum."""
    names, arrays, output = _subscripts(engine, operands)
    while len(arrays) > 2:
        rest = set("".join(names[2:])) | set(output)
        kept = "".join(c for c in dict.fromkeys(names[0] + names[1]) if c in rest)
        pair = _pair(engine, names[0], arrays[0], names[1], arrays[1], kept)
        names, arrays = [kept, *names[2:]], [engine.array(pair), *arrays[2:]]
    if len(arrays) == 2:
        return _pair(engine, names[0], arrays[0], names[1], arrays[1], output)
    single = _diagonals(engine, arrays[0], names[0])
    return _summed_over(engine, single, "".join(dict.fromkeys(names[0])), output)


def _subscripts(engine: Engine, operands: Any) -> tuple[list[str], list[Traced], str]:
    """Return a letter for each dimension of the operands, the operands, and the result's letters.

    An ellipsis gets letters of its own; a dimension of length 1 that is spread over another
    operand's is left out.
    """
    if isinstance(operands[0], str):
        inputs, arrow, output = operands[0].replace(" ", "").partition("->")
        names, arrays = inputs.split(","), [engine.array(x) for x in operands[1:]]
    else:  # arrays, each with the numbers of its dimensions
        arrays = [engine.array(x) for x in operands[: len(operands) // 2 * 2 : 2]]
        names = [_lettered(numbers) for numbers in operands[1::2]]
        arrow = "->" if len(operands) % 2 else ""
        output = _lettered(operands[-1]) if arrow else ""
    if len(names) != len(arrays):
        raise ValueError(f"einsum has subscripts for {len(names)} operands of {len(arrays)}")
    spare = [chr(0x100 + k) for k in range(64)]
    rest = ""
    for k, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if "..." in name:
            own = "".join(spare[: array.ndim - len(name) + 3][::-1])
            names[k] = name.replace("...", own)
            rest = max(rest, own, key=len)
        if len(names[k]) != array.ndim:
            raise ValueError(
                f"einsum has subscripts {name!r} for an operand of {array.ndim} dimensions"
            )
    if arrow:
        output = output.replace("...", rest)
    else:
        every = "".join(names)
        output = rest + "".join(c for c in sorted(set(every) - set(rest)) if every.count(c) == 1)
    sizes: dict[str, int] = {}
    for name, array in zip(names, arrays, strict=True):
        for c, n in zip(name, array.shape, strict=True):
            sizes[c] = n if sizes.get(c, 1) == 1 else sizes[c]
    for k, (name, array) in enumerate(zip(names, arrays, strict=True)):
        thin = tuple(d for d, c in enumerate(name) if array.shape[d] == 1 and sizes[c] != 1)
        if thin:
            names[k] = "".join(c for d, c in enumerate(name) if d not in thin)
            arrays[k] = engine.array(engine.moved(array, lambda v, thin=thin: np.squeeze(v, thin)))  # type: ignore[misc]
    return names, arrays, output


def _lettered(numbers: Any) -> str:
    """Return the numbers of dimensions as letters, an ellipsis as dots."""
    return "".join("..." if n is Ellipsis else chr(ord("A") + n) for n in numbers)


def _diagonals(engine: Engine, x: Traced, names: str) -> Traced:
    unique = "".join(dict.fromkeys(names))
    if unique == names:
        return x
    return engine.array(engine.moved(x, lambda v: np.array(np.einsum(f"{names}->{unique}", v))))


def _summed_over(engine: Engine, x: Traced, names: str, output: str) -> Any:
    axes = tuple(d for d, c in enumerate(names) if c not in output)
    total: Any = x
    if axes:
        total = summed(engine, x, engine.site("einsum"), axes)
    left = "".join(c for c in names if c in output)
    if left != output:
        total = engine.moved(
            engine.array(total), lambda v: np.transpose(v, [left.index(c) for c in output])
        )
    return total


def _pair(engine: Engine, nx: str, x: Traced, ny: str, y: Traced, output: str) -> Any:
    x, y = _diagonals(engine, x, nx), _diagonals(engine, y, ny)
    nx, ny = "".join(dict.fromkeys(nx)), "".join(dict.fromkeys(ny))
    for mine, other in ((0, ny), (1, nx)):  # what only one operand has and the result has not
        names, array = (nx, x) if mine == 0 else (ny, y)
        alone = [c for c in names if c not in other and c not in output]
        if alone:
            rest = "".join(c for c in names if c not in alone)
            array = engine.array(_summed_over(engine, array, names, rest))
            if mine == 0:
                nx, x = rest, array
            else:
                ny, y = rest, array
    batch = [c for c in nx if c in ny and c in output]
    inner = [c for c in nx if c in ny and c not in output]
    free_x = [c for c in nx if c not in ny]
    free_y = [c for c in ny if c not in nx]
    size = {**dict(zip(nx, x.shape, strict=True)), **dict(zip(ny, y.shape, strict=True))}

    def lengths(names: Sequence[str]) -> list[int]:
        return [size[c] for c in names]

    terms = math.prod(lengths(inner))
    flat_x = engine.moved(
        x,
        lambda v: np.transpose(v, [nx.index(c) for c in batch + free_x + inner]).reshape(
            [*lengths(batch), math.prod(lengths(free_x)), terms]
        ),
    )
    flat_y = engine.moved(
        y,
        lambda v: np.transpose(v, [ny.index(c) for c in batch + inner + free_y]).reshape(
            [*lengths(batch), terms, math.prod(lengths(free_y))]
        ),
    )
    product: Any = engine.array(
        matrix_product(engine, flat_x, flat_y, engine.site("einsum"))
        if inner
        else engine.elementwise(np.multiply, (flat_x, flat_y), engine.site("einsum"))
    )
    made = batch + free_x + free_y
    product = engine.moved(
        product,
        lambda v: np.transpose(v.reshape(lengths(made)), [made.index(c) for c in output]),
    )
    return engine.lowered(product)


@implements(np.trace)
def _trace(
    engine: Engine, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None
) -> Any:
    diagonal = engine.moved(engine.array(a), lambda v: np.diagonal(v, offset, axis1, axis2))
    return summed(engine, diagonal, engine.site("trace"), -1)


@implements(np.kron)
def _kron(engine: Engine, a: Any, b: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    n = max(x.ndim, y.ndim)
    x = engine.reshaped(x, (1,) * (n - x.ndim) + x.shape)
    y = engine.reshaped(y, (1,) * (n - y.ndim) + y.shape)
    tall = engine.reshaped(x, [k for s in x.shape for k in (s, 1)])
    wide = engine.reshaped(y, [k for s in y.shape for k in (1, s)])
    shape = [s * t for s, t in zip(x.shape, y.shape, strict=True)]
    return np.reshape(tall * wide, shape)


@implements(np.cross)
def _cross(engine: Engine, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    x, y = engine.array(a), engine.array(b)
    if args or kwargs or x.shape[-1] != 3 or y.shape[-1] != 3:
        return engine.refuse(np.cross, (a, b, *args), kwargs)
    first, second = [1, 2, 0], [2, 0, 1]
    return x[..., first] * y[..., second] - x[..., second] * y[..., first]


# `linalg` of the array API has the same under its own names, of the last two axes.
FUNCTIONS[np.linalg.matmul], FUNCTIONS[np.linalg.outer] = _matmul, _outer_product
FUNCTIONS[np.linalg.tensordot], FUNCTIONS[np.linalg.cross] = _tensordot, _cross
FUNCTIONS[np.linalg.trace] = lambda engine, x, *, offset=0, dtype=None: _trace(
    engine, x, offset, -2, -1
)
