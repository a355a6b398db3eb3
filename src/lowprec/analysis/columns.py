"""Data by column: mappings of arrays, and data frames of pandas or polars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class ByColumn(dict[str, Any]):
    """What was found of each column, by name; it prints column by column."""

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {_indented(repr(one))}" for name, one in self.items())


def _indented(text: str) -> str:
    lines = text.splitlines()
    return text if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)


def has_columns(x: Any) -> bool:
    """Whether data are a mapping of arrays by name or a data frame."""
    return isinstance(x, Mapping) or (
        getattr(x, "columns", None) is not None and hasattr(x, "__getitem__")
    )


def columns_of(x: Any) -> Mapping[str, Any]:
    """Return the arrays of a mapping or of a data frame by name.

    Tensors of files that are left (`Tensor.left`) are not judged.

    Raises ValueError if two columns have one name.
    """
    if isinstance(x, Mapping):
        return {name: one for name, one in x.items() if not getattr(one, "left", "")}
    names = [str(name) for name in x.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two columns are called {twice!r}; give them different names")
    return {str(name): np.asarray(x[name]) for name in x.columns}
