"""Packings: how libraries lay a quantized tensor out in several tensors of a file, and their names.

A packing is known by its names, and its shapes must agree; the group sizes follow from the shapes
and, where those leave a choice, from the model's `quantization_config`. What has the names of a
packing and not its shapes is left as it is, with the reason, and so are packings that are known by
name alone: their scales are no weights, and are never judged as such.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowprec import blocks
from lowprec.blocks import BlockFormat, IntegerFormat, ScaleRule
from lowprec.conversion import decode
from lowprec.formats import (
    Format,
    float4_e2m1fn,
    float6_e2m3fn,
    float8_e4m3fn,
    float8_e8m0fnu,
    float32,
    get_format,
)
from lowprec.tensors.bits import unpacked
from lowprec.tensors.kinds.safetensors import PackedBits
from lowprec.tensors.quantized import Codes, Flat, Grid, QuantizedTensor, Scales, rows_of
from lowprec.tensors.tensor import Tensor, TensorFile
from lowprec.tensors.unread import reasons_to_leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lowprec.tensors.tensor import Array

_MOST_STATE_BYTES = 1 << 16
_FP8 = {
    fmt.dtype: fmt
    for fmt in map(
        get_format, ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    )
}
_BYTES = (np.dtype(np.uint8), np.dtype(float8_e8m0fnu.dtype))


class _UnknownLayoutError(Exception):
    """The names are those of a packing, and the shapes are not."""


class _Found(NamedTuple):
    """One quantized tensor: what it is called, what it becomes, and what it was."""

    tensor: QuantizedTensor
    used: tuple[str, ...]


class _Model(NamedTuple):
    """All stored tensors by name, the files' texts and the model's quantization_config."""

    tensors: Mapping[str, Tensor]
    texts: Mapping[str, str]
    config: Mapping[str, Any]

    def get(self, name: str) -> Tensor | None:
        return self.tensors.get(name)


def folded(
    files: Sequence[TensorFile],
    config: Mapping[str, Any],
    wanted: Callable[[QuantizedTensor], bool] = lambda tensor: True,
) -> tuple[TensorFile, ...]:
    """Return files in which each quantized tensor is one, in the place of its codes.

    Parameters
    ----------
    files : sequence of TensorFile
        All files of a model: a tensor's codes and scales may lie in two of them.
    config : mapping
        The model's ``quantization_config``; empty where there is none.
    wanted : callable
        Whether a quantized tensor is asked for as one; the parts of others are left.

    Returns
    -------
    tuple of TensorFile
        With `QuantizedTensor` for codes, and without their scales. What is left has a reason.
    """
    texts: dict[str, str] = {}
    for file in files:
        texts.update(file.metadata)
    model = _Model({t.name: t for file in files for t in file.tensors}, texts, config)
    instead: dict[str, Tensor] = {}
    gone: set[str] = set()
    reasons: dict[str, str] = {}
    for name in model.tensors:
        for suffix, end, read in _READERS:
            if name.endswith(suffix) and name not in gone and name not in instead:
                base = name.removesuffix(suffix) + end
                _take(read, model, name, base, (instead, gone, reasons), wanted)
    taken = gone | set(instead)
    reasons = reasons_to_leave([t for n, t in model.tensors.items() if n not in taken]) | reasons
    if not instead and not reasons:
        return tuple(files)
    return tuple(
        file._replace(
            tensors=tuple(
                instead.get(tensor.name) or _left(tensor, reasons.get(tensor.name, ""))
                for tensor in file.tensors
                if tensor.name not in gone
            )
        )
        for file in files
    )


_Outcome = tuple[dict[str, Tensor], set[str], dict[str, str]]


def _take(
    read: Any,
    model: _Model,
    name: str,
    base: str,
    outcome: _Outcome,
    wanted: Callable[[QuantizedTensor], bool],
) -> None:
    instead, gone, reasons = outcome
    try:
        found = read(model, name, base)
    except _UnknownLayoutError as error:
        for other in (name, *_companions(model, base)):
            reasons.setdefault(other, f"of a packing that lowprec does not read: {error}")
        return
    if found is None:
        return
    tensor, used = found
    if tensor.name in model.tensors and tensor.name not in used:
        reasons[name] = f"a part of {tensor.name}, which is there too"
    elif not wanted(tensor):
        reasons.update(dict.fromkeys(used, f"a part of {tensor.name}"))
    else:
        place = tensor.stored[0].name
        instead[place] = tensor
        gone.update(other for other in used if other != place)


def _companions(model: _Model, base: str) -> list[str]:
    """Return the tensors whose names say that they belong to these codes."""
    names = [base, *(f"{base}{suffix}" for suffix in _COMPANIONS)]
    return [name for name in names if name in model.tensors]


_COMPANIONS = (
    *("_packed", "_scale", "_scale_inv", "_global_scale", "_scale_2", "_zero_point", "_shape"),
    *("_g_idx", "_blocks", "_scales"),
)


def _left(tensor: Tensor, reason: str) -> Tensor:
    return dataclasses.replace(tensor, fmt=None, left=reason) if reason else tensor


# What all packings share -------------------------------------------------------------------------


@functools.cache
def _table(fmt: Format | IntegerFormat, is_offset: bool = False) -> Array:
    """Return the value of each code, seen as uint8: offset binary, or two's complement."""
    codes = np.arange(256)
    if isinstance(fmt, IntegerFormat):
        half = 1 << (fmt.bits - 1)
        signed = codes - half if is_offset else np.where(codes >= half, codes - 2 * half, codes)
        return signed * fmt.step
    valid = (codes % (1 << fmt.bits)).astype(fmt.code_dtype)
    return np.asarray(decode(valid, fmt, dtype="float64"))


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]


def _scale_format(stored: Tensor) -> Format:
    if stored.dtype in _BYTES:
        return float8_e8m0fnu
    fmt = stored.fmt
    if not isinstance(fmt, Format) or not fmt.fits(float32):
        raise _UnknownLayoutError(f"its scales are {stored.dtype}")
    return fmt


def _block_format(element: Any, block: Any, scale: Format, *, tensor_scale: bool = False) -> Any:
    """Return the named format with these fields, or one that is described by them."""
    is_power = not scale.signed and scale.precision == 1
    rule = ScaleRule.FLOOR if is_power else ScaleRule.AMAX
    words = block if not isinstance(block, tuple) else f"{block[0]}x{block[1]}"
    name = f"{element}_{'channel' if block is None else words}"
    fmt = BlockFormat(name, element, block, scale, rule, tensor_scale)
    return blocks.get_format(fmt)


def _need(condition: bool, words: str) -> None:
    if not condition:
        raise _UnknownLayoutError(words)


def _scalar(tensor: Tensor | None) -> Tensor | None:
    _need(
        tensor is None or (tensor.size == 1 and tensor.dtype == np.float32),
        "its tensor's scale is not one float32 number",
    )
    return tensor


class _Parts(NamedTuple):
    """What a packing's reader has found."""

    name: str
    packing: str
    shape: tuple[int, ...]
    fmt: BlockFormat
    codes: Codes
    values: Array
    scales: Scales
    tile: tuple[int, int]
    used: tuple[Tensor | None, ...]

    def found(self) -> _Found:
        stored = tuple(tensor for tensor in self.used if tensor is not None)
        period = (1, *self.shape)[-2]
        if self.scales.stored.size == 1:  # and all matrices are one
            period = self.codes.rows
        source = Grid(self.codes, self.scales, self.values, self.tile, period)
        grid = self.scales.stored.shape
        tensor = QuantizedTensor(
            self.name,
            self.shape,
            np.dtype(np.float32),
            source,
            self.fmt,
            packing=self.packing,
            stored=stored,
            scale_shape=grid if len(grid) == len(self.shape) else (self.scales.rows, 1),
            stored_scales=self.scales.stored,
            stored_tensor_scale=self.scales.tensor_scale,
        )
        return _Found(tensor, tuple(one.name for one in stored))


# compressed-tensors, ModelOpt ---------------------------------------------------------------------


def _read_packed(model: _Model, name: str, base: str) -> _Found | None:
    """Read ``weight_packed`` beside ``weight_scale``: fp4 and fp6 in bytes, integers in int32."""
    packed, scale = model.tensors[name], model.get(f"{base}_scale")
    if scale is None:
        raise _UnknownLayoutError("it has the name of packed codes, and no scales beside it")
    _need(len(packed.shape) >= 2 and len(scale.shape) == len(packed.shape), "its shapes")
    if packed.dtype == np.int32:
        return _read_int32(model, packed, scale, base)
    _need(packed.dtype == np.uint8, f"its codes are {packed.dtype}")
    global_scale = _scalar(model.get(f"{base}_global_scale"))
    return _bytes_of_floats(packed, scale, global_scale, base, divides=True)


def _bytes_of_floats(
    packed: Tensor, scale: Tensor, in_all: Tensor | None, base: str, *, divides: bool
) -> _Found:
    rows, width = _matrix(packed.shape)
    lines, groups = _matrix(scale.shape)
    _need(lines == rows and groups > 0, f"its scales have shape {scale.shape}")
    is_nvfp4 = scale.dtype == float8_e4m3fn.dtype
    choices = {(16, False): float4_e2m1fn, (24, False): float6_e2m3fn, (8, True): float4_e2m1fn}
    element = choices.get((-(-width // groups), is_nvfp4))
    _need(
        element is not None and (is_nvfp4 or scale.dtype in _BYTES),
        f"codes of shape {packed.shape} and scales of shape {scale.shape} and {scale.dtype}",
    )
    assert element is not None
    block = 16 if is_nvfp4 else 32
    columns = width * 8 // element.bits
    _need(groups == -(-columns // block), "its codes and scales do not agree in number")
    _need(in_all is None or is_nvfp4, "it has a tensor's scale beside powers of two")
    fmt = _block_format(
        element, block, float8_e4m3fn if is_nvfp4 else float8_e8m0fnu, tensor_scale=is_nvfp4
    )
    kind = "nvfp4" if is_nvfp4 else f"mxfp{element.bits}"
    table = _table(float8_e4m3fn if is_nvfp4 else float8_e8m0fnu)
    scales = Scales(scale, lines, groups, table, in_all, divides)
    return _Parts(
        base,
        f"{kind}-pack-quantized",
        (*packed.shape[:-1], columns),
        fmt,
        Codes(packed, rows, columns, element.bits, width),
        _table(element),
        scales,
        (1, block),
        (packed, scale, in_all),
    ).found()


def _read_int32(model: _Model, packed: Tensor, scale: Tensor, base: str) -> _Found:
    """Read integers of 1 to 8 bits, packed into int32 along the rows, in offset binary."""
    shape_tensor = model.get(f"{base}_shape")
    _need(shape_tensor is not None, "it has no weight_shape")
    assert shape_tensor is not None
    _need(shape_tensor.size == len(packed.shape) <= 4, "its weight_shape")
    shape = tuple(int(n) for n in rows_of(shape_tensor, 0, shape_tensor.size))
    rows, words = _matrix(packed.shape)
    _need(shape[:-1] == packed.shape[:-1] and 0 < shape[-1] <= words * 32, f"weight_shape {shape}")
    columns = shape[-1]
    widths = [bits for bits in range(1, 9) if -(-columns * bits // 32) == words]
    told = {int(n) for n in _told(model.config, "num_bits")}
    chosen = [bits for bits in widths if bits in told] or widths
    _need(len(chosen) == 1, f"its elements may have {' or '.join(map(str, widths))} bits")
    bits = chosen[0]
    _need(bits >= 2, "elements of 1 bit")
    lines, groups = _matrix(scale.shape)
    _need(lines == rows and groups > 0, f"its scales have shape {scale.shape}")
    _need(model.get(f"{base}_g_idx") is None, "its columns are permuted (g_idx)")
    block = _group(columns, groups, model.config)
    element = IntegerFormat(f"int{bits}", bits)
    zero = model.get(f"{base}_zero_point")
    zeros: Any = None
    if zero is not None:
        _need(zero.dtype == np.int32 and len(packed.shape) == 2, "its zero points")
        tall = -(-rows * bits // 32)
        _need(zero.shape == (tall, groups), f"its zero points have shape {zero.shape}")
        zeros = _PackedDown(zero, rows, groups, bits)
    return _Parts(
        base,
        "pack-quantized",
        shape,
        _block_format(element, None if groups == 1 else block, _scale_format(scale)),
        Codes(packed, rows, columns, bits, words * 4, offset=1 << (bits - 1)),
        _table(element, is_offset=True),
        Scales(
            scale,
            lines,
            groups,
            None,
            zero_points=zeros,
            zero_offset=1 << (bits - 1),
        ),
        (1, block),
        (packed, scale, shape_tensor, zero),
    ).found()


class _PackedDown(NamedTuple):
    """Zero points that are packed into int32 down the columns: small, and read whole."""

    stored: Tensor
    height: int
    columns: int
    bits: int

    @property
    def rows(self) -> int:
        return self.columns

    def read(self, first: int, count: int) -> Array:
        words = rows_of(self.stored, 0, self.stored.size).reshape(-1, self.columns)
        packed = np.ascontiguousarray(words.T).view(np.uint8)
        return unpacked(packed, self.height, self.bits)


def _group(columns: int, groups: int, config: Mapping[str, Any]) -> int:
    """Return how many columns share a scale."""
    if columns % groups == 0:
        return columns // groups
    sizes = {int(n) for n in _told(config, "group_size") if n and int(n) > 0}
    fitting = [size for size in sizes if -(-columns // size) == groups]
    _need(len(fitting) == 1, f"{groups} scales for {columns} columns")
    return fitting[0]


def _told(config: Any, key: str) -> Iterable[Any]:
    """Yield what the weights' part of a quantization_config says, wherever it stands."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == key and isinstance(value, int):
                yield value
            elif name not in ("input_activations", "output_activations"):
                yield from _told(value, key)


def _read_scaled(model: _Model, name: str, base: str) -> _Found | None:
    """Read ``weight`` beside ``weight_scale``: fp8 or int8, or ModelOpt's bytes of NVFP4.

    DeepSeek's own programs call the scale ``scale``, ComfyUI ``scale_weight``; optimum-quanto has
    ``weight._data`` and ``weight._scale``, ONNX Runtime ``w_quantized``, int8 or uint8, ``w_scale``
    and ``w_zero_point``.
    """
    codes = model.get(base)
    if codes is None:
        return None
    scale = model.tensors[name]
    stem = base.removesuffix("._data").removesuffix("_quantized")
    _need(model.get(f"{stem}._shift") is None, "its elements are shifted")
    in_all = model.get(f"{base}_scale_2")
    packed = _as_bytes(codes)
    is_known = scale.dtype == float8_e4m3fn.dtype or (packed is not codes and scale.dtype in _BYTES)
    if packed.dtype == np.uint8 and len(codes.shape) >= 2 and is_known:
        _need(len(scale.shape) == len(codes.shape), "its shapes")
        return _bytes_of_floats(packed, scale, _scalar(in_all), base, divides=False)
    is_onnx = base.endswith("_quantized")
    if codes.dtype not in _FP8 and codes.dtype != np.int8 and not is_onnx:
        return None  # a number of another meaning: a norm's scale beside its weight
    _need(not is_onnx or (codes.dtype.name in ("int8", "uint8") and scale.size == 1), "its axis")
    kind = "onnx" if is_onnx else "float" if codes.dtype in _FP8 else "int"
    found = _plain_codes(model, codes, scale, stem if is_onnx else base, kind)
    return found._replace(tensor=dataclasses.replace(found.tensor, name=stem))


def _as_bytes(codes: Tensor) -> Tensor:
    """Return elements that share bytes as these bytes, where a row has whole ones."""
    source = codes.source
    if not isinstance(source, PackedBits) or not codes.shape or codes.shape[-1] * source.bits % 8:
        return codes
    shape = (*codes.shape[:-1], codes.shape[-1] * source.bits // 8)
    return dataclasses.replace(
        codes, shape=shape, dtype=np.dtype(np.uint8), source=source.packed, fmt=None
    )


def _plain_codes(model: _Model, codes: Tensor, scale: Tensor, base: str, kind: str) -> _Found:
    """Read codes of a byte each, with a scale for the tensor, rows, groups or tiles."""
    _need(len(codes.shape) >= 1, f"codes of shape {codes.shape}")
    element: Any = _FP8.get(codes.dtype) or IntegerFormat("int8", 8)
    rows, columns = (1, *codes.shape)[-2:]
    outer = math.prod(codes.shape[:-2])
    scale_format = _scale_format(scale)
    grid = scale.shape + (1,) * (len(codes.shape) - len(scale.shape))
    if scale.size == 1:
        tile, lines, groups = (max(outer * rows, 1), max(columns, 1)), 1, 1
        block: Any = (max(rows, 1), max(columns, 1)) if len(codes.shape) > 1 else None
    else:
        _need(len(grid) == len(codes.shape) > 1, f"scales {grid} for codes {codes.shape}")
        _need(grid[:-2] == codes.shape[:-2], f"scales {grid} for codes {codes.shape}")
        lines, groups = grid[-2:]
        tile, block = _tile_of((rows, columns), (lines, groups), model.config)
        lines *= outer
    zero = model.get(f"{base}_zero_point")
    if zero is not None:
        kinds = (np.int8, codes.dtype)
        _need(zero.dtype in kinds and zero.size == scale.size, "its zero points")
    offset = 128 if codes.dtype == np.uint8 else 0
    is_mx = scale_format == float8_e8m0fnu
    _need(not is_mx or codes.dtype in _FP8, "integers with powers of two for scales")
    packing = "mxfp8-quantized" if is_mx else f"{kind}-quantized"
    table = _table(scale_format) if is_mx else None
    return _Parts(
        base,
        packing,
        codes.shape,
        _block_format(element, block, scale_format),
        Codes(codes, outer * rows, columns, 8, columns, offset=offset),
        _table(element, is_offset=bool(offset)),
        Scales(scale, lines, groups, table, zero_points=zero, zero_offset=offset),
        tile,
        (codes, scale, zero),
    ).found()


def _tile_of(
    shape: tuple[int, int], grid: tuple[int, int], config: Mapping[str, Any]
) -> tuple[tuple[int, int], Any]:
    """Return the tile of a grid of scales, and the block of its format."""
    (rows, columns), (lines, groups) = shape, grid
    if lines == rows:
        block = _group(columns, groups, config)
        return (1, block), None if groups == 1 else block
    told = config.get("weight_block_size") or _structure(config)
    is_told = isinstance(told, list | tuple) and len(told) == 2
    tiles = [tuple(told)] if is_told else [(128, 128)] if grid != (1, 1) else []
    for high, wide in tiles:
        if (
            type(high) is int
            and type(wide) is int
            and min(high, wide) > 0
            and grid == (-(-rows // high), -(-columns // wide))
        ):
            return (high, wide), (high, wide)
    _need(
        lines > 0 and groups > 0 and rows % lines == 0 and columns % groups == 0, f"scales {grid}"
    )
    tile = rows // lines, columns // groups
    return tile, tile


def _structure(config: Any) -> Any:
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "block_structure" and value:
                return value
            if name != "input_activations" and (found := _structure(value)):
                return found
    return None


# DeepSeek, gpt-oss --------------------------------------------------------------------------------


def _read_inverse(model: _Model, name: str, base: str) -> _Found | None:
    """Read ``weight`` beside ``weight_scale_inv``, which is multiplied by, tiles of 128 × 128."""
    codes, scale = model.get(base), model.tensors[name]
    if codes is None:
        return None
    if codes.dtype == np.int8 and len(codes.shape) == 2 and scale.dtype in _BYTES:
        return _bytes_of_floats(codes, scale, None, base, divides=False)
    _need(codes.dtype in _FP8, f"its codes are {codes.dtype}")
    found = _plain_codes(model, codes, scale, base, "float")
    return found._replace(tensor=dataclasses.replace(found.tensor, packing="fp8"))


def _read_blocks(model: _Model, name: str, base: str) -> _Found | None:
    """Read ``*_blocks`` beside ``*_scales``: MXFP4 of experts, of the transpose of their weight."""
    blocks_, scale = model.tensors[name], model.get(f"{base}_scales")
    if scale is None:
        return None
    _need(
        blocks_.dtype == np.uint8
        and scale.dtype in _BYTES
        and len(blocks_.shape) == 4
        and blocks_.shape[-1] == 16
        and scale.shape == blocks_.shape[:-1],
        f"blocks of shape {blocks_.shape} and scales of shape {scale.shape}",
    )
    experts, rows, groups, width = blocks_.shape
    columns = groups * 2 * width
    parts = _Parts(
        base,
        "mxfp4 of gpt-oss",
        (experts, rows, columns),
        blocks.mxfp4,
        Codes(blocks_, experts * rows, columns, 4, groups * width),
        _table(float4_e2m1fn),
        Scales(scale, experts * rows, groups, _table(float8_e8m0fnu)),
        (1, 32),
        (blocks_, scale),
    )
    found = parts.found()
    tensor = dataclasses.replace(
        found.tensor,
        shape=(experts, columns, rows),
        source=dataclasses.replace(_grid(found.tensor), is_transposed=True),
        axis=-2,
        scale_shape=(experts, groups, rows),
    )
    return found._replace(tensor=tensor)


def _grid(tensor: QuantizedTensor) -> Grid:
    assert isinstance(tensor.source, Grid), "as it was made"
    return tensor.source


# torchao, TransformerEngine -----------------------------------------------------------------------


def _read_torchao(model: _Model, name: str, base: str) -> _Found | None:
    """Read ``module._weight_qdata`` beside ``module._weight_scale``, which texts describe."""
    module, _, last = base.rpartition(".")
    whole = f"{module}.{last.removeprefix('_')}".lstrip(".")
    codes, scale = model.tensors[name], model.get(f"{base}_scale")
    _need(scale is not None and last.startswith("_"), "it has no scale of torchao's beside it")
    assert scale is not None
    told = _json(model.texts.get(whole, "{}"))
    data = told.get("_data", {}) if isinstance(told, dict) else {}
    kind = str(told.get("_type", "")) if isinstance(told, dict) else ""
    _need(not data.get("is_swizzled_scales"), "its scales are swizzled")
    _need(model.get(f"{base}_act_pre_scale") is None, "its inputs are scaled before")
    in_all = _scalar(model.get(f"{base}_per_tensor_scale"))
    zero = model.get(f"{base}_zero_point")
    packed = codes.dtype in (np.dtype(np.uint8), np.dtype(float4_e2m1fn.dtype))
    if packed and len(codes.shape) == 2 and scale.dtype in (float8_e4m3fn.dtype, *_BYTES):
        _need(codes.dtype == np.uint8, f"codes of {codes.dtype}")
        found = _bytes_of_floats(codes, scale, in_all, whole, divides=False)
    else:
        _need(codes.dtype in _FP8 or codes.dtype == np.int8, f"{kind or 'torchao'} {codes.dtype}")
        _need("Int4" not in kind, f"packed as torchao's {kind}")
        renamed = model._replace(tensors={f"{whole}_zero_point": zero} if zero is not None else {})
        found = _plain_codes(renamed, codes, scale, whole, "float")
    used = {*found.used, *(t.name for t in (zero,) if t is not None)}
    optional = (f"{base}_act_per_tensor_scale",)
    used.update(other for other in optional if other in model.tensors)
    tensor = dataclasses.replace(found.tensor, packing=f"torchao {kind}".strip())
    return _Found(tensor, tuple(used))


def _read_engine(model: _Model, name: str, base: str) -> _Found | None:
    """Read TransformerEngine's ``_rowwise_data`` or ``_data`` beside their ``_scale_inv``."""
    codes = model.tensors[name]
    stem = name.removesuffix("_data")
    scale = model.get(f"{stem}_scale_inv")
    if scale is None:
        return None
    whole = re.sub(r"[._]+(rowwise)?_?$", "", stem)
    amax = model.get(f"{whole}._amax_rowwise")
    extra = [n for n in model.tensors if re.match(re.escape(whole) + r"\._?(columnwise|amax)", n)]
    if amax is not None:
        raise _UnknownLayoutError("TransformerEngine's NVFP4, whose scales are laid out for a GPU")
    fp8 = codes
    if codes.dtype == np.uint8 and scale.dtype in (np.dtype(np.float32), *_BYTES):
        fp8 = dataclasses.replace(
            codes,
            dtype=np.dtype(float8_e4m3fn.dtype),
            source=_Viewed(codes.source, np.dtype(float8_e4m3fn.dtype)),
            fmt=float8_e4m3fn,
        )
    _need(fp8.dtype in _FP8, f"its codes are {codes.dtype}")
    scale = _unpadded(fp8, scale)
    found = _plain_codes(model._replace(tensors={}), fp8, scale, whole, "float")
    tensor = dataclasses.replace(found.tensor, packing="TransformerEngine", stored=(codes, scale))
    return _Found(tensor, (codes.name, scale.name, *extra))


def _unpadded(codes: Tensor, scale: Tensor) -> Tensor:
    """Return scales; refuse those that are padded to the tiles of a GPU."""
    if scale.size == 1 or len(codes.shape) != 2 or scale.dtype not in _BYTES:
        return scale
    _need(
        scale.shape == (codes.shape[0], -(-codes.shape[1] // 32)),
        f"its scales of shape {scale.shape} are padded for a GPU",
    )
    return scale


@dataclasses.dataclass(frozen=True)
class _Viewed:
    """Bytes under another dtype."""

    source: Any
    dtype: np.dtype[Any]

    def blocks(self, elements: int) -> Any:
        """Yield all elements, in blocks of this many."""
        return (block.view(self.dtype) for block in self.source.blocks(elements))

    def array(self) -> Array:
        """Return all elements."""
        whole: Array = self.source.array().view(self.dtype)
        return whole


def _json(text: str) -> Any:
    try:
        return json.loads(text) if len(text) < _MOST_STATE_BYTES else {}
    except (ValueError, RecursionError):
        return {}


# bitsandbytes -------------------------------------------------------------------------------------


def _read_bits(model: _Model, name: str, base: str) -> _Found | None:
    """Read nf4 and fp4 of bitsandbytes: blocks of the flat tensor, their scales quantized too."""
    state_tensor, codes = model.tensors[name], model.get(base)
    absmax, book = model.get(f"{base}.absmax"), model.get(f"{base}.quant_map")
    _need(
        codes is not None and absmax is not None and book is not None, "codes, absmax or quant_map"
    )
    assert codes is not None
    assert absmax is not None
    assert book is not None
    _need(state_tensor.nbytes <= _MOST_STATE_BYTES, "its state is too long")
    state = _json(rows_of(state_tensor, 0, state_tensor.size).tobytes().decode("utf-8", "replace"))
    _need(isinstance(state, dict), "its state is damaged")
    shape, block = state.get("shape"), state.get("blocksize")
    _need(
        isinstance(shape, list)
        and all(type(n) is int and n > 0 for n in shape)
        and type(block) is int
        and block > 0
        and block % 2 == 0,
        "its state is damaged",
    )
    size = math.prod(shape)
    _need(codes.dtype == np.uint8 and codes.size == -(-size // 2), f"{codes.size:,} bytes of codes")
    count = -(-size // block)
    _need(absmax.size == count and book.size == 16, "its scales or its table")
    values = rows_of(book, 0, 16).astype(np.float64)
    nested, nested_book = model.get(f"{base}.nested_absmax"), model.get(f"{base}.nested_quant_map")
    nested_block, offset = state.get("nested_blocksize"), state.get("nested_offset", 0.0)
    if nested is None:
        _need(absmax.dtype == np.float32, f"its scales are {absmax.dtype}")
        read = functools.partial(_plain_absmax, absmax)
    else:
        _need(
            nested_book is not None
            and nested_book.size == 256
            and absmax.dtype == np.uint8
            and type(nested_block) is int
            and nested_block > 0
            and nested.size == -(-count // nested_block)
            and isinstance(offset, float | int),
            "its nested scales",
        )
        assert nested_book is not None
        read = functools.partial(
            _nested_absmax, absmax, nested, nested_book, nested_block, float(offset)
        )
    used = (codes, absmax, book, nested, nested_book, state_tensor)
    stored = tuple(tensor for tensor in used if tensor is not None)
    source = Flat(Codes(codes, 1, size, 4, codes.size, is_high_first=True), values, read, block)
    kind = str(state.get("quant_type", "nf4"))
    tensor = QuantizedTensor(
        base,
        tuple(shape),
        np.dtype(np.float32),
        source,
        float32,
        packing=f"bitsandbytes {kind:.20}",
        stored=stored,
        scale_shape=(count,),
        stored_scales=absmax,
    )
    return _Found(tensor, tuple(one.name for one in stored))


def _plain_absmax(absmax: Tensor, first: int, count: int) -> Array:
    return rows_of(absmax, first, count).astype(np.float64)


def _nested_absmax(
    absmax: Tensor,
    nested: Tensor,
    book: Tensor,
    block: int,
    offset: float,
    first: int,
    count: int,
) -> Array:
    """Return scales that are codes themselves: float32 arithmetic, as the library has it."""
    codes = rows_of(absmax, first, count)
    table = rows_of(book, 0, 256).astype(np.float32)
    begin = first // block
    coarse = rows_of(nested, begin, -(-(first + count) // block) - begin).astype(np.float32)
    spread = np.repeat(coarse, block)[first - begin * block :][:count]
    return (table[codes] * spread + np.float32(offset)).astype(np.float64)


_READERS: tuple[tuple[str, str, Callable[[_Model, str, str], _Found | None]], ...] = (
    # the end of a name, what stands in its place in the name of the codes, and the reader
    ("_packed", "", _read_packed),
    ("_scale_inv", "", _read_inverse),
    ("._scale", "._data", _read_scaled),
    ("_scale", "", _read_scaled),
    ("_scale", "_quantized", _read_scaled),
    (".scale", ".weight", _read_scaled),
    (".scale_weight", ".weight", _read_scaled),
    ("_blocks", "", _read_blocks),
    ("_qdata", "", _read_torchao),
    ("_data", "", _read_engine),
    (".quant_state.bitsandbytes__nf4", "", _read_bits),
    (".quant_state.bitsandbytes__fp4", "", _read_bits),
)
