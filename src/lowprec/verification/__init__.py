"""What lowprec claims, as data: checks that compare it with oracles that are built differently.

`checks` lists them, `verify` runs them, and `Report` is what came out, as a table and as JSON.
`targets` holds other people's conversions to the same values (`analysis.conformance`). The
command is ``lowprec verify``.
"""

from __future__ import annotations

from lowprec.analysis.conformance import Conformance, Difference, conformance
from lowprec.verification.checks import Check, Mismatch, Part
from lowprec.verification.listing import OPERATIONS, checks
from lowprec.verification.results import Report, Result
from lowprec.verification.running import verify

__all__ = [
    "OPERATIONS",
    "Check",
    "Conformance",
    "Difference",
    "Mismatch",
    "Part",
    "Report",
    "Result",
    "checks",
    "conformance",
    "verify",
]
