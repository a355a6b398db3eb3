"""Rounding modes and overflow policies: how they may be spelled."""

import pickle

import pytest

from lowprec import Overflow, Rounding

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
    with pytest.raises(ValueError, match="no overflow mode"):
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
