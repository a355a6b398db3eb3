"""The table that the handlers enter themselves in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


FUNCTIONS: dict[Any, Callable[..., Any]] = {}
EXACTLY: set[str] = set()  # functions that move or choose, and round nothing
MARKED: set[str] = set()  # functions of LAPACK, by pure NumPy versions


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a handler for functions of NumPy: `(engine, *args, **kwargs)`."""

    def enter(handler: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = handler
        return handler

    return enter
