"""Files of netCDF (``.nc``): variables as numbers, missing ones as NaN; read through netCDF4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lowprec.tensors.checks import checked_name, checked_size, endless_claim
from lowprec.tensors.file_kind import FileKind
from lowprec.tensors.sliced import Sliced, left_out, missing_library
from lowprec.tensors.sources import Stamp
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_CLASSIC_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def read_netcdf(path: Path) -> TensorFile:
    """Read which variables a file has; packed ones (scale_factor, add_offset) mean their values.

    Raises ModuleNotFoundError without netCDF4.
    Raises ValueError if the file is damaged.
    """
    with path.open("rb") as file:
        stored = Stamp.of(file).size
        _check_classic(file, stored)
    try:
        import netCDF4
    except ModuleNotFoundError:
        raise missing_library(path, "a file of netCDF", "netCDF4", "netcdf") from None
    try:
        data = netCDF4.Dataset(path, "r")
        tensors = tuple(_tensor(name, variable, stored) for name, variable in _variables(data))
    except ValueError:
        raise
    except Exception as error:  # OSError, RuntimeError: as the damage is
        raise ValueError(
            f"netCDF4 does not read it ({' '.join(str(error).split()):.200})"
        ) from None
    if not tensors:
        raise ValueError("it holds no variables")
    return TensorFile(path, tensors, {})


def _variables(group: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > 30:
        raise ValueError("its groups lie more than 30 deep")
    for name, variable in group.variables.items():
        yield f"{prefix}{name}", variable
    for name, inner in group.groups.items():
        yield from _variables(inner, f"{prefix}{name}/", depth + 1)


def _tensor(name: str, variable: Any, stored: int) -> Tensor:
    name, shape = checked_name(name), tuple(map(int, variable.shape))
    dtype = np.dtype(variable.dtype) if isinstance(variable.dtype, np.dtype) else np.dtype(object)
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        return left_out(name, f"not of real numbers: {variable.dtype}")
    if reason := endless_claim(checked_size(name, shape, 1) * dtype.itemsize, stored):
        return left_out(name, reason)
    packed = [np.asarray(getattr(variable, key)).dtype for key in ("scale_factor", "add_offset")
              if hasattr(variable, key)]  # fmt: skip
    result = np.result_type(*packed) if packed else dtype.newbyteorder("=")
    if result.kind not in "fiu":
        raise ValueError(f"{name!r:.100} has a scale of {result}")

    def read(index: tuple[Any, ...]) -> Any:
        found = variable[index if index else ...]
        if not np.ma.isMaskedArray(found):
            return found
        filler = np.nan if result.kind == "f" else found.fill_value
        return np.ma.filled(found, filler)

    return Tensor(name, shape, result, Sliced(read, shape, result), format_of(result))


# The header of the classic form, whose lists the library allocates before it reads them -----------


def _check_classic(file: BinaryIO, size: int) -> None:
    """Refuse a header whose lists have more entries than the file has room for.

    References
    ----------
    The NetCDF Classic Format Specification: dimensions, attributes and variables, each a tag, a
    count and entries, numbers big-endian and of 8 bytes in version 5.
    """
    magic = file.read(4)
    if magic[:3] != b"CDF" or magic[3:] not in (b"\1", b"\2", b"\5"):
        return  # HDF5, or what the library refuses
    wide, far = (8 if magic[3] == 5 else 4), (4 if magic[3] == 1 else 8)

    def number(width: int = wide) -> int:
        content = file.read(width)
        if len(content) < width:
            raise ValueError("its header was cut short")
        return int.from_bytes(content, "big")

    def count(least: int) -> int:
        """Read how many entries follow, each of `least` bytes or more."""
        entries = number()
        if entries * least > size - file.tell():
            raise ValueError(f"its header claims {entries:,} entries, more than fit in it")
        return entries

    def skip(length: int) -> None:
        file.seek(-(-length // 4) * 4, 1)

    def attributes() -> None:
        number(4)
        for _ in range(count(4 + 2 * wide)):
            skip(count(1))
            width = _CLASSIC_WIDTHS.get(number(4), 1)
            skip(count(width) * width)

    number()  # of records
    number(4)
    for _ in range(count(2 * wide)):
        skip(count(1))
        number()
    attributes()
    number(4)
    for _ in range(count(8 + 4 * wide)):
        skip(count(1))
        skip(count(wide) * wide)
        attributes()
        number(4)
        number()
        number(far)


KINDS = (FileKind((".nc", ".nc4"), read_netcdf, place=7),)
