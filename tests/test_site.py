"""The documentation as a site: it builds without a warning, and what is generated is current."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import tables  # noqa: E402 - docs/tables.py

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(built_site):
    return built_site


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_what_the_code_says(page):
    """Otherwise run: python docs/tables.py."""
    pytest.importorskip("sklearn", reason="one table is about scikit-learn's data")
    text = page.read_text(encoding="utf-8")
    assert tables.updated(text) == text


def test_every_table_has_a_place():
    pages = [ROOT / "README.md", *PAGES]
    written = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in tables.TABLES:
        assert f"<!-- table: {name} -->" in written


def test_the_site_builds_without_a_warning(site):
    assert (site / "index.html").exists()


def test_every_guide_and_notebook_has_a_page(site):
    for folder, pattern in (("guides", "*.md"), ("notebooks", "[0-9]*.ipynb")):
        parent = ROOT / "docs" / folder if folder == "guides" else ROOT / folder
        for source in parent.glob(pattern):
            assert (site / folder / f"{source.stem}.html").exists()


def test_every_public_name_is_in_the_reference(site):
    import lowprec

    written = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    formats = {*lowprec.named_formats(), *lowprec.named_block_formats()}
    for name in set(lowprec.__all__) - formats - {"train", "forks"}:
        is_module = isinstance(getattr(lowprec, name), type(lowprec))
        assert is_module or f'id="lowprec.{name}"' in written, name


def test_the_minimum_of_bfloat16_is_told_right():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert "from 1.18·10⁻³⁸ down to 9.18·10⁻⁴¹" in text
    assert f"{2.0**-126:.3g}, {2.0**-133:.3g}" == "1.18e-38, 9.18e-41"


def test_the_hooks_turn_a_notebook_into_a_page():
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'lowprec[docs]'")
    import hooks  # docs/hooks.py

    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "[next](02_next.ipynb)"]},
            {
                "cell_type": "code",
                "source": ["draw()"],
                "metadata": {"alt": 'a "line"'},
                "outputs": [
                    {"output_type": "stream", "text": ["1\n"]},
                    {"output_type": "display_data", "data": {"image/png": "aGk="}},
                    {"output_type": "display_data", "data": {"text/html": ["<p>a\n\n</p>"]}},
                ],
            },
        ]
    }
    text, pictures = hooks.page_of(notebook, "01_first")
    assert "[next](02_next.md)" in text
    assert "```python\ndraw()\n```\n\n```text\n1\n```" in text
    assert "![a &quot;line&quot;](01_first-0.png)" in text
    assert '<div class="output"><p>a\n</p></div>' in text
    assert pictures == {"01_first-0.png": b"hi"}
