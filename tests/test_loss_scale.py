"""Laws of the loss scale, and agreement with the three libraries whose presets it has."""

from __future__ import annotations

import dataclasses
import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowprec.train.loss_scale import LossScale
from lowprec.train.numerics import Numerics
from lowprec.train.policy import get_policy

PRESETS = {"torch": LossScale.torch, "keras": LossScale.keras, "jmp": LossScale.jmp}
FLOAT32_MAX = float(np.finfo(np.float32).max)

# Long runs of good steps, so that scales grow, and of bad ones, so that they fall.
sequences = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=40).map(
    lambda runs: [finite for finite, length in runs for _ in range(length)]
)


def values(scale: LossScale, sequence: list[bool]) -> list[float]:
    """Return the scales that the steps of a sequence leave behind."""
    seen = []
    for finite in sequence:
        scale = scale.adjust(finite)
        seen.append(scale.value)
    return seen


def grad_scaler_values(sequence, **keywords):
    """Return the scales and the unscaled gradients of ``torch.amp.GradScaler`` on the CPU."""
    torch = pytest.importorskip("torch", reason="compares with torch.amp.GradScaler")
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", **keywords)
    scaler.scale(torch.ones(1))  # it makes its tensors when it is first used
    scales, unscaled = [], []
    for finite in sequence:
        weight.grad = torch.tensor([3.0, -1e-3, 0.0 if finite else math.inf])
        scaler.unscale_(optimizer)
        unscaled.append(weight.grad.numpy().copy())
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales, unscaled


@pytest.mark.parametrize(
    ("value", "growth", "backoff", "interval"),
    [
        (65536.0, 2.0, 0.5, 4),
        (1000.0, 1.7, 0.3, 3),
        (0.1, 2.0, 0.5, 1),
        (1e30, 1e3, 0.9, 2),  # growth soon leaves float32 and is dropped
        (1e-36, 2.0, 0.01, 7),  # backs off into subnormal numbers and to 0
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_torch_is_grad_scaler_step_by_step(value, growth, backoff, interval, seed):
    draw = random.Random(seed)
    sequence = [draw.random() < draw.choice([0.5, 0.9]) for _ in range(150)]
    factors = {"growth_factor": growth, "backoff_factor": backoff, "growth_interval": interval}
    expected, unscaled = grad_scaler_values(sequence, init_scale=value, **factors)
    scale = LossScale.torch(value=value, **factors)
    for finite, then, reference in zip(sequence, expected, unscaled, strict=True):
        gradient = np.float32([3.0, -1e-3, 0.0 if finite else math.inf])
        ours = scale.unscale({"w": gradient})["w"]
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, reference)  # NaN where 0 meets 1/0: torch has it too
        scale = scale.adjust(finite)
        assert scale.value == then


def test_torch_has_grad_scalers_defaults():
    expected, _ = grad_scaler_values([True] * 2001 + [False] * 3)
    assert values(LossScale.torch(), [True] * 2001 + [False] * 3) == expected


def test_torch_drops_growth_beyond_float32():
    scale = LossScale.torch(value=2.0**127, growth_interval=1)
    assert scale.adjust(True).value == 2.0**127


def test_torch_falls_without_bound():
    assert values(LossScale.torch(), [False] * 200)[-1] == 0.0


def keras_values(sequence, scale=2.0**15, growth_steps=2000):
    """Keras' LossScaleOptimizer, restated: halve and restart, or double after so many steps."""
    counter, seen = 0, []
    for finite in sequence:
        if not finite:
            counter, scale = 0, scale / 2
        elif counter == growth_steps - 1:
            counter, scale = 0, scale * 2
        else:
            counter += 1
        seen.append(scale)
    return seen


def jmp_values(sequence, scale=2.0**15, period=2000, factor=2, minimum=1.0):
    """``jmp.DynamicLossScale.adjust`` restated, in float32."""
    scale, counter, seen = np.float32(scale), 0, []
    with np.errstate(over="ignore"):
        for finite in sequence:
            if finite:
                grown = scale * np.float32(factor)
                if counter == period - 1 and np.isfinite(grown):
                    scale = grown
            else:
                scale = np.maximum(np.float32(minimum), scale / np.float32(factor))
            counter = (counter + 1) % period if finite else 0
            seen.append(float(scale))
    return seen


@pytest.mark.parametrize(
    ("preset", "restated"), [(LossScale.keras, keras_values), (LossScale.jmp, jmp_values)]
)
def test_keras_and_jmp_grow_after_2000_good_steps_from_32768(preset, restated):
    sequence = [True] * 4500 + [False] * 2 + [True] * 1999 + [False] + [True] * 2000 + [False] * 20
    assert values(preset(), sequence) == restated(sequence)


@given(sequences)
def test_keras_follows_its_algorithm(sequence):
    assert values(LossScale.keras(growth_interval=5), sequence) == keras_values(
        sequence, growth_steps=5
    )


@given(sequences, st.sampled_from([2.0**15, 4.0, 2.0**125]))
def test_jmp_follows_its_algorithm(sequence, start):
    ours = LossScale.jmp(value=start, growth_interval=5)
    assert values(ours, sequence) == jmp_values(sequence, start, period=5)


def test_growth_stops_in_every_preset_before_infinity():
    for preset in PRESETS.values():
        assert values(preset(growth_interval=1), [True] * 200)[-1] == 2.0**127


@given(sequences)
def test_the_value_stays_within_its_bounds(sequence):
    scale = LossScale(100.0, growth_interval=2, minimum=3.0, maximum=777.0)
    assert all(3.0 <= value <= 777.0 for value in values(scale, sequence))


def test_growth_and_backoff_reach_the_bounds():
    scale = LossScale(100.0, growth_interval=1, minimum=3.0, maximum=777.0)
    assert values(scale, [True] * 4) == [200.0, 400.0, 777.0, 777.0]
    assert values(scale, [False] * 6) == [50.0, 25.0, 12.5, 6.25, 3.125, 3.0]
    inexact = LossScale(1.0, growth_interval=1, minimum=0.7, maximum=1.1)  # not float32 numbers
    assert values(inexact, [True, False]) == [float(np.float32(1.1)), float(np.float32(0.7))]


def megatron_values(sequence, scale, interval, hysteresis):
    """Megatron-LM's DynamicGradScaler, restated."""
    growth_tracker, hysteresis_tracker, seen = 0, hysteresis, []
    for finite in sequence:
        if not finite:
            growth_tracker = 0
            hysteresis_tracker -= 1
            if hysteresis_tracker <= 0:
                scale = max(scale * 0.5, 1.0)
        else:
            growth_tracker += 1
            if growth_tracker == interval:
                growth_tracker, hysteresis_tracker = 0, hysteresis
                scale = scale * 2.0
        seen.append(scale)
    return seen


@given(sequences, st.integers(1, 4))
def test_hysteresis_is_megatrons(sequence, hysteresis):
    ours = LossScale(2.0**16, growth_interval=6, minimum=1.0, hysteresis=hysteresis)
    assert values(ours, sequence) == megatron_values(sequence, 2.0**16, 6, hysteresis)


def test_hysteresis_is_spent_by_bad_steps_and_refilled_by_growth():
    scale = LossScale(8.0, growth_interval=2, hysteresis=2)
    assert scale.hysteresis_left == 2
    scale = scale.adjust(False)
    assert (scale.value, scale.hysteresis_left) == (8.0, 1)
    scale = scale.adjust(True)
    assert (scale.value, scale.hysteresis_left) == (8.0, 1)
    scale = scale.adjust(True)
    assert (scale.value, scale.hysteresis_left) == (16.0, 2)
    scale = scale.adjust(False).adjust(False).adjust(False)
    assert (scale.value, scale.hysteresis_left) == (4.0, 0)


def test_a_bad_step_starts_the_count_of_good_ones_anew():
    scale = LossScale(8.0, growth_interval=3)
    assert scale.adjust(True).adjust(True).good_steps == 2
    assert scale.adjust(True).adjust(True).adjust(False).good_steps == 0
    assert values(scale, [True, True, False, True, True, True]) == [8.0, 8.0, 4.0, 4.0, 4.0, 8.0]


@given(sequences)
def test_a_static_scale_never_changes(sequence):
    scale = LossScale.static(1000.0)
    for finite in sequence:
        assert scale.adjust(finite) == scale
    assert scale.is_static
    assert not LossScale.torch().is_static


def test_a_scale_is_a_value():
    scale = LossScale.torch()
    scale.adjust(False)
    assert scale == LossScale.torch()
    with pytest.raises(dataclasses.FrozenInstanceError):
        scale.value = 1.0
    used = scale.adjust(True)
    assert pickle.loads(pickle.dumps(used)) == used
    assert LossScale(**dataclasses.asdict(used)) == used


def test_values_are_float32_numbers():
    assert LossScale(0.1).value == float(np.float32(0.1))
    for value in values(LossScale(0.1, growth_factor=1.1, growth_interval=1), [True] * 50):
        assert value == float(np.float32(value))


def test_unscale_multiplies_by_the_rounded_reciprocal():
    gradient = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    scale = LossScale.static(3000.0)
    expected = gradient * np.float32(1 / np.float64(3000.0))
    assert (expected != gradient / np.float32(3000.0)).any()  # division would be another law
    np.testing.assert_array_equal(scale.unscale({"w": gradient})["w"], expected)


def test_unscale_inverts_scale_for_powers_of_two():
    gradient = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    for exponent in (-20, 0, 15, 100):
        scale = LossScale.static(2.0**exponent)
        np.testing.assert_array_equal(scale.unscale({"w": scale.scale(gradient)})["w"], gradient)


def test_unscale_leaves_its_input_and_writes_where_it_is_told():
    gradients = {"w": np.float32([8, 4]), "b": np.float32([2])}
    kept = gradients["w"]
    fresh = LossScale.static(2.0).unscale(gradients)
    assert kept.tolist() == [8, 4]
    assert LossScale.static(2.0).unscale(gradients, out=gradients) is gradients
    assert gradients["w"] is kept
    for name, g in fresh.items():
        np.testing.assert_array_equal(gradients[name], g)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_keeps_the_dtype(dtype):
    scale, x = LossScale.torch(), np.ones(3, dtype)
    assert scale.scale(x).dtype == scale.unscale({"w": x})["w"].dtype == dtype


def test_a_float16_loss_is_scaled_in_float32():
    scaled = LossScale.torch().scale(np.float16(4.0))
    assert scaled.dtype == np.float32
    assert scaled == 4.0 * 65536


def test_a_scaled_loss_that_overflows_is_infinite():
    assert LossScale.torch().scale(np.float32(1e38)) == np.inf


def test_get_takes_what_a_user_means():
    assert LossScale.get(None) is None
    assert LossScale.get("dynamic") == LossScale.torch()
    assert LossScale.get(128) == LossScale.static(128.0)
    own = LossScale.jmp().adjust(False)
    assert LossScale.get(own) is own
    for name, preset in PRESETS.items():
        assert LossScale.get(name) == preset()
    with pytest.raises(ValueError, match="did you mean 'dynamic'"):
        LossScale.get("dynamical")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"value": -1.0}, "loss scale of -1"),
        ({"value": math.nan}, "finite in float32"),
        ({"value": 1e39}, "finite in float32"),
        ({"value": 0.5, "minimum": 1.0}, "minimum="),
        ({"value": 10.0, "maximum": 5.0}, "maximum="),
        ({"minimum": -1.0}, "minimum=-1"),
        ({"growth_factor": 0.5}, "growth_factor=0.5"),
        ({"growth_factor": math.inf}, "growth_factor=inf"),
        ({"backoff_factor": 2.0}, "backoff_factor=2.0"),
        ({"backoff_factor": 0.0}, "backoff_factor=0.0"),
        ({"growth_interval": 0}, "growth_interval=0"),
        ({"hysteresis": 0}, "hysteresis=0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LossScale(**wrong)


def test_a_static_scale_is_positive():
    for value in (0, -2.0, math.nan):
        with pytest.raises(ValueError, match="positive"):
            LossScale.static(value)


@pytest.mark.parametrize("policy", ["float32", "float64"])
def test_all_finite_sees_every_element(policy):
    numerics = Numerics(get_policy(policy))
    for bad in (np.inf, -np.inf, np.nan):
        gradients = numerics.arrays({"a": np.zeros((3, 4)), "b": np.full(5, FLOAT32_MAX)})
        assert numerics.is_finite(gradients)
        gradients["b"][4] = bad
        assert not numerics.is_finite(gradients)
    assert numerics.is_finite({})


@pytest.mark.parametrize("policy", ["float32", "float64"])
@pytest.mark.parametrize("value", [65536.0, 3.0, 2.0**-20, 0.0])
def test_training_unscales_in_place_as_the_scale_does(policy, value):
    numerics, scale = Numerics(get_policy(policy)), LossScale.torch()
    scale = dataclasses.replace(scale, value=value)
    drawn = np.random.default_rng(0).standard_normal((3, 41)) * 2.0 ** np.arange(-100, 23, 3)
    gradients = numerics.arrays({"a": drawn, "b": np.array([-0.0, FLOAT32_MAX, 1e-45])})
    expected = scale.unscale(gradients)
    with np.errstate(all="ignore"):
        assert numerics.unscale(gradients, scale.inverse)
    for name, gradient in gradients.items():
        assert gradient.tobytes() == expected[name].astype(numerics.dtype).tobytes()


def test_gradients_in_any_order_in_memory_are_unscaled():
    numerics = Numerics(get_policy("mixed_float16"))
    across, apart = np.full((3, 4), 8, np.float32, order="F"), np.full(6, 8, np.float32)[::2]
    assert numerics.unscale({"across": across, "apart": apart}, LossScale.static(4).inverse)
    assert (across == 2).all()
    assert (apart == 2).all()
    apart[1] = np.nan
    assert not numerics.unscale({"across": across, "apart": apart}, np.float32(1))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", range(20))
def test_unscaling_tells_of_one_number_that_is_not_finite(bad, place):
    numerics = Numerics(get_policy("mixed_float16"))
    gradients = {"a": np.ones(20, np.float32), "b": np.ones(20, np.float32)}
    gradients["b"][place] = bad
    assert not numerics.unscale(gradients, LossScale.torch().inverse)
    assert not np.isfinite(gradients["b"][place]), "why a step is skipped is looked up after it"
