"""The message that is due when an optional dependency of the report is missing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needs_report_extra"]


@contextlib.contextmanager
def needs_report_extra() -> Iterator[None]:
    """Turn the failed import of an optional package into an error that says what to install.

    Raises
    ------
    ModuleNotFoundError
        With the package's name and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the report needs {error.name}, which is not installed; "
            'run: pip install "lowprec[report]"',
            name=error.name,
        ) from error
