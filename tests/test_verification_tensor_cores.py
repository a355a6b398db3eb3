"""`lowprec verify` holds tensor cores to integers: the oracle, what it finds, what is drawn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from test_tensor_cores import oracle as by_fractions

import lowprec as lp
from lowprec import verification
from lowprec.accumulation.matrix_units import TABLE
from lowprec.cli import main
from lowprec.verification import Part, checks, matrix_units, verify
from lowprec.verification.matrix_units import INPUTS, expected_sums, presets, tensor_core_check

PRESETS = [preset for fmt in INPUTS for preset in presets(fmt)]
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name.replace(" ", "-"))


def test_every_row_of_the_table_is_in_one_preset():
    listed = [(name, str(p.inputs), str(p.output)) for p in PRESETS for name in p.architectures]
    rows = [(row.architecture, fmt, row.output) for row in TABLE for fmt in row.inputs]
    assert sorted(listed) == sorted(rows)


@every_preset
def test_presets_agree_with_integers(preset):
    total = sum(tensor_core_check(preset, 16 * 1024).run(2), Part())
    assert (total.cases, total.mismatches) == (16 * 1024, 0), total.first


@every_preset
def test_the_integers_agree_with_fractions(preset):
    """The oracle of the command is itself held to another one."""
    how = preset.accumulator(preset.inputs)
    for number in range(len(matrix_units.KINDS)):
        a, b, c = matrix_units.drawn((preset.inputs,) * 2, how, number)
        a, b, c = a[:4], b[:, :4], c[:4, :4]
        emin = preset.inputs.emin
        found = expected_sums(a, b, c, how, (emin, emin), preset.output).view(np.float32)
        for i, j in np.ndindex(found.shape):
            with np.errstate(over="ignore"):
                start = c[i, j].astype(str(preset.output)).astype(np.float32)
            right = by_fractions(a[i], b[:, j], start, how, (emin, emin))
            if math.isnan(right):
                assert found[i, j].tobytes() == np.float32(np.nan).tobytes()
            else:
                assert found[i, j].tobytes() == np.float32(right).tobytes(), (number, i, j)


CHANGES = {
    "a bit more": lambda how: {"fraction_bits": how.fraction_bits + 1},
    "a bit less": lambda how: {"fraction_bits": how.fraction_bits - 1},
    "a term less": lambda how: {"block": how.block - 1},
    "twice the terms": lambda how: {"block": 2 * how.block},
    "lowest exponent": lambda how: {"lowest_exponent": how.lowest_exponent + 6},
    "rounding": lambda how: {
        "rounding": "toward_zero" if how.rounding is lp.Rounding.TIES_TO_EVEN else "ties_to_even"
    },
    "overflow": lambda how: {"overflow": "saturate"},
}


@pytest.mark.parametrize("change", CHANGES)
@every_preset
def test_another_unit_is_found_wrong(preset, change, monkeypatch):
    """Each parameter decides some of the drawn sums, but for what no sum of a preset reaches."""
    right = preset.accumulator(preset.inputs)

    def wrong(a, b, *, c, accumulator):
        changed = dataclasses.replace(accumulator, **CHANGES[change](accumulator))
        return lp.matmul(a, b, c=c, accumulator=changed)

    monkeypatch.setattr(matrix_units, "matmul", wrong)
    total = sum(tensor_core_check(preset, 16 * 1024).run(1), Part())
    reached = {
        "lowest exponent": 2 * preset.inputs.emin < right.lowest_exponent + 6,
        "overflow": 2 * preset.inputs.emax + 2 >= right.fmt.emax,
    }
    assert (total.mismatches > 0) == reached.get(change, True)
    if total.mismatches:
        assert "expected" in str(total.first[0])


def test_float8_is_multiplied_by_the_other_float8_too(monkeypatch):
    seen = set()

    def spy(a, b, *, c, accumulator):
        seen.add(tuple(map(str, accumulator.inputs)))
        return lp.matmul(a, b, c=c, accumulator=accumulator)

    monkeypatch.setattr(matrix_units, "matmul", spy)
    (h100,) = [p for p in presets(lp.float8_e4m3fn) if "h100" in p.architectures]
    list(tensor_core_check(h100, 16 * 1024).run(1))
    assert seen == {
        ("float8_e4m3fn", "float8_e4m3fn"),
        ("float8_e4m3fn", "float8_e5m2"),
    }


def test_a_full_run_takes_a_million_sums_each():
    listed = checks([lp.float16, lp.tfloat32], ["tensor_core"], sample=None)
    assert len(listed) == len(presets(lp.float16)) + len(presets(lp.tfloat32))
    assert all(check.cases >= 1_000_000 for check in listed)
    assert not any(check.exhaustive for check in listed)


def test_tfloat32_is_for_tensor_cores_alone():
    listed = checks([lp.tfloat32], ["add", "exp", "tensor_core"])
    assert [check.name for check in listed] == [p.name for p in presets(lp.tfloat32)]
    with pytest.raises(ValueError, match="at most 16 bits"):
        checks([lp.tfloat32], ["add"])
    assert "tensor_core" in verification.OPERATIONS


def test_progress_is_told_and_threads_change_nothing(capsys):
    listed = checks([lp.float8_e5m2], ["tensor_core"], sample=1 << 20)
    told = []
    one = verify(listed, threads=1, progress=lambda *words: told.append(words))
    two = verify(listed, threads=3)
    assert [(r.name, r.cases, r.mismatches) for r in one.results] == [
        (r.name, r.cases, r.mismatches) for r in two.results
    ]
    assert told[0][0] == f"1/{len(listed)} {listed[0].name}"
    assert told[0][1] < told[0][2] == listed[0].cases
    command = ["verify", "--formats", "tfloat32", "--operations", "tensor_core"]
    assert main([*command, "--sample", "65536"]) == 0
    assert "tfloat32 tensor_core" in " ".join(capsys.readouterr().out.split())
