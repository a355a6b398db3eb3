"""Files ``.onnx``: the initializers of a graph, read through onnx."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowprec.tensors.checks import checked_name, checked_size, refuse_duplicates
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sliced import missing_library
from lowprec.tensors.sources import FileRange, Stamp, as_tensor
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 2 << 30  # of a protocol buffer


def read_onnx(path: Path) -> TensorFile:
    """Read all initializers; those that lie in files beside it are read by block.

    Raises ModuleNotFoundError without onnx.
    Raises ValueError if the file is damaged or was made to deceive.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise missing_library(path, "a graph of ONNX", "onnx", "onnx") from None
    with path.open("rb") as file:
        size = Stamp.of(file).size
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, and a graph of ONNX has at most {_MOST_BYTES:,}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # google.protobuf's DecodeError, which need not be importable
        raise ValueError(f"it is not a graph of ONNX ({error!s:.200})") from None
    tensors = tuple(_tensor(onnx, path, one) for one in _initializers(model.graph))
    if not tensors:
        raise ValueError("it holds neither initializers nor constants")
    refuse_duplicates(tensor.name for tensor in tensors)
    return TensorFile(path, tensors, {})


def _initializers(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield initializers and constants of a graph and of those within it (branches, loops)."""
    for one in graph.initializer:
        yield f"{prefix}{one.name}", one
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield f"{prefix}{node.output[0]}", attribute.t
            if attribute.HasField("g"):
                yield from _initializers(
                    attribute.g, f"{prefix}{node.name or node.op_type}/{attribute.name}/"
                )


def _tensor(onnx: Any, path: Path, named: tuple[str, Any]) -> Tensor:
    name, found = checked_name(named[0].lstrip("/") or "initializer"), named[1]
    shape = tuple(int(n) for n in found.dims)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(found.data_type)
    except KeyError:
        raise ValueError(f"{name!r:.100} has the unknown type {found.data_type}") from None
    count = checked_size(name, shape, dtype.itemsize)
    if found.data_location == onnx.TensorProto.EXTERNAL:
        return _external(onnx, path, name, found, shape)
    held = len(found.raw_data) or 8 * sum(
        len(getattr(found, field))
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    )
    if count > 2 * max(held, 1):  # two elements of four bits to a byte
        raise ValueError(f"{name!r:.100} of shape {shape} has {held:,} bytes of data")
    if dtype.kind in "OSU":
        return Tensor(name, shape, dtype, as_tensor(name, []).source, None, left="texts")
    try:
        array = onnx.numpy_helper.to_array(found)
    except Exception as error:
        raise ValueError(f"{name!r:.100} is damaged: {error!s:.200}") from None
    return as_tensor(name, array.reshape(shape))


def _external(onnx: Any, path: Path, name: str, found: Any, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor whose elements lie in a file beside the graph."""
    told = {entry.key: entry.value for entry in found.external_data}
    place = path.parent / checked_name(told.get("location", ""))
    if not place.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(f"{name!r:.100} lies in {told['location']!r:.100}, outside the folder")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(found.data_type)
    bits = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}.get(dtype.name)
    if bits or dtype.kind in "OSU":
        reason = f"{dtype.name} outside the graph"
        return Tensor(name, shape, dtype, as_tensor(name, []).source, None, left=reason)
    try:
        offset = int(told.get("offset", 0))
    except ValueError:
        raise ValueError(f"{name!r:.100} begins at {told['offset']!r:.50}") from None
    with place.open("rb") as file:
        stamp = Stamp.of(file)
    size = math.prod(shape)
    if offset < 0 or offset + size * dtype.itemsize > stamp.size:
        raise ValueError(f"{name!r:.100} lies beyond the end of {place.name}")
    stored = dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype
    return Tensor(
        name, shape, dtype, FileRange(place, offset, stored, size, stamp), format_of(dtype)
    )


KINDS = (FileKind((".onnx",), read_onnx, place=4),)
