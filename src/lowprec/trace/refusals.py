"""What is said where values leave, or cannot enter: who took them, where, and the ways out."""

from __future__ import annotations

import ast
import difflib
import sys
from typing import TYPE_CHECKING, Any

from lowprec.trace.operations import METHODS
from lowprec.trace.places import expression, short

if TYPE_CHECKING:
    from lowprec.trace.places import Places, Site


class LeavesError(AttributeError, TypeError):
    """Values would leave by an attribute: for `hasattr` there is none."""


def leak_message(origin: str, name: str, site: Site, functions: dict[Any, Any]) -> str:
    """Return what is wrong with values that leave, and the ways out."""
    return (
        f"{origin}: {name} received values of {site.kit.fmt} at {place_of(site)} and would "
        f"compute in float64; rewrite the line{_nearby(name, functions)}, add the module to "
        'modules=, or leaks="round" to round its result once'
    )


def home_of(function: Any) -> str:
    """Return where a function comes from, as "scipy/special"."""
    module = getattr(function, "__module__", None)
    if module:
        return str(module).replace(".", "/").replace("/_", "/")
    name = getattr(function, "__name__", "")
    homes = [
        key
        for key, value in list(sys.modules.items())
        if "._" not in key
        and not key.startswith("_")
        and getattr(value, "__dict__", {}).get(name) is function
    ]
    return min(homes, key=lambda key: (key.count("."), len(key)), default="NumPy").replace(".", "/")


def receiver(places: Places, site: Site, what: str) -> tuple[str, str]:
    """Return the file, in words, and the function that reads values outside of traced code."""
    frame: Any = sys._getframe(3)
    found: tuple[str, str] | None = None
    while frame is not None:
        name = str(frame.f_globals.get("__name__") or "")
        if places.is_traced(frame):
            source = expression(site.unit.file, site.span)
            return _called(frame, source, what) if found is None else found
        if not name.startswith("lowprec.trace") and not name.startswith("numpy"):
            parts = [part for part in name.split(".") if not part.startswith("_")]
            found = "/".join(parts) or name, frame.f_code.co_name
        frame = frame.f_back
    return found or ("a function outside of Python", what)


def _called(frame: Any, source: str, what: str) -> tuple[str, str]:
    """Return where the function comes from that an expression calls, and its name."""
    path, _, rest = source.partition("(")
    names = path.strip().split(".")
    if not rest or not all(name.isidentifier() for name in names):
        return "a function outside of Python", what
    found: Any = frame.f_locals.get(names[0], frame.f_globals.get(names[0]))
    for name in names[1:]:
        found = getattr(found, name, None)
    if found is None or isinstance(found, type):
        return "a function outside of Python", names[-1]
    return home_of(found), names[-1]


def is_formatting(site: Site) -> bool:
    """Whether the expression that runs is "…" % values."""
    try:
        node = ast.parse(expression(site.unit.file, site.span), mode="eval").body
    except SyntaxError:
        return False
    is_text = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)
    return is_text and isinstance(getattr(node.left, "value", None), str)  # type: ignore[attr-defined]


def _nearby(name: str, functions: dict[Any, Any]) -> str:
    """Return a hint at what is known near a function's name."""
    known = sorted({getattr(key, "__name__", "") for key in functions} | set(METHODS))
    near = difflib.get_close_matches(name, [k for k in known if k], n=2, cutoff=0.75)
    return f" (known nearby: {', '.join(near)})" if near else ""


def place_of(site: Site) -> str:
    """Return where a site is, in words: model.py:14 (`gamma(x)`)."""
    unit = site.unit
    text = expression(unit.file, site.span)
    return f"{short(unit.file)}:{unit.number}" + (f" (`{text}`)" if text else "")
