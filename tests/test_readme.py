"""README.md says what is true: its examples run, and its table is the formats' own."""

import doctest
from pathlib import Path

import lowprec as lp

README = Path(__file__).parents[1] / "README.md"


def table_of_formats():
    yield "| name | bits | w | p | largest | smallest | spacing at 1 | infinities | NaN |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for fmt in lp.named_formats().values():
        specials = ["yes" if has else "no" for has in (fmt.has_infinity, fmt.has_nan)]
        numbers = [f"{fmt.max:.6g}", f"{fmt.smallest_subnormal:.4g}", f"{fmt.eps:.4g}"]
        widths = [str(n) for n in (fmt.bits, fmt.exponent_bits, fmt.precision)]
        yield f"| {' | '.join([f'`{fmt.name}`', *widths, *numbers, *specials])} |"


def test_the_examples_give_what_they_show():
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_table_of_formats_is_generated_from_the_code():
    assert "\n".join(table_of_formats()) in README.read_text(encoding="utf-8")
