"""Facts of rows that leave them to be read from their names and parameters.

Rows that are recorded through `recording.timed` say what they are; others, such as those of matrix
products, are described here when the file of results is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Facts = dict[str, Any]


def describe(row: Facts) -> None:
    """Add to a benchmark's ``extra_info`` what its test and parameters tell."""
    test = row["name"].partition("[")[0]
    told = row["extra_info"]
    if test in _DESCRIPTIONS and "kind" not in told:
        row["extra_info"] = _DESCRIPTIONS[test](row["params"] or {}) | told


def _operation(kind: str) -> Callable[[Facts], Facts]:
    def facts(params: Facts) -> Facts:
        fmt, who = params["fmt"], params["who"]
        notes = {
            "float32": "computed in float32, rounded again",
            "lowprec without flags": "counts no events",
        }
        note = notes.get(who, "")
        if params["name"] == "fma" and who == "numpy":
            note = "rounds twice"
        names = {"float32": "numpy float32 + round_to"}
        names["numpy"] = "numpy" if fmt in ("float16", "float32") else "ml_dtypes"
        return {
            "kind": kind,
            "work": params["name"],
            "format": fmt,
            "who": names.get(who, who),
            "elements": params["elements"],
            "threads": params["count"],
            "dtype": "float32" if who.startswith(("lowprec", "float32")) else fmt,
            "allocation": "preallocated",
            "note": note,
        }

    return facts


def _matmul(params: Facts) -> Facts:
    m, k, n = params["shape"]
    name = params["name"]
    formats = {"blocked": "float16", "pairwise": "float16", "stochastic": "bfloat16"}
    names = {"plain": "lowprec", "transposed": "lowprec, transposed", "numpy": "numpy float32"}
    return {
        "kind": "product",
        "work": f"{m}×{k}×{n}, {name}",
        "format": formats.get(name, name),
        "who": names[params["layout"]],
        "elements": m * k + k * n + m * n,
        "threads": 1,
        "dtype": "float32",
    }


def _loop(params: Facts) -> Facts:
    note = "rounds to float32 before each rounding"
    told = _matmul(params | {"shape": (256, 256, 256), "layout": "plain"})
    return told | {"who": "torch, loop over k", "note": note}


def _training_product(params: Facts) -> Facts:
    m, k, n, transposed = params["work"]
    words = f", {transposed} transposed" if transposed else ""
    return {
        "kind": "product",
        "work": f"{m}×{k}×{n} in training{words}",
        "format": "float32",
        "who": {"numpy": "numpy float32"}.get(params["who"], params["who"]),
        "elements": m * k + k * n + m * n,
        "threads": 1,
        "dtype": "float32",
    }


def _file(work: str) -> Callable[[Facts], Facts]:
    def facts(params: Facts) -> Facts:
        words = {"formats": "{} formats", "to": "to {}"}
        details = [words.get(key, "{}").format(params[key]) for key in params if key != "who"]
        who = params.get("who", "plain copy" if params.get("to") == "copy" else "lowprec")
        return {
            "kind": "file",
            "work": " ".join([work, *details]),
            "format": str(params.get("dtype", "float32")),
            "who": who,
            "threads": 1,
        }

    return facts


_DESCRIPTIONS: dict[str, Callable[[Facts], Facts]] = {
    "test_operation": _operation("operation"),
    "test_elementary": _operation("function"),
    "test_matmul": _matmul,
    "test_product_in_training": _training_product,
    "test_loop_over_k_in_torch": _loop,
    "test_read": _file("read"),
    "test_compare": _file("compare"),
    "test_convert": _file("convert"),
}
