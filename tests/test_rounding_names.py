"""Rounding modes and overflow policies: how they may be spelled."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lowprec as lp
from lowprec import Overflow, Rounding
from lowprec.rounding import overflow_rule

SHORT = {
    "RNE": Rounding.TIES_TO_EVEN,
    "RNA": Rounding.TIES_TO_AWAY,
    "RNZ": Rounding.TIES_TOWARD_ZERO,
    "RZ": Rounding.TOWARD_ZERO,
    "RA": Rounding.AWAY_FROM_ZERO,
    "RU": Rounding.TOWARD_POSITIVE,
    "RD": Rounding.TOWARD_NEGATIVE,
    "RO": Rounding.TO_ODD,
    "SR": Rounding.STOCHASTIC,
    "SE": Rounding.STOCHASTIC_EQUAL,
}


def test_every_mode_has_a_short_name():
    assert set(SHORT.values()) == set(Rounding)


@pytest.mark.parametrize(("short", "mode"), SHORT.items())
def test_member_value_and_short_name_are_one_mode(short, mode):
    spellings = [mode, mode.value, mode.name, short, short.lower(), f" {mode.value} "]
    assert {Rounding(spelling) for spelling in spellings} == {mode}
    assert pickle.loads(pickle.dumps(mode)) is mode


@pytest.mark.parametrize("policy", Overflow)
def test_policies_are_found_by_member_value_and_name(policy):
    assert Overflow(policy) is Overflow(policy.value) is Overflow(policy.name) is policy


def test_an_unknown_mode_is_answered_with_near_ones():
    with pytest.raises(ValueError, match=r"'ties_to_evn' .*did you mean 'ties_to_even'.*'RNE'"):
        Rounding("ties_to_evn")
    with pytest.raises(ValueError, match=r"'saturated' .*did you mean 'saturate'"):
        Overflow("saturated")


@pytest.mark.parametrize("choice", [Rounding, Overflow])
@pytest.mark.parametrize("spelling", [None, 1, b"RNE"])
def test_what_is_no_text_is_a_type_error(choice, spelling):
    with pytest.raises(TypeError):
        choice(spelling)


def test_policies_have_no_short_names():
    with pytest.raises(ValueError, match="not an overflow mode"):
        Overflow("RNE")


def test_two_modes_are_stochastic():
    assert [mode.value for mode in Rounding if mode.is_stochastic] == [
        "stochastic",
        "stochastic_equal",
    ]


@pytest.mark.parametrize("mode", Rounding)
def test_a_finite_overflow_gives_max_in_the_modes_of_ieee_754_section_7_4(mode):
    always = mode in (Rounding.TOWARD_ZERO, Rounding.TO_ODD)
    assert mode.overflows_to_max(negative=False) == (always or mode is Rounding.TOWARD_NEGATIVE)
    assert mode.overflows_to_max(negative=True) == (always or mode is Rounding.TOWARD_POSITIVE)


# An eleventh mode ------------------------------------------------------------------------------

NOWHERE = """
import warnings
import numpy as np
import lowprec as lp
from lowprec.conversion import portable
from lowprec.kernels.scalar import scalar_rounder

mode = lp.Rounding("ties_to_odd")
x = np.float32([1.0, 65519.9, 65504.0])
calls = {
    "round_to": lambda: lp.round_to(x, "float16", rounding=mode),
    "encode": lambda: lp.encode(x, "float8_e4m3fn", rounding=mode),
    "inspect": lambda: lp.inspect(1.0, rounding=mode),
    "measure": lambda: lp.measure(x, "float16", rounding=mode),
    "add": lambda: lp.Arithmetic("float16", rounding=mode).add(x, x),
    "exp": lambda: lp.Arithmetic("float16", rounding=mode).exp(x),
    "sum": lambda: lp.sum(x, lp.Accumulator("float16", rounding=mode)),
    "dot": lambda: lp.dot(x, x, accumulator=lp.Accumulator("bfloat16", rounding=mode)),
    "error_bound": lambda: lp.error_bound(9, lp.Accumulator("float16", rounding=mode)),
    "scalar_rounder": lambda: scalar_rounder("float16", rounding=mode),
    "portable": lambda: portable.round_to(x, "float16", rounding=mode),
}
for name, call in calls.items():
    try:
        found = call()
    except AssertionError:
        continue
    print(name, "is silent:", found)
print("asked", len(calls))
"""


def test_a_mode_that_is_only_named_is_silently_rounded_nowhere(tmp_path):
    package = Path(lp.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "lowprec", ignore=ignored)
    file = tmp_path / "lowprec" / "rounding.py"
    text = file.read_text(encoding="utf-8")
    member = '    TO_ODD = "to_odd"\n'
    assert text.count(member) == 1
    file.write_text(text.replace(member, member + '    TIES_TO_ODD = "ties_to_odd"\n'), "utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", NOWHERE],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "asked 11\n"


def test_where_overflow_begins_is_what_the_modes_do():
    """The rule against `round_to` on either side of every place, with an even and an odd `max`."""
    even = lp.Format("even", 4, 4, lp.Specials.FN)  # 448 = 1.75·2**8
    odd = lp.Format("odd", 4, 4)
    assert (even.max_is_odd, odd.max_is_odd) == (False, True)
    for fmt in (even, odd):
        step = fmt.max - float(lp.next_down(fmt.max, fmt))
        for mode in lp.Rounding:
            for sign in (1, -1):
                rule = overflow_rule(mode, negative=sign < 0, is_odd=fmt.max_is_odd)
                for places in (0, 0.25, 0.5, 0.75, 1, 1.25):
                    x = np.full(500, sign * (fmt.max + places * step))
                    beyond = lp.Overflow.INFINITE
                    y = lp.round_to(x, fmt, rounding=mode, overflow=beyond, rng=0)
                    share = np.mean(np.abs(y) != fmt.max)
                    possible, certain = (
                        places > r.steps or (places == r.steps and r.is_included)
                        for r in (rule.possible, rule.certain)
                    )
                    assert (share > 0) == possible, (mode, places)
                    assert (share == 1) == certain, (mode, places)
