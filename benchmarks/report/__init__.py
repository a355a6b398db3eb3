"""What ``pytest benchmarks/ --benchmark-json=out.json`` measured, as tables and charts.

``python -m benchmarks.report out.json`` prints range, precision and throughput against
float32; ``--html`` writes a page with charts, ``--baseline`` says what got slower than in an older
file.
"""

from benchmarks.report.changes import Change, changes
from benchmarks.report.results import Quartiles, Results, Row, read_results

__all__ = ["Change", "Quartiles", "Results", "Row", "changes", "read_results"]
