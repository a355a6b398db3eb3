"""What ``pytest benchmarks/ --benchmark-json=out.json`` measured, as tables and charts.

``python -m lowprec.report.benchmarks out.json`` prints range, precision and throughput against
float32; ``--html`` writes a page with charts, ``--baseline`` says what got slower than in an older
file.
"""

from lowprec.report.benchmarks.changes import Change, changes
from lowprec.report.benchmarks.results import Quartiles, Results, Row, read_results

__all__ = ["Change", "Quartiles", "Results", "Row", "changes", "read_results"]
