"""The command line: what it prints, how it fails, and what it does not import."""

import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import ml_dtypes
import numpy as np
import pytest

import lowprec as lp
from lowprec.cli import main
from lowprec.cli.formats import formats_table
from lowprec.common.whole_files import write_atomically

COMMANDS = [
    "formats",
    "inspect",
    "compare",
    "diff",
    "convert",
    "trace",
    "train",
    "verify",
    "report",
]


def run(*arguments, **options):
    """Run the command line in a process of its own; return the code, stdout and stderr."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [sys.executable, "-m", "lowprec", *arguments]
    return subprocess.run(command, timeout=900, check=False, **options)


def in_terminal(*arguments, **environment):
    """Run the command line in a terminal; return what appears there."""
    environment = (
        {
            name: value
            for name, value in os.environ.items()
            if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")
        }
        | {"TERM": "xterm-256color", "COLUMNS": "80"}
        | environment
    )
    outer, inner = pty.openpty()
    with ThreadPoolExecutor(1) as reader:  # a terminal that nobody reads soon stops the process
        shown = reader.submit(read_terminal, outer)
        try:
            run(*arguments, stdin=inner, stdout=inner, stderr=inner, env=environment)
        finally:
            os.close(inner)
        return shown.result().decode()


def read_terminal(descriptor):
    """Return all that is written to a terminal until the last process has closed it."""
    shown = b""
    try:
        while block := os.read(descriptor, 65536):
            shown += block
    except OSError:  # Linux: all of it has been read
        pass
    os.close(descriptor)
    return shown


# Formats and inspect -------------------------------------------------------------------------


def test_formats_lists_the_family(capsys):
    assert main(["formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for fmt in lp.named_formats().values():
        (row,) = (line.split() for line in lines if line.split()[:1] == [fmt.name])
        assert row[1:4] == [str(fmt.bits), str(fmt.exponent_bits), str(fmt.precision)]
        assert abs(Decimal(row[4]) / Decimal(fmt.max) - 1) < Decimal("0.005")
        assert "…" not in row


@pytest.mark.parametrize(
    "command",
    [
        ["formats"],
        ["verify", "--sample", "1", "--operations", "add", "--formats", "float16"],
    ],
    ids=lambda command: command[0],
)
def test_a_table_begins_and_ends_without_an_empty_line(capsys, command):
    assert main(command) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines.pop() == ""  # the end of the last line
    assert lines[0].strip()
    assert lines[-1].strip()


def test_what_a_format_has_not_is_a_dash():
    flushed = lp.Format("flushed", exponent_bits=5, precision=3, subnormals=False)
    texts = formats_table([flushed], 80).columns[6].cells
    assert list(texts) == ["–"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_the_table_of_formats_fits_every_terminal(width):
    from rich.console import Console

    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(formats_table(lp.named_formats().values(), width))
    text = capture.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("specials" in text) == (width >= 96)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("0.1", 0x3DCD),
        ("-0.1", 0xBDCD),
        ("-.1", 0xBDCD),
        ("-1e-1", 0xBDCD),
        ("-inf", 0xFF80),
        ("-Infinity", 0xFF80),
        ("-nan", 0xFFC0),
        ("-0", 0x8000),
        ("-0x1p3", 0xC100),
        ("-1/3", 0xBEAB),
    ],
)
def test_negative_numbers_are_values_not_options(capsys, value, code):
    for arguments in (["inspect", value, "--json"], ["inspect", "--json", "--", value]):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["code"] == code


def test_inspect_prints_the_view_of_the_library(capsys):
    from lowprec.exact import inspect

    how = ["--format", "float8_e4m3fn", "--rounding", "RZ", "--overflow", "saturate"]
    assert main(["inspect", "-1000.5", *how]) == 0
    inspection = inspect("-1000.5", "float8_e4m3fn", rounding="RZ", overflow="saturate")
    assert capsys.readouterr().out.split() == repr(inspection).split()


def test_inspect_takes_a_code_in_any_base(capsys):
    for code in ("0x3dcd", "15821", "0b11110111001101"):
        assert main(["inspect", "--code", code, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["value"] == "0.10009765625"


# Compare and report --------------------------------------------------------------------------


def test_compare_measures_files_and_writes_json_and_html(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    np.save(tmp_path / "w.npy", np.array([1.0, 70000.0, 1e-9], np.float32))
    np.savez(tmp_path / "g.npz", small=np.float64([1e-9]), counts=np.arange(3))
    files = [str(tmp_path / name) for name in ("w.npy", "g.npz")]
    outputs = {"--json": tmp_path / "out.json", "--html": tmp_path / "out.html"}
    arguments = [str(part) for pair in outputs.items() for part in pair]
    assert main(["compare", *files, "--formats", "float16,e4m3fn", *arguments]) == 0
    figures = json.loads(outputs["--json"].read_text())
    assert list(figures) == ["w.npy", "g.npz:small", "g.npz:counts"]
    assert figures["w.npy"]["float16"]["overflows"] == 1
    assert figures["w.npy"]["float16"]["new_zeros"] == 1
    assert list(figures["w.npy"]) == ["float16", "float8_e4m3fn"]
    assert "<html" in outputs["--html"].read_text()
    assert "float8_e4m3fn" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["g.npz", "out.html", "out.json", "w.npy"]


def test_what_goes_on_in_the_next_line_stands_under_its_text(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", **{"layer." * 12 + "weight": [1e9, 1e-9], "bias": [1e9]})
    assert main(["compare", "w.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.startswith("Summary")) + 1 :]
    marks = ("- ", "  float", "  bfloat", "  ")  # the last: a line that goes on
    assert max(map(len, below)) <= 80
    assert all(line.startswith(marks) and line.strip() != "-" for line in below)
    assert any(line.startswith("- w.npz:layer.") for line in below)


def test_compare_without_files_takes_the_bundled_data_sets(capsys):
    pytest.importorskip("sklearn", reason="the bundled data sets are scikit-learn's")
    assert main(["compare", "--formats", "float16"]) == 0
    assert "diabetes" in capsys.readouterr().out


def test_report_hands_over_the_path_and_shows_the_summary(monkeypatch, capsys):
    page = pytest.importorskip("lowprec.report.page", reason="the report's extra is missing")
    calls = []

    def write_report(path, progress=None):
        calls.append(str(path))
        for step in range(1, 40):
            progress(f"step {step}", step, 40)
        return "the summary"

    monkeypatch.setattr(page, "write_report", write_report)
    assert main(["report", "-o", "page.html"]) == 0
    assert calls == ["page.html"]
    printed = capsys.readouterr()
    assert printed.out == "the summary\n"
    expected = ["  0 % loading the data sets", " 10 % step 4", " 20 % step 8"]
    lines = printed.err.splitlines()
    assert lines[:3] == expected, "without a terminal, a line for each tenth of the work"
    assert lines[-1] == " 90 % step 36"
    assert len(lines) == 10


# Failures ------------------------------------------------------------------------------------


def test_a_missing_extra_is_named(monkeypatch, capsys):
    import lowprec.report.datasets

    def load():
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(lowprec.report.datasets, "load", load)
    assert main(["compare"]) == 1
    assert "sklearn is missing; run: python -m pip" in capsys.readouterr().err


def damaged_files(folder):
    """Write files that cannot be compared; yield each with what the message must say."""
    whole = folder / "whole.npy"
    np.save(whole, np.ones(1000))
    content = whole.read_bytes()
    for name, data, message in [
        ("empty.npy", b"", "empty.npy cannot be read"),
        ("short.npy", content[:50], "short.npy cannot be read"),
        ("cut.npy", content[:-100], "cut.npy cannot be read"),
        ("text.npy", b"1.0, 2.0\n", "text.npy cannot be read"),
        ("cut.npz", b"PK\x03\x04broken", "damaged"),
        ("array.npz", content, "damaged or no .npz file"),
        ("data.csv", b"1,2", "neither .npy nor .npz"),
    ]:
        (folder / name).write_bytes(data)
        yield folder / name, message
    for name, array, message in [
        ("objects.npy", np.array([None, "a"]), "objects.npy cannot be read"),
        ("complex.npy", np.ones(2, complex), "holds complex128"),
        ("words.npy", np.array(["a"]), "holds <U1"),
        ("bfloat16.npy", np.ones(2, ml_dtypes.bfloat16), "save it as float32"),
    ]:
        np.save(folder / name, array)
        yield folder / name, message
    np.savez(folder / "none.npz")
    yield folder / "none.npz", "holds no arrays"
    yield folder / "missing.npy", "No such file or directory"
    yield folder / "missing.npz", "No such file or directory"


def test_an_unreadable_file_is_one_clear_line_and_code_1(tmp_path, capsys):
    for path, message in damaged_files(tmp_path):
        assert main(["compare", str(path)]) == 1, path
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert message in shown.err
        assert path.name in shown.err


def test_an_output_folder_that_does_not_exist_is_code_1(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones(3))
    target = tmp_path / "nowhere" / "out.json"
    assert main(["compare", str(tmp_path / "x.npy"), "--json", str(target)]) == 1
    assert capsys.readouterr().err == f"lowprec: no such folder: {target.parent}\n"


def test_nan_in_a_format_without_nan_is_a_failed_job(capsys):
    assert main(["inspect", "nan", "--format", "float4_e2m1fn"]) == 1
    assert "float4_e2m1fn does not have" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["formats", "extra"], "unrecognized arguments"),
        (["inspct"], "invalid choice"),
        (["inspect"], "give a VALUE or --code"),
        (["inspect", "1", "--code", "1"], "give a VALUE or --code"),
        (["inspect", "abc"], "'abc' is not a number"),
        (["inspect", "1e999999999"], "use 1e400"),
        (["inspect", "1", "--format", "bfloat61"], "did you mean 'bfloat16'"),
        (["inspect", "1", "--rounding", "ties"], "use one of 'ties_to_even'"),
        (["inspect", "1", "--rounding", "SR"], "draws random bits"),
        (["inspect", "1", "--overflow", "wrap"], "use one of 'ieee'"),
        (["inspect", "--code", "0x10000"], "codes of bfloat16 go from 0 to 0xffff"),
        (["inspect", "--code", "xyz"], "--code"),
        (["compare", "--formats", "bfloat16,float61"], "unknown format 'float61'"),
    ],
)
def test_wrong_usage_is_code_2_with_the_reason(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"example: lowprec {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_80_columns(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*filter(None, [command]), "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lowprec {lp.__version__}\n"


# Processes and terminals ---------------------------------------------------------------------


@pytest.mark.parametrize("command", [["formats"], ["inspect", "0.1"], ["inspect", "--code", "1"]])
def test_formats_and_inspect_import_neither_numba_nor_scipy(command):
    program = (
        "import sys; from lowprec.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'numba', 'llvmlite', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_star_imports_what_is_public_and_not_the_modules_behind_it():
    program = "from lowprec import *; print(*sorted(name for name in dir() if name[0] != '_'))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    names = set(ended.stdout.split())
    assert {"round_to", "bfloat16", "matmul", "Format", "train"} <= names
    modules = [n for n in sorted(names) if isinstance(getattr(lp, n), type(sys))]
    assert modules == ["trace", "train"]
    assert callable(lp.trace)


def test_what_an_error_names_is_there_without_another_import():
    program = (
        "import lowprec\n"
        "try: lowprec.round_to('weights.npy', 'bfloat16')\n"
        "except TypeError as error: words = str(error)\n"
        "assert 'lowprec.tensors.open_tensors(' in words and 'tensors' in dir(lowprec), words\n"
        "print(lowprec.tensors.open_tensors.__name__)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("open_tensors\n", "")


def test_importing_lowprec_imports_no_rich():
    program = "import sys, lowprec; sys.exit('rich' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_piped_output_is_plain():
    ended = run("inspect", "0.1", env=os.environ | {"TERM": "xterm-256color"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    assert not any(line != line.rstrip() for line in ended.stdout.splitlines())


def test_a_terminal_sees_colour_unless_no_color_is_set():
    assert "\x1b[1;32m01111011" in in_terminal("inspect", "0.1")
    plain = in_terminal("inspect", "0.1", NO_COLOR="1")
    assert "\x1b" not in plain
    assert "0 01111011 1001101" in plain


def test_an_ascii_terminal_is_no_failure():
    ended = run(
        "inspect", "1e-45", "--format", "float32", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0x1p-149" in ended.stdout


@pytest.mark.parametrize("command", [["formats"], ["inspect", "0.1", "--json"]])
def test_a_broken_pipe_ends_quietly(command):
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does when it has seen enough
    ended = run(*command, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


# Files ---------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_left_alone(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    write_atomically(target, "old ±")
    assert target.read_text(encoding="utf-8") == "old ±"
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "new \ud800")  # fails in the midst of writing
    assert target.read_text(encoding="utf-8") == "old ±"
    write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "new"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_link_is_followed_and_a_device_written_directly(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_atomically(os.devnull, "gone")
