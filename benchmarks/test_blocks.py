"""Elements a second in block formats: round_to and quantize beside torchao, gfloat and pychop."""

import functools

import numpy as np
import pytest
from blocks import along, gfloat, pychop, quantized, torchao
from recording import skip_without
from workload import workload

import lowprec as lp

FORMATS = ("mxfp8_e4m3", "mxfp4", "nvfp4", "fp8_1x128", "int4_g32")
SIZES = (10**6, 10**7)


def ours(fmt, task):
    if task == "quantize":
        return quantized(fmt)
    if task == "first axis":
        return along(0, fmt)
    return lambda load: load.round_to(fmt)


@pytest.mark.parametrize("task", ["round_to", "quantize", "first axis"])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("elements", SIZES)
def test_block_format(benchmark, elements, fmt, task):
    benchmark.group = f"{task} {fmt}, {elements:,} float32"
    load = workload(elements)
    work = ours(fmt, task)(load)
    result = benchmark(work)
    if task != "first axis":
        y = result.dequantize() if task == "quantize" else result
        np.testing.assert_array_equal(y, lp.quantize(load.x, fmt).dequantize())


@pytest.mark.parametrize("fmt", ["mxfp8_e4m3", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("who", [torchao, gfloat, pychop], ids=lambda who: who.__name__)
@pytest.mark.parametrize("elements", SIZES)
def test_peer(benchmark, elements, who, fmt):
    skip_without(who.__name__)
    if who is gfloat and (fmt == "nvfp4" or elements > SIZES[0]):
        pytest.skip("gfloat takes a block a call, and has no tensor scale")
    if who is pychop and (fmt == "nvfp4" or elements > SIZES[0]):
        pytest.skip("pychop takes seconds for 10⁷ numbers, and has no tensor scale")
    task = "round_to" if who is pychop else "quantize"
    benchmark.group = f"{task} {fmt}, {elements:,} float32"
    benchmark(functools.partial(who(fmt)(workload(elements))))
