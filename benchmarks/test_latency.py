"""What one call, the import and the first call cost, beside what NumPy and Numba cost anyway."""

import pytest
from recording import timed
from timing import in_fresh_interpreter
from workload import FIRST_CALL, LAZY, small_calls

PROCESSES = {
    "import numpy, ml_dtypes": "import numpy, ml_dtypes",
    "import lowprec": f"import lowprec\n{LAZY}",
    "import numba": "import numba",
    "first call, cold cache": f"import lowprec\n{FIRST_CALL}",
    "first call, warm cache": f"import lowprec\n{FIRST_CALL}",
}


PEERS = {"copy": "numpy", "numpy.add": "numpy", "ml_dtypes": "ml_dtypes"}


@pytest.mark.benchmark(group="one call on 10 elements")
@pytest.mark.parametrize("name", small_calls())
def test_call_on_ten_elements(benchmark, name):
    small = small_calls()[name]
    facts = {"kind": "latency", "work": f"{name}, 10 elements", "format": "bfloat16"}
    allocation = "allocated" if small.out is None else "preallocated"
    facts |= {"who": PEERS.get(name, "lowprec"), "allocation": allocation}
    timed(benchmark, small.call, elements=10, **facts)
    assert small.is_right()


@pytest.mark.benchmark(group="a new process: interpreter, imports and call")
@pytest.mark.parametrize("name", PROCESSES)
def test_new_process(benchmark, name, tmp_path):
    cache = str(tmp_path) if "warm" in name else None  # None: an empty one each time
    statements = PROCESSES[name]  # they assert what they compute
    run = {"args": (statements,), "kwargs": {"cache": cache}}
    who = "lowprec" if "lowprec" in statements else name.partition(" ")[2]
    benchmark.extra_info.update(kind="latency", work=name, who=who, format="")
    benchmark.pedantic(in_fresh_interpreter, **run, rounds=5, warmup_rounds=1)
