"""The progress line, to the character, in a terminal and elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from lowprec.train.running import progress
from lowprec.train.running.progress import Progress

LOGS = {"val_loss": 0.3386, "loss": 0.73, "val_accuracy": 0.8734, "accuracy": 0.7422}
VALUES = "accuracy: 0.7422 - loss: 0.7300 - val_accuracy: 0.8734 - val_loss: 0.3386"


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests turn by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def turn(seconds):
        now[0] += seconds

    return turn


def console(is_terminal=False, width=120, file=None):
    return Console(
        file=file or io.StringIO(), force_terminal=is_terminal, width=width, color_system=None
    )


def run(shown, clock, epochs=1, steps=45, seconds=0.002, logs=LOGS):
    """Run through epochs; return what was printed."""
    with Progress(epochs, steps, True, shown) as line:
        for epoch in range(epochs):
            line.begin_epoch(epoch)
            for _ in range(steps):
                clock(seconds)
                line.update(lambda: {"loss": 0.5})
            line.end_epoch(logs)
    return shown.file.getvalue()


def test_a_finished_epoch_is_keras_line(clock):
    bar = "━" * 20
    assert run(console(), clock) == f"Epoch 1/1\n45/45 {bar} 0s 2ms/step - {VALUES}\n"


def test_lines_are_neither_wrapped_nor_cut_where_there_is_no_terminal(clock):
    printed = run(console(width=40), clock, epochs=3)
    assert [line[:9] for line in printed.splitlines()] == [
        "Epoch 1/3", "45/45 ━━━", "Epoch 2/3", "45/45 ━━━", "Epoch 3/3", "45/45 ━━━",
    ]  # fmt: skip
    assert printed.count(VALUES) == 3
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0000004, "0s 0us/step"),
        (0.00025, "0s 250us/step"),
        (0.5, "5s 500ms/step"),
        (8, "80s 8s/step"),
    ],
)
def test_time_is_the_epochs_and_a_steps(clock, seconds, words):
    assert f"━ {words} - " in run(console(), clock, steps=10, seconds=seconds)


def test_the_first_step_does_not_count_in_the_time_of_a_step(clock):
    shown = console()
    with Progress(1, 3, True, shown) as line:
        line.begin_epoch(0)
        for seconds in (7, 0.1, 0.3):
            clock(seconds)
            line.update(dict)
        clock(2)
        line.end_epoch({})
    assert shown.file.getvalue().endswith("━ 9s 200ms/step\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.73, "0.7300"),
        (1e-3, "0.0010"),
        (9.99e-4, "9.9900e-04"),
        (-0.5, "-0.5000"),
        (-2e-5, "-2.0000e-05"),
        (0.0, "0.0000e+00"),
        (12345.6789, "12345.6789"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_values_have_four_decimals_or_an_exponent_below_a_thousandth(value, text):
    assert progress.figure(value) == text


def test_names_are_in_alphabetical_order_and_validation_is_last(clock):
    logs = dict.fromkeys(["val_rmse", "loss", "val_loss", "rmse", "learning_rate", "mae"], 1.0)
    names = re.findall(r"(\w+):", run(console(), clock, logs=logs))
    assert names == ["learning_rate", "loss", "mae", "rmse", "val_loss", "val_rmse"]


def test_step_numbers_keep_their_width(clock):
    shown = console(is_terminal=True)
    printed = run(shown, clock, steps=120, seconds=0.2)
    assert "  1/120 ━" in printed
    assert " 12/120 ━" in printed


# Terminals ---------------------------------------------------------------------------------------


def test_a_terminal_is_drawn_at_most_ten_times_a_second(clock):
    shown, asked = console(is_terminal=True), []
    with Progress(1, 10_000, True, shown) as line:
        line.begin_epoch(0)
        for _ in range(10_000):
            clock(0.0005)
            line.update(lambda: asked.append(1) or {"loss": 0.5})
        line.end_epoch(LOGS)
    assert 45 <= len(asked) <= 50  # in five seconds


def test_means_are_never_asked_for_where_there_is_no_terminal(clock):
    def never():
        raise AssertionError

    with Progress(1, 5, True, console()) as line:
        line.begin_epoch(0)
        for _ in range(5):
            clock(1)
            line.update(never)
        line.end_epoch(LOGS)


@pytest.mark.parametrize(
    ("steps", "done", "seconds", "remaining"),
    [
        (100, 25, 0.2, "15s"),
        (1000, 35, 0.5, "8:02"),
        (10_000, 35, 1.0, "2:46:05"),
        (10, 10, 1.0, "0s"),
    ],
)
def test_a_running_epoch_tells_the_time_that_remains(clock, steps, done, seconds, remaining):
    shown = console(is_terminal=True)
    with Progress(1, steps, True, shown) as line:
        line.begin_epoch(0)
        for _ in range(done):
            clock(seconds)
            line.update(lambda: {"loss": 0.5})
    last = shown.file.getvalue().rpartition("/step")[0]
    assert last.split()[-2] == remaining


def test_the_bar_grows_with_the_steps(clock):
    shown = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    with Progress(1, 40, True, shown) as line:
        line.begin_epoch(0)
        for _ in range(10):
            clock(0.2)
            line.update(lambda: {"loss": 0.5})
        drawn = shown.file.getvalue()
    green = [len(part) for part in re.findall("\x1b\\[32m(━+)", drawn)]
    assert green == [1, 1, 2, 2, 3, 3, 4, 4, 5]


def pieces(printed):
    """Return what stands between ends of lines and commands to the terminal."""
    return re.split(r"[\r\n]|\x1b\[\??\d*[a-zA-Z]", printed)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 109, 110, 120])
def test_a_finished_line_goes_on_below_between_two_values(clock, width):
    bar, parts = "━" * 20, pieces(run(console(is_terminal=True, width=width), clock))
    first = next(i for i, part in enumerate(parts) if part.startswith("45/45"))
    lines = [part for part in parts[first:] if part]
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith("      - ") for line in lines[1:])
    whole = " ".join(line.strip() for line in lines)
    assert whole == f"45/45 {bar} 0s 2ms/step - {VALUES}"
    assert (len(lines) == 1) == (len(whole) <= width)


def test_a_narrow_terminal_cuts_the_running_line(clock):
    printed = run(console(is_terminal=True, width=40), clock, steps=3, seconds=1)
    parts = pieces(printed)
    running = [part for part in parts if part.startswith("1/3")]
    assert running
    assert all(len(part) <= 40 and part.endswith("…") for part in running)


def test_the_terminal_is_given_back_when_training_fails(clock):
    shown = console(is_terminal=True)

    def fail():
        raise RuntimeError("a callback failed")

    line = Progress(2, 5, True, shown)
    with pytest.raises(RuntimeError, match="a callback failed"), line:
        run_until(line, clock, fail)
    printed = shown.file.getvalue()
    assert printed.count("\x1b[?25l") == printed.count("\x1b[?25h") == 1  # hidden, shown


def run_until(line, clock, logs):
    line.begin_epoch(0)
    clock(1)
    line.update(logs)


def test_an_ascii_terminal_gets_an_ascii_bar(clock):
    binary = io.BytesIO()
    shown = console(file=io.TextIOWrapper(binary, encoding="ascii", write_through=True))
    with Progress(1, 1, True, shown) as line:
        line.begin_epoch(0)
        clock(1)
        line.update(dict)
        line.end_epoch({"loss": 1.0})
    assert binary.getvalue() == b"Epoch 1/1\n1/1 " + b"=" * 20 + b" 1s 1s/step - loss: 1.0000\n"
    shown.file.detach()


# Silence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [False, 0])
def test_silence_prints_nothing(verbose, capsys):
    with Progress(1, 1, verbose) as line:
        line.begin_epoch(0)
        line.update(dict)
        line.end_epoch(LOGS)
    assert capsys.readouterr() == ("", "")


def test_auto_is_silent_where_stdout_is_no_terminal(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    with Progress(1, 1, "auto") as line:
        line.begin_epoch(0)
        line.end_epoch(LOGS)
    assert capsys.readouterr().out == ""


def test_auto_speaks_in_a_terminal(clock):
    shown = console(is_terminal=True)
    with Progress(1, 1, "auto", shown) as line:
        line.begin_epoch(0)
        line.end_epoch(LOGS)
    assert VALUES in shown.file.getvalue()


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="verbose is 'loud'"):
        Progress(1, 1, "loud")
