"""Tables in narrow terminals and on narrow pages: nothing is cut off without a word."""

import io

import numpy as np
import pytest
from rich.console import Console

import lowprec as lp
from lowprec.analysis.comparison_views import COLUMNS
from lowprec.cli import main
from lowprec.verification import Report, Result

RNG = np.random.default_rng(0)
COMPARISON = lp.compare({"w": RNG.normal(size=12_345) * 1e5, "g": RNG.normal(size=99) * 1e-8})
CASES = 8 << 32


def shown(view, width):
    """Return the lines of a view in a terminal of a width."""
    console = Console(width=width, color_system=None, file=io.StringIO())
    console.print(view)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 120])
def test_a_comparison_fits_and_tells_what_is_left_out(width):
    lines = shown(COMPARISON, width)
    assert max(map(len, lines)) <= width
    heading = lines[0]
    names = [column.brief.partition(",")[0] for column in COLUMNS]
    left = [name for name in names if name not in heading]
    text = " ".join(" ".join(lines).split())
    assert ("Left out for want of room" in text) == bool(left) == (width < 76)
    assert not left or f"Left out for want of room: {', '.join(left)}." in text
    assert {"overflows", "new zeros"}.isdisjoint(left), "what decides stays"
    measured = COMPARISON.measurements["w"]["float16"]
    row = next(line for line in lines if line.startswith("  float16"))
    assert row.split()[1] == f"{measured.overflows:,}"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_results_of_verify_are_whole_in_every_terminal(width):
    report = Report({}, 2)
    for name in ("float8_e4m3fn remainder", "float16 exp, exp2, expm1, log"):
        report = report.plus(Result(name, "all", True, CASES, CASES, 0, 1234.5))
    lines = shown(report.to_table(width), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert text.count(f"{CASES:,}") == 2
    assert text.count("proved") == 2
    assert f"{2 * CASES:,}" in text


@pytest.mark.parametrize("width", [60, 80])
def test_commands_fit_the_terminal(width, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    np.save(tmp_path / "x.npy", RNG.normal(size=1000))
    assert main(["compare", str(tmp_path / "x.npy")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    command = ["verify", "--formats", "float8_e5m2", "--operations", "sqrt", "--sample", "1"]
    assert main([*command, "--rounding", "RNE"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert "65,536" in "".join(lines) or "cases" in lines[0]


def test_a_narrow_page_says_that_there_is_more():
    page = COMPARISON.to_html()
    style = page[page.index("<style>") : page.index("</style>")]
    narrow = style[style.index("@media (max-width: 40rem) {\n  .lowprec-comparison") :]
    assert 'content: "More columns to the right: scroll sideways' in narrow
