"""How each kind of file is read and written: a module a kind, whose `KINDS` say what it is.

`readers` and `writers` have the kinds by the ends of their names.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowprec.tensors.file_kind import FileKind


@functools.cache
def readers() -> dict[str, FileKind]:
    """Return the kinds of files that are read, by suffix, in their order."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    kinds = [kind for module in modules for kind in getattr(module, "KINDS", ())]
    return {end: kind for kind in sorted(kinds, key=lambda k: k.place) for end in kind.suffixes}


@functools.cache
def writers() -> dict[str, FileKind]:
    """Return the kinds of files that are written, by suffix, in their order."""
    return {end: kind for end, kind in readers().items() if kind.write is not None}
