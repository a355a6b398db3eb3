"""The documented list of patterns for which another formula is known.

A rewriting is offered for a named line whose source has the pattern, and for nothing else.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Pattern(NamedTuple):
    """A pattern in a line of source.

    name: What the formula is called.
    kinds: The findings that it explains.
    matches: Whether an expression has the pattern; is given the lines of the function, as parsed.
    words: What to do, as the end of "keep … in float32, or …".
    """

    name: str
    kinds: tuple[str, ...]
    matches: Callable[[ast.AST, Any], bool]
    words: str


def _calls(node: ast.AST, *names: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in names


def _has(node: ast.AST, test: Callable[[ast.AST], bool]) -> bool:
    return any(test(part) for part in ast.walk(node))


def _is_square(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return isinstance(node.right, ast.Constant) and node.right.value == 2
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factors = _factors(node)
        return len(factors) != len(set(factors))
    return False


def _factors(node: ast.AST) -> list[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _factors(node.left) + _factors(node.right)
    return [ast.dump(node)]


def _differences(node: ast.AST) -> list[ast.BinOp]:
    return [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub)
    ]


def _one_pass_variance(node: ast.AST, sources: Any) -> bool:
    for part in _differences(node):
        if _has(part.right, _is_square) and _sums_squares(part.left, sources):
            return True
    return False


def _sums_squares(node: ast.AST, sources: Any) -> bool:
    def sums(part: ast.AST) -> bool:
        return _calls(part, "sum", "mean", "dot", "average", "vdot", "fsum") or (
            isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult)
        )

    if _has(node, sums):
        return True
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return any(_has(value, sums) for name, value in sources if name in names)


def _windowed_sums(node: ast.AST, sources: Any) -> bool:
    for part in _differences(node):
        sides = part.left, part.right
        if all(isinstance(side, ast.Subscript) for side in sides):
            names = {ast.dump(side.value) for side in sides}  # type: ignore[attr-defined]
            if len(names) == 1:
                name = getattr(sides[0].value, "id", None)  # type: ignore[attr-defined]
                if any(n == name and _has(v, lambda p: _calls(p, "cumsum")) for n, v in sources):
                    return True
    return False


def _hypotenuse(node: ast.AST, sources: Any) -> bool:
    return _has(
        node,
        lambda part: (
            isinstance(part, ast.BinOp)
            and isinstance(part.op, ast.Add)
            and _is_square(part.left)
            and _is_square(part.right)
        ),
    )


def _softmax(node: ast.AST, sources: Any) -> bool:
    if not _has(node, lambda part: _calls(part, "exp")):
        return False
    return any(_has(value, lambda part: _calls(part, "log")) for _, value in sources) or _has(
        node, lambda part: _calls(part, "log")
    )


def _log_of_one_plus(node: ast.AST, sources: Any) -> bool:
    def matches(part: ast.AST) -> bool:
        if not (isinstance(part, ast.Call) and _calls(part, "log") and part.args):
            return False
        inner = part.args[0]
        if not (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Add)):
            return False
        return _is_one(inner.left) or _is_one(inner.right)

    return _has(node, matches)


def _is_one(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _exp_minus_one(node: ast.AST, sources: Any) -> bool:
    return any(_calls(part.left, "exp") and _is_one(part.right) for part in _differences(node))


def _one_minus_cosine(node: ast.AST, sources: Any) -> bool:
    return any(_is_one(part.left) and _calls(part.right, "cos") for part in _differences(node))


def _root_minus(node: ast.AST, sources: Any) -> bool:
    roots = {name for name, value in sources if _has(value, lambda part: _calls(part, "sqrt"))}

    def is_root(part: ast.AST) -> bool:
        return _calls(part, "sqrt") or (isinstance(part, ast.Name) and part.id in roots)

    found = any(is_root(p.left) or is_root(p.right) for p in _differences(node))
    return found or _has(
        node,
        lambda part: (
            isinstance(part, ast.BinOp)
            and isinstance(part.op, ast.Add)
            and isinstance(part.left, ast.UnaryOp)
            and is_root(part.right)
        ),
    )


def _difference_of_squares(node: ast.AST, sources: Any) -> bool:
    return any(_is_square(p.left) and _is_square(p.right) for p in _differences(node))


PATTERNS = (
    Pattern(
        "one-pass variance", ("cancels", "grown"), _one_pass_variance, "use the two-pass formula"
    ),
    Pattern(
        "difference of running sums",
        ("cancels", "grown"),
        _windowed_sums,
        "sum each window by itself",
    ),
    Pattern(
        "hypotenuse", ("event",), _hypotenuse, "use np.hypot, which squares nothing in the format"
    ),
    Pattern(
        "logarithm of a softmax",
        ("event",),
        _softmax,
        "use z - log(sum(exp(z))), with the largest z subtracted first",
    ),
    Pattern("log(1 + x)", ("cancels", "grown", "born"), _log_of_one_plus, "use np.log1p"),
    Pattern("exp(x) - 1", ("cancels", "grown"), _exp_minus_one, "use np.expm1"),
    Pattern("1 - cos(x)", ("cancels", "grown"), _one_minus_cosine, "use 2 * np.sin(x / 2)**2"),
    Pattern(
        "difference of a root",
        ("cancels", "grown"),
        _root_minus,
        "multiply by the conjugate: √a - √b = (a - b)/(√a + √b)",
    ),
    Pattern(
        "difference of squares",
        ("cancels", "grown"),
        _difference_of_squares,
        "use (a - b)*(a + b)",
    ),
)


def rewriting(trace: Any, kind: str, line: Any) -> str:
    """Return what else helps a named line, "" if no pattern of the list is there."""
    node = _parsed(line.text)
    if node is None:
        return ""
    sources = []
    for other in trace.lines.values():
        statement = _parsed(other.text)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            sources.append((statement.targets[0].id, statement.value))
        elif isinstance(statement, ast.Return) and statement.value is not None:
            sources.append(("return", statement.value))
    for pattern in PATTERNS:
        if kind in pattern.kinds and pattern.matches(node, sources):
            return pattern.words
    return ""


def _parsed(text: str) -> ast.AST | None:
    """Return a line of source as a statement, None if it is not one by itself."""
    text = text.strip()
    if text.startswith(("if ", "while ", "for ", "with ", "elif ")) and text.endswith(":"):
        text = text.removeprefix("el") + " pass"
    try:
        return ast.parse(text).body[0]
    except (SyntaxError, IndexError):
        return None
