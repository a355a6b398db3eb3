"""The report page: self-contained, told in words too, and written whole or not at all."""

from __future__ import annotations

import builtins
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import lowprec as lp
from lowprec.analysis.advice import advise
from lowprec.common.outputs import generator_tag
from lowprec.show.words import times

pytest.importorskip("sklearn", reason="the report's extra is missing")
pytest.importorskip("matplotlib", reason="the report's extra is missing")
pytest.importorskip("jinja2", reason="the report's extra is missing")

from lowprec.analysis.judgement import advice_in_words, cell, grade, standing
from lowprec.report import datasets, figures, page, throughput, training


class Elements(HTMLParser):
    """Collects elements with their attributes, ids, and whether tags are balanced."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.found, self.stack = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def report(written_report):
    path, summary, calls = written_report
    return path.read_text(encoding="utf-8"), summary, calls


# The page ------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(report):
    text, _, _ = report
    assert not re.findall(r"(?:https?:)?//[\w.-]+", text)
    for tag, attributes in Elements(text).found:
        assert tag not in ("script", "link", "iframe", "img", "object", "image")
        for name in ("href", "src", "xlink:href", "srcset"):
            assert attributes.get(name, "#").startswith("#")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_every_figure_has_an_alternative_text(report):
    figures = [attributes for tag, attributes in Elements(report[0]).found if tag == "svg"]
    assert len(figures) >= 4 * 2 + len(datasets.load())
    for attributes in figures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 30


def test_ids_are_unique_and_references_resolve(report):
    found = Elements(report[0]).found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="|url\()#([^")]+)', report[0])
    assert references
    assert set(references) <= set(ids)


def test_the_page_is_well_formed(report):
    text, _, _ = report
    assert text.startswith("<!doctype html>")
    assert Elements(text).stack == []
    assert "{{" not in text
    assert "{%" not in text


def test_the_page_serves_phones_and_the_dark(report):
    text, _, _ = report
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text
    placeholders = re.findall(r"#0[0-9a]0[0-9a]0\d\b", text)
    assert placeholders == []


def test_the_page_shows_the_overflow_of_the_squared_target(report):
    text, summary, _ = report
    squared = np.square(datasets.load()["diabetes: target"])
    with np.errstate(over="ignore"):
        overflows = int(np.isinf(squared.astype(np.float16)).sum())
    assert overflows > 0
    told = f"float16 loses {overflows} of {squared.size} values to overflow"
    assert told in text
    assert "it ends at 65,504, they at 119,716" in text
    (float16,) = (
        one for one in summary.advice["diabetes: target²"].formats if one.fmt == lp.float16
    )
    assert float16.measured.overflows == overflows


def test_every_tensor_and_format_is_on_the_page(report):
    text, _, _ = report
    for name in [*datasets.load(), *(fmt.name for fmt in page.FORMATS)]:
        assert name in text
    for part in (
        "glance",
        "layout",
        "range",
        "precision",
        "tensors",
        "numbers",
        "training",
        "speed",
    ):
        assert f'<section id="{part}">' in text


def test_the_page_shows_what_training_survives(report):
    text, summary, calls = report
    comparison = summary.training
    assert [str(result.policy) for result in comparison.results] == list(training.POLICIES)
    assert f">{training.POLICIES[-1]}</th>" in text
    for sentence in comparison.verdict:
        assert html.escape(sentence) in text
    for result in comparison.results:
        assert f"{result.policy} {result.memory}" in text
    runs = [description for description, *_ in calls if description.startswith("trained ")]
    assert len(runs) == 2 * len(training.POLICIES)


def test_progress_runs_to_the_end(report):
    _, _, calls = report
    total = calls[0][2]
    assert [call[1:] for call in calls] == [(done, total) for done in range(1, total + 1)]


def test_the_summary_fits_a_terminal(report, capsys):
    from rich.console import Console

    _, summary, _ = report
    Console(width=80).print(summary)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for words in ("diabetes: target²", "round_to", "mixed_bfloat16", "report.html"):
        assert words in text.replace("\n", "")


def test_a_page_that_cannot_be_made_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    earlier = f"earlier {generator_tag('lowprec report')}"
    path.write_text(earlier)

    def fail(*_):
        raise RuntimeError("no figures today")

    monkeypatch.setattr(page, "page_text", fail)
    monkeypatch.setattr(page, "advise", lambda *_, **__: None)
    monkeypatch.setattr(throughput, "measure_throughput", lambda *_: [])
    monkeypatch.setattr(training, "train_policies", lambda *_: None)
    with pytest.raises(RuntimeError, match="no figures today"):
        page.write_report(path)
    assert path.read_text() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_told_before_the_work(tmp_path):
    calls = []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        page.write_report(tmp_path / "none" / "report.html", lambda *step: calls.append(step))
    assert calls == []


@pytest.mark.parametrize("package", ["sklearn", "matplotlib", "jinja2"])
def test_a_missing_extra_is_named(package, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lowprec\[report\]"'):
        page.write_report(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


# Its parts -----------------------------------------------------------------------------------


def test_the_data_are_real_and_the_same_every_time():
    first, second = datasets.load(), datasets.load()
    assert all(x.dtype == np.float64 and x.size for x in first.values())
    assert all(np.array_equal(first[name], second[name]) for name in second)
    assert {name.partition(":")[0] for name in first} == {
        "digits",
        "breast cancer",
        "diabetes",
        "wine",
    }


def test_the_network_learns():
    from sklearn.datasets import load_digits

    tensors = datasets.load()
    first, second = np.split(tensors["digits: network weights"], [64 * datasets.HIDDEN])
    x, labels = load_digits(return_X_y=True)
    hidden = np.maximum(x / 16 @ first.reshape(64, -1), 0)
    accuracy = np.mean((hidden @ second.reshape(-1, 10)).argmax(axis=1) == labels)
    assert accuracy > 0.9


@pytest.mark.parametrize("fmt", page.FORMATS, ids=str)
def test_the_saw_tooth_is_between_half_a_unit_roundoff_and_one(fmt):
    x, error = figures.saw_tooth(fmt)
    normal = (x >= fmt.smallest_normal) & (x < fmt.max)
    assert np.all(error[normal] <= fmt.unit_roundoff)
    assert np.all(error[normal] > fmt.unit_roundoff / 2 * 0.9)
    assert np.all(error[x <= fmt.smallest_subnormal / 2] == 1)


def test_verdicts_follow_from_the_measurements():
    formats = ["bfloat16", "float16", "float8_e4m3fn"]
    both = advise([1 / 3, 0.7], formats=formats).formats
    assert advice_in_words(both)[0].startswith("float16 and bfloat16 both hold it: float16 is ")
    assert [grade(one) for one in both] == ["held", "held", "coarse"]
    one = advise([1e5 / 3, 7e5], formats=formats).formats
    assert advice_in_words(one)[0].startswith("Take bfloat16: it keeps every value within ")
    assert [cell(a) for a in one[1:]] == ["1 → ∞", "2 → NaN"]
    none = advise([1e39, 1 / 3], formats=formats).formats
    assert advice_in_words(none)[0].startswith("No 16-bit format holds this tensor as it is.")
    exact = advise([1.0, 0.5, 3.0], formats=formats).formats
    assert advice_in_words(exact)[0] == "bfloat16 and float16 keep every value exactly."
    assert grade(advise([1e-9, 1.0], formats=["float16"]).formats[0]) == "zeros"


def test_the_glance_shows_every_kind_of_loss_the_worst_first(report):
    text, summary, _ = report
    covariance = summary.advice["breast cancer: covariance"].formats
    told = {str(one.fmt): cell(one) for one in covariance}
    # counted from the values: above 464, which is half-way to 480, and below half of 2⁻⁹
    x = abs(datasets.load()["breast cancer: covariance"])
    above, below = np.sum(x > 464), np.sum((x > 0) & (x <= 2.0**-10))
    assert told["float8_e4m3fn"] == f"{above} → NaN, {below} → 0" == "45 → NaN, 299 → 0"
    cells = text.replace("\N{NO-BREAK SPACE}", " ")
    for row in summary.advice.values():
        for one in row.formats:
            assert f">{cell(one)}</td>" in cells
            counts = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) →", cell(one))]
            assert sum(counts) == one.measured.lost


def test_a_tensor_that_loses_in_two_ways_counts_in_both():
    (both,) = advise([1e-9, 1e9, 1.0], formats=["float16"]).formats
    (zeros,) = advise([1e-9, 1.0], formats=["float16"]).formats
    (coarse,) = advise([1 / 3], ["float16"], tolerance=1e-6).formats
    counted = standing(lp.float16, [both, zeros, zeros, coarse])
    assert counted.words == "overflows in 1, loses small values in 3, too coarse in 1"
    assert cell(both) == "1 → ∞, 1 → 0"
    (infinite,) = advise([np.inf, 1e9, 1.0], formats=["float8_e4m3fn"]).formats
    assert cell(infinite) == "1 → NaN, 1 ∞ → NaN"


def timing(**fields):
    usual = {"operation": "encode", "fmt": lp.float16, "seconds": 1.0, "ratio": 0.5}
    return throughput.Timing(**usual | {"peer_ratio": 125.4, "share": 1.0} | fields)


def test_a_busy_machine_is_told():
    timings = [timing(), timing(fmt=lp.bfloat16, peer_ratio=0.425)]
    told = throughput.in_words(timings)
    assert told.endswith("from 0.85× lowprec's time (encode bfloat16) to 250× (encode float16).")
    told = throughput.in_words([*timings, timing(share=0.4)])
    assert "had 40% of a processor" in told
    assert "a quiet machine" in told


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.849, "0.85×"), (1, "1×"), (33.4, "33×"), (99.7, "100×"), (254, "250×"), (1234, "1,200×")],
)
def test_multiples_have_two_digits_and_no_exponent(ratio, words):
    assert times(ratio) == words


def test_throughput_counts_the_processors_time_alone(monkeypatch):
    """A wait in the middle of the work, as where others have the processor, changes no ratio."""
    monkeypatch.setattr(throughput, "ROUNDS", 5)
    monkeypatch.setattr(throughput, "ELEMENTS", 1000)
    real, clock = np.copyto, [0.0, 0.0]  # of the processor, of the wall

    def copyto(*arguments, **options):
        clock[0] += 1.0
        clock[1] += 10.0
        real(*arguments, **options)

    monkeypatch.setattr(throughput.np, "copyto", copyto)
    monkeypatch.setattr(throughput.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[1])
    found = throughput.measure_throughput([lp.bfloat16])
    assert {t.peer_ratio for t in found} == {None, 1.0}
    assert {round(t.share, 6) for t in found} == {0.1}


def test_throughput_is_a_ratio_to_the_copy(monkeypatch):
    monkeypatch.setattr(throughput, "ROUNDS", 3)
    monkeypatch.setattr(throughput, "ELEMENTS", 1000)
    timings = throughput.measure_throughput([lp.bfloat16, lp.tfloat32])
    assert [t.operation for t in timings] == ["round_to"] * 2 + ["encode"] * 2 + ["decode"] * 2
    assert all(t.ratio > 0 and 0 < t.share < 1.5 for t in timings)
    assert all(t.peer_ratio is None for t in timings if t.fmt == lp.tfloat32)
    assert all(t.peer_ratio for t in timings if t.fmt == lp.bfloat16 and t.operation != "round_to")
