"""No bit of a result depends on how the processor rounds, or on whether it flushes subnormals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import every_function
import llvmlite.binding as llvm
import numpy as np
import processor
import pytest
from every_function import CALLS, ELSEWHERE, bits, digest, public_functions
from llvmlite import ir

import lowprec as lp
from lowprec import train
from lowprec.common.processor_state import (
    exact_state,
    in_exact_state,
    in_exact_state_but_users_code,
    in_its_state,
    is_exact,
    users_state,
)
from lowprec.kernels import loops

pytestmark = pytest.mark.skipif(
    not processor.STATES, reason="how this kind of processor flushes is not known here"
)
FLUSHED = "flushed"


@cache
def usual(name: str) -> Any:
    assert is_exact()
    return bits(CALLS[name]())


def test_every_public_function_is_in_the_table():
    rows = {name.partition(" ")[0] for name in CALLS}
    assert public_functions() <= rows | set(ELSEWHERE), "add a row to every_function.CALLS"


@pytest.mark.parametrize("name", CALLS)
def test_no_state_changes_a_bit(name):
    expected = usual(name)
    for state in processor.STATES:
        with processor.state(state):
            found = CALLS[name]()
            after = processor.current()
        assert bits(found) == expected, state
        assert after == processor.USUAL | processor.STATES[state], state


def test_no_state_changes_what_is_computed_once_and_kept():
    """Constants, tables and kernels are made at the first call, here in the worst state."""
    program = str(Path(every_function.__file__))
    command = [sys.executable, "-W", "error", program, "flushed, upward"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    different = [name for name in CALLS if found[name] != digest(CALLS[name]())]
    assert different == []


def test_arrays_that_threads_share():
    x = np.tile(every_function.TINY, 20_000)
    wide = x.astype(np.float64)
    arithmetic = lp.Arithmetic("bfloat16", rounding="toward_positive")

    def results():
        found = [lp.round_to(x, "bfloat16"), lp.encode(x, "float8_e8m0fnu"), arithmetic.add(x, x)]
        return [*found, lp.round_to(wide, "float16", rounding="toward_positive")]

    expected = bits(results())
    for state in processor.STATES:
        with processor.state(state):
            found = results()
        assert bits(found) == expected


def test_a_users_compiled_function_gets_the_same_bits():
    numba = pytest.importorskip("numba")
    from lowprec.kernels.scalar import scalar_rounder

    x = np.concatenate([every_function.SMALL, every_function.MIXED.astype(np.float64)])
    for fmt in ("bfloat16", "float16", "e11m20", "float8_e4m3fn"):
        for rounding in ("ties_to_even", "toward_positive", "away_from_zero"):
            rounder = scalar_rounder(fmt, rounding)

            @numba.njit
            def each(x, rounder=rounder):
                out = np.empty_like(x)
                for i in range(x.size):
                    out[i] = rounder(x[i])
                return out

            expected = lp.round_to(x, fmt, rounding=rounding)
            for state in ("flushed", "upward"):
                with processor.state(state):
                    found = each(x)
                assert bits(found) == bits(expected), (fmt, rounding, state)


# The state is the caller's again -----------------------------------------------------------------


def flushes() -> bool:
    return bool((np.float32([1e-39]) * np.float32(1)).view(np.uint32)[0] == 0)


def test_the_exact_state_is_known():
    assert is_exact()
    for state in processor.STATES:
        with processor.state(state):
            known = is_exact()
        assert not known, state


def test_states_nest():
    with processor.state(FLUSHED):
        seen = [flushes()]
        with exact_state():
            seen.append(flushes())
            with users_state():
                seen.append(flushes())
                with exact_state():
                    seen.append(flushes())
                    with users_state():
                        seen.append(flushes())
                    seen.append(flushes())
                seen.append(flushes())
            seen.append(flushes())
        seen.append(flushes())
        with users_state():
            seen.append(flushes())
        seen.append(flushes())
    assert seen == [True, False, True, False, True, False, True, False, True, True, True]
    assert not flushes()


def test_an_error_leaves_the_callers_state():
    @in_exact_state
    def fails():
        raise KeyError

    with processor.state(FLUSHED):
        with pytest.raises(KeyError):
            fails()
        with pytest.raises(ValueError, match="cannot hold"):
            lp.round_to(np.float32([1]), "float64")
        after = processor.current()
    assert after == processor.USUAL | processor.STATES[FLUSHED]


def test_what_a_users_function_sets_stays_set():
    swap = processor.setter()

    @in_exact_state_but_users_code
    def calls(function):
        with users_state():
            function()
        return is_exact()

    flushed = processor.USUAL | processor.STATES[FLUSHED]
    try:
        was_exact = calls(lambda: swap(flushed))
        after = processor.current()
    finally:
        swap(processor.USUAL)
    assert was_exact
    assert after == flushed


def test_threads_have_states_of_their_own():
    seen = []

    def other():
        with processor.state("upward"):
            lp.sum(every_function.TINY, "bfloat16")
            seen.append(processor.current())

    with processor.state(FLUSHED), exact_state():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        seen.append(is_exact())
    assert seen == [processor.USUAL | processor.STATES["upward"], True]


# Code of the user's ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sees(train.Layer):
    """A layer of the user's that notes the state that it runs in."""

    seen: list[bool] = dataclasses.field(default_factory=list, compare=False)

    def forward(self, params, x, run):
        self.seen.append(flushes())
        return x, None

    def backward(self, params, saved, dy, run):
        self.seen.append(flushes())
        return dy, {}


def test_a_users_loss_layer_and_callback_run_in_the_users_state():
    seen: list[bool] = []

    def loss(y_true, y_pred):
        seen.append(flushes())
        return train.losses.get("mse")(y_true, y_pred)

    class Watches(train.Callback):
        def on_batch_end(self, batch, logs, run):
            seen.append(flushes())

        def on_epoch_end(self, epoch, logs, run):
            seen.append(flushes())

    layer = Sees()
    model = train.Sequential([train.Input((1,)), train.Dense(2), layer, train.Dense(1)])
    data = train.data.linear().scaled("standard")
    options: dict[str, Any] = {"loss": loss, "optimizer": train.SGD(0.1), "batch_size": 50}
    callbacks = [Watches(), train.EarlyStopping(patience=3)]
    expected = train.fit(model, data, **options, epochs=2, callbacks=callbacks, verbose=False)
    assert not any(seen)
    assert not any(layer.seen)
    seen.clear()
    layer.seen.clear()
    with processor.state(FLUSHED):
        found = train.fit(model, data, **options, epochs=2, callbacks=callbacks, verbose=False)
        train.predict(model, found.params, data.x_test)
        train.gradients(model, found.params, data.x_test, data.y_test, loss=loss)
        train.evaluate(model, found.params, data.x_test, data.y_test, loss=loss)
        after = flushes()
    assert after
    assert len(seen) > 10
    assert all(seen)
    assert len(layer.seen) > 10
    assert all(layer.seen)
    assert bits(found.params) == bits(expected.params)


def test_whose_code_it_is():
    from functools import partial

    mse = train.losses.get("mse")
    assert in_its_state(mse) is mse
    huber = partial(train.losses.huber, delta=2.0)
    assert in_its_state(huber) is huber
    dense = train.Dense(3).forward
    assert in_its_state(dense) is dense
    for users in (lambda: None, partial(lambda: None), Sees().forward, max, json.JSONDecoder()):
        assert in_its_state(users) is not users


# Other processors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "instructions", "state"),
    [
        ("aarch64-unknown-linux-gnu", ("mrs", "msr", "fpcr"), 0),
        ("arm64-apple-darwin", ("mrs", "msr", "fpcr"), 0),
        ("x86_64-unknown-linux-gnu", ("stmxcsr", "ldmxcsr"), 0x1F80),
    ],
)
def test_kernels_set_the_register_of_their_processor(triple, instructions, state):
    assert loops.exact_floats(triple) == state
    module = ir.Module()
    module.triple = triple
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word]), "swap")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(loops.swap_state(builder, function.args[0]))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine()
    text = machine.emit_assembly(llvm.parse_assembly(str(module))).lower()
    assert all(word in text for word in instructions)


def test_other_processors_are_left_alone():
    module = ir.Module()
    module.triple = "riscv64-unknown-linux-gnu"
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word]), "swap")
    builder = ir.IRBuilder(function.append_basic_block())
    assert loops.swap_state(builder, function.args[0]) is function.args[0]


# NaN ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", every_function.accumulators(), ids=lambda how: f"{how.order}")
def test_a_nan_that_a_sum_makes_is_positive(how):
    """x86's is negative, that of an operation on infinities, and ARM's positive."""
    for x in ([np.inf, -np.inf], [-np.nan, 1.0], [1.0, -np.nan, 2.0], [-np.nan]):
        for array in (np.array(x), np.array(x, np.float32), np.tile(np.float32(x), (3, 1)).T):
            result = np.asarray(lp.sum(array, how, axis=0))
            assert np.isnan(result).all()
            assert not np.signbit(result).any()


def test_a_nan_of_numpys_order_is_positive():
    with np.errstate(invalid="ignore"):  # as NumPy warns itself
        result = lp.sum(np.float32([np.inf, -np.inf]), lp.Accumulator(order="blas"))
    assert np.isnan(result)
    assert not np.signbit(result)
