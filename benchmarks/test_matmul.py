"""Matrix products by accumulator, beside NumPy's float32 and the loop over k in torch.

A group holds one shape and accumulator with the yardstick, NumPy's float32 product, and the same
steps as a loop over k of whole matrices, which is how they are written without a library. Results
are checked: the loop's agree but where rounding twice shows.
"""

import numpy as np
import pytest
from timing import threads

import lowprec as lp
from lowprec import Accumulator, matmul
from lowprec.kernels.products.matmul import float32_product

SHAPES = [(256, 256, 256), (128, 784, 100), (32, 784, 10)]
# of a network of 784, 100 and 10 units: activations, gradients of weights and of activations; the
# letters say which operand is transposed, of which rows are contiguous otherwise
TRAINING = [
    (128, 784, 100, ""),
    (784, 128, 100, "a"),
    (128, 100, 100, ""),
    (100, 128, 100, "a"),
    (128, 100, 784, "b"),
    (32, 64, 100, ""),
    (32, 100, 10, ""),
    (100, 32, 10, "a"),
    (32, 10, 100, "b"),
    (1, 784, 100, ""),
    (128, 100, 1, ""),
]
HOW = {
    "float32": ("float32", Accumulator("float32")),
    "float16": ("float16", Accumulator("float16")),
    "bfloat16": ("bfloat16", Accumulator("bfloat16")),
    "blocked": ("float16", Accumulator("float16", "blocked", 16, "float32")),
    "pairwise": ("float16", Accumulator("float16", "pairwise")),
    "stochastic": ("bfloat16", Accumulator("bfloat16", rounding="stochastic", rng=0)),
}


def operands(shape, inputs):
    """Draw two matrices of values of the inputs' format."""
    rng = np.random.default_rng(0)
    m, k, n = shape
    draws = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    return [lp.round_to(x.astype(np.float32), inputs) for x in draws]


@pytest.mark.parametrize("layout", ["plain", "transposed", "numpy"])
@pytest.mark.parametrize("name", HOW)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul(benchmark, shape, name, layout):
    benchmark.group = f"matmul {name}, {shape}"
    inputs, how = HOW[name]
    a, b = operands(shape, inputs)
    if layout == "transposed":
        a, b = np.asfortranarray(a), np.asfortranarray(b)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = lp.float32.unit_roundoff * shape[1]
    with threads(1):
        if layout == "numpy":
            threadpoolctl = pytest.importorskip("threadpoolctl")
            with threadpoolctl.threadpool_limits(1):
                result = benchmark(lambda: a @ b)
        else:
            result = benchmark(lambda: matmul(a, b, inputs=inputs, accumulator=how))
            bound = lp.error_bound(shape[1], how)
    sizes = np.abs(a).astype(np.float64) @ np.abs(b)
    assert np.all(np.abs(result - exact) <= bound * sizes)


@pytest.mark.parametrize("who", ["lowprec", "numpy"])
@pytest.mark.parametrize("work", TRAINING, ids=str)
def test_product_in_training(benchmark, work, who):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    benchmark.group = f"float32 product, {work}"
    *shape, transposed = work
    a, b = operands(shape, "float32")
    a, b = (x.T.copy().T if name in transposed else x for name, x in (("a", a), ("b", b)))
    with threadpoolctl.threadpool_limits(1):
        result = benchmark(lambda: float32_product(a, b) if who == "lowprec" else a @ b)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    sizes = np.abs(a).astype(np.float64) @ np.abs(b)
    assert np.all(np.abs(result - exact) <= lp.float32.unit_roundoff * shape[1] * sizes)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_loop_over_k_in_torch(benchmark, name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    benchmark.group = f"matmul {name}, {SHAPES[0]}"
    a, b = operands(SHAPES[0], name)
    left, right = (torch.from_numpy(x) for x in (a, b))

    def loop():
        total = torch.zeros(a.shape[0], b.shape[1])
        for k in range(a.shape[1]):
            total += left[:, k, None] * right[k]
            total = total.to(getattr(torch, name)).float()
        return total.numpy()

    with threads(1):
        result = benchmark(loop)
    ours = matmul(a, b, inputs=name, accumulator=name)
    assert np.mean(result != ours) < 0.02  # the loop rounds to float32 before
