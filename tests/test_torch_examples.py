"""The examples with torch are short, run, and show what they say."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the examples need torch")

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(name, capsys):
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 25
    with torch.random.fork_rng():
        runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out


def test_a_gpt_is_watched_and_judged(capsys):
    words = output_of("torch_recorder", capsys)
    assert "Seen: 11 of 11 modules." in words
    assert "loss scale" in words


def test_an_accelerator_is_emulated(capsys):
    lines = output_of("torch_accelerator", capsys).splitlines()
    errors = [float(line.split()[0]) for line in lines[:4]]
    assert errors[0] < errors[3] < errors[2]  # bfloat16, fp8 with short sums, fp4
    assert "sums in e8m13" in lines[5]


def test_pure_bfloat16_is_rescued(capsys):
    ends = ast.literal_eval(output_of("torch_bfloat16", capsys))
    assert ends["kahan"] < ends["nearest"]
    assert ends["stochastic"] < ends["nearest"]
