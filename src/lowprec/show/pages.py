"""Pages: their style sheets and templates, and the message where what they need is missing."""

from __future__ import annotations

import contextlib
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jinja2


@contextlib.contextmanager
def needs_report_extra() -> Iterator[None]:
    """Turn the failed import of an optional package into an error that says what to install.

    Raises ModuleNotFoundError: With the package's name and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the report needs {error.name}, which is not installed; "
            'run: pip install "lowprec[report]"',
            name=error.name,
        ) from error


def page_environment(room: str) -> jinja2.Environment:
    """Return the templates of a room's pages, once everything that pages are made with is there.

    room: The package whose folder ``templates`` has them, such as ``"lowprec.report"``.
    Raises ModuleNotFoundError without matplotlib or Jinja2, naming the extra to install.
    """
    with needs_report_extra():
        import jinja2

        __import__("matplotlib")
    return jinja2.Environment(
        loader=jinja2.PackageLoader(room),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )


def plain_page(generator: str, title: str, heading: str, body: str, *styles: str) -> str:
    """Return a whole page that refers to nothing outside itself.

    generator: The element by which lowprec knows the page again.
    title, heading, body: HTML.
    styles: Style sheets beside that of every page.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{generator}<title>{title}</title><style>{stylesheet('page.css', *styles)}</style></head>"
        f"<body><main><h1>{heading}</h1>{body}</main></body></html>\n"
    )


def stylesheet(*names: str) -> str:
    """Return style sheets of lowprec's pages, one after the other."""
    folder = files("lowprec.show") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)
