"""Eight Python threads and forked children get the bits of one call, and never hang or abort.

Each test runs a program of its own with a time limit, for a threading layer is chosen once per
process, and an abort must not take the test run along.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

LIMIT = 900  # seconds, cold compilation on a busy machine included; what takes longer hangs
COMMON = """
    import hashlib, sys
    import numpy as np
    import lowprec as lp

    x = np.random.default_rng(0).standard_normal(2_100_000).astype(np.float32)
    codes = lp.encode(x, "float16")

    def digest(offset=0):
        results = [
            lp.round_to(x, "bfloat16"),
            lp.round_to(x[::-1], "float8_e4m3fn", rounding="toward_positive"),
            lp.round_to(x, "bfloat16", rounding="stochastic", rng=1),
            lp.encode(x.astype(np.float64), "float16", rounding="stochastic_equal", rng=2),
            lp.decode(codes, "float16"),
            lp.round_to(x, "mxfp4"),
            lp.round_to(x, "nvfp4", rounding="stochastic", rng=3),
            lp.quantize(x.reshape(2100, 1000), "mxfp8_e4m3", axis=0).codes,
            lp.Arithmetic("float16", flags=False).exp(x),
        ]
        return hashlib.sha256(b"".join(y.tobytes() for y in results)).hexdigest()
"""
LAYERS = ["default", "omp", "workqueue"]
if importlib.util.find_spec("tbb"):
    LAYERS.append("tbb")

every_layer = pytest.mark.parametrize("layer", LAYERS)


def run(program: str, **environment: str) -> str:
    """Run a program after COMMON in a fresh interpreter; return what it printed."""
    source = textwrap.dedent(COMMON) + textwrap.dedent(program)
    finished = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr, finished.stderr
    return finished.stdout.strip()


@pytest.fixture(scope="module")
def bits() -> str:
    """What one thread alone computes."""
    return run("print(digest())", NUMBA_NUM_THREADS="1")


def test_the_arrays_of_this_file_are_shared_among_threads():
    program = """
        from lowprec.kernels.threads import threads_for

        print(threads_for(1_000_000), threads_for(len(x)))
    """
    assert run(program, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp").split() == ["1", "2"]


@every_layer
def test_eight_python_threads_get_the_bits_of_one(bits, layer):
    program = """
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier

        start = Barrier(8)

        def work(i):
            start.wait()
            return [digest() for _ in range(3)]

        with ThreadPoolExecutor(8) as pool:
            found = {d for digests in pool.map(work, range(8)) for d in digests}
        print(*found)
    """
    assert run(program, NUMBA_THREADING_LAYER=layer) == bits


@every_layer
def test_a_forked_child_gets_the_bits_of_its_parent(bits, layer):
    program = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, the point here

        before = digest()  # the parent has used its threads
        with multiprocessing.get_context("fork").Pool(2) as pool:
            children = pool.map_async(digest, range(4)).get(timeout=800)
        print(*{before, digest(), *children})
    """
    assert run(program, NUMBA_THREADING_LAYER=layer) == bits


@every_layer
def test_a_child_forked_while_other_threads_compute_gets_the_same_bits(bits, layer):
    program = """
        import multiprocessing, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        digest()
        done = threading.Event()

        def keep_busy():
            while not done.is_set():
                digest()

        threads = [threading.Thread(target=keep_busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            children = pool.map_async(digest, range(2)).get(timeout=800)
        done.set()
        for thread in threads:
            thread.join()
        print(*set(children))
    """
    assert run(program, NUMBA_THREADING_LAYER=layer) == bits


def test_a_child_forked_before_the_first_call_gets_the_same_bits(bits):
    program = """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, the point here
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, digest().encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(*{digest(), os.read(read, 100).decode()})
    """
    assert run(program) == bits


@pytest.mark.parametrize("count", ["1", "2"])
def test_thread_count_changes_no_bit(bits, count):
    assert run("print(digest())", NUMBA_NUM_THREADS=count) == bits
    program = f"""
        import numba
        numba.set_num_threads(min({count}, numba.config.NUMBA_NUM_THREADS))
        before = numba.get_num_threads()
        print(digest())
        assert numba.get_num_threads() == before
    """
    assert run(program) == bits


def test_a_spawned_child_gets_the_same_bits(bits, tmp_path):
    script = tmp_path / "child.py"
    main = """
        if __name__ == "__main__":
            import multiprocessing
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply_async(digest).get(timeout=800))
    """
    script.write_text(textwrap.dedent(COMMON) + textwrap.dedent(main))
    finished = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert finished.stdout.strip() == bits, finished.stderr


def test_a_child_forked_after_threads_of_other_code_gets_the_same_bits(bits):
    program = """
        import os, numba
        @numba.njit(parallel=True)
        def total(x):
            s = 0.0
            for i in numba.prange(x.size):
                s += x[i]
            return s
        total(np.ones(1_000_000))  # launches Numba's threads before lowprec's kernels are loaded
        pid = os.fork()
        if pid == 0:
            print(fork_digest(), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    late = COMMON.replace('    codes = lp.encode(x, "float16")\n', "").replace(
        'lp.decode(codes, "float16")', 'lp.decode(lp.encode(x, "float16"), "float16")'
    )
    program = textwrap.dedent(late).replace("def digest", "def fork_digest") + textwrap.dedent(
        program
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [bits]


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_all_make_the_first_call_wait_for_the_compiler(attempt):
    program = """
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        import lowprec as lp

        x = np.float32([[1.0, 2.0], [3.0, 4.0]])
        calls = [
            lambda: lp.round_to(x, "bfloat16"),
            lambda: lp.matmul(x, x),
            lambda: lp.sum(x, "float16"),
            lambda: lp.Arithmetic("float16").add(x, x),
            lambda: lp.decode(lp.encode(x, "float16"), "float16"),
            lambda: lp.measure(x, "bfloat16").count,
        ]
        with ThreadPoolExecutor(8) as executor:
            results = list(executor.map(lambda call: call(), calls[{attempt}:] + calls * 3))
        print(len(results))
    """
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).replace("{attempt}", str(attempt))],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert printed.stdout.strip() == str(24 - attempt), printed.stderr


def test_a_second_process_compiles_nothing():
    """Kernels made of other kernels are found in the cache too."""
    program = """
        from lowprec import train

        x = np.ones((8, 4), np.float32)
        for result in (
            lp.matmul(x, x.T, accumulator=lp.tensor_core("h100", inputs="float16")),
            lp.matmul(x, x.T, accumulator="bfloat16"),
            lp.sum(x, accumulator="float16", axis=0),
            lp.Arithmetic("float16").exp(x),
            lp.round_to(x, "mxfp4"),
        ):
            assert result.shape
        model = train.Sequential([train.Input((4,)), train.Dense(3, "relu"), train.Dense(1)])
        data = train.Dataset(x, x[:, 0], x, x[:, 0])
        how = {"loss": "mse", "optimizer": "adam", "policy": "mixed_bfloat16"}
        train.fit(model, data, epochs=1, **how)
    """
    run(program)
    program += """
        print("SciPy was imported" if "scipy.linalg" in sys.modules else "no compiler was set up")
    """
    said = run(program, NUMBA_DEBUG_CACHE="1")
    assert "data saved" not in said
    assert said.endswith("no compiler was set up")


def test_functions_made_by_one_function_have_names_of_their_own():
    from lowprec.kernels.loops import kernel

    def adding(number):
        def add(x):
            return x + number

        return kernel(add)

    names = {adding(number).py_func.__qualname__ for number in (1, 2, 1)}
    assert len(names) == 2  # Numba's machine code in the cache is told apart by them
