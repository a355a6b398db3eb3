"""What the pages need beside lowprec, and the message that is due where it is missing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jinja2

__all__ = ["needs_report_extra", "page_environment"]


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


def page_environment() -> jinja2.Environment:
    """Return the templates of the pages, once everything that pages are made with is there.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib or Jinja2, naming the extra to install.
    """
    with needs_report_extra():
        import jinja2

        __import__("matplotlib")
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lowprec.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
