"""What one call, the import and the first call cost, beside what NumPy and Numba cost anyway."""

import numpy as np
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


@pytest.mark.benchmark(group="one call on 10 elements, memory given")
@pytest.mark.parametrize("name", small_calls())
def test_call_on_ten_elements(benchmark, name):
    call, out, answer = small_calls()[name]
    facts = {"kind": "latency", "work": f"{name}, 10 elements", "format": "bfloat16"}
    facts |= {"who": "numpy" if name == "copy" else "lowprec", "allocation": "preallocated"}
    timed(benchmark, call, elements=10, **facts)
    np.testing.assert_array_equal(out, answer)


@pytest.mark.benchmark(group="a new process: interpreter, imports and call")
@pytest.mark.parametrize("name", PROCESSES)
def test_new_process(benchmark, name, tmp_path):
    cache = str(tmp_path) if "warm" in name else None  # None: an empty one each time
    statements = PROCESSES[name]  # they assert what they compute
    run = {"args": (statements,), "kwargs": {"cache": cache}}
    who = "lowprec" if "lowprec" in statements else name.partition(" ")[2]
    benchmark.extra_info.update(kind="latency", work=name, who=who, format="")
    benchmark.pedantic(in_fresh_interpreter, **run, rounds=5, warmup_rounds=1)
