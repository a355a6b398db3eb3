"""Scripts as functions without arguments, so that they can be traced."""

from __future__ import annotations

import inspect
import linecache
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence


def script_function(path: str | os.PathLike[str], results: Sequence[str]) -> Callable[[], Any]:
    """Return a function that runs a script and returns some of its variables.

    Raises SyntaxError if the script is not Python.
    """
    source = Path(path).read_text(encoding="utf-8")
    return code_function(
        source, str(path), results, {"__name__": "__main__", "__file__": str(path)}
    )


def code_function(
    source: str, file: str, results: Sequence[str], space: dict[str, Any]
) -> Callable[[], Any]:
    """Return a function that runs statements in a namespace and returns some of its variables.

    Raises SyntaxError if the source is not Python.
    """
    script = FunctionType(compile(source, file, "exec"), space)

    def program() -> Any:
        script()
        missing = [name for name in results if name not in space]
        if missing:
            known = sorted(name for name in space if not name.startswith("_"))
            raise ValueError(
                f"{file} sets no variable {missing[0]!r}; it sets {', '.join(known) or 'none'}"
            )
        made = tuple(space[name] for name in results)
        return made[0] if len(made) == 1 else made

    program.__wrapped__ = script  # type: ignore[attr-defined]
    if file not in linecache.cache and not Path(file).is_file():
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return program


def function_in(
    path: str | os.PathLike[str], name: str
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function that a script defines, and what to call it with.

    The arguments are what the script's own `inputs()` returns; there are none if the function
    needs none.

    Raises ValueError if there is no such function, or it needs arguments and the script has no
        `inputs`.
    """
    source = Path(path).read_text(encoding="utf-8")
    space: dict[str, Any] = {"__name__": Path(path).stem, "__file__": str(path)}
    exec(compile(source, str(path), "exec"), space)
    functions = [key for key, value in space.items() if isinstance(value, FunctionType)]
    if name not in functions:
        raise ValueError(
            f"{path} defines no function {name!r}; it defines {', '.join(functions) or 'none'}"
        )
    function = space[name]
    needed = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if not needed:
        return function, ()
    if "inputs" not in functions:
        raise ValueError(
            f"{name} needs {', '.join(needed)}; define a function inputs() in {path} that returns "
            "them, or a function without arguments that calls it"
        )
    made = space["inputs"]()
    return function, made if isinstance(made, tuple) else (made,)
