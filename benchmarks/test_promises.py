"""Every promise of DESIGN.md's speed table, of arithmetic and of training, as a row of the report.

A row says what was measured and whether the limit was met; that a limit is missed fails
``nox -s bench-check``, not this.
"""

import math

import pytest
from promises import promises
from timing import threads

SECONDS = {"quick": 0.3, "full": 1.0}
PROMISES = {f"{promise.work}: {promise.unit}": promise for promise in promises()}


@pytest.mark.parametrize("name", PROMISES)
def test_promise(benchmark, name, pytestconfig):
    promise = PROMISES[name]
    benchmark.group = "promises"
    seconds = SECONDS[pytestconfig.getoption("--profile")]

    def measure():
        return {
            column: promise.measure(elements, seconds) for column, elements in promise.sizes.items()
        }

    with threads(1):
        figures = benchmark.pedantic(measure)
    assert all(math.isfinite(figure.median) and figure.median > 0 for figure in figures.values())
    benchmark.extra_info.update(kind="goal", work=promise.work, who="lowprec")
    benchmark.extra_info.update(
        bound=promise.bound(),
        is_met=promise.is_met(figures, 0.0),
        measured={column: figure._asdict() for column, figure in figures.items()},
    )
