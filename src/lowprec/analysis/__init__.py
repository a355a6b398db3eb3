"""What a format does to data: `measure` it, `compare` formats, `advise` which one holds it."""

from lowprec.analysis.advice import Advice, advise
from lowprec.analysis.comparison import Comparison, compare
from lowprec.analysis.measurement import Measurement
from lowprec.analysis.measuring import measure

__all__ = ["Advice", "Comparison", "Measurement", "advise", "compare", "measure"]
