"""What the quick profile leaves out: it keeps every kind of row, and fewer of each.

A module of benchmarks has a rule here, which is asked with a row's parameters; a module without one
is run whole. The full profile leaves nothing out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Rule = Callable[[Mapping[str, Any]], bool]

LARGEST = 10**7
LADDER = (10**3, 10**5, 10**7)


def _conversion(row: Mapping[str, Any]) -> bool:
    elements = row["elements"]
    if elements > LARGEST or row["fmt"] == "float8_e5m2":
        return False
    if row["allocation"] == "allocated" and row["who"] in ("lowprec", "astype", "torch"):
        return elements == LARGEST
    if row["count"] == 2:
        return elements == LARGEST or (row["who"] == "lowprec" and elements == 10**5)
    return row["who"] in ("lowprec", "astype") or elements in LADDER


def _mode(row: Mapping[str, Any]) -> bool:
    return row["elements"] in (10**5, LARGEST) and row["count"] == 1


def _operation(row: Mapping[str, Any]) -> bool:
    """Keep a ladder of sizes for one operation and format, one size for the rest."""
    if (row["name"], row["fmt"]) == ("add", "bfloat16"):
        return row["elements"] in LADDER
    return row["elements"] == 10**5 and row["count"] == 1


def _elementary(row: Mapping[str, Any]) -> bool:
    if row["fmt"] == "float32":
        return row["elements"] == 10**3 and row["count"] == 1
    if (row["name"], row["fmt"]) == ("exp", "bfloat16"):
        return row["elements"] in LADDER
    return row["elements"] == 10**5 and row["count"] == 1


def _matmul(row: Mapping[str, Any]) -> bool:
    """Leave out the orders that the micro-kernels do not have where they take half a second."""
    return row["name"] not in ("pairwise", "stochastic") or row["shape"] == (32, 784, 10)


def _sum(row: Mapping[str, Any]) -> bool:
    most = LARGEST if row["how"] in ("float32", "bfloat16", "float16") else 10**5
    return row["elements"] in LADDER and row["elements"] <= most and row["count"] == 1


def _dot(row: Mapping[str, Any]) -> bool:
    return _sum(row) and row["elements"] < LARGEST


def _sum_of_rows(row: Mapping[str, Any]) -> bool:
    return row["elements"] == 10**6


QUICK: dict[str, Rule] = {
    "test_conversion": _conversion,
    "test_rounding_mode": _mode,
    "test_operation": _operation,
    "test_elementary": _elementary,
    "test_matmul": _matmul,
    "test_sum": _sum,
    "test_dot": _dot,
    "test_sum_of_rows": _sum_of_rows,
}


def is_in(profile: str, test: str, row: Mapping[str, Any]) -> bool:
    """Whether a profile runs a test with these parameters."""
    return profile == "full" or test not in QUICK or QUICK[test](row)
