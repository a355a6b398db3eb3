"""The pages under docs/ say what is true: every ```python block runs, and prints what it shows.

The blocks of a page are one program: names of one are known in the next. A page that needs an extra
says so in a line of its own, ``<!-- needs: torch, matplotlib -->``.
"""

import doctest
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from lowprec import cli
from lowprec.cli import parsed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PICTURES = sorted(DOCS.rglob("*.svg"))
FENCE = re.compile(r"^ *(`{3,}|~{3,})(.*)$")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


def name(page):
    return str(page.relative_to(DOCS))


def blocks(text):
    """Yield the language, the number of the first line and the lines of every fenced block."""
    fence = None
    for number, line in enumerate(text.splitlines()):
        found = FENCE.match(line)
        if fence is None and found:
            fence, language, first, lines = found[1], found[2].strip(), number + 1, []
        elif fence and found and found[1].startswith(fence) and not found[2].strip():
            yield language, first, lines
            fence = None
        elif fence:
            lines.append(line)
    assert fence is None, "the last block has no end"


def programs(text):
    return [block for block in blocks(text) if re.split(r"[\s{]", block[0])[0] in ("python", "py")]


def commands(text):
    """Return the arguments of every line that calls lowprec in a block."""
    lines = [line.strip() for _, _, block in blocks(text) for line in block]
    called = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?lowprec ", line)]
    return [shlex.split(line, comments=True)[1:] for line in called]


def only_python(text):
    """Blank out what is not Python, so that lines keep their numbers and outputs end."""
    kept = [""] * (text.count("\n") + 1)
    for _, first, lines in programs(text):
        kept[first : first + len(lines)] = lines
    return "\n".join(kept)


def needs(text):
    return [
        extra.strip()
        for line in re.findall(r"<!-- needs: (.*?) -->", text)
        for extra in line.split(",")
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_examples_of_a_page_give_what_they_show(page):
    text = page.read_text(encoding="utf-8")
    for extra in needs(text):
        pytest.importorskip(extra, reason=f"{name(page)} needs {extra}, which is not installed")
    program = doctest.DocTestParser().get_doctest(only_python(text), {}, name(page), str(page), 0)
    result = doctest.DocTestRunner().run(program)
    assert result.failed == 0
    assert bool(result.attempted) == bool(programs(text))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_python_of_a_page_is_left_out(page):
    """Code without a prompt would not run."""
    for _, first, lines in programs(page.read_text(encoding="utf-8")):
        assert lines, f"line {first} begins an empty block"
        assert lines[0].startswith(">>> "), f"line {first + 1} has no >>> prompt: {lines[0]!r}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_link_to_files_that_exist(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_the_commands_of_a_page_are_taken(page):
    """Every one is parsed by the command itself, which exits where an option is not its own."""
    for arguments in commands(page.read_text(encoding="utf-8")):
        parsed(arguments)


def test_every_command_is_on_a_page():
    called = {
        line[0] for page in [ROOT / "README.md", *PAGES] for line in commands(page.read_text())
    }
    assert called == {command.__name__.rpartition(".")[2] for command in cli.commands()}


@pytest.mark.parametrize("picture", PICTURES, ids=name)
def test_the_words_of_a_picture_can_be_read_on_a_phone(picture):
    """A phone is 390 pixels wide, 358 without margins; exponents are smaller than words."""
    text = picture.read_text(encoding="utf-8")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)]
    assert min(sizes) * 358 / width > 7


def test_every_extra_is_on_the_page_about_installing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", (DOCS / "install.md").read_text(encoding="utf-8"))
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(project["optional-dependencies"])


def test_a_wrong_output_and_code_without_a_prompt_are_found(capsys):
    """The tests above can fail."""
    wrong = only_python("text\n\n```python\n>>> 1 + 1\n3\n```\n\n```bash\n>>> 1 +\n```\n")
    program = doctest.DocTestParser().get_doctest(wrong, {}, "page", None, 0)
    result = doctest.DocTestRunner().run(program)
    assert (result.attempted, result.failed) == (1, 1)
    assert "Line 4, in page" in capsys.readouterr().out
    assert [lines for _, _, lines in programs("~~~py\nx = 1\n~~~")] == [["x = 1"]]
    (unknown,) = commands("```bash\n$ lowprec compare 'a b' --format bfloat16  # --formats\n```\n")
    assert unknown == ["compare", "a b", "--format", "bfloat16"]
    with pytest.raises(SystemExit):
        parsed(unknown)


def test_there_are_pages_and_pictures():
    assert PAGES
    assert PICTURES
