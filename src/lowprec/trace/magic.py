"""``%%lowprec bfloat16``: a cell of a notebook run in a format."""

from __future__ import annotations

import ast
import linecache
import shlex
from typing import Any

from lowprec.trace.scripts import code_function
from lowprec.trace.tracing import Trace, trace

_USAGE = "%%lowprec FORMAT [--result x,y] [--tolerance T] [--keep 2,4-6]"


def results_of(cell: str) -> list[str]:
    """Return the variables that a cell sets at its top level, in order."""
    names: dict[str, None] = {}
    for statement in ast.parse(cell).body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.pop(node.id, None)
                    names[node.id] = None
    return list(names)


def run_cell(line: str, cell: str, space: dict[str, Any]) -> Trace:
    r"""Run a cell in a format and return its trace; its results get what the format gives.

    Parameters
    ----------
    line : str
        The format, then ``--result x,y`` (by default the last variable that the cell sets),
        ``--tolerance T`` and ``--keep 2,4-6``: lines of the cell.
    cell : str
        Python statements.
    space : dict
        The notebook's variables.

    Raises
    ------
    ValueError
        If no format is named, an option is unknown, or the cell sets no variable.

    Examples
    --------
    >>> space = {}
    >>> t = run_cell("bfloat16", "a = 1.01\nb = a * a", space)
    >>> float(t.result), float(space["b"])
    (1.0234375, 1.0234375)
    """
    words = shlex.split(line)
    if not words or words[0].startswith("-"):
        raise ValueError(f"no format is named; write {_USAGE}")
    options = dict(zip(words[1::2], words[2::2], strict=False))
    if len(words) % 2 == 0 or options.keys() - {"--result", "--tolerance", "--keep"}:
        raise ValueError(f"{line!r} is not understood; write {_USAGE}")
    names = results_of(cell)
    asked = options.get("--result")
    results = [name.strip() for name in asked.split(",")] if asked else names[-1:]
    if not results:
        raise ValueError("the cell sets no variable; assign the result to one")
    linecache.cache.pop("<cell>", None)
    made = trace(
        code_function(cell, "<cell>", results, dict(space)),
        format=words[0],
        keep=[item for item in options.get("--keep", "").split(",") if item],
        tolerance=float(options["--tolerance"]) if "--tolerance" in options else None,
    )
    values = made.result if len(results) > 1 else (made.result,)
    space.update(zip(results, values, strict=True))
    return made


def load_ipython_extension(shell: Any) -> None:
    """Define the cell magic; what ``%load_ext lowprec.trace`` calls."""

    def lowprec(line: str, cell: str) -> Trace:
        return run_cell(line, cell, shell.user_ns)

    shell.register_magic_function(lowprec, "cell", "lowprec")
