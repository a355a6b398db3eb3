"""The notebooks run, in a fresh kernel each, and what is stored in them reads well.

All of them take one to three minutes: ``python -m pytest tests/test_notebooks.py -m slow``.
"""

import json
import re
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = ("01_what_16_bits_can_hold",)  # executed in every test run
NEEDS = {"14_pytorch_gpt": ["torch"]}  # beside what all of them need
MOST_BYTES = 700_000
LIMIT = 1800  # seconds; what takes longer hangs, also on a busy machine that compiles everything
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|usr|Users)/|[A-Z]:\\\\")


def name(path):
    return path.stem


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def kinds(cell):
    """Return what kinds of output a cell has: text printed, pictures, tables."""
    found = set()
    for output in cell["outputs"]:
        found |= {"printed"} if output["output_type"] == "stream" else set(output["data"])
    return found


@pytest.fixture(params=NOTEBOOKS, ids=name)
def notebook(request):
    return read(request.param)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= set(QUICK)


def test_every_notebook_is_stored_as_it_ran(notebook):
    """From top to bottom, without errors or warnings, with its outputs."""
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs(notebook)
    for output in outputs(notebook):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output["text"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_says_nothing_of_the_machine_it_ran_on(path):
    text = path.read_text(encoding="utf-8")
    assert MACHINE.search(text) is None
    assert len(text.encode()) < MOST_BYTES


def test_every_notebook_asks_a_question_and_asserts_its_numbers(notebook):
    first = "".join(notebook["cells"][0]["source"])
    assert first.startswith("# ")
    assert "question" in first.lower()
    sources = ["".join(cell["source"]) for cell in code_cells(notebook)]
    assert sum(source.count("assert ") for source in sources) >= 2


def test_every_picture_has_an_alternative_text(notebook):
    for cell in code_cells(notebook):
        if "image/png" in kinds(cell):
            assert len(cell["metadata"].get("alt", "")) > 30, "".join(cell["source"])[:60]


def test_notebooks_lead_to_files_that_exist(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", "".join(cell["source"])):
                assert (FOLDER / target).exists(), target


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs_and_shows_what_is_stored(path, monkeypatch):
    """Cells raise nothing, and give the kinds of output that are kept; figures may differ."""
    reason = "executing notebooks needs nbclient and ipykernel: pip install 'lowprec[notebooks]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    # the first import lists all fonts; where that takes long, matplotlib says so, in a cell
    for needed in ("matplotlib.font_manager", "sklearn"):
        pytest.importorskip(needed, reason="the notebooks need the extra report")
    limits = {"timeout": LIMIT, "startup_timeout": LIMIT}
    limits |= {"iopub_timeout": LIMIT, "raise_on_iopub_timeout": True}  # late outputs count too
    for needed in NEEDS.get(path.stem, []):
        pytest.importorskip(needed, reason=f"{path.stem} needs lowprec[{needed}]")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    stored = read(path)
    run = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own machinery
        client = nbclient.NotebookClient(
            run, resources={"metadata": {"path": str(FOLDER)}}, **limits
        )
        client.execute()
    for before, after in zip(code_cells(stored), code_cells(run), strict=True):
        assert kinds(after) == kinds(before), "".join(before["source"])
