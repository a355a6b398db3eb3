"""What the commands' arguments share: readers that turn a ValueError into wrong usage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Add", "checked"]

_T = TypeVar("_T")


class Add(Protocol):
    """Adds a command: its name, the function it runs, its purpose, an example."""

    def __call__(  # noqa: D102
        self, name: str, run: Callable[[Any], None], purpose: str, example: str
    ) -> argparse.ArgumentParser: ...


def checked(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return `read` with its ValueError shown as wrong usage."""

    def checked(text: str) -> _T:
        try:
            return read(text.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked
