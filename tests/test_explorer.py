"""The bit explorer, without a browser."""

import re
import sys

import pytest

import lowprec as lp

pytest.importorskip("ipywidgets", reason="the explorer needs: pip install 'lowprec[notebooks]'")

from lowprec.explorer import Explorer


def digits(explorer):
    return "".join(button.description for button in explorer.bits.children)


def test_the_buttons_are_the_bits_of_the_number():
    explorer = Explorer("0.1", "bfloat16")
    assert digits(explorer) == lp.inspect("0.1", "bfloat16").bits
    explorer.choose("float16")
    assert digits(explorer) == lp.inspect("0.1", "float16").bits


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e4m3fn", "float8_e8m0fnu"])
def test_a_click_flips_one_bit_and_a_second_click_flips_it_back(fmt):
    explorer = Explorer("1.5", fmt)
    code = explorer.inspection.code
    for place in range(explorer.inspection.fmt.bits):
        explorer.bits.children[-1 - place].click()
        assert explorer.inspection.code == code ^ 1 << place
        explorer.bits.children[-1 - place].click()
        assert explorer.inspection.code == code


def test_what_is_shown_is_the_exact_value_of_the_code():
    explorer = Explorer("0.1", "bfloat16")
    explorer.flip(0)
    assert explorer.number.value == explorer.text == "0.099609375"
    assert explorer.text in explorer.table.value


def test_typing_a_number_changes_the_bits():
    explorer = Explorer("0.1", "float16")
    explorer.number.value = "65520"
    assert explorer.inspection.kind == "infinity"
    explorer.number.value = "1/3"
    assert explorer.inspection.decimal == lp.inspect("1/3", "float16").decimal


def test_text_that_is_no_number_is_answered_and_changes_nothing():
    explorer = Explorer("0.1")
    before = explorer.inspection
    explorer.number.value = "a <b>tenth</b>"
    assert explorer.inspection == before
    assert "is not a number" in explorer.table.value
    assert "<b>tenth" not in explorer.table.value
    explorer.number.value = "0.2"
    assert "is not a number" not in explorer.table.value


def test_the_arrows_walk_to_the_neighbours():
    explorer = Explorer("1", "bfloat16")
    explorer.up.click()
    assert explorer.text == "1.0078125"
    explorer.down.click()
    explorer.down.click()
    assert explorer.text == "0.99609375"


def test_the_walk_ends_at_the_ends():
    explorer = Explorer("inf", "float16")
    explorer.up.click()
    assert explorer.inspection.kind == "infinity"


def test_the_table_has_every_format_and_its_error():
    explorer = Explorer("0.1", "bfloat16", ["float32", "float16"])
    assert [fmt.name for fmt in explorer.formats] == ["bfloat16", "float32", "float16"]
    for fmt in explorer.formats:
        error = lp.inspect("0.1", fmt).relative_error
        assert fmt.name in explorer.table.value
        assert f"{float(error):+.2g}" in explorer.table.value
    explorer.number.value = "0.5"
    assert explorer.table.value.count("exact") == 3


def test_a_format_without_nan_says_so():
    explorer = Explorer("nan", "float16", ["float16", "float4_e2m1fn"])
    assert "float4_e2m1fn" in explorer.table.value
    explorer.choose("float4_e2m1fn")
    assert explorer.chooser.value == "float16"
    assert 'role="alert"' in explorer.table.value


def test_values_are_shown_with_the_digits_that_tell_them_apart():
    for fmt in ("bfloat16", "float16", "float8_e4m3fn"):
        explorer = Explorer("0.3", fmt, [])
        cells = re.findall(r"<td[^>]*>([^<]*)</td>", explorer.table.value)
        value, below, above = float(cells[1]), float(cells[3]), float(cells[4])
        assert below < value < above
        assert lp.round_to(value, fmt) == lp.round_to(0.3, fmt)


def test_a_notebook_without_widgets_shows_the_table():
    bundle = Explorer("0.1")._repr_mimebundle_()
    assert "0.1" in bundle["text/html"]
    assert bundle["text/plain"] == "Explorer('0.1', 'bfloat16')"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_without_ipywidgets_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lowprec\[notebooks\]"'):
        Explorer("0.1")


def test_a_block_format_shows_the_number_as_the_first_of_its_block():
    others = [0.3, -0.7, 6.5, 7, 0.01]
    explorer = Explorer("1", formats=["mxfp4", "mxint8", "nvfp4", "fp8_128x128"], beside=others)
    rows = re.findall(r"<tr style.*?</tr>", explorer.table.value)
    assert [re.search(r"bfloat16|mx\w+|nv\w+|fp8\w+", row)[0] for row in rows] == [
        "bfloat16", "mxfp4", "mxint8", "nvfp4", "fp8_128x128",
    ]  # fmt: skip
    assert "1 = 1 × 1" in rows[1]
    assert "exact" in rows[1]
    assert "1 = 0.25 × 4" in rows[2]
    explorer.type("7")  # 7 is clipped to 6 by the scale 1 of MXFP4
    row = re.findall(r"<tr style.*?</tr>", explorer.table.value)[1]
    assert "6 = 6 × 1" in row
    assert "-0.14" in row
    explorer.type("nan")
    assert "nan" in explorer.table.value
    assert "mxfp4" not in explorer.chooser.options


def test_a_block_format_without_nan_says_so():
    scale = lp.Format("s", 5, 3, "finite")
    mine = lp.BlockFormat("mine", "float6_e3m2fn", 8, scale, "amax")
    assert "has no NaN" in Explorer("nan", formats=[mine]).table.value
