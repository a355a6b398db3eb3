"""Each demonstration goes wrong as it says, and its verdict names the true cause first."""

import numpy as np
import pytest

from lowprec.train.demonstrations import DEMONSTRATIONS
from lowprec.train.demonstrations.__main__ import main

MEASURED = {  # what each number is, with some room around what it was when this was written
    "lost_updates": (0.9, 1.0),
    "small_loss": (0.5, 1.0),
    "float16_adam": (0, 3),
    "large_targets": (0.05, 0.3),
    "stalling_sums": (256, 256),
    "precision_floor": (0.2, 0.6),
    "beta_2": (1.5, 5.0),
    "weight_decay": (0.0, 0.001),
    "optimizers": (0.8, 1.0),
    "gradient_histogram": (0.1, 0.4),
}
WORDS = {
    "lost_updates": "of updates are lost in bfloat16 weights",
    "small_loss": "vanish in float16 without scaling",
    "float16_adam": "second moments are zero in float16",
    "large_targets": "a squared error computed in float16 is infinite",
    "stalling_sums": "accumulated in bfloat16",
    "precision_floor": "master weights will not help here: outputs themselves need more than 8",
    "beta_2": "beta_2=0.999 is 1 in bfloat16",
    "weight_decay": "the weight decay of 0.1 vanishes",
    "optimizers": "of updates are lost in bfloat16 weights",
    "gradient_histogram": "vanish in float16 without scaling",
}


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_the_verdict_names_the_true_cause(name):
    pytest.importorskip("sklearn", reason="the demonstrations train on scikit-learn's data")
    found = DEMONSTRATIONS[name]()
    worst = found.recorder.findings[0]
    assert worst.rule == found.cause
    assert worst.level in ("red", "amber")
    assert WORDS[name] in found.verdict[0]
    low, high = MEASURED[name]
    assert low <= found.number <= high
    assert found.text in str(found)
    if found.cured is not None:  # and the cure leaves nothing to say
        assert "Nothing to worry about" in found.cured.verdict[0]


def test_the_cure_of_a_small_loss_is_the_recommended_scale():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    found = DEMONSTRATIONS["small_loss"]()
    assert found.cured.policy.loss_scale.value == found.recorder.loss_scale().recommended


def test_demonstrations_are_run_by_name(capsys):
    assert main(["precision_floor"]) == 0
    assert "The precision floor of y = x + 10" in capsys.readouterr().out
    assert main(["precision_flor"]) == 2
    assert "did you mean 'precision_floor'" in capsys.readouterr().err


def test_a_demonstration_gives_the_same_numbers_again():
    first, second = (DEMONSTRATIONS["stalling_sums"]() for _ in range(2))
    assert first.text == second.text
    key = ("weight", "0/kernel")
    assert np.array_equal(first.recorder.tracks[key].numbers, second.recorder.tracks[key].numbers)
