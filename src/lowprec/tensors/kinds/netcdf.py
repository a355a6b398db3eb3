"""Files of netCDF (``.nc``): variables as numbers, missing ones as NaN; read through netCDF4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.tensors.checks import checked_name, checked_size
from lowprec.tensors.sliced import Sliced, missing_library
from lowprec.tensors.tensor import Tensor, TensorFile, format_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_netcdf(path: Path) -> TensorFile:
    """Read which variables a file has; packed ones (scale_factor, add_offset) mean their values.

    Raises
    ------
    ModuleNotFoundError
        Without netCDF4.
    ValueError
        If the file is damaged.
    """
    path.open("rb").close()
    try:
        import netCDF4
    except ModuleNotFoundError:
        raise missing_library(path, "a file of netCDF", "netCDF4", "netcdf") from None
    try:
        data = netCDF4.Dataset(path, "r")
        tensors = tuple(_tensor(name, variable) for name, variable in _variables(data))
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


def _tensor(name: str, variable: Any) -> Tensor:
    name, shape = checked_name(name), tuple(map(int, variable.shape))
    dtype = np.dtype(variable.dtype) if isinstance(variable.dtype, np.dtype) else np.dtype(object)
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        nothing = Sliced(lambda index: np.empty(0), (0,), np.dtype(np.float32))
        reason = f"not of real numbers: {variable.dtype}"
        return Tensor(name, (0,), np.dtype(np.float32), nothing, None, left=reason)
    checked_size(name, shape, dtype.itemsize)
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
