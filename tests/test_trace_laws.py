"""What trace names, keeps, refuses and leaves as it was."""

from __future__ import annotations

import collections
import json
import math
import re
import subprocess
import sys
import threading
import tracemalloc

import numba
import numpy as np
import pytest
from textbook_programs import TEXTBOOK, newton

import lowprec as lp
from lowprec.cli import main
from lowprec.testing import assert_holds
from lowprec.trace.magic import run_cell

X = np.array([1.3, 0.7, 2.1])
WEIGHTS = np.array([0.1, 0.2, 0.3])
HALF = np.float64(0.51)
SEEN: list[int] = []
STATE = {"calls": 0, "weights": WEIGHTS}


def same_bits(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return x.shape == y.shape and np.where(np.isnan(x), np.nan, x).tobytes() == (
        np.where(np.isnan(y), np.nan, y).tobytes()
    )


def line_of(f, offset=1):
    return f.__code__.co_firstlineno + offset


# Naming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TEXTBOOK, ids=lambda case: case[0].__name__)
def test_textbook_programs(case):
    f, args, options, named, least = case
    t = lp.trace(f, *args, tolerance=0.05, **options)
    kept = t.least(0.05)
    assert kept.lines == tuple(line_of(f, k) for k in least)
    assert kept.error <= 0.05
    numbers = re.findall(r"\d+", " ".join(t.verdict).partition("keep")[0])
    for line in t.lines:
        if isinstance(line, int):
            assert (str(line) in numbers) == (line - line_of(f, 0) in named)
    assert bool(t.verdict) == bool(named)


def test_what_equals_the_shadow_is_never_named():
    def f(x):
        return (x - 1.0) * 0.5 - (x[0] - 1.0) * 0.5

    t = lp.trace(f, 2.0**-7 * np.arange(128.0, 161.0))
    assert t.verdict == []
    assert t.lines[line_of(f)].cancelled_bits == 0


def branch(x):
    if x[0] - x[1] > 0:
        return x * 2
    return x * 3


def test_a_decision_is_said_first_with_the_error_that_made_it():
    t = lp.trace(branch, np.array([1.0 + 2**-12, 1.0]))
    assert t.lines[line_of(branch)].decisions == 1
    first = t.verdict[0]
    assert first.startswith(f"line {line_of(branch)}")
    assert "1 decision" in first
    assert "argument" in first or "born on x" in first
    assert np.array_equal(t.shadow, 3 * np.array([1.0 + 2**-12, 1.0]))
    assert np.array_equal(t.reference, 2 * np.array([1.0 + 2**-12, 1.0]))


def choices(x):
    k = np.argmax(x)
    n = int(x[0] * 1000)
    s = np.sort(x)
    return k, n, s, x > x[0]


def test_choices_are_decisions_of_the_traced_values():
    x = np.array([1.0, 1.0 + 2**-12, 0.5])
    t = lp.trace(choices, x)
    assert t.result[0] == 0
    assert t.reference[0] == 1
    assert t.lines[line_of(choices, 1)].decisions == 1
    assert t.lines[line_of(choices, 2)].decisions == 0
    assert t.lines[line_of(choices, 4)].decisions >= 1


def test_events_have_the_first_place():
    def f(x):
        y = x * 300
        return y + 1

    t = lp.trace(f, np.array([1.0, 250.0, 300.0]), format="float16")
    (event,) = t.lines[line_of(f)].events
    assert (event.kind, event.count, event.of, event.first) == ("overflow", 2, 3, (1,))
    assert t.lines[line_of(f, 2)].events == []
    assert not np.any(t.lines[line_of(f)].born[0][1:])


# Keeping ------------------------------------------------------------------------------------------


def two_lines(x):
    a = x * 1.1
    b = a + x
    return b


@pytest.mark.parametrize("spelling", ["number", "range", "file", "pair", "numpy", "function"])
def test_kept_lines_are_float32(spelling):
    number = line_of(two_lines, 2)
    keep = {
        "number": [number],
        "range": f"{number}-{number + 1}",
        "file": f"test_trace_laws.py:{number}",
        "pair": [(__file__, number)],
        "numpy": np.int64(number),
        "function": "two_lines",
    }[spelling]
    t = lp.trace(two_lines, X, keep=keep)
    assert t.lines[number].format == lp.float32
    a = lp.Arithmetic("float32" if spelling == "function" else "bfloat16").multiply(
        lp.round_to(X, "bfloat16"), 1.1
    )
    expected = lp.Arithmetic("float32").add(a, lp.round_to(X, "bfloat16"))
    assert np.array_equal(t.result, expected)


def test_a_kept_argument_is_rounded_to_float32():
    t = lp.trace(two_lines, X, keep=["x", "two_lines"])
    a = lp.Arithmetic("float32")
    x = lp.round_to(X, "float32")
    assert np.array_equal(t.result, a.add(a.multiply(x, 1.1), x))


def test_keep_of_an_unknown_line_lists_those_that_were_traced():
    with pytest.raises(
        ValueError, match=r"keep has 999, .*traced lines of test_trace_laws.py: \d+–"
    ):
        lp.trace(two_lines, X, keep=[999])
    with pytest.raises(ValueError, match="neither an argument"):
        lp.trace(two_lines, X, keep="nothing")
    with pytest.raises(TypeError, match=r"keep has 1\.5"):
        lp.trace(two_lines, X, keep=[1.5])


def test_where_no_line_helps_the_inputs_are_to_blame():
    def f(x):
        y = x - 1.0
        return y

    t = lp.trace(f, 1.003)
    assert t.least(0.01) is None
    assert "no line helps: inputs alone cost 1; trace with keep=['x']" in " ".join(t.verdict)
    t = lp.trace(f, 1.003, keep=["x"])  # a unit like a line: the set has it if the lines need it
    kept = t.least(0.01)
    assert kept.lines == (line_of(f), "x")
    again = lp.trace(f, 1.003, keep=kept.lines, budget=False)
    assert float(again.outputs[0].error) == kept.error <= 0.01

    def g(x):
        for _ in range(12):
            x = 4.0 * x * (1.0 - x)
        return x

    t = lp.trace(g, 0.3125, format="float8_e5m2", keep_format="bfloat16")
    assert t.least(0.001) is None
    t = lp.trace(g, 0.3125, format="float8_e5m2", keep_format="bfloat16", tolerance=0.001)
    assert "no line helps: all lines in bfloat16 leave an error of" in " ".join(t.verdict)


def test_a_program_of_pythons_own_numbers_says_that_nothing_was_computed():
    def f(n):
        return sum(1.0 / k for k in range(1, n))

    t = lp.trace(f, 10)
    assert t.verdict == []
    assert "nothing was computed in bfloat16" in str(t)
    assert t.to_dict()["notes"]


def test_an_argument_that_another_order_of_errors_chose_is_said():
    def f(x, table):
        k = np.argmax(x * 1.01)
        return table[k]

    t = lp.trace(f, np.array([1.0, 1.0 + 2**-9, 0.9]), X)
    assert f"by error born on {line_of(f)}, x;" in t.verdict[0]


# Nothing is changed, nothing leaves ---------------------------------------------------------------


def changes(x, w=[1.0, 2.0], *, c=WEIGHTS):  # noqa: B006
    SEEN.append(1)
    STATE["calls"] += 1
    STATE["weights"][1] = x[2]
    WEIGHTS[0] = x[0]
    x[1] = 9.0
    w.append(3.0)
    c[2] = 7.0
    if x[2] > 5:
        raise KeyError("too large")
    return WEIGHTS * x + STATE["weights"] + w[0]


@pytest.mark.parametrize("x", [X, X + 10])
def test_all_is_as_before(x):
    before = x.copy(), WEIGHTS.copy(), list(SEEN), dict(STATE)
    try:
        lp.trace(changes, x)
    except KeyError:
        assert x[2] > 5
    assert np.array_equal(x, before[0])
    assert np.array_equal(WEIGHTS, [0.1, 0.2, 0.3])
    assert before[2] == SEEN == []
    assert STATE["calls"] == 0
    assert STATE["weights"] is WEIGHTS
    assert changes.__defaults__ == ([1.0, 2.0],)
    assert np.__name__ == "numpy"
    assert type(np.zeros(1)) is np.ndarray
    assert "float" not in globals()
    assert math.sqrt(4.0) == 2.0


def test_global_random_numbers_go_on_as_before():
    def f(x):
        return x + np.random.rand() + np.random.default_rng(0).normal(size=3)  # noqa: NPY002

    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    t = lp.trace(f, X)
    assert np.array_equal(np.random.rand(2), expected)  # noqa: NPY002
    assert t.outputs[0].error < 0.02


def gamma(x):
    import scipy.special

    return scipy.special.gamma(x)


def test_values_that_leave_are_refused_or_rounded():
    pytest.importorskip("scipy")
    with pytest.raises(
        TypeError,
        match=r"scipy/special: gamma received values of bfloat16 at test_trace_laws.py:\d+ "
        r"\(`scipy.special.gamma\(x\)`\) and would compute in float64; rewrite the line.*, add the "
        r'module to modules=, or leaks="round"',
    ):
        lp.trace(gamma, X)
    t = lp.trace(gamma, X, leaks="round")
    assert t.lines[line_of(gamma, 3)].float64_inside
    assert np.array_equal(lp.round_to(t.result, "bfloat16"), t.result)
    assert "float64 inside" in str(t)


@pytest.mark.parametrize("dtype", [complex, object, np.longdouble])
def test_other_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match="argument x has"):
        lp.trace(two_lines, X.astype(dtype))


def test_compiled_functions_are_refused():
    with pytest.raises(TypeError, match="not a Python function"):
        lp.trace(np.sin, X)


def test_attributes_that_would_show_bits_are_refused_and_texts_are_not():
    def f(x):
        assert not hasattr(x, "tobytes")
        return x.tobytes()

    with pytest.raises(TypeError, match="a traced array: tobytes received values of bfloat16"):
        lp.trace(f, X)
    assert lp.trace(lambda x: "%.3f" % x[0], X).result == "1.297"  # noqa: UP031


def test_loops_that_do_not_end_are_explained():
    with pytest.raises(
        RuntimeError,
        match=rf"line {line_of(newton, 2)}: the loop ran \d+ times where float64 ran \d+: a "
        r"tolerance of 0.001 is below bfloat16's spacing 2\*\*-\d here",
    ):
        lp.trace(newton, 3.0, max_operations=3000)

    def endless(x):
        while True:
            x = x + 1.0

    with pytest.raises(RuntimeError, match="in float64 too"):
        lp.trace(endless, 1.0, max_operations=100)


def views(x):
    y = x[1:]
    z = x.reshape(3, 1).T
    y += 0.3
    z[0, 0] = y[0] * 0.1
    w = x.copy()
    w[0] = 5.0
    return x, y, z, w


def test_views_alias_as_in_numpy():
    t = lp.trace(views, X)
    for value, shadow, plain in zip(t.result, t.shadow, t.reference, strict=True):
        assert value.shape == plain.shape
        assert np.array_equal(shadow, plain)
    assert np.array_equal(t.result[0][1:], t.result[1])
    assert np.array_equal(t.result[0], t.result[2][0])
    for k in range(4):
        total = sum(unit.born[k] for unit in [*t.lines.values(), *t.inputs.values()])
        assert np.allclose(total, t.result[k] - t.shadow[k], rtol=1e-12, atol=1e-18)


def test_numpys_floats_enter_wherever_they_come_from():
    def f():
        s = np.float64(0.1) * np.float64(0.7)
        return s, np.sqrt(2.0) * HALF, np.mean([0.1, 0.2]), HALF * HALF

    a = lp.Arithmetic("bfloat16")
    made = [lp.round_to(v, "bfloat16") for v in (0.1, 0.7, math.sqrt(2), HALF, 0.15000000000000002)]
    expected = a.multiply(*made[:2]), a.multiply(*made[2:4]), made[4], a.multiply(made[3], made[3])
    assert lp.trace(f).result == expected


@pytest.mark.parametrize("fmt", ["float8_e4m3fnuz", "float8_e8m0fnu", "float64"])
def test_scalars_have_the_bits_of_arrays(fmt):
    """Also where a format has no -0, no sign, or numbers whose square float64 does not hold."""
    x = np.array([0.0, 1.0, 5e-324, 3.5])

    def one_by_one(x):
        return [[-a, abs(a), a / x[2], a - x[3], a * a] for a in x]

    def at_once(x):
        return np.stack([-x, abs(x), x / x[2], x - x[3], x * x], axis=1)

    scalars, arrays = (lp.trace(f, x, format=fmt).result for f in (one_by_one, at_once))
    assert same_bits(np.array(scalars), arrays)


def test_what_a_program_returns_is_looked_into():
    def f(x):
        yield {p * 1.1 for p in x}
        yield collections.deque([x[0] * 1.1], maxlen=2)

    t = lp.trace(f, X)
    expected = [
        float(lp.Arithmetic("bfloat16").multiply(lp.round_to(p, "bfloat16"), 1.1)) for p in X
    ]
    assert t.result == [set(expected), collections.deque(expected[:1])]
    assert len(t.outputs) == 4
    assert all(0 < output.error < 0.01 for output in t.outputs)


def test_programs_see_arrays_and_floats():
    def f(x, v):
        assert isinstance(x, np.ndarray)
        assert isinstance(v, float)
        assert x.dtype == np.float64
        assert isinstance(np.zeros(2), np.ndarray)
        return x * np.finfo(x.dtype).eps

    assert np.array_equal(lp.trace(f, np.ones(3), 0.5).result, np.full(3, 2.0**-7))


def test_shares_of_large_arrays_sum_to_the_error():
    """They are added up block by block."""

    def f(x, y):
        z = x * y - y
        z = z / x + z
        return np.sqrt(z * z) - x[::-1]

    rng = np.random.default_rng(0)
    t = lp.trace(f, rng.uniform(0.5, 2, 20_000), rng.uniform(0.5, 2, 20_000), budget=True)
    units = [*t.lines.values(), *t.inputs.values()]
    for which in ("born", "grown"):
        parts = np.array([getattr(unit, which)[0] for unit in units])
        error = np.asarray(t.result, np.float64) - t.shadow
        assert np.all(np.abs(parts.sum(0) - error) <= 1e-9 * np.abs(parts).sum(0))


@pytest.mark.parametrize("rounding", ["stochastic", "toward_positive", "to_odd"])
def test_one_seed_gives_the_same_bits_with_and_without_shares(rounding):
    options = {"rounding": rounding, "format": "float8_e5m2"}
    runs = [lp.trace(two_lines, X, rng=5, budget=b, **options).result for b in (True, False, True)]
    assert runs[0].tobytes() == runs[1].tobytes() == runs[2].tobytes()


@pytest.mark.parametrize("case", [TEXTBOOK[k] for k in (0, 1, 7, 8)], ids=lambda c: c[0].__name__)
def test_shares_by_sites_are_the_same(case):
    f, args, options, *_ = case
    whole = lp.trace(f, *args, **options)
    by_sites = lp.trace(f, *args, budget="sites", **options)
    for key, line in {**whole.lines, **whole.inputs}.items():
        again = {**by_sites.lines, **by_sites.inputs}[key]
        for which in ("born", "grown"):
            for x, y in zip(getattr(line, which), getattr(again, which), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-15)
    assert whole.verdict == by_sites.verdict


def test_shares_by_sites_take_less_memory():
    lines = [f"    x = x * 1.{k} - 0.1\n    kept.append(x * x)\n" for k in range(20)]
    space = {}
    exec(f"def f(x):\n    kept = [x]\n{''.join(lines)}    return sum(kept)[:10]", space)

    def peak(budget):
        tracemalloc.start()
        try:
            lp.trace(space["f"], np.linspace(1, 2, 20_000), budget=budget)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(False)  # compiled once
    assert peak("sites") < 0.5 * peak(True)


def test_bits_and_report_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    args = rng.normal(size=(2, 120, 120))

    def f(x, y):
        z = np.cumsum(x @ y, axis=1) - np.mean(x)
        return z / np.linalg.norm(y), np.sum(z * z)

    def seen(threads):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        t = lp.trace(f, *args)
        parts = [part for line in t.lines.values() for part in (*line.born, *line.grown)]
        return str(t), [np.asarray(part).tobytes() for part in (*t.result, *parts)]

    before = numba.get_num_threads()
    try:
        assert seen(1) == seen(4)
    finally:
        numba.set_num_threads(before)


def test_other_threads_see_numpy_itself():
    ready, seen = threading.Event(), []

    def other():
        ready.wait()
        seen.append(type(np.zeros(2)))

    thread = threading.Thread(target=other)
    thread.start()

    def f(x):
        ready.set()
        thread.join()
        return x + np.zeros(3)

    lp.trace(f, X, max_operations=100)
    assert set(seen) == {np.ndarray}


# Doors --------------------------------------------------------------------------------------------


def test_assert_holds_prints_the_table():
    assert_holds(two_lines, [X], "bfloat16", 0.02)
    with pytest.raises(AssertionError, match=r"(?s)two_lines in bfloat16 .*line │ source.*born"):
        assert_holds(two_lines, [X], "bfloat16", 1e-5)


SCRIPT = """import numpy as np
x = 30 + 2 * np.sin(np.arange(200.0))
s = np.sum(x)
q = np.sum(x * x)
v = (q - s * s / len(x)) / (len(x) - 1)
"""


def test_the_command_exits_by_the_tolerance(tmp_path, capsys):
    script = tmp_path / "model.py"
    script.write_text(SCRIPT + "print('value %.3g' % v)\n")
    page = tmp_path / "t.html"
    how = ["trace", str(script), "--result", "v"]
    assert main([*how, "--tolerance", "0.05", "--html", str(page)]) == 1
    shown = capsys.readouterr()
    assert "line 5" in shown.out
    assert shown.err.count("value") == 1  # of the traced run, not of those that looked for a cure
    text = page.read_text()
    assert "✓" in text
    assert "<script" not in text
    assert main([*how, "--tolerance", "0.05", "--keep", "3-5"]) == 0
    capsys.readouterr()
    assert main([*how, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"]
    assert main([*how[:-1], "w"]) == 2
    assert main([*how, "--keep", "1"]) == 2
    assert "sets no variable 'w'" in capsys.readouterr().err
    assert main(["trace", str(tmp_path / "none.py"), "--result", "v"]) == 2
    for bad, words in (("1 / 0", "2: ZeroDivisionError"), ("raise SystemExit(0)", "2: the script")):
        script.write_text(f"v = 1.5\n{bad}\n")  # its own exit code would be an all-clear
        assert main(how) == 2
        assert f"{script}:{words}" in capsys.readouterr().err


def test_a_report_fits_a_terminal():
    def f(x):
        a_rather_long_name = np.sum(x * x * x * x) / len(x) - np.sum(x) * np.sum(x) + np.sum(x) ** 2
        return a_rather_long_name

    from lowprec.show.text import as_text

    t = lp.trace(f, np.linspace(1, 2, 300))
    u = lp.trace(lambda x: np.polynomial.chebyshev.chebval(x * 3e38, [0.5, -1.0, 0.25]), X,
                 modules=["numpy.polynomial"])  # fmt: skip
    for width in (60, 80):
        for trace in (t, u):
            text = as_text(trace, width)
            assert max(map(len, text.splitlines())) <= width
            assert trace is t or text.partition("\n\n")[0].count("3,") == 2  # of 3 elements
            rows = [line.split(" │ ")[0].strip() for line in text.splitlines() if " │ " in line]
            for key in (key for key, line in trace.lines.items() if line.events):
                assert (f"chebyshev.py:{key[1]}" if isinstance(key, tuple) else str(key)) in rows


def test_a_cell_of_a_notebook():
    space = {"np": np, "x": X}
    t = run_cell("bfloat16 --result m,s --tolerance 0.5", "m = np.mean(x)\ns = x - m\nn = 3", space)
    assert float(space["m"]) == float(lp.mean(lp.round_to(X, "bfloat16"), "bfloat16"))
    assert list(t.lines) == [1, 2]
    with pytest.raises(ValueError, match="no format is named"):
        run_cell("", "a = 1", {})


def test_the_room_is_called():
    code = "import lowprec.trace, lowprec; t = lowprec.trace(lambda x: x * 2, 0.1); print(t.result)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.20019531"
